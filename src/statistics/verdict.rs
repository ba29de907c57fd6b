//! The four words that may be said of an arm beside another, and when.
//! It does not know the arms.

use serde::{Deserialize, Serialize};

/// What tests say of an arm beside another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Better, by test and interval.
    Better,
    /// Worse, by test and interval.
    Worse,
    /// The difference is within the margin.
    Equivalent,
    /// Neither a difference nor equivalence is shown.
    Indistinguishable,
}

/// What a verdict is taken from; `interval` and the difference are the arm's less the other's, more being better.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evidence {
    /// The interval of the difference at the confidence 1 − α.
    pub interval: (f64, f64),
    /// p of the difference after correction for its family.
    pub p: f64,
    /// p of both one-sided tests against the margin.
    pub equivalence_p: f64,
    /// The level α.
    pub alpha: f64,
}

/// Equivalent where the difference is shown to lie within the margin: what does not matter makes no winner. Otherwise
/// better or worse where p ≤ α and the interval leaves out 0; both must carry it. Otherwise indistinguishable.
pub fn verdict(evidence: &Evidence) -> Verdict {
    let Evidence { interval: (low, high), p, equivalence_p, alpha } = *evidence;
    if equivalence_p <= alpha {
        Verdict::Equivalent
    } else if p <= alpha && low > 0.0 {
        Verdict::Better
    } else if p <= alpha && high < 0.0 {
        Verdict::Worse
    } else {
        Verdict::Indistinguishable
    }
}
