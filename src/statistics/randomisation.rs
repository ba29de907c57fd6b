//! Approximate randomisation (Noreen 1989): if both arms are alike, swapping their answers changes nothing.
//! It does not know what a figure is: it is a function of sums.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;

use super::table::Table;

/// Up to so many clusters that differ, all ways of swapping them are tried.
const MOST_EXACT: usize = 13;

/// The two-sided p of the difference of a figure between two arms, swapping them cluster by cluster. Exact where few
/// clusters differ; otherwise (1 + hits) / (1 + draws), which is never below what the draws can show. The result
/// depends on the seed alone, not on threads.
///
/// # Panics
/// If the tables differ in the number of clusters.
pub fn p<F>(a: &Table, b: &Table, draws: u64, seed: u64, figure: F) -> f64
where
    F: Fn(&[f64]) -> f64 + Sync,
{
    assert_eq!(a.rows(), b.rows(), "the same clusters in both tables");
    let (total_a, total_b) = (a.total(), b.total());
    let gaps: Vec<Vec<f64>> = (0..a.rows())
        .filter(|at| a.row(*at) != b.row(*at))
        .map(|at| a.row(at).iter().zip(b.row(at)).map(|(a, b)| b - a).collect())
        .collect();
    let seen = (figure(&total_a) - figure(&total_b)).abs();
    // Sums are added up in another order than those of what was seen.
    let least = seen - 1e-12 * seen.max(1.0);
    let hit = |swapped: &mut dyn Iterator<Item = &Vec<f64>>| {
        let (mut a, mut b) = (total_a.clone(), total_b.clone());
        for gap in swapped {
            for (at, gap) in gap.iter().enumerate() {
                a[at] += gap;
                b[at] -= gap;
            }
        }
        (figure(&a) - figure(&b)).abs() >= least
    };
    if gaps.len() <= MOST_EXACT {
        let ways = 1_u64 << gaps.len();
        let chosen = |way: u64| gaps.iter().enumerate().filter(move |(at, _)| way >> at & 1 == 1).map(|(_, gap)| gap);
        let hits = (0..ways).filter(|way| hit(&mut chosen(*way))).count();
        return hits as f64 / ways as f64;
    }
    let drawn = |number: &u64| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(*number);
        let mut word = 0;
        hit(&mut gaps.iter().enumerate().filter_map(|(at, gap)| {
            if at % 64 == 0 {
                word = rng.next_u64();
            }
            (word >> (at % 64) & 1 == 1).then_some(gap)
        }))
    };
    let hits = (0..draws).into_par_iter().filter(drawn).count();
    (1 + hits) as f64 / (1 + draws) as f64
}
