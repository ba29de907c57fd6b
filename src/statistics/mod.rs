//! Inference from figures: intervals, paired tests, resampling, equivalence, power, verdicts.
//! It knows numbers alone: no tasks, arms or files.

pub mod bootstrap;
pub mod correction;
pub mod equivalence;
pub mod interval;
pub mod mcnemar;
pub mod paired;
pub mod power;
pub mod randomisation;
pub mod table;
pub mod verdict;

use statrs::distribution::{ContinuousCDF, Normal};

/// The distribution function of the standard normal distribution.
pub(crate) fn normal_cdf(x: f64) -> f64 {
    Normal::standard().cdf(x)
}

/// Its inverse, for p in 0..1.
pub(crate) fn normal_quantile(p: f64) -> f64 {
    Normal::standard().inverse_cdf(p)
}
