//! The end of a run: which steps were left out, links to the results, and the sum of it all.
//! It does not know how steps came to their states.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Counts, Run, State, Summary};
use crate::digest::files_below;
use crate::event::{Event, Outcome, Say};
use crate::store::Lost;

impl Run<'_> {
    /// Tells which steps were left out, links the results and ends the run.
    pub(super) fn finish(mut self, started: Instant) -> Summary {
        self.lost();
        let interrupted = self.options.cancel.load(Ordering::Relaxed);
        if let Some(first) = self.first_failure {
            for step in self.order.clone() {
                if matches!(self.states[&step], State::Waiting | State::Twin(_) | State::Ready(_)) {
                    self.counts.skipped += 1;
                    let because = self.id(self.failed_above(step).unwrap_or(first));
                    self.tell(Event::StepSkipped { step: self.id(step), because });
                }
            }
        }
        let results = self.publish();
        let outcome = match self.first_failure {
            Some(_) => Outcome::Failed,
            None if interrupted && self.records.len() < self.order.len() => Outcome::Interrupted,
            None => Outcome::Done,
        };
        let Counts { ran, reused, failed, skipped, saved_ms } = self.counts;
        let took_ms = started.elapsed().as_millis() as u64;
        self.tell(Event::RunFinished { outcome, ran, reused, failed, skipped, took_ms, saved_ms, results });
        Summary { outcome, records: self.records }
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
            let state = self.failed(step, problem);
            self.states.insert(step, state);
        }
    }

    /// The failed step that this one needs, if it needs one.
    fn failed_above(&self, step: usize) -> Option<usize> {
        let needs: BTreeSet<usize> = self.graph.order(&[step]).into_iter().collect();
        needs.into_iter().find(|other| matches!(self.states.get(other), Some(State::Failed)))
    }

    /// Links the results of all steps that are done; answers the files of the targets. Where every step is a
    /// target, those that no other reads are what the run was for.
    fn publish(&mut self) -> Vec<String> {
        let every = self.pipeline.targets.len() == self.order.len();
        let (mut results, mut warnings) = (Vec::new(), Vec::new());
        for (&position, record) in &self.records {
            let step = &self.pipeline.steps[position];
            let wanted = if every {
                self.graph.consumers(position).is_empty()
            } else {
                self.pipeline.targets.contains(&position)
            };
            for output in &step.outputs {
                let Some(object) = record.outputs.get(output.name.as_ref()) else { continue };
                let file = output.file.as_ref();
                match self.store.publish(&self.pipeline.name, &step.id, file, &object.digest) {
                    Ok(place) if wanted => results.push(to_open(&place).display().to_string()),
                    Ok(_) => {}
                    Err(problem) => {
                        let text = format!("no link to its result `{file}` could be made: {}", problem.what);
                        warnings.push(Event::StepSaid { step: step.id.clone(), say: Say::Warning { text } });
                        if wanted {
                            results.push(self.store.object(&object.digest).display().to_string());
                        }
                    }
                }
            }
        }
        for warning in warnings {
            self.tell(warning);
        }
        results
    }
}

/// What a person wants to open: of a folder with a single file in it, that file.
fn to_open(place: &Path) -> PathBuf {
    match files_below(place).unwrap_or_default().as_slice() {
        [only] => place.join(only),
        _ => place.to_owned(),
    }
}
