//! From steps whose producers are done to decisions: their sources are fetched and read, their keys looked up.
//! It does not know slots, nor what becomes of a step that must run.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;

use rayon::prelude::*;

use super::decide::Decision;
use super::sources::{self, Sources};
use super::{Message, Run, State, Threads, work};
use crate::digest::bytes_of;
use crate::error::Result;
use crate::step::Source;
use crate::store::{Lookup, Record};

/// So many decisions at once are worth other threads.
const MANY: usize = 32;

/// Sources of a step that are read together with those of others, in bytes.
const SMALL: u64 = 1 << 20;

/// What is known of a step whose producers are done.
enum Given {
    /// Its sources.
    Sources(Sources),
    /// Its result.
    Result(Box<Record>),
}

/// What has come of that.
enum Decided {
    Anew(Result<Decision>),
    /// It was decided by an earlier run.
    Before(Box<Record>),
}

impl<'a> Run<'a> {
    /// Decides all steps whose inputs are known, until there are none: a hit makes later ones known.
    pub(super) fn decide<'s>(&mut self, threads: &Threads<'s, '_>)
    where
        'a: 's,
    {
        while !self.undecided.is_empty() && !self.stopping() {
            let wave: Vec<usize> = std::mem::take(&mut self.undecided).into_iter().map(|at| self.order[at]).collect();
            let (mut known, mut unread) = (Vec::new(), Vec::new());
            for step in wave {
                if let Some(record) = self.recalled(step) {
                    known.push((step, Given::Result(Box::new(record))));
                    continue;
                }
                let read = self.sources.remove(&step);
                match (self.decider.unfetched(step), read) {
                    (Some(address), _) => self.fetch(threads, step, address),
                    (None, Some(sources)) => known.push((step, Given::Sources(sources))),
                    (None, None) => match self.pipeline.steps[step].action.sources(&self.pipeline.root) {
                        none if none.is_empty() => known.push((step, Given::Sources(Sources::new()))),
                        some => match sources::remembered(self.store, &some) {
                            Some(sources) => known.push((step, Given::Sources(sources))),
                            None => unread.push((step, some)),
                        },
                    },
                }
            }
            self.read(threads, unread);
            if self.options.recall.is_some() {
                for (step, known) in &known {
                    if let Given::Sources(sources) = known {
                        self.gathered.add(*step, sources);
                    }
                }
            }
            let (decider, records) = (&self.decider, &self.records);
            let one = |(step, known)| match known {
                Given::Sources(sources) => (step, Decided::Anew(decider.decide(step, records, sources))),
                Given::Result(record) => (step, Decided::Before(record)),
            };
            let decisions: Vec<(usize, Decided)> = if known.len() < MANY {
                known.into_iter().map(one).collect()
            } else {
                known.into_par_iter().map(one).collect()
            };
            for (step, decided) in decisions {
                if self.stopping() {
                    return;
                }
                match decided {
                    Decided::Anew(decision) => self.decided(step, decision),
                    Decided::Before(record) => self.reused(step, record),
                }
            }
        }
    }

    fn decided(&mut self, step: usize, decision: Result<Decision>) {
        let mut decision = match decision {
            Ok(decision) => decision,
            Err(problem) => return self.failed(step, problem),
        };
        // What would run anyway has a reason of its own, and what another step with the same key has made in this run is
        // as new as it can be.
        let is_there = matches!(decision.found, Lookup::Hit(_)) && !self.renewed.contains(&decision.key);
        if self.options.choice.forced.contains(&step) && is_there {
            decision.found = Lookup::Miss(Some("it is forced to run".to_owned()));
        }
        if let Lookup::Hit(record) = decision.found {
            return self.reused(step, record);
        }
        if let Some(problem) = self.must_not_run(step) {
            return self.failed(step, problem);
        }
        match self.keys.get(&decision.key) {
            Some(&other) => {
                self.states[step] = State::Twin;
                self.twins.entry(other).or_default().push(step);
            }
            None => {
                self.keys.insert(decision.key.clone(), step);
                self.making.insert(step, decision.key.clone());
                self.is_ready(step, Arc::new(decision));
            }
        }
    }

    /// Starts to read the sources of steps: small ones one after the other, each other step's by itself.
    fn read<'s>(&mut self, threads: &Threads<'s, '_>, steps: Vec<(usize, Vec<Source>)>)
    where
        'a: 's,
    {
        let is_small = |list: &[Source]| {
            let bytes = |source: &Source| bytes_of(&source.path).unwrap_or_default();
            list.iter().map(bytes).sum::<u64>() <= SMALL
        };
        let (small, large): (Vec<_>, Vec<_>) = steps.into_iter().partition(|(_, list)| is_small(list));
        let alone = large.into_iter().map(|step| vec![step]);
        for batch in alone.chain([small]).filter(|batch| !batch.is_empty()) {
            let steps: Vec<usize> = batch.iter().map(|(step, _)| *step).collect();
            let (store, cancel, failed) = (self.store, self.options.cancel.clone(), self.failed.clone());
            let read = move |to: &Sender<Message>| {
                let stop = || cancel.load(Ordering::Relaxed) || failed.load(Ordering::Relaxed);
                let one = |(step, list)| {
                    let say = work::thinned(work::pass(step, to.clone()));
                    (step, sources::read(store, list, &mut sources::told("reading its sources", &say, &stop)))
                };
                let read = batch.into_iter().map(one).collect();
                store.keep_digests();
                // The loop waits for this message, so nobody is gone who could receive it.
                let _ = to.send(Message::Read(read));
            };
            match self.spawn(threads, steps[0], read) {
                Ok(()) => steps.iter().for_each(|&step| self.states[step] = State::Reading),
                Err(problem) => steps.iter().for_each(|&step| self.failed(step, problem.clone())),
            }
        }
    }

    pub(super) fn has_read(&mut self, read: Vec<(usize, Result<Sources>)>) {
        self.busy -= 1;
        for (step, sources) in read {
            match sources {
                Ok(sources) => {
                    self.sources.insert(step, sources);
                    self.is_waiting(step);
                }
                // Left because of Ctrl-C or a failure elsewhere.
                Err(problem) if problem.cancelled => self.states[step] = State::Waiting,
                Err(problem) => self.failed(step, problem),
            }
        }
    }

    /// Lets a step be decided, whose producers are done.
    pub(super) fn is_waiting(&mut self, step: usize) {
        self.states[step] = State::Waiting;
        self.undecided.insert(self.place[step]);
    }
}
