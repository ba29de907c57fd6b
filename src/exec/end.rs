//! What becomes of steps: done, reused, failed; and whom that lets go on.
//! It does not know how a step came to its end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use serde_json::Value;

use super::slots::Grant;
use super::{Run, State, gate, work};
use crate::digest::{Digest, files_below};
use crate::error::{Problem, Result};
use crate::event::{Costs, Event, Made, Say};
use crate::store::{Object, Record, Store};

impl Run<'_> {
    /// A step has ended; its thread may have gone on with another.
    pub(super) fn ended(&mut self, step: usize, result: Result<work::Ended>, next: Option<usize>) {
        self.busy -= 1;
        self.due.ended();
        self.timed.remove(&step);
        self.heirs.remove(&step);
        let mut started = None;
        if let State::Running { grant, team, .. } = std::mem::replace(&mut self.states[step], State::Waiting) {
            match next {
                Some(next) => started = self.goes_on(next, grant),
                None => self.leave(grant, &team),
            }
        }
        match result {
            Ok(work::Ended { record, retries }) => self.ran(step, record, retries),
            Err(problem) if problem.cancelled => self.states[step] = State::Stopped,
            Err(problem) => self.failed(step, problem),
        }
        started.into_iter().for_each(|started| self.tell(started));
    }

    /// The slots of a step that has ended go to one that still works with it, or back.
    fn leave(&mut self, grant: Grant, team: &[usize]) {
        for &step in team {
            if let State::Running { grant: others, .. } = &mut self.states[step] {
                // Only the first had any.
                if grant != Grant::default() {
                    *others = grant;
                }
                return;
            }
        }
        self.slots.give_back(grant);
    }

    fn ran(&mut self, step: usize, record: Box<Record>, retries: u32) {
        self.counts.ran += 1;
        if !self.options.choice.forced.is_empty() {
            self.renewed.insert(record.key.clone());
        }
        self.ran.insert(step);
        self.tell(Event::StepFinished {
            step: self.id(step),
            key: record.key.clone(),
            took_ms: record.costs.took_ms,
            costs: record.costs,
            retries,
            outputs: made(self.store, record.outputs.iter()),
            figures: record.figures.clone(),
        });
        self.done(step, record);
    }

    pub(super) fn reused(&mut self, step: usize, record: Box<Record>) {
        // What is expected is no part of the key: it may have been written down after the result was made.
        let expect = &self.pipeline.steps[step].policy.expect;
        if let Err(problem) = gate::check(expect, &record.figures, &self.others(step)) {
            return self.failed(step, problem);
        }
        self.counts.reused += 1;
        // A record is data: what it says must not stop anybody.
        self.counts.saved_ms = self.counts.saved_ms.saturating_add(record.costs.took_ms);
        let id = &self.pipeline.steps[step].id;
        let Record { key, costs, figures, said, .. } = &*record;
        let events = reused(self.store, id, key, *costs, record.outputs.iter(), figures, said);
        events.for_each(|event| self.tell(event));
        self.done(step, record);
    }

    fn done(&mut self, step: usize, mut record: Box<Record>) {
        if !self.known.as_ref().is_some_and(|known| known.noted(step)) {
            // Only explanations need it, and a cache that cannot be written is told about where it matters.
            let _ = self.store.remember(&self.pipeline.name, &self.pipeline.steps[step].id, &record.key);
        }
        if let Some(known) = &mut self.known {
            known.done(step, &record);
        }
        self.states[step] = State::Done;
        self.let_go(step, &record.key);
        record.manifest = Value::Null;
        self.records.insert(step, record);
        for consumer in self.graph.consumers(step) {
            if matches!(self.states[consumer], State::Unneeded) {
                continue;
            }
            self.open[consumer] -= 1;
            if self.open[consumer] == 0 && matches!(self.states[consumer], State::Waiting) {
                self.is_waiting(consumer);
            }
        }
    }

    pub(super) fn failed(&mut self, step: usize, problem: Problem) {
        self.counts.failed += 1;
        self.first_failure.get_or_insert(step);
        self.gated &= problem.gate;
        if !self.options.choice.keep_going {
            self.failed.store(true, Ordering::Relaxed);
            self.ahead.close();
        }
        self.tell(Event::StepFailed { step: self.id(step), problem });
        self.states[step] = State::Failed;
        if let Some(key) = self.making.get(&step).cloned() {
            self.let_go(step, &key);
        }
    }

    /// Those who waited for the same result or the same source are decided anew.
    pub(super) fn let_go(&mut self, step: usize, key: &Digest) {
        if self.making.remove(&step).is_some() {
            self.keys.remove(key);
        }
        for twin in self.twins.remove(&step).unwrap_or_default() {
            self.is_waiting(twin);
        }
    }
}

/// What is told of a step whose result was there: that, and what had to be known when the result was made, since it has
/// to be known whenever it is used.
pub(super) fn reused<'a>(
    store: &Store,
    id: &'a str,
    key: &Digest,
    costs: Costs,
    outputs: impl Iterator<Item = (&'a String, &'a Object)>,
    figures: &BTreeMap<String, f64>,
    said: &'a [Say],
) -> impl Iterator<Item = Event> + 'a {
    let reused = Event::StepReused {
        step: id.to_owned(),
        key: key.clone(),
        saved_ms: costs.took_ms,
        costs,
        outputs: made(store, outputs),
        figures: figures.clone(),
    };
    let warnings = said.iter().filter(|said| matches!(said, Say::Warning { .. }));
    std::iter::once(reused).chain(warnings.map(|say| Event::StepSaid { step: id.to_owned(), say: say.clone() }))
}

fn made<'a>(store: &Store, outputs: impl Iterator<Item = (&'a String, &'a Object)>) -> BTreeMap<String, Made> {
    let made = outputs.map(|(name, object)| {
        let path = store.object(&object.digest).into_os_string();
        let path = path.into_string().unwrap_or_else(|path| path.to_string_lossy().into_owned());
        (name.clone(), Made { digest: object.digest.clone(), bytes: object.bytes, path })
    });
    made.collect()
}

/// Links to results, as they are made at the end of a run.
pub(super) struct Links<'a> {
    store: &'a Store,
    pipeline: &'a str,
    /// The files that the run was for.
    pub results: Vec<String>,
    /// What is told of those that could not be made.
    pub warnings: Vec<Event>,
}

impl<'a> Links<'a> {
    pub fn new(store: &'a Store, pipeline: &'a str) -> Self {
        Self { store, pipeline, results: Vec::new(), warnings: Vec::new() }
    }

    /// Lets people find a result; nothing is done if the link is known to be right.
    pub fn one(&mut self, step: &str, file: &str, digest: &Digest, wanted: bool, linked: bool) {
        let place = match linked {
            true => Ok(self.store.published(self.pipeline, step, file)),
            false => self.store.publish(self.pipeline, step, file, digest),
        };
        match place {
            Ok(place) if wanted => self.results.push(to_open(&place).display().to_string()),
            Ok(_) => {}
            Err(problem) => {
                let text = format!("no link to its result `{file}` could be made: {}", problem.what);
                self.warnings.push(Event::StepSaid { step: step.to_owned(), say: Say::Warning { text } });
                if wanted {
                    self.results.push(self.store.object(digest).display().to_string());
                }
            }
        }
    }
}

/// What a person wants to open: of a folder with a single file in it, that file.
fn to_open(place: &Path) -> PathBuf {
    if !place.is_dir() {
        return place.to_owned();
    }
    match files_below(place).unwrap_or_default().as_slice() {
        [only] => place.join(only),
        _ => place.to_owned(),
    }
}
