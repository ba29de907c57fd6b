//! How long a run will go on: no shorter than its longest way, nor than all its work on all slots.
//! It does not know how long steps took before: it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::decide::Decider;
use super::lengths::{Lengths, Range};
use super::plan::{Planned, Verdict};
use super::slots::{Capacity, Need};
use super::{Run, State, start};
use crate::event::Event;
use crate::graph::Graph;

/// How often a forecast is made anew at most: each is a walk over all steps.
const EVERY: Duration = Duration::from_millis(500);

/// How long something will take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forecast {
    /// If every step is as fast as it ever was, in milliseconds.
    pub low_ms: u64,
    /// If every step is as slow as it ever was, in milliseconds.
    pub high_ms: u64,
    /// How many steps are in neither, because nothing like them ever ran.
    pub unknown: usize,
}

/// A step that is not done.
struct Left {
    step: usize,
    range: Option<Range>,
    need: Need,
}

impl Forecast {
    /// For steps that are not done, in the order of the graph.
    fn of(left: &[Left], graph: &Graph, capacity: &Capacity) -> Self {
        let bound = |length: fn(Range) -> u64| bound(left, graph, capacity, |one| one.range.map_or(0, length));
        let unknown = left.iter().filter(|one| one.range.is_none()).count();
        Self { low_ms: bound(|(low, _)| low), high_ms: bound(|(_, high)| high), unknown }
    }

    /// For a plan. Reads nothing if nothing would run.
    pub fn of_plan(decider: &Decider, order: &[usize], planned: &BTreeMap<usize, Planned>, on: &Capacity) -> Self {
        let graph = Graph::of(decider.pipeline);
        let (mut never, mut left) = (BTreeSet::new(), Vec::new());
        for &step in order {
            match planned[&step].verdict {
                Verdict::Reuse(_) => {}
                Verdict::Run | Verdict::Depends(_) if graph.producers(step).is_disjoint(&never) => left.push(step),
                _ => {
                    never.insert(step);
                }
            }
        }
        if left.is_empty() {
            return Self::default();
        }
        let reused = |step| match &planned.get(&step)?.verdict {
            Verdict::Reuse(record) => Some(record.costs.took_ms),
            _ => None,
        };
        let mut lengths = Lengths::read(decider, order, reused);
        let one = |step| {
            let need = start::need(&decider.pipeline.steps[step], decider.machine, on);
            Left { step, range: lengths.range(decider, step), need }
        };
        Self::of(&left.into_iter().map(one).collect::<Vec<_>>(), &graph, on)
    }
}

/// The longest way through these steps, or all their work on all that there is, whichever is longer.
fn bound(left: &[Left], graph: &Graph, capacity: &Capacity, length: impl Fn(&Left) -> u64) -> u64 {
    let mut ways = vec![0; graph.count()];
    let (mut longest, mut cpu, mut gpus) = (0, 0_u64, 0_u64);
    for one in left.iter().rev() {
        let length = length(one);
        let after = graph.each_consumer(one.step).map(|consumer| ways[consumer]).max();
        let way = length.saturating_add(after.unwrap_or_default());
        ways[one.step] = way;
        longest = way.max(longest);
        cpu = cpu.saturating_add(length.saturating_mul(one.need.cpu as u64));
        gpus = gpus.saturating_add(length.saturating_mul(one.need.gpus as u64));
    }
    longest.max(cpu / capacity.cpu.max(1) as u64).max(gpus / capacity.gpus.len().max(1) as u64)
}

/// When the next forecast is due.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// True if nothing has ended since the last one.
    fresh: bool,
    told: Option<Instant>,
}

impl Due {
    /// Something has ended.
    pub fn ended(&mut self) {
        self.fresh = false;
    }

    /// True if a forecast is to be made now.
    fn take(&mut self) -> bool {
        if self.fresh || self.told.is_some_and(|told| told.elapsed() < EVERY) {
            return false;
        }
        (self.fresh, self.told) = (true, Some(Instant::now()));
        true
    }
}

impl Run<'_> {
    /// Tells how long the run will go on, if something has to run and has ended since this was told.
    pub(super) fn foresee(&mut self) {
        let Some(mut lengths) = self.lengths.take() else { return };
        if self.due.take() {
            let left = self.left(&mut lengths);
            let Forecast { low_ms, high_ms, unknown } = Forecast::of(&left, &self.graph, &self.options.capacity);
            self.tell(Event::Forecast { low_ms, high_ms, unknown });
        }
        self.lengths = Some(lengths);
    }

    fn left(&self, lengths: &mut Lengths) -> Vec<Left> {
        let (stopping, failed) = (self.stopping(), self.first_failure.is_some());
        let (mut never, mut left) = (BTreeSet::new(), Vec::new());
        for &step in &self.order {
            let mut range = || lengths.range(&self.decider, step);
            let range = match &self.states[step] {
                State::Done | State::Unneeded => continue,
                State::Running { begun, .. } => {
                    let gone = begun.elapsed().as_millis() as u64;
                    range().map(|(low, high)| (low.saturating_sub(gone), high.saturating_sub(gone)))
                }
                State::Failed | State::Stopped => {
                    never.insert(step);
                    continue;
                }
                _ if stopping => continue,
                _ if failed && !self.graph.producers(step).is_disjoint(&never) => {
                    never.insert(step);
                    continue;
                }
                // It may find the result of the one that it waits for.
                State::Twin => range().map(|(_, high)| (0, high)),
                State::Waiting | State::Reading | State::Fetching => range(),
                State::Ready(_) | State::Ahead(_) | State::Joined(_) => range(),
            };
            let need = start::need(&self.pipeline.steps[step], &self.options.machine, &self.options.capacity);
            left.push(Left { step, range, need });
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forecast(steps: &[(Option<Range>, usize)], edges: &[(usize, usize)], cpu: usize) -> Forecast {
        let graph = Graph::new(steps.len(), edges.iter().copied());
        let one = |(step, (range, cpu)): (usize, &(Option<Range>, usize))| {
            let need = Need { cpu: *cpu, ..Need::default() };
            Left { step, range: *range, need }
        };
        let left: Vec<Left> = steps.iter().enumerate().map(one).collect();
        Forecast::of(&left, &graph, &Capacity::slots(cpu))
    }

    #[test]
    fn it_takes_as_long_as_the_longest_way_or_as_all_work_on_all_slots() {
        let (a, b) = ((Some((10, 20)), 1), (Some((30, 50)), 1));
        let told = |low_ms, high_ms, unknown| Forecast { low_ms, high_ms, unknown };
        // One after the other, however many slots there are.
        assert_eq!(forecast(&[a, b], &[(0, 1)], 8), told(40, 70, 0));
        // Beside each other where there is room.
        assert_eq!(forecast(&[a, b], &[], 2), told(30, 50, 0));
        assert_eq!(forecast(&[a, b], &[], 1), told(40, 70, 0));
        // Who takes the whole machine is alone on it.
        assert_eq!(forecast(&[(a.0, 4), (b.0, 4)], &[], 4), told(40, 70, 0));
        // Of two ways the longer one.
        assert_eq!(forecast(&[a, b, a, a], &[(0, 1), (0, 2), (1, 3), (2, 3)], 4), told(50, 90, 0));
        // What is not known is counted, and the way leads through it.
        assert_eq!(forecast(&[a, (None, 1), b], &[(0, 1), (1, 2)], 2), told(40, 70, 1));
        assert_eq!(forecast(&[], &[], 2), Forecast::default());
    }

    #[test]
    fn gpus_are_slots_of_their_own() {
        let need = Need { cpu: 1, gpus: 1, ..Need::default() };
        let left: Vec<Left> = (0..4).map(|step| Left { step, range: Some((10, 10)), need }).collect();
        let capacity = Capacity { gpus: vec![0, 1], ..Capacity::slots(16) };
        assert_eq!(Forecast::of(&left, &Graph::new(4, [].into_iter()), &capacity).low_ms, 20);
    }

    #[test]
    fn it_is_made_anew_only_when_something_ended_and_not_too_often() {
        let mut due = Due::default();
        assert!(due.take() && !due.take());
        due.ended();
        due.told = Instant::now().checked_sub(EVERY);
        assert!(due.take());
        due.ended();
        due.told = Some(Instant::now() + EVERY);
        assert!(!due.take(), "it was just told");
    }
}
