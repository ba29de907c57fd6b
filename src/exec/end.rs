//! What becomes of steps: done, reused, failed; and whom that lets go on.
//! It does not know how a step came to its end.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use serde_json::Value;

use super::{Run, State, gate, work};
use crate::digest::Digest;
use crate::error::{Problem, Result};
use crate::event::{Event, Made, Say};
use crate::store::Record;

impl Run<'_> {
    pub(super) fn ended(&mut self, step: usize, result: Result<work::Ended>) {
        self.busy -= 1;
        self.due.ended();
        self.timed.remove(&step);
        if let State::Running { grant, .. } = std::mem::replace(&mut self.states[step], State::Waiting) {
            self.slots.give_back(grant);
        }
        match result {
            Ok(work::Ended { record, retries }) => self.ran(step, record, retries),
            Err(problem) if problem.cancelled => self.states[step] = State::Stopped,
            Err(problem) => self.failed(step, problem),
        }
    }

    fn ran(&mut self, step: usize, record: Record, retries: u32) {
        self.counts.ran += 1;
        if !self.options.choice.forced.is_empty() {
            self.renewed.insert(record.key.clone());
        }
        self.tell(Event::StepFinished {
            step: self.id(step),
            key: record.key.clone(),
            took_ms: record.costs.took_ms,
            costs: record.costs,
            retries,
            outputs: self.made(&record),
            figures: record.figures.clone(),
        });
        self.done(step, record);
    }

    pub(super) fn reused(&mut self, step: usize, record: Record) {
        // What is expected is no part of the key: it may have been written down after the result was made.
        let expect = &self.pipeline.steps[step].policy.expect;
        if let Err(problem) = gate::check(expect, &record.figures, &self.others(step)) {
            return self.failed(step, problem);
        }
        self.counts.reused += 1;
        // A record is data: what it says must not stop anybody.
        self.counts.saved_ms = self.counts.saved_ms.saturating_add(record.costs.took_ms);
        self.tell(Event::StepReused {
            step: self.id(step),
            key: record.key.clone(),
            saved_ms: record.costs.took_ms,
            costs: record.costs,
            outputs: self.made(&record),
            figures: record.figures.clone(),
        });
        // What had to be known when the result was made has to be known whenever it is used.
        for said in &record.said {
            if matches!(said, Say::Warning { .. }) {
                self.tell(Event::StepSaid { step: self.id(step), say: said.clone() });
            }
        }
        self.done(step, record);
    }

    fn done(&mut self, step: usize, mut record: Record) {
        // Only explanations need it, and a cache that cannot be written is told about where it matters.
        let _ = self.store.remember(&self.pipeline.name, &self.pipeline.steps[step].id, &record.key);
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
        self.failed.store(!self.options.choice.keep_going, Ordering::Relaxed);
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

    fn made(&self, record: &Record) -> BTreeMap<String, Made> {
        let made = record.outputs.iter().map(|(name, object)| {
            let path = self.store.object(&object.digest).display().to_string();
            (name.clone(), Made { digest: object.digest.clone(), bytes: object.bytes, path })
        });
        made.collect()
    }
}
