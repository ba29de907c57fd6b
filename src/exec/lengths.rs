//! How long steps take, by how long they took before.
//! It does not know what is made of that, nor which steps still have to run.

use std::collections::BTreeMap;

use super::decide::Decider;
use crate::spec::Pipeline;

/// So many of the last different results of a step say how long it takes: older ones are of another time.
const LOOKED_AT: usize = 5;

/// The shortest and the longest time that a step may take, in milliseconds.
pub(super) type Range = (u64, u64);

/// How long the steps of a pipeline take, as far as that can be known.
#[derive(Debug, Default)]
pub(super) struct Lengths {
    /// How long each step took last, in milliseconds.
    last: BTreeMap<usize, u64>,
    /// How long the steps of each kind took on average.
    kinds: BTreeMap<&'static str, u64>,
    /// What [`Lengths::range`] has answered.
    ranges: BTreeMap<usize, Option<Range>>,
}

impl Lengths {
    /// Reads the last record of each of these steps, but for those whose time is known already: a result that is reused
    /// was read when it was found.
    pub fn read(decider: &Decider, order: &[usize], known: impl Fn(usize) -> Option<u64>) -> Self {
        let pipeline = decider.pipeline;
        let took = |step: &usize| {
            if let Some(took) = known(*step) {
                return Some((*step, took.max(1)));
            }
            let keys = decider.store.keys(&pipeline.name, &pipeline.steps[*step].id)?;
            Some((*step, decider.store.record(keys.last())?.costs.took_ms.max(1)))
        };
        let last: BTreeMap<usize, u64> = order.iter().filter_map(took).collect();
        let mut sums: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for (&step, &took) in &last {
            let sum = sums.entry(pipeline.steps[step].kind.name()).or_default();
            *sum = (sum.0.saturating_add(took), sum.1 + 1);
        }
        let kinds = sums.into_iter().map(|(kind, (sum, count))| (kind, sum / count)).collect();
        Self { last, kinds, ranges: BTreeMap::new() }
    }

    /// How long it took last, or else what is usual for its kind; `None` if nothing of that kind ever ran.
    pub fn usual(&self, pipeline: &Pipeline, step: usize) -> Option<u64> {
        self.last.get(&step).or_else(|| self.kinds.get(pipeline.steps[step].kind.name())).copied()
    }

    /// The shortest and the longest of its last times, or else what is usual for its kind. Reads its earlier records
    /// the first time.
    pub fn range(&mut self, decider: &Decider, step: usize) -> Option<Range> {
        if let Some(range) = self.ranges.get(&step) {
            return *range;
        }
        let range = self.before(decider, step).or_else(|| self.usual(decider.pipeline, step).map(|ms| (ms, ms)));
        self.ranges.insert(step, range);
        range
    }

    fn before(&self, decider: &Decider, step: usize) -> Option<Range> {
        let keys = decider.store.keys(&decider.pipeline.name, &decider.pipeline.steps[step].id)?;
        let took = keys.all().take(LOOKED_AT).filter_map(|key| Some(decider.store.record(key)?.costs.took_ms.max(1)));
        took.fold(None, |range: Option<Range>, ms| {
            let (low, high) = range.unwrap_or((ms, ms));
            Some((low.min(ms), high.max(ms)))
        })
    }
}
