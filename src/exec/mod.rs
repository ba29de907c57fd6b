//! The loop that brings the targets up to date: one thread decides, one thread per running step works.
//! It does not know what any step does, nor who listens to its events.
//!
//! ```text
//!    ┌────────────── they are read ◀── Reading ◀──────┐ it has sources
//!    ▼                                                │
//! Waiting ── producers done, inputs have digests ──▶ decide ◀── that one ended ── Twin
//!    │                                                 │                            ▲
//!    │                                                 ├── the same key is running ─┘
//!    │                                                 ├── record found ──▶ Done   (reused)
//!    │                                                 ├── cannot be decided ──▶ Failed
//!    │                                                 └── no record ──▶ Ready ── slots free ──▶ Running
//!    │                                                                                             │
//!    │                                                  Done ◀── outputs and record in the store ──┤
//!    └── a step failed, or Ctrl-C ──▶ left as it is     Failed ◀── problem or panic ───────────────┤
//!                                                       Stopped ◀── Ctrl-C ────────────────────────┘
//! ```
//!
//! Sources may be many gigabytes, so a thread of their own reads them, while the loop goes on. They are read when
//! all producers are done, not before: between their reading and the end of the step they must not change.
//!
//! What lies on another machine is fetched first, because its content is part of the key: a step whose remote source
//! `pipe.lock` does not know is Fetching, as it may be Reading.
//!
//! After a failure nothing new is started: what runs already is finished and kept, because it may have cost
//! hours, and the rest waits for the next run. Ready steps start in the order of the graph and none overtakes
//! another, so that a step that wants the whole machine is not put off by small ones.

mod decide;
mod fetch;
mod finish;
mod outlook;
mod plan;
mod slots;
pub mod sources;
mod why;
mod work;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

pub use decide::{Decider, Decision};
pub use plan::{Planned, Verdict, plan};
pub use why::{Cause, causes};

use crate::digest::Digest;
use crate::error::{Problem, Result};
use crate::event::{Event, Made, Outcome, Say};
use crate::fetch::Settings;
use crate::graph::Graph;
use crate::lockfile::Lockfile;
use crate::spec::Pipeline;
use crate::step::{Machine, Source};
use crate::store::{Lookup, Record, Store};
use slots::slots_of;
use sources::Sources;

/// How to run.
pub struct Options {
    /// The run's name.
    pub run: String,
    /// What was set on the command line.
    pub sets: Vec<String>,
    /// How many slots the machine is divided into (`-j`), at least one.
    pub slots: usize,
    /// The machine.
    pub machine: Machine,
    /// How remote sources are reached.
    pub settings: Arc<Settings>,
    /// What they are.
    pub lock: Arc<Lockfile>,
    /// Set when the user wants to stop.
    pub cancel: Arc<AtomicBool>,
}

/// What is left after a run.
pub struct Summary {
    /// How it ended.
    pub outcome: Outcome,
    /// The records of all steps that are done, by position in the pipeline.
    pub records: BTreeMap<usize, Record>,
}

/// Where a step is; see the drawing at the head of this file.
enum State {
    Waiting,
    Reading,
    Fetching(String),
    Twin(usize),
    Ready(Box<Decision>),
    Running { slots: usize, key: Digest },
    Done,
    Failed,
    Stopped,
}

/// What a thread sends back.
enum Message {
    Said(usize, Say),
    Read(usize, Result<Sources>),
    Fetched(usize, Box<fetch::Fetched>),
    Ended(usize, Box<Result<Record>>),
}

/// Brings the targets of a pipeline up to date and says everything on the way.
pub fn run(pipeline: &Pipeline, store: &Store, options: &Options, say: &mut dyn FnMut(Event)) -> Summary {
    let graph = Graph::of(pipeline);
    let order = graph.order(&pipeline.targets);
    let started = Instant::now();
    say(Event::RunStarted {
        run: options.run.clone(),
        pipeline: pipeline.name.clone(),
        file: pipeline.file.display().to_string(),
        sets: options.sets.clone(),
        steps: order.iter().map(|&step| pipeline.steps[step].id.clone()).collect(),
    });
    let (sender, receiver) = channel();
    let mut run = Run {
        pipeline,
        store,
        options,
        decider: Decider { pipeline, store, machine: &options.machine, lock: &options.lock },
        states: order.iter().map(|&step| (step, State::Waiting)).collect(),
        graph,
        order,
        sources: BTreeMap::new(),
        fetched: BTreeMap::new(),
        records: BTreeMap::new(),
        free: options.slots.max(1),
        first_failure: None,
        failed: Arc::default(),
        counts: Counts::default(),
        say,
    };
    thread::scope(|scope| run.steps(scope, &sender, &receiver));
    run.finish(started)
}

#[derive(Default)]
struct Counts {
    ran: usize,
    reused: usize,
    failed: usize,
    skipped: usize,
    saved_ms: u64,
}

struct Run<'a> {
    pipeline: &'a Pipeline,
    store: &'a Store,
    options: &'a Options,
    decider: Decider<'a>,
    graph: Graph,
    order: Vec<usize>,
    states: BTreeMap<usize, State>,
    sources: BTreeMap<usize, Sources>,
    /// How long the remote sources of steps took.
    fetched: BTreeMap<usize, Duration>,
    records: BTreeMap<usize, Record>,
    free: usize,
    first_failure: Option<usize>,
    /// Set with the first failure, for those who read sources: nobody needs these any more.
    failed: Arc<AtomicBool>,
    counts: Counts,
    say: &'a mut dyn FnMut(Event),
}

impl<'a> Run<'a> {
    fn steps<'s>(&mut self, scope: &'s thread::Scope<'s, '_>, sender: &Sender<Message>, receiver: &Receiver<Message>)
    where
        'a: 's,
    {
        loop {
            self.decide(scope, sender);
            self.start(scope, sender);
            if !self
                .states
                .values()
                .any(|state| matches!(state, State::Reading | State::Fetching(_) | State::Running { .. }))
            {
                return;
            }
            // Words change nothing that has been decided; only an end does.
            loop {
                match receiver.recv() {
                    Ok(Message::Said(step, say)) => self.tell(Event::StepSaid { step: self.id(step), say }),
                    Ok(Message::Read(step, sources)) => break self.has_read(step, sources),
                    Ok(Message::Fetched(step, fetched)) => break self.has_fetched(step, *fetched),
                    Ok(Message::Ended(step, result)) => break self.ended(step, *result),
                    Err(_) => return,
                }
            }
        }
    }

    fn tell(&mut self, event: Event) {
        (self.say)(event);
    }

    fn id(&self, step: usize) -> String {
        self.pipeline.steps[step].id.clone()
    }

    fn stopping(&self) -> bool {
        self.first_failure.is_some() || self.options.cancel.load(Ordering::Relaxed)
    }

    /// Decides all steps whose inputs are known. One pass in order is enough: a hit makes later ones known.
    fn decide<'s>(&mut self, scope: &'s thread::Scope<'s, '_>, sender: &Sender<Message>)
    where
        'a: 's,
    {
        for step in self.order.clone() {
            if self.stopping() {
                return;
            }
            let waits = match self.states[&step] {
                State::Waiting => self.graph.producers(step).iter().any(|producer| !self.is_done(*producer)),
                State::Twin(other) => {
                    matches!(self.states[&other], State::Fetching(_) | State::Ready(_) | State::Running { .. })
                }
                _ => true,
            };
            if waits {
                continue;
            }
            let state = match (self.decider.unfetched(step), self.sources.get(&step).cloned()) {
                (Some(address), _) => self.fetch(scope, sender, step, address),
                (None, Some(sources)) => self.decided(step, sources),
                (None, None) => match self.pipeline.steps[step].action.sources(&self.pipeline.root) {
                    none if none.is_empty() => self.decided(step, Sources::new()),
                    some => self.read(scope, sender, step, some),
                },
            };
            self.states.insert(step, state);
        }
    }

    fn decided(&mut self, step: usize, sources: Sources) -> State {
        match self.decider.decide(step, &self.records, sources) {
            Err(problem) => self.failed(step, problem),
            Ok(decision) => match decision.found {
                Lookup::Hit(record) => self.reused(step, *record),
                Lookup::Miss(_) => match self.with_key(&decision.key) {
                    Some(other) => State::Twin(other),
                    None => State::Ready(Box::new(decision)),
                },
            },
        }
    }

    /// Starts to read the sources of a step.
    fn read<'s>(
        &mut self,
        scope: &'s thread::Scope<'s, '_>,
        sender: &Sender<Message>,
        step: usize,
        list: Vec<Source>,
    ) -> State
    where
        'a: 's,
    {
        let (store, to, cancel, failed) =
            (self.store, sender.clone(), self.options.cancel.clone(), self.failed.clone());
        let read = move || {
            let say = work::thinned(work::pass(step, to.clone()));
            let stop = || cancel.load(Ordering::Relaxed) || failed.load(Ordering::Relaxed);
            let read = sources::read(store, list, &mut sources::told("reading its sources", &say, &stop));
            store.keep_digests();
            // The loop waits for this message, so nobody is gone who could receive it.
            let _ = to.send(Message::Read(step, read));
        };
        match thread::Builder::new().name(format!("sources of {}", self.id(step))).spawn_scoped(scope, read) {
            Ok(_) => State::Reading,
            Err(error) => self.failed(step, no_thread(&error)),
        }
    }

    fn has_read(&mut self, step: usize, sources: Result<Sources>) {
        let state = match sources {
            Ok(sources) => {
                self.sources.insert(step, sources);
                State::Waiting
            }
            // Left because of Ctrl-C or a failure elsewhere.
            Err(problem) if problem.cancelled => State::Waiting,
            Err(problem) => self.failed(step, problem),
        };
        self.states.insert(step, state);
    }

    fn is_done(&self, step: usize) -> bool {
        matches!(self.states[&step], State::Done)
    }

    /// The step that is making the result of this key just now.
    fn with_key(&self, key: &Digest) -> Option<usize> {
        self.order.iter().copied().find(|step| match &self.states[step] {
            State::Ready(decision) => decision.key == *key,
            State::Running { key: running, .. } => running == key,
            _ => false,
        })
    }

    /// Starts ready steps as long as slots are free.
    fn start<'s>(&mut self, scope: &'s thread::Scope<'s, '_>, sender: &Sender<Message>)
    where
        'a: 's,
    {
        for step in self.order.clone() {
            let State::Ready(_) = self.states[&step] else { continue };
            let slots = slots_of(self.pipeline.steps[step].action.share(), self.options.slots);
            if self.stopping() || slots > self.free {
                return;
            }
            let Some(State::Ready(decision)) = self.states.remove(&step) else { return };
            self.states.insert(step, State::Running { slots, key: decision.key.clone() });
            self.free -= slots;
            let why = self.decider.why(step, &decision);
            self.tell(Event::StepStarted { step: self.id(step), key: decision.key.clone(), why });
            let job = work::Job {
                step: &self.pipeline.steps[step],
                position: step,
                root: self.pipeline.root.clone(),
                inputs: self.decider.artifacts(step, &self.records),
                decision: *decision,
                outside: self.outside(step),
                fetched: self.fetched.get(&step).copied().unwrap_or_default(),
                store: self.store,
                options: self.options,
            };
            let to = sender.clone();
            let name = self.id(step);
            let spawned =
                thread::Builder::new().name(name).stack_size(16 << 20).spawn_scoped(scope, move || job.work(&to));
            if let Err(error) = spawned {
                self.ended(step, Err(no_thread(&error)));
            }
        }
    }

    fn ended(&mut self, step: usize, result: Result<Record>) {
        if let State::Running { slots, .. } = self.states[&step] {
            self.free += slots;
        }
        let state = match result {
            Ok(record) => self.ran(step, record),
            Err(problem) if problem.cancelled => State::Stopped,
            Err(problem) => self.failed(step, problem),
        };
        self.states.insert(step, state);
    }

    fn ran(&mut self, step: usize, record: Record) -> State {
        self.counts.ran += 1;
        self.tell(Event::StepFinished {
            step: self.id(step),
            key: record.key.clone(),
            took_ms: record.costs.took_ms,
            costs: record.costs,
            outputs: self.made(&record),
            figures: record.figures.clone(),
        });
        self.done(step, record)
    }

    fn reused(&mut self, step: usize, record: Record) -> State {
        self.counts.reused += 1;
        self.counts.saved_ms += record.costs.took_ms;
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
        self.done(step, record)
    }

    fn done(&mut self, step: usize, record: Record) -> State {
        // Only explanations need it, and a cache that cannot be written is told about where it matters.
        let _ = self.store.remember(&self.pipeline.name, &self.pipeline.steps[step].id, &record.key);
        self.records.insert(step, record);
        State::Done
    }

    fn failed(&mut self, step: usize, problem: Problem) -> State {
        self.counts.failed += 1;
        self.first_failure.get_or_insert(step);
        self.failed.store(true, Ordering::Relaxed);
        self.tell(Event::StepFailed { step: self.id(step), problem });
        State::Failed
    }

    fn made(&self, record: &Record) -> BTreeMap<String, Made> {
        let made = record.outputs.iter().map(|(name, object)| {
            let path = self.store.object(&object.digest).display().to_string();
            (name.clone(), Made { digest: object.digest.clone(), bytes: object.bytes, path })
        });
        made.collect()
    }
}

fn no_thread(error: &std::io::Error) -> Problem {
    Problem::new(format!("cannot start a thread: {error}"))
}
