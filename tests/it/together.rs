//! Steps that do their work together: who does, and that nobody can tell from what comes out. `packed` holds the same
//! for trainings. It does not look at which step goes first.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pipe::error::{Problem, Result};
use pipe::event::{Event, Outcome, Say};
use pipe::exec::{self, Capacity, Choice, Options};
use pipe::lockfile::Lockfile;
use pipe::spec::{self, Pipeline};
use pipe::step::{AnyKind, Artifact, Context, Ended, Input, Kind, Machine, Output, Together, kind};
use pipe::store::{Record, Store};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Writes its text; together with others of its flock it says so in a file of the project.
struct Bird;

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// What to write.
    text: String,
    /// With whom it flies.
    #[serde(default)]
    flock: String,
    /// How to go wrong: `beside` others, `always`, `panic` beside others, or be `silent` about its end.
    #[serde(default)]
    wrong: String,
    /// How long to wait for Ctrl-C.
    #[serde(default)]
    slow_ms: u64,
    /// Its part of the work; those that have one end at the same time.
    #[serde(default)]
    weight: u64,
}

fn write(params: &Params, cx: &mut Context) -> Result<()> {
    let until = Instant::now() + Duration::from_millis(params.slow_ms);
    while Instant::now() < until {
        cx.check_cancelled()?;
        std::thread::sleep(Duration::from_millis(2));
    }
    if params.wrong == "always" {
        return Err(Problem::new("its wings are wet"));
    }
    fs::write(cx.output("text.txt"), &params.text).unwrap();
    cx.note(format!("{} was written", params.text));
    cx.figure("length", params.text.len() as f64);
    cx.weigh(params.weight);
    Ok(())
}

impl Kind for Bird {
    const NAME: &'static str = "bird";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "writes its text";
    const EXAMPLE: &'static str = "";
    const INPUTS: &'static [Input] = &[];
    const OUTPUTS: &'static [Output] = &[Output { name: "text", file: "text.txt", doc: "the text" }];
    type Params = Params;

    fn together(params: &Params, _: &BTreeMap<String, Vec<Artifact>>, _: &Machine) -> Option<Together> {
        let with = params.flock.clone();
        (with != "alone").then(|| Together { most: 4, pays: !with.starts_with("slow"), with })
    }

    fn run_together(members: &mut [(&Params, &mut Context)], exact: bool, ended: &mut Ended<'_>) -> Result<()> {
        let texts: Vec<&str> = members.iter().map(|(params, _)| params.text.as_str()).collect();
        let log = members[0].1.root().join("log");
        // Two teams may do so at the same time.
        let mut log = fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        log.write_all(format!("{} {exact}\n", texts.join(" ")).as_bytes()).unwrap();
        let beside = |(params, cx): &mut (&Params, &mut Context)| match params.wrong.as_str() {
            "beside" => Err(Problem::new("there was no room")),
            "panic" => panic!("they collided"),
            _ => write(params, cx),
        };
        if members.iter().any(|(params, _)| params.weight > 0) {
            let results: Vec<Result<()>> = members.iter_mut().map(beside).collect();
            let ends = members.iter_mut().enumerate().zip(results);
            ended(ends.map(|((at, member), result)| (at, &mut *member.1, result)).collect());
            return Ok(());
        }
        for (at, member) in members.iter_mut().enumerate() {
            if member.0.wrong == "silent" {
                continue;
            }
            let result = beside(member);
            ended(vec![(at, &mut *member.1, result)]);
        }
        Ok(())
    }

    fn run(params: &Params, cx: &mut Context) -> Result<()> {
        write(params, cx)
    }
}

static KINDS: &[&dyn AnyKind] = &[&kind::<Bird>()];

struct Project(tempfile::TempDir);

struct Ran {
    outcome: Outcome,
    events: Vec<Event>,
    records: BTreeMap<String, Record>,
}

impl Project {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn load(&self, steps: &str) -> Pipeline {
        let options = spec::Options { kinds: KINDS, ..spec::Options::default() };
        let problems = |problems: spec::Problems| panic!("{}", pipe::ui::problem::render(&problems, false));
        let yaml = format!("steps:\n{steps}");
        spec::load_text(&self.0.path().join("test.yaml"), &yaml, &options).unwrap_or_else(problems)
    }

    /// Runs in a cache of this name, and gives what was done together, sorted.
    fn run(&self, cache: &str, steps: &str, slots: usize, choice: Choice) -> (Ran, Vec<String>) {
        self.run_until(cache, steps, slots, choice, &|_, _| {})
    }

    fn run_until(
        &self,
        cache: &str,
        steps: &str,
        slots: usize,
        choice: Choice,
        hear: &dyn Fn(&Event, &AtomicBool),
    ) -> (Ran, Vec<String>) {
        let log = self.0.path().join("log");
        let _ = fs::remove_file(&log);
        let pipeline = self.load(steps);
        let store = Store::at(self.0.path().join(cache));
        let cancel = Arc::new(AtomicBool::new(false));
        let options = Options {
            run: pipe::run::name(),
            sets: Vec::new(),
            capacity: Capacity::slots(slots),
            choice,
            machine: Machine::plain("cpu", 2),
            settings: Arc::default(),
            lock: Arc::new(Lockfile::none()),
            cancel: cancel.clone(),
            recall: None,
        };
        let mut events = Vec::new();
        let summary = exec::run(&pipeline, &store, &options, &mut |said| {
            said.iter().for_each(|event| hear(event, &cancel));
            events.extend(said);
        });
        let records = summary.records.into_iter().map(|(step, record)| (pipeline.steps[step].id.clone(), *record));
        let mut log: Vec<String> = fs::read_to_string(&log).unwrap_or_default().lines().map(str::to_owned).collect();
        log.sort();
        (Ran { outcome: summary.outcome, events, records: records.collect() }, log)
    }
}

impl Ran {
    fn remarks(&self) -> Vec<(String, String)> {
        let remark = |event: &Event| match event {
            Event::StepSaid { step, say: Say::Remark { text } } => Some((step.clone(), text.clone())),
            _ => None,
        };
        self.events.iter().filter_map(remark).collect()
    }

    /// What is promised of a result: everything but times.
    fn told(&self) -> BTreeMap<String, String> {
        let told =
            |record: &Record| format!("{} {:?} {:?} {:?}", record.key, record.outputs, record.figures, record.said);
        self.records.iter().map(|(step, record)| (step.clone(), told(record))).collect()
    }

    fn failed(&self) -> Vec<(&str, &str)> {
        fn failed(event: &Event) -> Option<(&str, &str)> {
            match event {
                Event::StepFailed { step, problem } => Some((step.as_str(), problem.what.as_str())),
                _ => None,
            }
        }
        self.events.iter().filter_map(failed).collect()
    }
}

const FIVE: &str = "  bird: { uses: bird, matrix: { n: [1, 2, 3, 4, 5] }, with: { text: 't${matrix.n}' } }\n";

fn never() -> Choice {
    Choice { together: Some(1), ..Choice::default() }
}

fn on() -> Choice {
    Choice { keep_going: true, ..Choice::default() }
}

#[test]
fn what_comes_out_is_the_same_together_and_alone() {
    let project = Project::new();
    let (ran, log) = project.run("one", FIVE, 1, Choice::default());
    assert_eq!((ran.outcome, log), (Outcome::Done, vec!["t1 t2 t3 t4 true".to_owned()]), "four at most");
    assert_eq!(
        ran.remarks(),
        [("bird[n=1]".to_owned(), "works together with `bird[n=2]`, `bird[n=3]`, `bird[n=4]`".to_owned())]
    );
    let (alone, log) = project.run("other", FIVE, 1, never());
    assert!(log.is_empty() && alone.remarks().is_empty());
    assert_eq!(ran.told(), alone.told());
    assert_eq!(ran.told().len(), 5);
    // Whoever begins after them is measured, too.
    assert!(ran.records.values().all(|record| record.costs.cpu_ms.is_some() == cfg!(target_os = "linux")));
    // It is all there now, and one more does not make the others again.
    let (again, log) = project.run("one", &FIVE.replace("5]", "5, 6]"), 1, Choice::default());
    assert!(log.is_empty() && again.remarks().is_empty());
    let reused = again.events.iter().filter(|event| matches!(event, Event::StepReused { .. })).count();
    assert_eq!((reused, again.records.len()), (5, 6));
}

#[test]
fn no_slot_is_left_without_work() {
    let project = Project::new();
    let (_, log) = project.run("two", &FIVE.replace("5]", "5, 6]"), 2, Choice::default());
    assert_eq!(log, ["t1 t2 t3 true", "t4 t5 true"], "and one for who is done first");
    let asked = Choice { together: Some(4), ..Choice::default() };
    let (_, log) = project.run("asked", &FIVE.replace("5]", "5, 6]"), 2, asked);
    assert_eq!(log, ["t1 t2 t3 false", "t4 t5 t6 false"]);
    let (_, log) = project.run("many", FIVE, 5, Choice::default());
    assert!(log.is_empty(), "{log:?}");
}

#[test]
fn only_what_belongs_together_and_pays_is_done_together() {
    let project = Project::new();
    let flocks = "  bird: { uses: bird, matrix: { n: [1, 2, 3], flock: [a, slow, alone] }, with: { text: '${matrix.flock}${matrix.n}', flock: '${matrix.flock}' } }\n";
    let (_, log) = project.run("auto", flocks, 1, Choice::default());
    assert_eq!(log, ["a1 a2 a3 true"]);
    let (ran, log) = project.run("asked", flocks, 1, Choice { together: Some(2), ..Choice::default() });
    assert_eq!(log, ["a1 a2 false", "slow1 slow2 false"]);
    assert_eq!(ran.records.len(), 9);
    // Who needs more of the machine does not fly in the slots of who needs less.
    let needs = "  a: { uses: bird, with: { text: a } }\n  b: { uses: bird, resources: { cpu: 2 }, with: { text: b } }\n  c: { uses: bird, with: { text: c } }\n";
    let (_, log) = project.run("needs", needs, 1, Choice::default());
    assert_eq!(log, ["a b c true"], "there is one slot: nobody gets more");
    let (_, log) = project.run("needs2", needs, 2, Choice::default());
    assert!(log.is_empty(), "{log:?}");
}

#[test]
fn the_time_is_shared_by_what_each_did() {
    let project = Project::new();
    let steps = "  a: { uses: bird, with: { text: a, weight: 1, slow_ms: 200 } }\n  b: { uses: bird, with: { text: b, weight: 3, slow_ms: 200 } }\n";
    let (ran, log) = project.run("cache", steps, 1, Choice::default());
    assert_eq!(log.len(), 1);
    let took = |step: &str| ran.records[step].costs.took_ms;
    assert!(took("a") >= 100 && (3 * took("a")).abs_diff(took("b")) <= 3, "{} {}", took("a"), took("b"));
}

#[test]
fn who_fails_beside_others_is_tried_alone() {
    let project = Project::new();
    let steps = "  a: { uses: bird, with: { text: a } }\n  b: { uses: bird, with: { text: b, wrong: beside } }\n  c: { uses: bird, with: { text: c, wrong: always } }\n  d: { uses: bird, with: { text: dd }, expect: 'length < 2' }\n";
    let (ran, log) = project.run("one", steps, 1, on());
    assert_eq!(log, ["a b c dd true"]);
    assert_eq!(ran.records.keys().collect::<Vec<_>>(), ["a", "b"]);
    let failed: BTreeMap<&str, &str> = ran.failed().into_iter().collect();
    assert_eq!(failed["c"], "its wings are wet");
    assert!(failed.len() == 2 && failed["d"].contains("length"), "{failed:?}");
    let (alone, _) = project.run("other", steps, 1, Choice { keep_going: true, ..never() });
    assert_eq!((ran.told(), ran.failed().len()), (alone.told(), alone.failed().len()));
    let again: Vec<String> =
        ran.remarks().into_iter().filter(|(_, text)| text.contains("tried alone")).map(|(step, _)| step).collect();
    assert_eq!(again, ["b", "c"], "what is expected does not change by trying again");
}

#[test]
fn who_ends_first_is_kept_at_once() {
    let project = Project::new();
    let steps = "  a: { uses: bird, with: { text: a, slow_ms: 100 } }\n  b: { uses: bird, with: { text: b, slow_ms: 300 } }\n  c: { uses: bird, with: { text: c, slow_ms: 60000 } }\n";
    let stop = |event: &Event, cancel: &AtomicBool| {
        if matches!(event, Event::StepFinished { step, .. } if step == "b") {
            cancel.store(true, Ordering::SeqCst);
        }
    };
    let (ran, log) = project.run_until("cache", steps, 1, Choice::default(), &stop);
    assert_eq!((ran.outcome, log.len()), (Outcome::Interrupted, 1));
    assert_eq!(ran.records.keys().collect::<Vec<_>>(), ["a", "b"]);
    // Its time is from the end of the one before it.
    let took = |step: &str| ran.records[step].costs.took_ms;
    assert!(took("a") >= 100 && took("b") >= 300, "{} {}", took("a"), took("b"));
    let times = |step: &str| {
        let finished =
            ran.events.iter().position(|event| matches!(event, Event::StepFinished { step: it, .. } if it == step));
        finished.unwrap()
    };
    assert!(times("a") < times("b"));
    let (again, _) = project.run("cache", &steps.replace("60000", "0"), 1, Choice::default());
    assert_eq!((again.outcome, again.records.len()), (Outcome::Done, 3));
}

#[test]
fn who_says_nothing_of_its_end_is_tried_alone() {
    let project = Project::new();
    let steps = "  a: { uses: bird, with: { text: a } }\n  b: { uses: bird, with: { text: b, wrong: silent } }\n";
    let (ran, log) = project.run("cache", steps, 1, Choice::default());
    assert_eq!((ran.outcome, ran.records.len(), log.len()), (Outcome::Done, 2, 1));
    let remark = ran.remarks().into_iter().find(|(step, _)| step == "b").unwrap().1;
    assert!(remark.contains("nothing was said of how it ended"), "{remark}");
}

#[test]
fn a_panic_beside_others_is_nobodys_end() {
    let project = Project::new();
    let steps = "  a: { uses: bird, with: { text: a } }\n  b: { uses: bird, with: { text: b, wrong: panic } }\n";
    let (ran, log) = project.run("cache", steps, 1, Choice::default());
    assert_eq!((ran.outcome, ran.records.len(), log.len()), (Outcome::Done, 2, 1));
    assert!(ran.remarks().iter().any(|(_, text)| text.contains("they collided")), "{:?}", ran.remarks());
}

#[test]
fn a_time_limit_ends_its_own_step_alone() {
    let project = Project::new();
    let steps = "  a: { uses: bird, with: { text: a } }\n  b: { uses: bird, timeout: 100ms, with: { text: b, slow_ms: 60000 } }\n  c: { uses: bird, with: { text: c } }\n";
    // Nobody puts it among others of whose time it would also have to wait for the end, unless that is asked for.
    let asked = Choice { together: Some(4), ..on() };
    for (cache, choice, right) in [("one", on(), "a c true"), ("other", asked, "a b c false")] {
        let (ran, log) = project.run(cache, steps, 1, choice);
        assert_eq!(log, [right]);
        assert_eq!(ran.records.keys().collect::<Vec<_>>(), ["a", "c"]);
        let failed = ran.failed();
        assert!(failed.len() == 1 && failed[0].1.contains("timeout"), "{failed:?}");
    }
}

#[test]
fn ctrl_c_ends_all_of_them() {
    let project = Project::new();
    let steps = "  bird: { uses: bird, matrix: { n: [1, 2, 3] }, with: { text: 't${matrix.n}', slow_ms: 60000 } }\n";
    let stop = |event: &Event, cancel: &AtomicBool| {
        if matches!(event, Event::StepSaid { .. }) {
            cancel.store(true, Ordering::SeqCst);
        }
    };
    let (ran, log) = project.run_until("cache", steps, 1, Choice::default(), &stop);
    assert_eq!((ran.outcome, ran.records.len(), log.len()), (Outcome::Interrupted, 0, 1));
    assert!(ran.failed().is_empty());
}

#[test]
fn who_is_forced_runs_together_too() {
    let project = Project::new();
    project.run("cache", FIVE, 1, Choice::default());
    let forced = Choice { forced: BTreeSet::from([1, 3]), ..Choice::default() };
    let (ran, log) = project.run("cache", FIVE, 1, forced);
    // Whoever took longer before goes first.
    assert!(["t2 t4 true", "t4 t2 true"].contains(&log.join("|").as_str()), "{log:?}");
    assert_eq!(ran.events.iter().filter(|event| matches!(event, Event::StepFinished { .. })).count(), 2);
}
