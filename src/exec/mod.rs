//! The loop that brings the targets up to date: one thread decides, one thread per running step works.
//! It does not know what any step does, nor who listens to its events.
//!
//! ```text
//!    ┌────────────── they are read ◀── Reading ◀──────┐ it has sources
//!    ▼                                                │
//! Waiting ── producers done, inputs have digests ──▶ decide ◀── that one ended ── Twin
//!    │                                                 │                            ▲
//!    │                                                 ├── the same key is here ────┘
//!    │                                                 ├── record found ──▶ Done   (reused)
//!    │                                                 ├── cannot be decided ──▶ Failed
//!    │                                                 └── no record ──▶ Ready ── slots and lease ──▶ Running
//!    │                                                                  │   ▲                            │
//!    │                          another process holds its lease ── Joined ──┘ it let go of it            │
//!    │                                                                  └──▶ Done   (it made the record) │
//!    │                                                  Done ◀── outputs and record in the store ────────┤
//!    └── a step failed, or Ctrl-C ──▶ left as it is     Failed ◀── problem or panic ─────────────────────┤
//!                                                       Stopped ◀── Ctrl-C ──────────────────────────────┘
//! ```
//!
//! While all slots are taken, the first of the ready steps wait Ahead, all prepared: a thread that ends a step may go on
//! with one of them at once, and the loop hears of both (`ahead`).
//!
//! Sources may be many gigabytes, so a thread of their own reads them, while the loop goes on. They are read when
//! all producers are done, not before: between their reading and the end of the step they must not change.
//!
//! What lies on another machine is fetched first, because its content is part of the key: a step whose remote source
//! `pipe.lock` does not know is Fetching, as it may be Reading.
//!
//! After a failure nothing new is started, unless the user wants to keep going: then all runs that does not need what
//! failed. What runs already is finished and kept, because it may have cost hours.
//!
//! The loop never walks over all steps: an event is worth the steps that it concerns, however many there are.

mod ahead;
pub mod bench;
mod costs;
mod decide;
mod end;
mod fetch;
mod finish;
mod forecast;
mod gate;
mod hardware;
mod inputs;
mod lengths;
mod outlook;
mod panics;
mod plan;
mod pool;
mod priority;
pub mod recall;
mod slots;
pub mod sources;
mod start;
mod stop;
mod team;
mod together;
mod why;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, Scope};
use std::time::{Duration, Instant, SystemTime};

pub use costs::{cpu_ms, forget_peak, peak};
pub use decide::{Decider, Decision};
pub use forecast::Forecast;
pub use hardware::processor;
pub use plan::{Planned, Verdict, plan};
pub use slots::Capacity;
pub use why::{Cause, Nearest, causes, downstream};

use crate::digest::Digest;
use crate::error::{Problem, Result};
use crate::event::{Event, Outcome, Say};
use crate::fetch::Settings;
use crate::graph::Graph;
use crate::lockfile::Lockfile;
use crate::spec::Pipeline;
use crate::step::Machine;
use crate::store::{Record, Store};
use ahead::{Ahead, Laid};
use costs::Crowd;
use forecast::Due;
use lengths::Lengths;
use pool::Pool;
use recall::{Gathered, Known, Recall};
use slots::{Grant, Rank, Slots};
use sources::Sources;
use stop::Stop;

/// How to run.
pub struct Options {
    /// The run's name.
    pub run: String,
    /// What was set on the command line.
    pub sets: Vec<String>,
    /// What of the machine all steps together may use.
    pub capacity: Capacity,
    /// What is run, and when it ends.
    pub choice: Choice,
    /// The machine.
    pub machine: Machine,
    /// How remote sources are reached.
    pub settings: Arc<Settings>,
    /// What they are.
    pub lock: Arc<Lockfile>,
    /// Set when the user wants to stop.
    pub cancel: Arc<AtomicBool>,
    /// What is known from the last run of this kind, and whether to keep it for the next.
    pub recall: Option<Recall>,
}

/// What the user chose beside the targets.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// After a failure, all runs that does not need what failed.
    pub keep_going: bool,
    /// Steps that run though their results are there.
    pub forced: BTreeSet<usize>,
    /// The only steps that may run; the results of all others must be there.
    pub only: Option<BTreeSet<usize>>,
    /// So many steps at most do their work together where they can; `None` lets them where that pays and changes no
    /// byte of the results.
    pub together: Option<usize>,
}

/// Records by position in the pipeline. In boxes: a tree has room for more than it holds.
pub type Records = BTreeMap<usize, Box<Record>>;

/// What is left after a run.
pub struct Summary {
    /// How it ended.
    pub outcome: Outcome,
    /// True if steps failed, and each of them because of an expectation.
    pub gated: bool,
    /// The records of all steps that are done. Their manifests lie in the store: of thousands they would fill the memory.
    pub records: Records,
}

/// Where a step is; see the drawing at the head of this file.
enum State {
    /// No target needs it.
    Unneeded,
    Waiting,
    Reading,
    Fetching,
    Twin,
    Ready(Arc<Decision>),
    Ahead(Box<Laid>),
    Joined(Arc<Decision>),
    Running {
        grant: Grant,
        stop: Arc<Stop>,
        begun: Instant,
        /// Those that do their work together with it, and itself.
        team: Arc<[usize]>,
    },
    Done,
    Failed,
    Stopped,
}

/// What a thread sends back.
enum Message {
    Said(usize, Say),
    Retrying(usize, Problem, Duration),
    Read(Vec<(usize, Result<Sources>)>),
    Fetched(usize, Box<fetch::Fetched>),
    /// A step that waited ahead is not for the thread that took it.
    Back(usize, Arc<Decision>),
    /// With the step that its thread goes on with.
    Ended(usize, Box<Result<work::Ended>>, Option<usize>),
}

/// Where threads are started, and how they send back.
struct Threads<'s, 'e> {
    scope: &'s Scope<'s, 'e>,
    sender: Sender<Message>,
    pool: Pool<'s>,
}

/// So many events at most wait to be said together.
const TOGETHER: usize = 256;

/// Brings the targets of a pipeline up to date and says everything on the way; what happens at once, at once.
pub fn run(pipeline: &Pipeline, store: &Store, options: &Options, say: &mut dyn FnMut(Vec<Event>)) -> Summary {
    let (started, began) = (Instant::now(), SystemTime::now());
    let graph = Graph::of(pipeline);
    let order = graph.order(&pipeline.targets);
    let found = options.recall.as_ref().and_then(|recall| recall.found.as_ref());
    let known = found.and_then(|found| Known::of(found, store, pipeline, &order));
    say(vec![Event::RunStarted {
        run: options.run.clone(),
        pipeline: pipeline.name.clone(),
        file: pipeline.file.display().to_string(),
        sets: options.sets.clone(),
        steps: order.iter().map(|&step| pipeline.steps[step].id.clone()).collect(),
    }]);
    let mut states: Vec<State> = pipeline.steps.iter().map(|_| State::Unneeded).collect();
    let mut open = vec![0; states.len()];
    for &step in &order {
        states[step] = State::Waiting;
        open[step] = graph.producers(step).len();
    }
    let mut place = vec![usize::MAX; states.len()];
    order.iter().enumerate().for_each(|(i, &step)| place[step] = i);
    let mut run = Run {
        pipeline,
        store,
        options,
        decider: Decider { pipeline, store, machine: &options.machine, lock: &options.lock },
        undecided: order.iter().filter(|&&step| open[step] == 0).map(|&step| place[step]).collect(),
        states,
        open,
        place,
        graph,
        order,
        keys: BTreeMap::new(),
        making: BTreeMap::new(),
        renewed: BTreeSet::new(),
        twins: BTreeMap::new(),
        ready: BTreeMap::new(),
        unranked: Vec::new(),
        ahead: Arc::default(),
        heirs: BTreeMap::new(),
        joined: BTreeSet::new(),
        timed: BTreeSet::new(),
        fetching: BTreeMap::new(),
        to_fetch: VecDeque::new(),
        busy: 0,
        lengths: None,
        ways: None,
        due: Due::default(),
        sources: BTreeMap::new(),
        fetched: BTreeMap::new(),
        records: Records::new(),
        slots: Slots::of(&options.capacity),
        crowd: Arc::default(),
        first_failure: None,
        gated: true,
        failed: Arc::default(),
        looked: Instant::now(),
        counts: Counts::default(),
        known,
        gathered: Gathered::default(),
        ran: BTreeSet::new(),
        began,
        events: Vec::new(),
        say,
    };
    let (sender, receiver) = channel();
    thread::scope(|scope| run.steps(&Threads { scope, sender, pool: Pool::new() }, &receiver));
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
    /// The place of each step in `order`.
    place: Vec<usize>,
    /// By position in the pipeline, as all that follows unless it says otherwise.
    states: Vec<State>,
    /// How many producers of a step are not done.
    open: Vec<usize>,
    /// Places of steps whose producers are done and that are to be decided.
    undecided: BTreeSet<usize>,
    /// Who is making the result of a key here, or waits to.
    keys: BTreeMap<Digest, usize>,
    /// The same the other way round.
    making: BTreeMap<usize, Digest>,
    /// Keys whose results were made in this run; only kept where steps are forced to run.
    renewed: BTreeSet<Digest>,
    /// Who waits for another step: one with the same key or the same remote source.
    twins: BTreeMap<usize, Vec<usize>>,
    ready: BTreeMap<Rank, usize>,
    /// Ready steps whose turn is not known yet.
    unranked: Vec<usize>,
    /// Those that wait for a slot all prepared.
    ahead: Arc<Ahead<'a>>,
    /// The first of those that the end of a running step may let go on, for steps in whose place another goes on.
    heirs: BTreeMap<usize, Rank>,
    joined: BTreeSet<usize>,
    /// Running steps with a time limit.
    timed: BTreeSet<usize>,
    fetching: BTreeMap<String, usize>,
    to_fetch: VecDeque<usize>,
    /// How many threads will send something.
    busy: usize,
    /// How long steps take; read when the first step is to start.
    lengths: Option<Lengths>,
    /// See [`priority::ways`]; worked out when the first step is to start.
    ways: Option<BTreeMap<usize, u64>>,
    /// When to tell how long the run will go on.
    due: Due,
    sources: BTreeMap<usize, Sources>,
    /// How long the remote sources of steps took.
    fetched: BTreeMap<usize, Duration>,
    records: Records,
    slots: Slots,
    crowd: Arc<Crowd>,
    first_failure: Option<usize>,
    /// True as long as nothing failed but expectations.
    gated: bool,
    /// Set when nothing new is started any more, for those who read sources: nobody needs these.
    failed: Arc<AtomicBool>,
    looked: Instant,
    counts: Counts,
    /// What the receipt of the last run says of these steps.
    known: Option<Known<'a>>,
    /// What the steps were decided with that were not taken from it.
    gathered: Gathered,
    /// Steps that ran, here or in another process that was waited for.
    ran: BTreeSet<usize>,
    /// When the run began, by the clock that files have.
    began: SystemTime,
    /// What has happened and is not said yet.
    events: Vec<Event>,
    say: &'a mut dyn FnMut(Vec<Event>),
}

impl<'a> Run<'a> {
    fn steps<'s>(&mut self, threads: &Threads<'s, '_>, receiver: &Receiver<Message>)
    where
        'a: 's,
    {
        loop {
            self.decide(threads);
            self.start(threads);
            if self.busy == 0 && (self.joined.is_empty() || self.stopping()) {
                return;
            }
            self.foresee();
            self.wait(receiver);
        }
    }

    /// Hears what threads say until something ends, and then all that has been said already.
    fn wait(&mut self, receiver: &Receiver<Message>) {
        let mut ended = false;
        while !ended {
            self.speak();
            let message = match self.pause() {
                Some(pause) => receiver.recv_timeout(pause),
                None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match message {
                Ok(message) => ended = self.hear(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.pause().is_some_and(|pause| self.looked.elapsed() >= pause) {
                self.looked = Instant::now();
                self.look();
                ended = true;
            }
        }
        while let Ok(message) = receiver.try_recv() {
            self.hear(message);
        }
    }

    /// True if it may change what can be decided or started: words change nothing, only an end does.
    fn hear(&mut self, message: Message) -> bool {
        match message {
            Message::Said(step, say) => {
                self.tell(Event::StepSaid { step: self.id(step), say });
                return false;
            }
            Message::Retrying(step, problem, pause) => {
                let wait_ms = pause.as_millis() as u64;
                self.tell(Event::StepRetrying { step: self.id(step), problem, wait_ms });
                return false;
            }
            Message::Read(read) => self.has_read(read),
            Message::Fetched(step, fetched) => self.has_fetched(step, *fetched),
            Message::Back(step, decision) => self.is_ready(step, decision),
            Message::Ended(step, result, next) => self.ended(step, *result, next),
        }
        true
    }

    /// How soon to look at clocks and at what other processes do, if there is any of that.
    fn pause(&self) -> Option<Duration> {
        match (self.joined.is_empty(), self.timed.is_empty()) {
            (false, _) => Some(start::JOINED),
            (true, false) => Some(stop::LOOK),
            (true, true) => None,
        }
    }

    fn look(&mut self) {
        for step in &self.timed {
            if let State::Running { stop, .. } = &self.states[*step] {
                stop.look();
            }
        }
        self.look_at_joined();
    }

    /// Lets an event be said, at the latest before anything is waited for.
    fn tell(&mut self, event: Event) {
        self.events.push(event);
        if self.events.len() >= TOGETHER {
            self.speak();
        }
    }

    fn speak(&mut self) {
        if !self.events.is_empty() {
            (self.say)(std::mem::take(&mut self.events));
        }
    }

    fn id(&self, step: usize) -> String {
        self.pipeline.steps[step].id.clone()
    }

    /// True once nothing new is to be started.
    fn stopping(&self) -> bool {
        self.options.cancel.load(Ordering::Relaxed) || (self.first_failure.is_some() && !self.options.choice.keep_going)
    }
}
