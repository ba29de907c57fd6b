//! Which of the ready steps do their work together with one that starts: those that their kind says belong together,
//! as many as leave no slot without work. It does not know what they do, nor what they share.

use std::sync::Arc;

use super::decide::Decision;
use super::slots::Slots;
use super::team::Team;
use super::work::Job;
use super::{Run, State};
use crate::event::Event;

/// So many ready steps are looked at.
const LOOK: usize = 256;

impl<'a> Run<'a> {
    /// A step that is to start, and those that start with it.
    pub(super) fn team(&mut self, job: Job<'a>) -> Team<'a> {
        let exact = self.options.choice.together.is_none();
        let mut jobs = vec![job];
        for step in self.mates(&jobs[0]) {
            let gpus = jobs[0].gpus.clone();
            let Some(decision) = self.take_ready(step) else { continue };
            match self.store.lease(&decision.key) {
                Err(problem) => self.failed(step, problem),
                Ok(None) => self.is_joined(step, decision),
                Ok(Some(lease)) => jobs.extend(self.job(step, decision, gpus, lease)),
            }
        }
        if jobs.len() > 1 {
            // Their slots are those of all of them.
            jobs.iter_mut().for_each(|job| job.heirs = None);
        }
        Team { jobs, exact }
    }

    /// Other ready steps that are to work together with this one.
    fn mates(&self, job: &Job) -> Vec<usize> {
        let (asked, machine) = (self.options.choice.together, &self.options.machine);
        if asked == Some(1) || self.ready.is_empty() {
            return Vec::new();
        }
        let Some(own) = job.step.action.together(&job.inputs, machine) else { return Vec::new() };
        // Beside others its time would also be theirs.
        let in_time = |step: usize| asked.is_some() || self.pipeline.steps[step].policy.timeout.is_none();
        if asked.is_none() && !own.pays || !in_time(job.position) {
            return Vec::new();
        }
        let need = self.need(job.position);
        let fits = |step: &usize| {
            let other = &self.pipeline.steps[*step];
            // What a pack takes of the machine is what one of its steps takes.
            other.kind.name() == job.step.kind.name()
                && self.need(*step) == need
                && in_time(*step)
                && other.action.together(&self.decider.artifacts(*step, &self.records), machine).as_ref() == Some(&own)
        };
        let mut mates: Vec<usize> = self.ready.values().take(LOOK).copied().filter(fits).collect();
        // Some beside each other where there is room: a slot without work helps nobody. What nobody asked for also
        // leaves some to those slots in which others still work.
        let beside = match asked {
            Some(_) => 1 + self.slots.room(need),
            None => Slots::of(&self.options.capacity).room(need).max(1),
        };
        let each = (mates.len() + 1).div_ceil(beside);
        mates.truncate(each.min(asked.unwrap_or(own.most)) - 1);
        mates
    }

    /// Takes a step from the ready ones.
    fn take_ready(&mut self, step: usize) -> Option<Arc<Decision>> {
        let rank = self.ready.iter().find(|(_, ready)| **ready == step).map(|(&rank, _)| rank)?;
        self.ready.remove(&rank);
        match std::mem::replace(&mut self.states[step], State::Waiting) {
            State::Ready(decision) => Some(decision),
            other => {
                self.states[step] = other;
                None
            }
        }
    }

    /// Another process is making its result.
    pub(super) fn is_joined(&mut self, step: usize, decision: Arc<Decision>) {
        self.tell(Event::StepJoined { step: self.id(step), key: decision.key.clone() });
        self.states[step] = State::Joined(decision);
        self.joined.insert(step);
    }
}
