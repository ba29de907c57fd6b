//! Who goes first: the step with the longest way to the end of the run, by how long steps took before.
//! It does not know what is free, nor which steps are done.

use std::collections::BTreeMap;

use super::decide::Decider;
use crate::graph::Graph;

/// How long a step takes of whose kind nothing is known, in milliseconds.
const UNKNOWN: u64 = 1000;

/// The time from the beginning of each step to the end of the run, if nothing else had to be waited for, in
/// milliseconds, by position. A step that never ran takes as long as the others of its kind, on average.
pub(super) fn ways(decider: &Decider, graph: &Graph, order: &[usize]) -> BTreeMap<usize, u64> {
    let took = durations(decider, order);
    let mut ways: BTreeMap<usize, u64> = BTreeMap::new();
    for &step in order.iter().rev() {
        let after = graph.consumers(step).iter().filter_map(|consumer| ways.get(consumer)).max().copied();
        ways.insert(step, took[&step].saturating_add(after.unwrap_or_default()));
    }
    ways
}

/// How long each step takes, as far as that can be known.
fn durations(decider: &Decider, order: &[usize]) -> BTreeMap<usize, u64> {
    let pipeline = decider.pipeline;
    let took = |step: &usize| {
        let keys = decider.store.keys(&pipeline.name, &pipeline.steps[*step].id)?;
        Some((*step, decider.store.record(keys.last())?.costs.took_ms.max(1)))
    };
    let known: BTreeMap<usize, u64> = order.iter().filter_map(took).collect();
    let mut kinds: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (&step, &took) in &known {
        let sum = kinds.entry(pipeline.steps[step].kind.name()).or_default();
        *sum = (sum.0 + took, sum.1 + 1);
    }
    let of = |&step: &usize| {
        let mean = kinds.get(pipeline.steps[step].kind.name()).map_or(UNKNOWN, |(sum, count)| sum / count);
        (step, known.get(&step).copied().unwrap_or(mean))
    };
    order.iter().map(of).collect()
}
