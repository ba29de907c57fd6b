//! Two one-sided tests (Schuirmann 1987): is a difference smaller than what matters?
//! It does not know what matters: the margin is declared.

use statrs::distribution::{ContinuousCDF, StudentsT};

use super::paired;

/// By replicates of the difference: the larger of both one-sided p, each (1 + those beyond the margin) / (1 + all).
/// Below α exactly where the percentile interval at 1 − 2α lies within ±margin, up to one replicate.
pub fn by_replicates(replicates: &[f64], margin: f64) -> f64 {
    let share = |beyond: &dyn Fn(f64) -> bool| {
        (1 + replicates.iter().filter(|value| beyond(**value)).count()) as f64 / (1 + replicates.len()) as f64
    };
    // What is no number is not within the margin.
    share(&|value| value.is_nan() || value <= -margin).max(share(&|value| value.is_nan() || value >= margin))
}

/// By Student's t of paired differences y − x (`ttost_paired` of statsmodels 0.15); `None` with fewer than two pairs or
/// without spread.
pub fn by_t(x: &[f64], y: &[f64], margin: f64) -> Option<f64> {
    let (mean, deviation) = paired::differences(x, y);
    let n = x.len() as f64;
    if n < 2.0 || deviation == 0.0 {
        return None;
    }
    let error = deviation / n.sqrt();
    let distribution = StudentsT::new(0.0, 1.0, n - 1.0).ok()?;
    let above = distribution.sf((mean + margin) / error);
    let below = distribution.cdf((mean - margin) / error);
    Some(above.max(below))
}
