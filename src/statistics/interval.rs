//! Intervals of a share: of so many of so many.
//! `successes` is at most `n`, `confidence` in 0..1. It does not know whether items are independent of one another; where they are not, resample clusters.

use statrs::distribution::{Beta, ContinuousCDF};

use super::normal_quantile;

/// Wilson's score interval without continuity correction (Wilson 1927; `wilson` of statsmodels 0.15's
/// `proportion_confint`). Both ends are in 0..=1; of nothing, everything is possible.
pub fn wilson(successes: u64, n: u64, confidence: f64) -> (f64, f64) {
    if n == 0 {
        return (0.0, 1.0);
    }
    let (share, count) = share(successes, n);
    let z = normal_quantile(0.5 + confidence / 2.0);
    let below = 1.0 + z * z / count;
    let centre = (share + z * z / (2.0 * count)) / below;
    let half = z * (share * (1.0 - share) / count + z * z / (4.0 * count * count)).sqrt() / below;
    // The ends at 0 and n are exact; the sums above miss them by a rounding.
    let low = if successes == 0 { 0.0 } else { (centre - half).max(0.0) };
    let high = if successes == n { 1.0 } else { (centre + half).min(1.0) };
    (low, high)
}

/// Clopper's and Pearson's exact interval (1934; `beta` of the same function).
pub fn clopper_pearson(successes: u64, n: u64, confidence: f64) -> (f64, f64) {
    let tail = (1.0 - confidence) / 2.0;
    let quantile = |a: u64, b: u64, p: f64| Beta::new(a as f64, b as f64).map_or(f64::NAN, |beta| beta.inverse_cdf(p));
    let low = if successes == 0 { 0.0 } else { quantile(successes, n - successes + 1, tail) };
    let high = if successes == n { 1.0 } else { quantile(successes + 1, n - successes, 1.0 - tail) };
    (low, high)
}

/// The normal approximation (Wald), cut to 0..=1 (`normal` of the same function); empty where the share is 0 or 1.
pub fn normal(successes: u64, n: u64, confidence: f64) -> (f64, f64) {
    if n == 0 {
        return (0.0, 1.0);
    }
    let (share, count) = share(successes, n);
    let half = normal_quantile(0.5 + confidence / 2.0) * (share * (1.0 - share) / count).sqrt();
    ((share - half).max(0.0), (share + half).min(1.0))
}

fn share(successes: u64, n: u64) -> (f64, f64) {
    (successes as f64 / n as f64, n as f64)
}
