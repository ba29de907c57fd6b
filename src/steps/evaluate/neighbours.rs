//! How far answers depend on what shares a batch with them, where libtorch does not exclude it: some are asked again
//! alone, and what differs is counted. It does not know tasks or gold.

use super::loaded::Loaded;
use crate::error::Result;
use crate::ml::steady::Steady;
use crate::report::evidence::{BATCHES, Finding};

/// So many items are asked again: the first of the task.
const AGAIN: usize = 16;

/// Two answers of one item.
pub struct Pair {
    /// True if they say another thing.
    pub flips: bool,
    /// How far their log-likelihoods are apart, in nats, if they have any.
    pub apart: Option<f64>,
}

/// Asks the first items again, alone, if that may change something: on a GPU, or in another precision than f32.
pub fn finding(loaded: &Loaded, n: usize, again: impl FnOnce(usize) -> Result<Vec<Pair>>) -> Result<Option<Finding>> {
    if Steady::of(loaded.model.as_ref(), 0).holds() || n == 0 {
        return Ok(None);
    }
    let pairs = again(n.min(AGAIN))?;
    let flips = pairs.iter().filter(|pair| pair.flips).count() as u64;
    let apart = pairs
        .iter()
        .filter_map(|pair| pair.apart)
        .fold(None, |most: Option<f64>, apart| Some(most.map_or(apart, |most| most.max(apart))));
    let apart = apart
        .map_or_else(String::new, |apart| format!(", логарифмы вероятностей расходятся не больше чем на {apart:.1e}"));
    Ok(Some(Finding {
        code: BATCHES.to_owned(),
        severity: "note".to_owned(),
        count: flips,
        text: format!(
            "запись зависит от соседей по пакету: из {} первых примеров, заданных ещё раз по одному, другой ответ у {flips}{apart}",
            pairs.len()
        ),
        examples: Vec::new(),
    }))
}
