//! The laws of the scheduler, over any graph, any machine, any choice and any failures, through the real loop and a real
//! store: a legal order, no more of the machine than there is, one fate for each step, nothing done twice, and the same
//! bytes whatever ran beside what. It does not know how the loop decides: only what it says and what steps see.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pipe::digest::Digest;
use pipe::error::{Problem, Result};
use pipe::event::{Event, Outcome};
use pipe::exec::{self, Capacity, Choice, Options};
use pipe::lockfile::Lockfile;
use pipe::spec::{self, Pipeline};
use pipe::step::{AnyKind, Arity, Context, Input, Kind, Machine, Output, kind};
use pipe::store::Store;
use proptest::prelude::*;
use proptest::sample::Index;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::support::long;

// ---- what a step is and sees ------------------------------------------------------------------------------------

/// A step of a graph that is made up; producers come before it.
#[derive(Debug, Clone)]
struct Plan {
    producers: BTreeSet<usize>,
    /// A step whose figure its expectation names.
    after: Option<usize>,
    /// What is made: steps with one salt and the same inputs have one key, and 0 makes the same of any inputs.
    salt: u64,
    cpu: usize,
    memory: u64,
    gpus: usize,
    /// So many attempts fail, and how.
    fails: u32,
    panics: bool,
    retries: u32,
    /// Its figure, the salt, is expected to be less.
    ceiling: Option<u64>,
    pause: Duration,
}

impl Plan {
    fn gated(&self) -> bool {
        self.ceiling.is_some_and(|ceiling| self.salt >= ceiling)
    }
}

/// What the steps of a run see of each other.
#[derive(Default)]
struct World {
    plans: Vec<Plan>,
    capacity: Option<Capacity>,
    /// No step fails any more.
    healed: bool,
    /// The GPUs of each step that is at work.
    working: BTreeMap<usize, Vec<usize>>,
    /// The GPUs of each attempt of a step.
    attempts: BTreeMap<usize, Vec<Vec<usize>>>,
    breaches: Vec<String>,
}

type Shared = Arc<Mutex<World>>;

static WORLDS: Mutex<BTreeMap<u64, Shared>> = Mutex::new(BTreeMap::new());

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a step takes of a machine: no more than there is, but for GPUs.
fn need(plan: &Plan, capacity: &Capacity) -> (usize, u64, usize) {
    (plan.cpu.min(capacity.cpu), capacity.memory.map_or(0, |all| plan.memory.min(all)), plan.gpus)
}

/// A breach, if these steps hold more of the machine than there is, or two of them the same GPU.
fn too_much(plans: &[Plan], capacity: &Capacity, holders: &BTreeMap<usize, Vec<usize>>) -> Option<String> {
    let needs = holders.keys().map(|&step| need(&plans[step], capacity));
    let (cpu, memory) = needs.fold((0, 0), |(cpu, memory), need| (cpu + need.0, memory + need.1));
    let gpus: Vec<usize> = holders.values().flatten().copied().collect();
    let apart = gpus.iter().collect::<BTreeSet<_>>().len() == gpus.len();
    let there = gpus.iter().all(|gpu| capacity.gpus.contains(gpu));
    let fits = cpu <= capacity.cpu && memory <= capacity.memory.unwrap_or_default() && apart && there;
    (!fits).then(|| format!("{holders:?} hold {cpu} cores, {memory} bytes and the GPUs {gpus:?} of {capacity:?}"))
}

struct Task;

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TaskParams {
    /// What enters the key.
    salt: u64,
    /// Which step it is.
    step: usize,
    /// Where it tells what it sees.
    world: u64,
}

impl Kind for Task {
    const NAME: &'static str = "task";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "tells what it sees";
    const EXAMPLE: &'static str = "";
    const INPUTS: &'static [Input] = &[Input { name: "parts", arity: Arity::Any, named: false, doc: "what it reads" }];
    const OUTPUTS: &'static [Output] = &[Output { name: "text", file: "text.txt", doc: "a text" }];
    type Params = TaskParams;

    fn keyed(params: &TaskParams) -> Value {
        json!({ "salt": params.salt })
    }

    fn run(params: &TaskParams, cx: &mut Context) -> Result<()> {
        let world = locked(&WORLDS)[&params.world].clone();
        let (plan, attempt) = {
            let mut world = locked(&world);
            let gpus = cx.gpus().to_vec();
            if world.working.insert(params.step, gpus.clone()).is_some() {
                world.breaches.push(format!("s{} is at work twice", params.step));
            }
            let capacity = world.capacity.clone().expect("a run has begun");
            let breach = too_much(&world.plans, &capacity, &world.working);
            world.breaches.extend(breach);
            let attempts = world.attempts.entry(params.step).or_default();
            attempts.push(gpus);
            let attempt = attempts.len();
            let mut plan = world.plans[params.step].clone();
            plan.fails = if world.healed { 0 } else { plan.fails };
            (plan, attempt)
        };
        let mut text = plan.salt.to_string();
        for part in cx.inputs("parts").iter().filter(|_| plan.salt > 0) {
            text += &fs::read_to_string(&part.path).expect("its producer is done");
        }
        std::thread::sleep(plan.pause);
        fs::write(cx.output("text.txt"), Digest::of(text.as_bytes()).short()).expect("written");
        cx.figure("value", plan.salt as f64);
        locked(&world).working.remove(&params.step);
        match attempt <= plan.fails as usize {
            true if plan.panics => panic!("as planned"),
            true => Err(Problem::new("as planned")),
            false => cx.check_cancelled(),
        }
    }
}

static KINDS: &[&dyn AnyKind] = &[&kind::<Task>()];

// ---- a case -----------------------------------------------------------------------------------------------------

#[derive(Debug, Clone)]
struct Case {
    plans: Vec<Plan>,
    /// The places of the steps in the file.
    places: Vec<usize>,
    targets: BTreeSet<usize>,
    forced: BTreeSet<usize>,
    only: Option<BTreeSet<usize>>,
    keep_going: bool,
    /// After so many events the user stops the run.
    stopped: Option<usize>,
    capacity: Capacity,
    /// Another machine.
    other: Capacity,
}

fn plan() -> impl Strategy<Value = (Plan, Vec<Index>, Option<Index>)> {
    let edges = (prop::collection::vec(any::<Index>(), 0..4), prop::option::weighted(0.2, any::<Index>()));
    let takes = (1usize..4, 0u64..8, prop_oneof![4 => Just(0usize), 2 => Just(1), 1 => Just(2)]);
    let fails = prop_oneof![6 => Just(0u32), 2 => 1u32..3, 1 => Just(u32::MAX)];
    let fate = (fails, any::<bool>(), 0u32..3, prop::option::weighted(0.15, 1u64..4));
    (edges, takes, fate, 0u64..4, 0u64..3).prop_map(|((producers, after), takes, fate, salt, pause)| {
        let (cpu, memory, gpus) = takes;
        let (fails, panics, retries, ceiling) = fate;
        let pause = Duration::from_micros(pause * 500);
        let none = BTreeSet::new();
        let plan =
            Plan { producers: none, after: None, salt, cpu, memory, gpus, fails, panics, retries, ceiling, pause };
        (plan, producers, after)
    })
}

fn capacity() -> impl Strategy<Value = Capacity> {
    let gpus = prop::sample::subsequence(vec![0usize, 1, 4, 7], 0..=3);
    (1usize..5, prop::option::of(0u64..10), gpus).prop_map(|(cpu, memory, gpus)| Capacity { cpu, memory, gpus })
}

fn case(most: usize) -> impl Strategy<Value = Case> {
    let steps = prop::collection::vec(plan(), 1..=most);
    (steps, capacity(), capacity(), any::<bool>()).prop_flat_map(|(steps, capacity, other, keep_going)| {
        let count = steps.len();
        let mut plans = Vec::new();
        for (at, (mut plan, producers, after)) in steps.into_iter().enumerate() {
            if at > 0 {
                plan.producers = producers.iter().map(|index| index.index(at)).collect();
                plan.after = after.map(|index| index.index(at));
            }
            plans.push(plan);
        }
        let all: Vec<usize> = (0..count).collect();
        let some = || prop::sample::subsequence(all.clone(), 0..=count).prop_map(BTreeSet::from_iter);
        let few = || prop::sample::subsequence(all.clone(), 0..=count.div_ceil(4)).prop_map(BTreeSet::from_iter);
        let chosen = (some(), few(), prop::option::weighted(0.15, some()));
        let stopped = prop::option::weighted(0.15, 1usize..40);
        (Just(plans), Just(all.clone()).prop_shuffle(), chosen, stopped).prop_map(
            move |(plans, places, chosen, stopped)| {
                let (targets, forced, only) = chosen;
                let (capacity, other) = (capacity.clone(), other.clone());
                Case { plans, places, targets, forced, only, keep_going, stopped, capacity, other }
            },
        )
    })
}

impl Case {
    /// The pipeline file; with `gates`, expectations may fail.
    fn yaml(&self, world: u64, gates: bool) -> String {
        let mut yaml = String::from("name: p\nsteps:\n");
        for &at in &self.places {
            let plan = &self.plans[at];
            let mut expect = Vec::new();
            expect.extend(plan.ceiling.filter(|_| gates).map(|ceiling| format!("value < {ceiling}")));
            expect.extend(plan.after.map(|after| format!("value + s{after}.value >= 0")));
            let parts: Vec<String> = plan.producers.iter().map(|producer| format!("s{producer}")).collect();
            let step = json!({
                "uses": "task",
                "in": if parts.is_empty() { json!({}) } else { json!({ "parts": parts }) },
                "with": { "salt": plan.salt, "step": at, "world": world },
                "resources": { "cpu": plan.cpu, "memory": plan.memory, "gpu": plan.gpus },
                "retries": { "times": plan.retries, "backoff": "1ms" },
                "expect": expect,
            });
            let _ = writeln!(yaml, "  s{at}: {step}");
        }
        yaml
    }

    fn pipeline(&self, root: &Path, world: u64, gates: bool) -> Pipeline {
        let targets = self.targets.iter().map(|target| format!("s{target}")).collect();
        let options = spec::Options { kinds: KINDS, targets, ..spec::Options::default() };
        let problems = |problems: spec::Problems| panic!("{}", pipe::ui::problem::render(&problems, false));
        spec::load_text(&root.join("p.yaml"), &self.yaml(world, gates), &options).unwrap_or_else(problems)
    }

    /// The steps that the targets need.
    fn needed(&self) -> BTreeSet<usize> {
        let mut open: Vec<usize> = if self.targets.is_empty() {
            (0..self.plans.len()).collect()
        } else {
            self.targets.iter().copied().collect()
        };
        let mut needed = BTreeSet::new();
        while let Some(step) = open.pop() {
            if needed.insert(step) {
                open.extend(self.producers(step));
            }
        }
        needed
    }

    fn producers(&self, step: usize) -> BTreeSet<usize> {
        self.plans[step].producers.iter().copied().chain(self.plans[step].after).collect()
    }
}

/// How one run is made.
struct How {
    capacity: Capacity,
    choice: Chosen,
    healed: bool,
    stopped: Option<usize>,
}

/// What is chosen, by the numbers of the steps.
#[derive(Clone, Default)]
struct Chosen {
    keep_going: bool,
    forced: BTreeSet<usize>,
    only: Option<BTreeSet<usize>>,
}

/// What became of the steps.
#[derive(Debug, Default)]
struct Fates {
    ran: BTreeMap<usize, Digest>,
    reused: BTreeMap<usize, Digest>,
    failed: BTreeMap<usize, Problem>,
    skipped: BTreeMap<usize, usize>,
    outputs: BTreeMap<usize, Digest>,
    outcome: Option<Outcome>,
    /// The steps in the order of the graph, and in that in which they began.
    order: Vec<usize>,
    began: Vec<usize>,
}

impl Fates {
    fn of(&self, step: usize) -> usize {
        let has = [
            self.ran.contains_key(&step),
            self.reused.contains_key(&step),
            self.failed.contains_key(&step),
            self.skipped.contains_key(&step),
        ];
        has.iter().filter(|has| **has).count()
    }

    fn is_done(&self, step: usize) -> bool {
        self.ran.contains_key(&step) || self.reused.contains_key(&step)
    }

    fn done(&self) -> BTreeMap<usize, Digest> {
        self.ran.iter().chain(&self.reused).map(|(step, key)| (*step, key.clone())).collect()
    }
}

/// Fails the case with a sentence.
macro_rules! hold {
    ($holds:expr, $($told:tt)+) => {
        if !$holds {
            return Err(format!($($told)+));
        }
    };
}

type Told<T> = std::result::Result<T, String>;

/// One run, and what always holds of it. `made` are the keys that have results.
fn run(case: &Case, how: &How, root: &Path, gates: bool, made: &mut BTreeSet<Digest>) -> Told<Fates> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let (plans, capacity) = (case.plans.clone(), Some(how.capacity.clone()));
    let world = Shared::new(Mutex::new(World { plans, capacity, healed: how.healed, ..World::default() }));
    locked(&WORLDS).insert(number, world.clone());
    let pipeline = case.pipeline(root, number, gates);
    let place = |step: &usize| case.places.iter().position(|at| at == step).expect("it stands in the file");
    let choice = Choice {
        keep_going: how.choice.keep_going,
        forced: how.choice.forced.iter().map(place).collect(),
        only: how.choice.only.as_ref().map(|only| only.iter().map(place).collect()),
        together: None,
    };
    let cancel = Arc::new(AtomicBool::new(false));
    let options = Options {
        run: pipe::run::name(),
        sets: Vec::new(),
        capacity: how.capacity.clone(),
        choice,
        machine: Machine::plain("cpu", 2),
        settings: Arc::default(),
        lock: Arc::new(Lockfile::none()),
        cancel: cancel.clone(),
        recall: None,
    };
    let (mut events, mut heard) = (Vec::new(), None);
    let store = Store::at(root.join("cache"));
    // It ends: a step that nobody lets go on has no fate afterwards.
    let summary = exec::run(&pipeline, &store, &options, &mut |told| {
        let before = events.len();
        events.extend(told);
        if how.stopped.is_some_and(|at| (before + 1..=events.len()).contains(&at)) {
            cancel.store(true, Ordering::Relaxed);
            heard = Some(events.len());
        }
    });
    locked(&WORLDS).remove(&number);
    let world = locked(&world);
    hold!(world.breaches.is_empty(), "{:?}", world.breaches);
    hold!(world.working.is_empty(), "{:?} are still at work", world.working);
    let judge = Judge { case, how, gates, heard, attempts: &world.attempts };
    let fates = judge.judge(&events, made).map_err(|told| format!("{told}\n{}", shown(&events)))?;
    hold!(fates.outcome == Some(summary.outcome), "the summary says {:?}", summary.outcome);
    let records: BTreeSet<&str> = summary.records.keys().map(|&at| pipeline.steps[at].id.as_str()).collect();
    let done = fates.done();
    hold!(records.len() == done.len(), "records of {records:?}, and done are {:?}", done.keys());
    let leases = pipe::digest::files_below(&root.join("cache/leases")).unwrap_or_default();
    hold!(leases.iter().all(|file| file == "lock"), "leases are left: {leases:?}");
    Ok(fates)
}

fn shown(events: &[Event]) -> String {
    events.iter().map(|event| format!("  {}\n", serde_json::to_string(event).expect("JSON"))).collect()
}

struct Judge<'a> {
    /// How many events had been told when the run was stopped: what happens at once is told at once.
    heard: Option<usize>,
    case: &'a Case,
    how: &'a How,
    gates: bool,
    attempts: &'a BTreeMap<usize, Vec<Vec<usize>>>,
}

impl Judge<'_> {
    /// Goes through the events as they came.
    fn judge(&self, events: &[Event], made: &mut BTreeSet<Digest>) -> Told<Fates> {
        let (case, choice) = (self.case, &self.how.choice);
        let number = |id: &str| id[1..].parse::<usize>().expect("a step");
        let needed = case.needed();
        let (mut fates, mut holders, mut making) = (Fates::default(), BTreeMap::new(), BTreeMap::new());
        let mut renewed = BTreeSet::new();
        let mut late = 0;
        let (first, last) = (events.first(), events.last());
        let Some(Event::RunStarted { steps, .. }) = first else { return Err("the first event is another".to_owned()) };
        let order: Vec<usize> = steps.iter().map(|id| number(id)).collect();
        hold!(order.iter().copied().collect::<BTreeSet<_>>() == needed, "needed are {needed:?}");
        for (at, step) in order.iter().enumerate() {
            let before = case.producers(*step).iter().all(|producer| order[..at].contains(producer));
            hold!(before, "s{step} stands before what it needs");
        }
        for (at, event) in events.iter().enumerate() {
            let step = match event {
                Event::StepStarted { step, .. }
                | Event::StepReused { step, .. }
                | Event::StepFinished { step, .. }
                | Event::StepFailed { step, .. }
                | Event::StepSkipped { step, .. }
                | Event::StepRetrying { step, .. }
                | Event::StepJoined { step, .. } => number(step),
                _ => continue,
            };
            hold!(needed.contains(&step), "nobody needs s{step}");
            hold!(fates.of(step) == 0, "s{step} has had its end before the event {at}");
            let runs = holders.contains_key(&step);
            let ready = case.producers(step).iter().all(|producer| fates.is_done(*producer));
            let forced = choice.forced.contains(&step);
            match event {
                Event::StepStarted { key, .. } => {
                    hold!(ready && !runs, "s{step} begins before what it needs is done, or twice");
                    // A thread that ended a step may have gone on with the next one just before.
                    let stopped = self.heard.is_some_and(|heard| at >= heard);
                    let failed = !fates.failed.is_empty() && !choice.keep_going;
                    late += usize::from(stopped || failed);
                    let most = 2 * self.how.capacity.cpu;
                    hold!(late <= most, "s{step} begins long after the run was stopped, or after a failure");
                    hold!(choice.only.as_ref().is_none_or(|only| only.contains(&step)), "s{step} is not to run");
                    let there = if forced { renewed.contains(key) } else { made.contains(key) };
                    hold!(!there, "s{step} begins though its result is there");
                    let twin = making.insert(key.clone(), step);
                    hold!(twin.is_none(), "s{step} makes what {twin:?} is making");
                    let gpus = self.attempts.get(&step).and_then(|attempts| attempts.first()).cloned();
                    fates.began.push(step);
                    holders.insert(step, gpus.unwrap_or_default());
                    if let Some(breach) = too_much(&case.plans, &self.how.capacity, &holders) {
                        return Err(breach);
                    }
                }
                Event::StepRetrying { .. } => hold!(runs, "s{step} is tried again without having begun"),
                Event::StepFinished { key, retries, outputs, .. } => {
                    hold!(runs, "s{step} ends without having begun");
                    self.succeeded(step, *retries)?;
                    made.insert(key.clone());
                    renewed.insert(key.clone());
                    fates.ran.insert(step, key.clone());
                    fates.outputs.insert(step, outputs["text"].digest.clone());
                }
                Event::StepReused { key, outputs, .. } => {
                    hold!(ready && !runs, "s{step} is found before what it needs is done, or while it runs");
                    hold!(!forced || renewed.contains(key), "s{step} is forced to run, and was not");
                    hold!(made.contains(key), "s{step} is found though nobody made it");
                    hold!(!self.attempts.contains_key(&step), "s{step} was found and ran");
                    hold!(!self.gated(step), "s{step} is used though it is not what is expected");
                    fates.reused.insert(step, key.clone());
                    fates.outputs.insert(step, outputs["text"].digest.clone());
                }
                Event::StepFailed { problem, .. } => {
                    hold!(ready, "s{step} fails before what it needs is done");
                    self.failed(step, problem, runs)?;
                    fates.failed.insert(step, problem.clone());
                }
                Event::StepSkipped { because, .. } => {
                    hold!(!runs, "s{step} is skipped while it runs");
                    hold!(
                        fates.failed.contains_key(&number(because)),
                        "s{step} is skipped because of what did not fail"
                    );
                    fates.skipped.insert(step, number(because));
                }
                _ => return Err(format!("s{step} waits for another process, and there is none")),
            }
            if fates.of(step) == 1 {
                holders.remove(&step);
                making.retain(|_, maker| *maker != step);
            }
        }
        let Some(Event::RunFinished { outcome, ran, reused, failed, skipped, .. }) = last else {
            return Err("the last event is another".to_owned());
        };
        let counts = [fates.ran.len(), fates.reused.len(), fates.failed.len(), fates.skipped.len()];
        hold!(counts == [*ran, *reused, *failed, *skipped], "counted are {counts:?}");
        fates.outcome = Some(*outcome);
        fates.order = order;
        self.ends(&fates, &needed, !holders.is_empty())?;
        Ok(fates)
    }

    /// What holds when all is over.
    fn ends(&self, fates: &Fates, needed: &BTreeSet<usize>, unfinished: bool) -> Told<()> {
        let stopped = self.how.stopped.is_some();
        for &step in needed {
            let ends = fates.of(step);
            hold!(ends == 1 || (stopped && ends == 0), "s{step} has {ends} ends");
            if let Some(because) = fates.skipped.get(&step).filter(|_| !stopped && self.how.choice.keep_going) {
                let above = ancestors(self.case, step);
                hold!(above.contains(because), "s{step} is skipped because of s{because}, which it does not need");
            }
        }
        hold!(!unfinished || stopped, "a step began and has no end");
        let expected = match (fates.failed.is_empty(), fates.done().len() == needed.len()) {
            (false, _) => Outcome::Failed,
            (true, true) => Outcome::Done,
            (true, false) => Outcome::Interrupted,
        };
        hold!(fates.outcome == Some(expected), "the outcome is {:?}, not {expected:?}", fates.outcome);
        hold!(expected != Outcome::Interrupted || stopped, "nobody stopped it");
        Ok(())
    }

    fn gated(&self, step: usize) -> bool {
        self.gates && self.case.plans[step].gated()
    }

    fn fails(&self, step: usize) -> u32 {
        if self.how.healed { 0 } else { self.case.plans[step].fails }
    }

    fn succeeded(&self, step: usize, retries: u32) -> Told<()> {
        let plan = &self.case.plans[step];
        let attempts = self.attempts.get(&step).map_or(&[][..], Vec::as_slice);
        hold!(attempts.len() as u32 == retries + 1, "s{step} has {} attempts", attempts.len());
        hold!(retries == self.fails(step) && retries <= plan.retries, "s{step} succeeds after {retries} failures");
        hold!(!self.gated(step), "s{step} is kept though it is not what is expected");
        let same = attempts.iter().all(|gpus| *gpus == attempts[0] && gpus.len() == plan.gpus);
        hold!(same, "s{step} has the GPUs {attempts:?}");
        Ok(())
    }

    /// There is a reason for a failure, and it was tried as often as it may be.
    fn failed(&self, step: usize, problem: &Problem, ran: bool) -> Told<()> {
        let plan = &self.case.plans[step];
        let attempts = self.attempts.get(&step).map_or(0, |attempts| attempts.len() as u32);
        if !ran {
            hold!(attempts == 0, "s{step} ran without having begun");
            let alone = self.how.choice.only.as_ref().is_some_and(|only| !only.contains(&step));
            let too_many = plan.gpus > self.how.capacity.gpus.len();
            hold!(alone || too_many || self.gated(step), "s{step} fails without a reason: {problem}");
        } else if self.fails(step) > plan.retries {
            hold!(attempts == plan.retries + 1, "s{step} fails after {attempts} attempts");
            hold!(problem.what.contains("as planned") && !problem.gate, "s{step}: {problem}");
        } else {
            hold!(self.gated(step) && problem.gate, "s{step} fails without a reason: {problem}");
            hold!(attempts == self.fails(step) + 1, "s{step} has {attempts} attempts before its expectation");
        }
        Ok(())
    }
}

fn ancestors(case: &Case, step: usize) -> BTreeSet<usize> {
    let (mut found, mut open) = (BTreeSet::new(), vec![step]);
    while let Some(step) = open.pop() {
        open.extend(case.producers(step).into_iter().filter(|&producer| found.insert(producer)));
    }
    found
}

/// A run with everything that may happen, then what is left of it, then nothing; and the same on another machine.
fn laws(case: &Case) -> Told<()> {
    let folder = tempfile::tempdir().expect("a folder");
    let (here, there) = (folder.path().join("here"), folder.path().join("there"));
    let mut made = BTreeSet::new();
    let how = |capacity: &Capacity| How {
        capacity: capacity.clone(),
        choice: Chosen::default(),
        healed: true,
        stopped: None,
    };
    let choice = Chosen { keep_going: case.keep_going, forced: case.forced.clone(), only: case.only.clone() };
    let first = How { choice: choice.clone(), healed: false, stopped: case.stopped, ..how(&case.capacity) };
    let first = run(case, &first, &here, true, &mut made)?;
    if case.keep_going && case.stopped.is_none() {
        for step in case.needed() {
            let ready = case.producers(step).iter().all(|producer| first.is_done(*producer));
            hold!(ready != first.skipped.contains_key(&step), "s{step} is skipped, or not, against what it needs");
        }
    }

    // GPUs enough for all; whatever succeeded is not made again, and all that was left is.
    let whole = |capacity: &Capacity, gpus: [usize; 2]| Capacity { gpus: gpus.into(), ..capacity.clone() };
    let second = run(case, &how(&whole(&case.other, [3, 5])), &here, false, &mut made)?;
    hold!(second.outcome == Some(Outcome::Done), "the second run fails: {:?}", second.failed);
    for (step, key) in first.done() {
        hold!(second.reused.get(&step) == Some(&key), "s{step} had succeeded, and is not reused");
        hold!(second.outputs[&step] == first.outputs[&step], "s{step} is another result");
    }
    let third = run(case, &how(&case.capacity_with_gpus()), &here, false, &mut made)?;
    hold!(third.ran.is_empty() && third.outputs == second.outputs, "the third run runs {:?}", third.ran);
    // Forced to run again, each makes the same.
    let again =
        How { choice: Chosen { forced: case.forced.clone(), ..Chosen::default() }, ..how(&case.capacity_with_gpus()) };
    let again = run(case, &again, &here, false, &mut made)?;
    hold!(again.ran.keys().all(|step| case.forced.contains(step)), "forced are {:?}, ran {:?}", case.forced, again.ran);
    hold!(again.outputs == second.outputs, "what was forced to run is another result");

    let mut none = BTreeSet::new();
    let other = run(case, &how(&case.capacity_with_gpus()), &there, false, &mut none)?;
    hold!(other.outputs == second.outputs && other.done() == second.done(), "on another machine all is the same");
    let objects = |root: &Path| Digest::of_folder(&root.join("cache/objects")).expect("read");
    hold!(objects(&here) == objects(&there), "on another machine the objects are others");
    Ok(())
}

impl Case {
    fn capacity_with_gpus(&self) -> Capacity {
        Capacity { gpus: vec![0, 1], ..self.capacity.clone() }
    }
}

fn check(cases: u32, most: usize) {
    let config =
        ProptestConfig { failure_persistence: None, max_shrink_time: 60_000, ..ProptestConfig::with_cases(cases) };
    proptest!(config, |(case in case(most))| {
        laws(&case).map_err(TestCaseError::fail)?;
    });
}

#[test]
fn any_graph_on_any_machine_comes_to_its_end_by_the_laws() {
    check(24, 10);
}

#[test]
fn long_any_graph_on_any_machine_comes_to_its_end_by_the_laws() {
    if long() {
        check(500, 20);
    }
}

/// Steps that nothing is known of yet, on a single core: first the one with the longest way to the end, whether it waited
/// for the slot all prepared or was let go on by the one before.
fn in_turn(producers: &[BTreeSet<usize>]) -> Told<()> {
    let plan = |(at, producers): (usize, &BTreeSet<usize>)| Plan {
        producers: producers.clone(),
        after: None,
        salt: at as u64 + 1,
        cpu: 1,
        memory: 0,
        gpus: 0,
        fails: 0,
        panics: false,
        retries: 0,
        ceiling: None,
        pause: Duration::ZERO,
    };
    let (count, capacity) = (producers.len(), Capacity::slots(1));
    let case = Case {
        plans: producers.iter().enumerate().map(plan).collect(),
        places: (0..count).rev().collect(),
        targets: BTreeSet::new(),
        forced: BTreeSet::new(),
        only: None,
        keep_going: false,
        stopped: None,
        capacity: capacity.clone(),
        other: capacity.clone(),
    };
    let how = How { capacity, choice: Chosen::default(), healed: true, stopped: None };
    let folder = tempfile::tempdir().expect("a folder");
    let fates = run(&case, &how, folder.path(), false, &mut BTreeSet::new())?;
    let mut ways = vec![1; count];
    for step in (0..count).rev() {
        for &producer in &producers[step] {
            ways[producer] = ways[producer].max(ways[step] + 1);
        }
    }
    let place = |step: &usize| fates.order.iter().position(|at| at == step);
    let mut done = BTreeSet::new();
    for &began in &fates.began {
        let ready = (0..count).filter(|step| !done.contains(step) && producers[*step].is_subset(&done));
        let first = ready.min_by_key(|step| (std::cmp::Reverse(ways[*step]), place(step)));
        hold!(first == Some(began), "s{began} begins, and {first:?} has a longer way: {:?}", fates.began);
        done.insert(began);
    }
    hold!(done.len() == count, "not all ran");
    Ok(())
}

#[test]
fn the_longest_way_goes_first_whoever_waits() {
    let edges = prop::collection::vec(prop::collection::vec(any::<Index>(), 0..3), 1..25);
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) };
    proptest!(config, |(edges in edges)| {
        let producers = |(at, edges): (usize, Vec<Index>)| match at {
            0 => BTreeSet::new(),
            at => edges.iter().map(|edge| edge.index(at)).collect(),
        };
        let producers: Vec<BTreeSet<usize>> = edges.into_iter().enumerate().map(producers).collect();
        in_turn(&producers).map_err(TestCaseError::fail)?;
    });
}
