//! Which rows stand together in which batch of which step: rows of similar length, in a seeded order.
//! It does not know what the rows say, and needs no libtorch.

use rand::Rng;
use rand::seq::SliceRandom;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Problem, Result};

/// Rows are sorted by length within groups of this many batches: long enough for little padding, short enough that
/// the order stays random.
const BATCHES_PER_BUCKET: usize = 50;
/// A micro-batch whose hidden states hold fewer numbers, padding counted, is not halved: what is around a product costs
/// more than sharing it then. With two threads 4 rows of 173 ids on average were 14 % slower in halves at width 128 and 6 %
/// faster at 256, 16 rows at 128 as fast.
const HALVED_FROM: usize = 1 << 17;

/// How large a micro-batch may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Limits {
    /// Rows at most; at least 1.
    pub rows: usize,
    /// Tokens at most, padding counted; a row that is longer than that stands alone.
    pub tokens: Option<usize>,
}

/// How long a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// Every row this many times.
    Epochs(u64),
    /// This many optimiser steps.
    Steps(u64),
}

/// The rows of every micro-batch of every step of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Steps, each a list of micro-batches, each a list of rows.
    pub steps: Vec<Vec<Vec<usize>>>,
    /// Share of the positions that are padding, 0 to 1, in parts per million so that plans compare exactly.
    padding_ppm: u64,
}

impl Plan {
    /// Lays out a run over rows of these lengths. `rng` gives the random stream of an epoch, so that a longer run
    /// begins as the shorter one. The last step of an epoch may have fewer micro-batches than `accumulation`.
    pub fn new<R: Rng>(
        lengths: &[usize],
        limits: Limits,
        accumulation: usize,
        length: Length,
        mut rng: impl FnMut(u64) -> R,
    ) -> Result<Self> {
        if lengths.is_empty() {
            return Err(Problem::new("there are no rows to train on"));
        }
        let mut steps = Vec::new();
        let mut epoch = 0;
        loop {
            match length {
                Length::Epochs(epochs) if epoch >= epochs => break,
                Length::Steps(wanted) if steps.len() as u64 >= wanted => break,
                _ => {}
            }
            let batches = one_epoch(lengths, limits, &mut rng(epoch));
            steps.extend(batches.chunks(accumulation.max(1)).map(<[_]>::to_vec));
            epoch += 1;
        }
        if let Length::Steps(wanted) = length {
            steps.truncate(wanted as usize);
        }
        Ok(Self::of(steps, lengths))
    }

    fn of(steps: Vec<Vec<Vec<usize>>>, lengths: &[usize]) -> Self {
        let (mut real, mut all) = (0, 0);
        for rows in steps.iter().flatten() {
            let longest = rows.iter().map(|&row| lengths[row]).max().unwrap_or(0);
            real += rows.iter().map(|&row| lengths[row] as u64).sum::<u64>();
            all += (longest * rows.len()) as u64;
        }
        Self { steps, padding_ppm: (all - real) * 1_000_000 / all.max(1) }
    }

    /// The same steps with each micro-batch of some size in two, for two threads: its longer rows and its shorter ones, of
    /// about as many ids with their padding. `lengths` are those of the rows, `width` is that of a hidden state. It does not
    /// depend on how many threads there are, so that nothing that is computed does.
    pub fn halved(self, lengths: &[usize], width: usize) -> Self {
        let halves = |rows: Vec<usize>| match half(&rows, lengths, width) {
            Some(at) => vec![rows[..at].to_vec(), rows[at..].to_vec()],
            None => vec![rows],
        };
        let steps = self.steps.into_iter().map(|micros| micros.into_iter().flat_map(halves).collect()).collect();
        Self::of(steps, lengths)
    }

    /// Share of the positions that are padding, 0 to 1.
    pub fn padding_share(&self) -> f64 {
        self.padding_ppm as f64 / 1e6
    }
}

/// How many of a micro-batch's rows, longest first, make its first half; `None` if it stays whole.
fn half(rows: &[usize], lengths: &[usize], width: usize) -> Option<usize> {
    let ids = |rows: &[usize]| rows.first().map_or(0, |&longest| lengths[longest] * rows.len());
    if ids(rows).saturating_mul(width) < HALVED_FROM {
        return None;
    }
    (1..rows.len()).min_by_key(|&at| ids(&rows[..at]).max(ids(&rows[at..])))
}

/// Every row once.
fn one_epoch(lengths: &[usize], limits: Limits, rng: &mut impl Rng) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.shuffle(rng);
    let mut batches = Vec::new();
    for bucket in order.chunks_mut(limits.rows.max(1) * BATCHES_PER_BUCKET) {
        // Longest first: the memory peak comes at once, not after an hour.
        bucket.sort_by_key(|&row| std::cmp::Reverse(lengths[row]));
        let first = batches.len();
        let mut batch: Vec<usize> = Vec::new();
        for &row in bucket.iter() {
            // Sorted, so the first row of a batch is its width.
            let width = lengths[*batch.first().unwrap_or(&row)];
            let full = batch.len() >= limits.rows.max(1)
                || limits.tokens.is_some_and(|tokens| !batch.is_empty() && (batch.len() + 1) * width > tokens);
            if full {
                batches.push(std::mem::take(&mut batch));
            }
            batch.push(row);
        }
        batches.push(batch);
        batches[first..].shuffle(rng);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    fn plan(lengths: &[usize], limits: Limits, accumulation: usize, length: Length) -> Plan {
        Plan::new(lengths, limits, accumulation, length, ChaCha8Rng::seed_from_u64).unwrap()
    }

    proptest! {
        #[test]
        fn every_row_stands_in_one_batch_of_each_epoch(
            lengths in prop::collection::vec(1usize..200, 1..400),
            rows in 1usize..9,
            tokens in prop::option::of(50usize..900),
            accumulation in 1usize..4,
        ) {
            let limits = Limits { rows, tokens };
            let plan = plan(&lengths, limits, accumulation, Length::Epochs(2));
            let mut seen = vec![0; lengths.len()];
            for step in &plan.steps {
                prop_assert!(!step.is_empty() && step.len() <= accumulation);
                for batch in step {
                    let longest = batch.iter().map(|&row| lengths[row]).max().unwrap();
                    prop_assert!(batch.len() <= rows);
                    prop_assert!(batch.len() == 1 || tokens.is_none_or(|tokens| longest * batch.len() <= tokens));
                    batch.iter().for_each(|&row| seen[row] += 1);
                }
            }
            prop_assert!(seen.iter().all(|&times| times == 2));
        }

        #[test]
        fn a_longer_run_begins_as_the_shorter(lengths in prop::collection::vec(1usize..50, 1..60), steps in 1u64..30) {
            let limits = Limits { rows: 4, tokens: None };
            let short = plan(&lengths, limits, 2, Length::Steps(steps));
            let long = plan(&lengths, limits, 2, Length::Steps(2 * steps));
            prop_assert_eq!(short.steps.len() as u64, steps);
            prop_assert_eq!(&long.steps[..short.steps.len()], &short.steps[..]);
        }

        #[test]
        fn halves_hold_the_same_rows_with_no_more_padding(
            lengths in prop::collection::vec(1usize..300, 1..100),
            rows in 1usize..12,
        ) {
            let whole = plan(&lengths, Limits { rows, tokens: None }, 2, Length::Epochs(1));
            let halved = whole.clone().halved(&lengths, 256);
            prop_assert!(halved.padding_share() <= whole.padding_share());
            prop_assert_eq!(whole.steps.len(), halved.steps.len());
            for (whole, halved) in whole.steps.iter().zip(&halved.steps) {
                prop_assert_eq!(whole.concat(), halved.concat());
                prop_assert!(halved.iter().all(|rows| !rows.is_empty()));
                for rows in whole {
                    let ids = |rows: &[usize]| lengths[rows[0]] * rows.len();
                    let small = ids(rows) * 256 < HALVED_FROM || rows.len() == 1;
                    prop_assert_eq!(small, halved.contains(rows));
                }
            }
        }
    }

    #[test]
    fn halves_are_of_about_as_many_ids() {
        let halves = |lengths: &[usize]| {
            let plan = plan(lengths, Limits { rows: 8, tokens: None }, 1, Length::Epochs(1)).halved(lengths, 256);
            plan.steps[0].iter().map(|rows| rows.iter().map(|&row| lengths[row]).collect()).collect::<Vec<Vec<_>>>()
        };
        assert_eq!(halves(&[256; 8]), [[256; 4]; 2]);
        assert_eq!(halves(&[100, 100, 600, 100, 100, 100]), [vec![600], vec![100; 5]]);
        assert_eq!(halves(&[600]), [[600]]);
        assert_eq!(halves(&[255; 2]), [[255; 2]], "it is not worth it");
    }

    #[test]
    fn buckets_leave_little_padding() {
        let lengths: Vec<usize> = (0..800).map(|row| 20 + row * 37 % 200).collect();
        let share = plan(&lengths, Limits { rows: 8, tokens: None }, 1, Length::Epochs(1)).padding_share();
        assert!(share < 0.03, "{share}");
        assert!(plan(&[1, 9], Limits { rows: 2, tokens: None }, 1, Length::Epochs(1)).padding_share() > 0.4);
    }

    #[test]
    fn other_seeds_give_other_orders() {
        let lengths = vec![5; 100];
        let limits = Limits { rows: 4, tokens: None };
        let with =
            |seed| Plan::new(&lengths, limits, 1, Length::Epochs(1), |_| ChaCha8Rng::seed_from_u64(seed)).unwrap();
        assert_eq!(with(1), with(1));
        assert_ne!(with(1), with(2));
    }
}
