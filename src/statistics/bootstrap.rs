//! The bootstrap over clusters: replicates of figures, and the intervals that follow from them.
//! It does not know what a figure is: it is a function of sums.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;

use super::table::Table;
use super::{normal_cdf, normal_quantile};

/// Draws whole clusters with replacement, the same for all tables, and computes figures from the added rows: a vector
/// for each draw. The result depends on the seed alone, not on threads: every draw has a stream of its own.
///
/// `figures` gets the sums of each table, and a generator for what else it draws (seeds of runs, say).
///
/// # Panics
/// If the tables differ in the number of clusters, or have none.
pub fn replicates<F>(tables: &[Table], draws: u64, seed: u64, figures: F) -> Vec<Vec<f64>>
where
    F: Fn(&[Vec<f64>], &mut ChaCha8Rng) -> Vec<f64> + Sync,
{
    let clusters = tables.first().map_or(0, Table::rows);
    assert!(clusters > 0 && tables.iter().all(|table| table.rows() == clusters), "the same clusters in all tables");
    let draw = |number: u64| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(number);
        let mut counts = vec![0_u32; clusters];
        for _ in 0..clusters {
            counts[below(&mut rng, clusters)] += 1;
        }
        let drawn = || counts.iter().enumerate().filter(|(_, count)| **count > 0);
        let sums: Vec<Vec<f64>> =
            tables.iter().map(|table| table.weighted(drawn().map(|(at, count)| (at, f64::from(*count))))).collect();
        figures(&sums, &mut rng)
    };
    (0..draws).into_par_iter().map(draw).collect()
}

/// A number below `n`, each as likely as the others up to 2⁻³².
pub fn below(rng: &mut ChaCha8Rng, n: usize) -> usize {
    ((u128::from(rng.next_u64()) * n as u128) >> 64) as usize
}

/// The quantile at `p` of sorted values, interpolated linearly (numpy's default).
///
/// # Panics
/// Without any value.
pub fn quantile(sorted: &[f64], p: f64) -> f64 {
    let at = p.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let low = at.floor() as usize;
    let high = (low + 1).min(sorted.len() - 1);
    // As numpy's `_lerp` does it, so that rounding agrees.
    let (a, b, t) = (sorted[low], sorted[high], at - low as f64);
    if t >= 0.5 { b - (b - a) * (1.0 - t) } else { a + (b - a) * t }
}

/// The percentile interval: quantiles of the replicates; `confidence` in 0..1.
///
/// # Panics
/// Without any replicate.
pub fn percentile(replicates: &[f64], confidence: f64) -> (f64, f64) {
    let sorted = sorted(replicates);
    let tail = (1.0 - confidence) / 2.0;
    (quantile(&sorted, tail), quantile(&sorted, 1.0 - tail))
}

/// The basic (reverse percentile) interval: 2·estimate less the quantiles.
pub fn basic(estimate: f64, replicates: &[f64], confidence: f64) -> (f64, f64) {
    let (low, high) = percentile(replicates, confidence);
    (2.0 * estimate - high, 2.0 * estimate - low)
}

/// The bias-corrected and accelerated interval (Efron 1987; `bootstrap(method="BCa")` of SciPy 1.17). `jackknife` has
/// the figure without each cluster in turn. `None` where it is not defined: all replicates on one side of the
/// estimate, or no spread in the jackknife.
pub fn bca(estimate: f64, replicates: &[f64], jackknife: &[f64], confidence: f64) -> Option<(f64, f64)> {
    let count = |test: &dyn Fn(f64) -> bool| replicates.iter().filter(|value| test(**value)).count() as f64;
    // Half of those that are equal count as below.
    let share = (count(&|value| value < estimate) + count(&|value| value <= estimate)) / (2 * replicates.len()) as f64;
    if share <= 0.0 || share >= 1.0 {
        return None;
    }
    let z0 = normal_quantile(share);
    let n = jackknife.len() as f64;
    let mean = jackknife.iter().sum::<f64>() / n;
    let influence = |value: &f64| (n - 1.0) * (mean - value);
    let cubes: f64 = jackknife.iter().map(|value| influence(value).powi(3)).sum::<f64>() / n.powi(3);
    let squares: f64 = jackknife.iter().map(|value| influence(value).powi(2)).sum::<f64>() / n.powi(2);
    if squares == 0.0 {
        return None;
    }
    let acceleration = cubes / squares.powf(1.5) / 6.0;
    let sorted = sorted(replicates);
    let end = |z: f64| quantile(&sorted, normal_cdf(z0 + (z0 + z) / (1.0 - acceleration * (z0 + z))));
    let z = normal_quantile((1.0 - confidence) / 2.0);
    let (low, high) = (end(z), end(-z));
    (low.is_finite() && high.is_finite()).then_some((low, high))
}

/// The standard deviation of the replicates (n − 1 below).
pub fn standard_error(replicates: &[f64]) -> f64 {
    let n = replicates.len() as f64;
    let mean = replicates.iter().sum::<f64>() / n;
    (replicates.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt()
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}
