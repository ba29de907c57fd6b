//! Steps that wait for a slot all prepared, so that a thread that ends one goes on with the next at once, and the loop hears
//! of both: to wake the loop, and let it wake a thread, takes as long as a good part of a small step.
//! It does not know how steps are chosen among the ready, nor what a thread does with them.
//!
//! What must stay true:
//! - A step that waits here holds nothing, neither slots nor its lease. It needs one core and nothing else, and whoever
//!   takes it has just had exactly that for a step that ended well: slots are never exceeded.
//! - It goes before every other ready step, and before all that the end of the taker's step lets go on. So it is the one
//!   that the loop would have chosen.
//! - The taker has its lease, and has looked for its result, before it begins. What another process is making, or has made,
//!   goes back to the loop.
//! - After Ctrl-C, or a failure where that ends the run, nobody takes anything. What was taken just before may be told
//!   just after.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::slots::{Grant, Need, Rank};
use super::stop::Stop;
use super::work::Job;
use super::{Message, Run, State};
use crate::event::Event;
use crate::store::Lookup;

/// What a step needs that waits here, and what its taker has had.
const ONE: Need = Need { cpu: 1, memory: 0, gpus: 0 };

/// So many wait for each slot, so that the loop need not hear of an end before the next one.
const EACH: usize = 2;

/// Nobody comes after this one.
const LAST: Rank = (Reverse(0), usize::MAX);

/// The steps that wait, by their turn.
#[derive(Default)]
pub(super) struct Ahead<'a> {
    waiting: Mutex<BTreeMap<Rank, Job<'a>>>,
    closed: AtomicBool,
}

/// What the loop keeps of a step that waits.
pub(super) struct Laid {
    stop: Arc<Stop>,
    heirs: Option<Rank>,
    started: Event,
}

impl<'a> Ahead<'a> {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Rank, Job<'a>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on nobody takes anything.
    pub fn close(&self) {
        let waiting = self.lock();
        self.closed.store(true, Ordering::Relaxed);
        drop(waiting);
    }

    /// The step that goes on in the place of one that ended well, if it goes before the heirs of that one.
    pub fn take(&self, heirs: Rank, to: &Sender<Message>) -> Option<Job<'a>> {
        let mut waiting = self.lock();
        let first = waiting.first_entry().filter(|first| *first.key() < heirs)?;
        if self.closed.load(Ordering::Relaxed) || first.get().stop.cancelled() {
            return None;
        }
        let mut job = first.remove();
        drop(waiting);
        if job.claim() {
            return Some(job);
        }
        // The loop waits for the end of the taker's step, so nobody is gone who could receive it.
        let _ = to.send(Message::Back(job.position, job.decision));
        None
    }
}

impl Job<'_> {
    /// Takes the lease; false, and without it, if somebody else has it, or has made the result.
    fn claim(&mut self) -> bool {
        let lease = self.store.lease(&self.decision.key).ok().flatten();
        let missing = || self.forced() || matches!(self.store.find(&self.decision.key), Lookup::Miss(_));
        // Given up before the loop hears of it: it would take it for another process's.
        self.lease = lease.filter(|_| missing());
        self.lease.is_some()
    }
}

impl<'a> Run<'a> {
    /// The first of those that the end of a step may let go on, if the step is one in whose place another goes on.
    pub(super) fn heirs(&self, step: usize) -> Option<Rank> {
        if self.need(step) != ONE || self.pipeline.steps[step].kind.needs_torch() {
            return None;
        }
        let heirs = self.graph.each_consumer(step).filter(|heir| !matches!(self.states[*heir], State::Unneeded));
        Some(heirs.map(|heir| self.rank_of(heir)).min().unwrap_or(LAST))
    }

    /// Lets the first of the ready steps wait ahead.
    pub(super) fn look_ahead(&mut self) {
        let most = self.options.capacity.cpu.saturating_mul(EACH);
        while !self.stopping() && self.twins.is_empty() && self.ahead.lock().len() < most {
            let Some((&rank, &step)) = self.ready.first_key_value() else { return };
            let taken = self.heirs.values().any(|heirs| rank < *heirs);
            let timed = self.pipeline.steps[step].policy.timeout.is_some();
            let Some(heirs) = self.heirs(step).filter(|_| taken && !timed) else { return };
            let State::Ready(decision) = std::mem::replace(&mut self.states[step], State::Waiting) else { return };
            let job = self.prepared(step, decision, Vec::new(), None);
            // Steps that may work together are chosen when a slot is free.
            if job.step.action.together(&job.inputs, &self.options.machine).is_some() {
                self.states[step] = State::Ready(job.decision);
                return;
            }
            self.ready.remove(&rank);
            self.states[step] = State::Ahead(Box::new(Laid {
                stop: job.stop.clone(),
                heirs: Some(heirs),
                started: self.started(step, &job.decision),
            }));
            self.ahead.lock().insert(rank, job);
        }
    }

    /// Makes those that wait ahead ready again if they may not be next any more, or need not wait.
    pub(super) fn look_again(&mut self) {
        let mut waiting = self.ahead.lock();
        let Some((&last, _)) = waiting.last_key_value() else { return };
        let overtaken = self.ready.first_key_value().is_some_and(|(first, _)| *first < last);
        if overtaken || self.stopping() || !self.twins.is_empty() || self.slots.room(ONE) > 0 {
            for (rank, job) in std::mem::take(&mut *waiting) {
                self.states[job.position] = State::Ready(job.decision);
                self.ready.insert(rank, job.position);
            }
        }
    }

    /// A step that was taken runs, in the slots of the one before; answers what is to be told.
    pub(super) fn goes_on(&mut self, step: usize, grant: Grant) -> Option<Event> {
        let State::Ahead(laid) = std::mem::replace(&mut self.states[step], State::Waiting) else {
            self.slots.give_back(grant);
            return None;
        };
        let Laid { stop, heirs, started } = *laid;
        self.heirs.extend(heirs.map(|heirs| (step, heirs)));
        self.states[step] = State::Running { grant, stop, begun: Instant::now(), team: [step].into() };
        self.busy += 1;
        Some(started)
    }
}
