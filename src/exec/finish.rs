//! The end of a run: which steps were left out, links to the results, and the sum of it all.
//! It does not know how steps came to their states.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::end::Links;
use super::{Counts, Run, State, Summary};
use crate::event::{Event, Outcome};
use crate::store::Lost;

impl Run<'_> {
    /// Tells which steps were left out, links the results and ends the run.
    pub(super) fn finish(mut self, started: Instant) -> Summary {
        self.lost();
        let interrupted = self.options.cancel.load(Ordering::Relaxed);
        self.skipped();
        let results = self.publish();
        let outcome = match self.first_failure {
            Some(_) => Outcome::Failed,
            None if interrupted && self.records.len() < self.order.len() => Outcome::Interrupted,
            None => Outcome::Done,
        };
        if outcome == Outcome::Done {
            self.keep_receipt();
        }
        let Counts { ran, reused, failed, skipped, saved_ms } = self.counts;
        let took_ms = started.elapsed().as_millis() as u64;
        let machine = if ran > 0 { super::hardware::told(&self.options.machine) } else { String::new() };
        self.tell(Event::RunFinished { outcome, ran, reused, failed, skipped, took_ms, saved_ms, results, machine });
        self.speak();
        let gated = self.first_failure.is_some() && self.gated;
        Summary { outcome, gated, records: self.records }
    }

    /// Waits until every result can be seen by others. One that could not be written was told as finished, and its
    /// consumers may have run with it; now it has failed.
    fn lost(&mut self) {
        for Lost { key, problem } in self.store.flush() {
            let lost = self.records.iter().find(|(_, record)| record.key == key).map(|(&step, _)| step);
            // A step of this run made it: nobody else commits to this store.
            let Some(step) = lost else { continue };
            self.records.remove(&step);
            self.counts.ran = self.counts.ran.saturating_sub(1);
            self.failed(step, problem);
        }
    }

    /// Tells which steps were left out because others failed. In order, so that what a step needs is known before.
    fn skipped(&mut self) {
        let Some(first) = self.first_failure else { return };
        let mut because: BTreeMap<usize, usize> = BTreeMap::new();
        for step in self.order.clone() {
            if matches!(self.states[step], State::Failed) {
                because.insert(step, step);
            }
            if matches!(
                self.states[step],
                State::Waiting | State::Twin | State::Ready(_) | State::Ahead(_) | State::Joined(_)
            ) {
                let above = self.graph.producers(step).iter().find_map(|producer| because.get(producer).copied());
                if let Some(above) = above {
                    because.insert(step, above);
                }
                self.counts.skipped += 1;
                let because = self.id(above.unwrap_or(first));
                self.tell(Event::StepSkipped { step: self.id(step), because });
            }
        }
    }

    /// True if the run is for the results of a step: it is a target. Where every step is one, those that no other reads
    /// are what the run was for.
    pub(super) fn is_wanted(&self, position: usize) -> bool {
        let every = self.pipeline.targets.len() == self.order.len();
        if every { self.graph.is_last(position) } else { self.pipeline.targets.binary_search(&position).is_ok() }
    }

    /// Links the results of all steps that are done; answers the files that the run was for.
    fn publish(&mut self) -> Vec<String> {
        let mut links = Links::new(self.store, &self.pipeline.name);
        for (&position, record) in &self.records {
            let (step, wanted) = (&self.pipeline.steps[position], self.is_wanted(position));
            let linked = self.known.as_ref().is_some_and(|known| known.linked(position));
            if linked && !wanted {
                continue;
            }
            for output in &step.outputs {
                let Some(object) = record.outputs.get(output.name.as_ref()) else { continue };
                links.one(&step.id, &output.file, &object.digest, wanted, linked);
            }
        }
        let Links { results, warnings, .. } = links;
        warnings.into_iter().for_each(|warning| self.tell(warning));
        results
    }
}
