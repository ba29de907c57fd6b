//! Who goes first: the step with the longest way to the end of the run, by how long steps took before.
//! It does not know what is free, nor which steps are done.

use std::collections::BTreeMap;

use super::lengths::Lengths;
use crate::graph::Graph;
use crate::spec::Pipeline;

/// How long a step takes of whose kind nothing is known, in milliseconds.
const UNKNOWN: u64 = 1000;

/// The time from the beginning of each step to the end of the run, if nothing else had to be waited for, in
/// milliseconds, by position. A step that never ran takes as long as the others of its kind, on average.
pub(super) fn ways(lengths: &Lengths, pipeline: &Pipeline, graph: &Graph, order: &[usize]) -> BTreeMap<usize, u64> {
    let mut ways: BTreeMap<usize, u64> = BTreeMap::new();
    for &step in order.iter().rev() {
        let after = graph.each_consumer(step).filter_map(|consumer| ways.get(&consumer)).max().copied();
        let own = lengths.usual(pipeline, step).unwrap_or(UNKNOWN);
        ways.insert(step, own.saturating_add(after.unwrap_or_default()));
    }
    ways
}
