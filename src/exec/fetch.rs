//! Brings the remote source of a step while nothing is known of it: its key is known only afterwards.
//! It does not know what is fetched, nor what becomes of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use super::panics::caught;
use super::work::{pass, sink};
use super::{Message, Options, Run, State, Threads};
use crate::error::Result;
use crate::event::Event;
use crate::lockfile::Locked;
use crate::spec::Step;
use crate::step::{Context, Frame, Outside};

/// So many sources are fetched at a time. They wait for the network: no slot is taken.
const AT_ONCE: usize = 4;

/// A source that came, and how long it took.
pub(super) type Fetched = (Result<Locked>, Duration);

impl<'a> Run<'a> {
    /// Starts to fetch the remote source of a step, unless that is under way for another one.
    pub(super) fn fetch<'s>(&mut self, threads: &Threads<'s, '_>, step: usize, address: String)
    where
        'a: 's,
    {
        if let Some(&other) = self.fetching.get(&address) {
            self.states[step] = State::Twin;
            self.twins.entry(other).or_default().push(step);
            return;
        }
        if self.fetching.len() >= AT_ONCE {
            self.states[step] = State::Waiting;
            self.to_fetch.push_back(step);
            return;
        }
        self.tell(Event::StepFetching { step: self.id(step), source: address.clone() });
        let (pipeline, options) = (self.pipeline, self.options);
        let work = move |to: &Sender<Message>| bring(&pipeline.steps[step], step, pipeline.root.clone(), options, to);
        match self.spawn(threads, step, work) {
            Ok(()) => {
                self.states[step] = State::Fetching;
                self.fetching.insert(address, step);
            }
            Err(problem) => self.failed(step, problem),
        }
    }

    /// A source that is here has a digest, so that its step can be decided.
    pub(super) fn has_fetched(&mut self, step: usize, (result, took): Fetched) {
        self.busy -= 1;
        let address = self.fetching.iter().find(|(_, fetcher)| **fetcher == step).map(|(address, _)| address.clone());
        let Some(address) = address else { return };
        self.fetching.remove(&address);
        match result.and_then(|locked| self.options.lock.put(&address, locked)) {
            Ok(_) => {
                self.fetched.insert(step, took);
                self.is_waiting(step);
            }
            Err(problem) if problem.cancelled => self.states[step] = State::Stopped,
            Err(problem) => self.failed(step, problem),
        }
        for twin in self.twins.remove(&step).unwrap_or_default() {
            self.is_waiting(twin);
        }
        if let Some(next) = self.to_fetch.pop_front() {
            self.is_waiting(next);
        }
    }

    /// What a step gets to see of other machines.
    pub(super) fn outside(&self, step: usize) -> Outside {
        let known = self.pipeline.steps[step].action.remote().and_then(|address| self.options.lock.get(&address));
        Outside { settings: self.options.settings.clone(), known }
    }
}

/// Brings the source of a step and sends what became of it.
fn bring(step: &Step, position: usize, root: PathBuf, options: &Options, to: &Sender<Message>) {
    let started = Instant::now();
    let mut cx = Context::new(Frame {
        step: step.id.clone(),
        inputs: BTreeMap::new(),
        // It writes no outputs.
        out: PathBuf::new(),
        root,
        machine: options.machine.clone(),
        threads: 1,
        cancel: options.cancel.clone(),
        // What it says is not part of a result.
        sink: sink(pass(position, to.clone()), Arc::default()),
    })
    .with_outside(Outside { settings: options.settings.clone(), known: None });
    let result = caught(step.kind.name(), || step.action.fetch(&mut cx));
    let result = result.and_then(|locked| cx.check_cancelled().map(|()| locked));
    // The loop waits for this message, so nobody is gone who could receive it.
    let _ = to.send(Message::Fetched(position, Box::new((result, started.elapsed()))));
}
