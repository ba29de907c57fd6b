//! Tests of paired numbers: Student's t and Wilcoxon's signed ranks (SciPy 1.17's `ttest_rel` and `wilcoxon`).
//! It does not know what the numbers are.

use statrs::distribution::{ContinuousCDF, StudentsT};

use super::normal_cdf;

/// A statistic and its two-sided p.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// t, or the smaller sum of ranks.
    pub statistic: f64,
    /// In 0..=1.
    pub p: f64,
}

/// Mean and standard deviation (n − 1 below) of the differences y − x.
///
/// # Panics
/// If the two sides differ in length.
pub fn differences(x: &[f64], y: &[f64]) -> (f64, f64) {
    assert_eq!(x.len(), y.len(), "numbers come in pairs");
    let n = x.len() as f64;
    let each: Vec<f64> = x.iter().zip(y).map(|(x, y)| y - x).collect();
    let mean = each.iter().sum::<f64>() / n;
    let squares: f64 = each.iter().map(|one| (one - mean).powi(2)).sum();
    (mean, (squares / (n - 1.0)).sqrt())
}

/// Student's t of the differences y − x; `None` with fewer than two pairs or without any spread.
pub fn t_test(x: &[f64], y: &[f64]) -> Option<Outcome> {
    let (mean, deviation) = differences(x, y);
    let n = x.len() as f64;
    if n < 2.0 || deviation == 0.0 {
        return None;
    }
    let statistic = mean / (deviation / n.sqrt());
    let distribution = StudentsT::new(0.0, 1.0, n - 1.0).ok()?;
    Some(Outcome { statistic, p: (2.0 * distribution.sf(statistic.abs())).min(1.0) })
}

/// Wilcoxon's test by the normal approximation with the correction for ties and none for continuity; differences of
/// zero are left out. `None` where all are zero.
///
/// # Panics
/// If the two sides differ in length.
pub fn wilcoxon(x: &[f64], y: &[f64]) -> Option<Outcome> {
    assert_eq!(x.len(), y.len(), "numbers come in pairs");
    let mut each: Vec<f64> = x.iter().zip(y).map(|(x, y)| y - x).filter(|one| *one != 0.0).collect();
    if each.is_empty() {
        return None;
    }
    each.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    let n = each.len() as f64;
    let (mut plus, mut ties, mut below) = (0.0, 0.0, 0.0);
    for equal in each.chunk_by(|a, b| a.abs() == b.abs()) {
        let count = equal.len() as f64;
        let rank = below + (count + 1.0) / 2.0;
        plus += rank * equal.iter().filter(|one| **one > 0.0).count() as f64;
        ties += count * (count * count - 1.0);
        below += count;
    }
    let minus = n * (n + 1.0) / 2.0 - plus;
    let variance = (n * (n + 1.0) * (2.0 * n + 1.0) - ties / 2.0) / 24.0;
    let z = (plus - n * (n + 1.0) / 4.0) / variance.sqrt();
    Some(Outcome { statistic: plus.min(minus), p: (2.0 * normal_cdf(-z.abs())).min(1.0) })
}
