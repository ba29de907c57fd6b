//! The rules of an audit, each a function of a report. A new one is a file here and an entry of [`RULES`].
//! They do not know each other.

mod arithmetic;
mod average;
mod balance;
mod budget;
mod identical;
mod one_class;
mod range;
mod sample;
mod sentences;
mod winner;

use super::Defect;
use super::layout::Report;

/// A rule: the defects of its kind.
pub type Rule = fn(&Report) -> Vec<Defect>;

/// Every rule.
pub const RULES: &[Rule] = &[
    range::outside,
    range::counts,
    arithmetic::differences,
    one_class::one_class,
    identical::identical,
    average::unnamed,
    winner::ties,
    winner::losers,
    balance::added,
    sentences::changes,
    sentences::balances,
    sentences::recommendations,
    sample::unknown,
    budget::unequal,
];

/// A figure as reports print it.
fn shown(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
