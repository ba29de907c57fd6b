//! The laws of the cache and of running, with small step kinds made for it, in one process and in several.
//! `command` holds the same through the binary.

pub mod command;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pipe::digest::Digest;
use pipe::error::Result;
use pipe::event::{Event, Outcome, Say};
use pipe::exec::{self, Capacity, Choice, Decider, Options, Verdict};
use pipe::lockfile::Lockfile;
use pipe::spec::{self, Pipeline};
use pipe::step::{AnyKind, Arity, Context, Input, Kind, Machine, Output, Share, Source, kind};
use pipe::store::{Record, Store};
use pipe::{key, run};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

// ---- step kinds -------------------------------------------------------------------------------------------------

/// Writes its text.
struct Write;

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WriteParams {
    /// What to write.
    text: String,
    /// A number that does not matter to the result.
    #[serde(default)]
    scale: f64,
}

impl Kind for Write {
    const NAME: &'static str = "write";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "writes its text";
    const EXAMPLE: &'static str = "";
    const INPUTS: &'static [Input] = &[];
    const OUTPUTS: &'static [Output] = &[Output { name: "text", file: "text.txt", doc: "the text" }];
    type Params = WriteParams;

    fn run(params: &WriteParams, cx: &mut Context) -> Result<()> {
        fs::write(cx.output("text.txt"), &params.text).unwrap();
        Ok(())
    }
}

/// Reads a file of the project; its result is the first line.
struct First;

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FirstParams {
    /// The file.
    file: String,
    /// Text that the step appends to the file while it runs, to test what happens then.
    #[serde(default)]
    meddle: String,
}

impl Kind for First {
    const NAME: &'static str = "first";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "the first line of a file";
    const EXAMPLE: &'static str = "";
    const INPUTS: &'static [Input] = &[];
    const OUTPUTS: &'static [Output] = &[Output { name: "line", file: "line.txt", doc: "the line" }];
    type Params = FirstParams;

    fn sources(params: &FirstParams, root: &Path) -> Vec<Source> {
        vec![Source { name: "file".into(), path: root.join(&params.file) }]
    }
    fn keyed(_params: &FirstParams) -> Value {
        Value::Object(serde_json::Map::new())
    }
    fn run(params: &FirstParams, cx: &mut Context) -> Result<()> {
        let path = cx.root().join(&params.file);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(cx.output("line.txt"), text.lines().next().unwrap_or_default()).unwrap();
        if !params.meddle.is_empty() {
            fs::write(&path, text + &params.meddle).unwrap();
        }
        Ok(())
    }
}

/// Puts its inputs into a folder and counts their characters.
struct Join;

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct JoinParams {
    /// What to put between.
    #[serde(default)]
    glue: String,
    /// Whether to wait for Ctrl-C.
    #[serde(default)]
    slow_ms: u64,
    /// How to go wrong: `problem`, `panic`, `link`.
    #[serde(default)]
    wrong: String,
}

impl Kind for Join {
    const NAME: &'static str = "join";
    const VERSION: u32 = 3;
    const SUMMARY: &'static str = "joins its inputs";
    const EXAMPLE: &'static str = "";
    const INPUTS: &'static [Input] = &[Input { name: "parts", arity: Arity::Any, named: true, doc: "what to join" }];
    const OUTPUTS: &'static [Output] = &[
        Output { name: "joined", file: "joined", doc: "a folder with everything" },
        Output { name: "table", file: "table.csv", doc: "lengths" },
    ];
    type Params = JoinParams;

    fn share(_params: &JoinParams) -> Share {
        Share::Half
    }
    fn run(params: &JoinParams, cx: &mut Context) -> Result<()> {
        let folder = cx.output("joined");
        fs::create_dir_all(folder.join("sub")).unwrap();
        let mut texts = Vec::new();
        for part in cx.inputs("parts") {
            let path = if part.path.is_dir() { part.path.join("sub/all.txt") } else { part.path.clone() };
            texts.push(fs::read_to_string(path).unwrap());
        }
        let text = texts.join(&params.glue);
        fs::write(folder.join("sub/all.txt"), &text).unwrap();
        fs::write(cx.output("table.csv"), format!("length\n{}\n", text.len())).unwrap();
        cx.warn("joined, not checked");
        cx.figure("length", text.len() as f64);
        match params.wrong.as_str() {
            "problem" => return Err(pipe::error::Problem::new("the parts do not fit")),
            "panic" => panic!("index out of the world"),
            "link" => std::os::unix::fs::symlink("/etc/hostname", folder.join("sly")).unwrap(),
            _ => {}
        }
        let until = Instant::now() + Duration::from_millis(params.slow_ms);
        while Instant::now() < until {
            cx.check_cancelled()?;
            cx.progress(1, None, "parts", "waiting");
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

static KINDS: &[&dyn AnyKind] = &[&kind::<Write>(), &kind::<First>(), &kind::<Join>()];

// ---- a project --------------------------------------------------------------------------------------------------

struct Project {
    _folder: tempfile::TempDir,
    root: PathBuf,
}

struct Ran {
    outcome: Outcome,
    events: Vec<Event>,
    records: BTreeMap<String, Record>,
}

impl Project {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("проект с пробелом");
        fs::create_dir_all(root.join("pipelines")).unwrap();
        Self { _folder: folder, root }
    }

    fn store(&self) -> Store {
        Store::at(self.root.join("cache"))
    }

    fn pipeline(&self, yaml: &str, sets: &[&str]) -> Pipeline {
        load(&self.root, yaml, sets)
    }

    fn run(&self, yaml: &str) -> Ran {
        self.run_with(yaml, &[], 2)
    }

    fn run_with(&self, yaml: &str, sets: &[&str], slots: usize) -> Ran {
        let cancel = Arc::new(AtomicBool::new(false));
        execute(&self.pipeline(yaml, sets), &self.store(), slots, &cancel, &mut |_| {})
    }

    /// Every record keeps its promises: the key is the hash of the manifest, every output is there and is what it
    /// says; and nothing is left in the scratch folder.
    fn check_store(&self) -> usize {
        let store = self.store();
        let mut count = 0;
        for path in files(&self.root.join("cache/records")) {
            let record: Record = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            assert_eq!(key::key_of(&record.manifest), record.key, "{}", path.display());
            assert_eq!(path.file_stem().unwrap().to_str().unwrap(), record.key.as_str());
            for object in record.outputs.values() {
                assert!(store.has(object), "{}", object.digest);
                assert_eq!(Digest::of_path(&store.object(&object.digest)).unwrap(), object.digest);
            }
            count += 1;
        }
        count
    }

    fn scratch(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.root.join("cache/tmp")).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
    }
}

fn load(root: &Path, yaml: &str, sets: &[&str]) -> Pipeline {
    let sets = sets.iter().map(|set| (*set).to_owned()).collect();
    let options = spec::Options { kinds: KINDS, sets, ..spec::Options::default() };
    let problems = |problems: spec::Problems| panic!("{}", pipe::ui::problem::render(&problems, false));
    spec::load_text(&root.join("pipelines/test.yaml"), yaml, &options).unwrap_or_else(problems)
}

fn execute(
    pipeline: &Pipeline,
    store: &Store,
    slots: usize,
    cancel: &Arc<AtomicBool>,
    hear: &mut dyn FnMut(&Event),
) -> Ran {
    execute_chosen(pipeline, store, slots, cancel, Choice::default(), hear)
}

fn execute_chosen(
    pipeline: &Pipeline,
    store: &Store,
    slots: usize,
    cancel: &Arc<AtomicBool>,
    choice: Choice,
    hear: &mut dyn FnMut(&Event),
) -> Ran {
    let machine = Machine::plain("cpu", 2);
    let (settings, lock) = (Arc::default(), Arc::new(Lockfile::none()));
    let (run, sets) = (run::name(), Vec::new());
    let capacity = Capacity::slots(slots);
    let options =
        Options { run, sets, capacity, choice, machine, settings, lock, cancel: cancel.clone(), recall: None };
    let mut events = Vec::new();
    let summary = exec::run(pipeline, store, &options, &mut |said| {
        said.iter().for_each(&mut *hear);
        events.extend(said);
    });
    let records = summary.records.into_iter().map(|(step, record)| (pipeline.steps[step].id.clone(), *record));
    Ran { outcome: summary.outcome, events, records: records.collect() }
}

impl Ran {
    fn ids(&self, pick: impl Fn(&Event) -> Option<&String>) -> BTreeSet<&str> {
        self.events.iter().filter_map(pick).map(String::as_str).collect()
    }
    fn ran(&self) -> BTreeSet<&str> {
        self.ids(|event| if let Event::StepFinished { step, .. } = event { Some(step) } else { None })
    }
    fn reused(&self) -> BTreeSet<&str> {
        self.ids(|event| if let Event::StepReused { step, .. } = event { Some(step) } else { None })
    }
    fn skipped(&self) -> BTreeSet<&str> {
        self.ids(|event| if let Event::StepSkipped { step, .. } = event { Some(step) } else { None })
    }
    fn why(&self, id: &str) -> Vec<String> {
        let find = |event: &Event| match event {
            Event::StepStarted { step, why, .. } if step == id => Some(why.clone()),
            _ => None,
        };
        self.events.iter().find_map(find).unwrap_or_default()
    }
    fn problem(&self) -> String {
        let find = |event: &Event| match event {
            Event::StepFailed { problem, .. } => Some(problem.to_string()),
            _ => None,
        };
        self.events.iter().find_map(find).unwrap_or_default()
    }
    fn results(&self) -> Vec<String> {
        match self.events.last() {
            Some(Event::RunFinished { results, .. }) => results.clone(),
            _ => panic!("the last event is the end of the run"),
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(names) = pipe::digest::files_below(folder) else { return Vec::new() };
    names.into_iter().map(|name| folder.join(name)).collect()
}

fn set<'a>(ids: &[&'a str]) -> BTreeSet<&'a str> {
    ids.iter().copied().collect()
}

const DIAMOND: &str = "
name: алмаз
params: { a: один, b: два, glue: '-' }
steps:
  a: { uses: write, with: { text: '${params.a}' } }
  b: { uses: write, with: { text: '${params.b}' } }
  left: { uses: join, in: { parts: [a] }, with: { glue: '${params.glue}' } }
  right: { uses: join, in: { parts: [a, b] } }
  end: { uses: join, in: { parts: [left, right] } }
";

// ---- laws -------------------------------------------------------------------------------------------------------

#[test]
fn a_second_run_does_nothing_and_still_warns() {
    let project = Project::new();
    let first = project.run(DIAMOND);
    assert_eq!(first.outcome, Outcome::Done);
    assert_eq!(first.ran(), set(&["a", "b", "left", "right", "end"]));
    assert_eq!(first.why("end"), ["never run before"]);
    let results = first.results();
    assert!(results.iter().any(|path| path.ends_with("cache/results/алмаз/end/joined/sub/all.txt")), "{results:?}");
    assert_eq!(fs::read_to_string(&results[0]).unwrap(), "одинодиндва");

    let before = snapshot(&project.root);
    let second = project.run(DIAMOND);
    assert_eq!((second.ran(), second.reused().len()), (set(&[]), 5));
    assert_eq!(second.results(), results);
    assert_eq!(second.records, first.records);
    let warned = |event: &&Event| matches!(event, Event::StepSaid { say: Say::Warning { .. }, .. });
    assert_eq!(second.events.iter().filter(warned).count(), 3);
    assert_eq!(snapshot(&project.root), before, "a run without work writes nothing");
}

fn snapshot(root: &Path) -> BTreeMap<PathBuf, std::time::SystemTime> {
    let times = files(root).into_iter().map(|path| {
        let time = fs::symlink_metadata(&path).unwrap().modified().unwrap();
        (path, time)
    });
    times.collect()
}

#[test]
fn comments_and_layout_change_nothing() {
    let project = Project::new();
    project.run(DIAMOND);
    let other = DIAMOND.replace("'${params.a}' } }", "\"${params.a}\",   scale: 0.00 } }   # a word").replace(
        "params: { a: один, b: два, glue: '-' }",
        "params:\n  glue: \"-\"\n  # the other way round\n  b: два\n\n  a: один",
    );
    assert_ne!(other, DIAMOND);
    assert_eq!(project.run(&other).ran(), set(&[]));
}

#[test]
fn a_parameter_reruns_exactly_its_cone_and_back_again_nothing() {
    let project = Project::new();
    project.run(DIAMOND);
    let changed = project.run_with(DIAMOND, &["b=три"], 2);
    assert_eq!(changed.ran(), set(&["b", "right", "end"]));
    assert_eq!(changed.reused(), set(&["a", "left"]));
    assert_eq!(changed.why("b"), ["params.text: два → три"]);
    assert!(changed.why("right")[0].starts_with("inputs.parts[b]: "), "{:?}", changed.why("right"));
    assert_eq!(changed.why("right").len(), 1);
    assert_eq!(project.run(DIAMOND).ran(), set(&[]));
    assert_eq!(project.run_with(DIAMOND, &["b=три"], 2).ran(), set(&[]));
}

#[test]
fn equal_bytes_cut_off() {
    let project = Project::new();
    let yaml = "
name: p
steps:
  line: { uses: first, with: { file: данные.txt } }
  use: { uses: join, in: { parts: line } }
";
    let file = project.root.join("данные.txt");
    fs::write(&file, "head\none\n").unwrap();
    assert_eq!(project.run(yaml).ran(), set(&["line", "use"]));
    fs::write(&file, "head\ntwo\n").unwrap();
    let second = project.run(yaml);
    assert_eq!((second.ran(), second.reused()), (set(&["line"]), set(&["use"])));
    assert!(second.why("line")[0].starts_with("sources.file: "), "{:?}", second.why("line"));
    // The content counts, not its place.
    fs::rename(&file, project.root.join("other.txt")).unwrap();
    assert_eq!(project.run(&yaml.replace("данные", "other")).ran(), set(&[]));
    let missing = project.run(yaml);
    assert_eq!(missing.outcome, Outcome::Failed);
    assert!(missing.problem().contains("данные.txt"), "{}", missing.problem());
}

#[test]
fn the_number_of_slots_changes_nothing() {
    let (one, eight) = (Project::new(), Project::new());
    let strip = |ran: Ran| -> BTreeMap<String, Value> {
        let plain = |record: Record| {
            let mut value = serde_json::to_value(record).unwrap();
            let map = value.as_object_mut().unwrap();
            for varying in ["costs", "checksum", "run"] {
                map.remove(varying).expect("it is there");
            }
            value
        };
        ran.records.into_iter().map(|(id, record)| (id, plain(record))).collect()
    };
    assert_eq!(strip(one.run_with(DIAMOND, &[], 1)), strip(eight.run_with(DIAMOND, &[], 8)));
    let objects = |project: &Project| Digest::of_folder(&project.root.join("cache/objects")).unwrap();
    assert_eq!(objects(&one), objects(&eight));
}

#[test]
fn steps_without_a_dependency_run_side_by_side_but_within_the_slots() {
    let yaml = "
name: p
steps:
  cells: { uses: join, matrix: { glue: [a, b, c, d] }, with: { glue: '${matrix.glue}', slow_ms: 60 } }
";
    let most = |slots: usize| {
        let (mut running, mut most) = (0i32, 0i32);
        let project = Project::new();
        let cancel = Arc::new(AtomicBool::new(false));
        let pipeline = project.pipeline(yaml, &[]);
        let ran = execute(&pipeline, &project.store(), slots, &cancel, &mut |event| {
            match event {
                Event::StepStarted { .. } => running += 1,
                Event::StepFinished { .. } => running -= 1,
                _ => {}
            }
            most = most.max(running);
        });
        let started = ran.events.iter().filter_map(|event| match event {
            Event::StepStarted { step, .. } => Some(step.as_str()),
            _ => None,
        });
        assert!(started.eq(["cells[glue=a]", "cells[glue=b]", "cells[glue=c]", "cells[glue=d]"]));
        most
    };
    // `join` wants half of the slots.
    assert_eq!((most(1), most(2), most(8)), (1, 2, 2));
}

#[test]
fn two_steps_with_one_key_run_once() {
    let project = Project::new();
    let yaml = "
name: p
steps:
  one: { uses: join, with: { slow_ms: 30 } }
  two: { uses: join, with: { slow_ms: 30 } }
";
    let ran = project.run_with(yaml, &[], 8);
    assert_eq!((ran.ran(), ran.reused()), (set(&["one"]), set(&["two"])));
}

/// What one of them makes is as new as it can be; the other must not wait for its own process either.
#[test]
fn two_steps_with_one_key_that_are_forced_to_run_run_once() {
    let project = Project::new();
    let yaml = "
name: p
steps:
  one: { uses: write, with: { text: a } }
  two: { uses: write, with: { text: a } }
";
    project.run(yaml);
    let choice = Choice { forced: [0, 1].into(), ..Choice::default() };
    let pipeline = project.pipeline(yaml, &[]);
    let ran = execute_chosen(&pipeline, &project.store(), 1, &Arc::default(), choice, &mut |_| {});
    assert_eq!((ran.outcome, ran.ran(), ran.reused()), (Outcome::Done, set(&["one"]), set(&["two"])));
    assert!(!ran.events.iter().any(|event| matches!(event, Event::StepJoined { .. })));
}

// ---- what goes wrong --------------------------------------------------------------------------------------------

#[test]
fn a_failing_step_leaves_nothing_and_others_are_kept() {
    let project = Project::new();
    let yaml = "
name: p
params: { wrong: problem }
steps:
  good: { uses: write, with: { text: good } }
  bad: { uses: join, in: { parts: good }, with: { wrong: '${params.wrong}' } }
  after: { uses: join, in: { parts: [bad, good] } }
";
    for (wrong, text) in [
        ("problem", "the parts do not fit"),
        ("panic", "the step kind `join` panicked: index out of the world (tests/it/engine.rs:"),
        ("link", "the link `sly`"),
    ] {
        let ran = project.run_with(yaml, &[&format!("wrong={wrong}")], 2);
        assert_eq!(ran.outcome, Outcome::Failed);
        assert!(ran.problem().contains(text), "{}", ran.problem());
        assert_eq!(ran.skipped(), set(&["after"]));
        assert_eq!(ran.records.keys().collect::<Vec<_>>(), ["good"]);
        assert_eq!(project.check_store(), 1);
        assert_eq!(files(&project.root.join("cache/objects")).len(), 1);
        assert!(project.scratch().is_empty());
    }
    let mended = project.run_with(yaml, &["wrong=''"], 2);
    assert_eq!((mended.ran(), mended.reused()), (set(&["bad", "after"]), set(&["good"])));
}

#[test]
fn what_runs_when_another_step_fails_is_finished_and_kept() {
    let project = Project::new();
    let yaml = "
name: p
steps:
  long: { uses: join, with: { slow_ms: 80 } }
  bad: { uses: join, with: { wrong: problem } }
  new: { uses: join, in: { parts: long } }
";
    let ran = project.run_with(yaml, &[], 4);
    assert_eq!((ran.ran(), ran.skipped()), (set(&["long"]), set(&["new"])));
    assert_eq!(project.check_store(), 1);
}

#[test]
fn an_input_that_changes_while_the_step_runs_is_not_recorded() {
    let project = Project::new();
    fs::write(project.root.join("f.txt"), "line\n").unwrap();
    let yaml = "
name: p
steps:
  line: { uses: first, with: { file: f.txt, meddle: more } }
";
    let ran = project.run(yaml);
    assert!(ran.problem().contains("changed while the step ran"), "{}", ran.problem());
    assert_eq!(project.check_store(), 0);
}

#[test]
fn an_interrupted_step_leaves_nothing() {
    let project = Project::new();
    let yaml = "
name: p
steps:
  good: { uses: write, with: { text: good } }
  slow: { uses: join, in: { parts: good }, with: { slow_ms: 60000 } }
  after: { uses: join, in: { parts: slow } }
";
    let cancel = Arc::new(AtomicBool::new(false));
    let pipeline = project.pipeline(yaml, &[]);
    let begun = Instant::now();
    let ran = execute(&pipeline, &project.store(), 2, &cancel, &mut |event| {
        if matches!(event, Event::StepSaid { say: Say::Progress { .. }, .. }) {
            cancel.store(true, Ordering::Relaxed);
        }
    });
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(ran.outcome, Outcome::Interrupted);
    assert_eq!((ran.ran(), ran.skipped(), ran.problem()), (set(&["good"]), set(&[]), String::new()));
    assert_eq!(project.check_store(), 1);
    assert!(project.scratch().is_empty());
}

#[test]
fn a_damaged_object_is_a_miss_and_is_repaired() {
    let project = Project::new();
    let first = project.run(DIAMOND);
    let object = project.store().object(&first.records["a"].outputs["text"].digest);
    fs::remove_file(&object).unwrap();
    let second = project.run(DIAMOND);
    assert_eq!(second.ran(), set(&["a"]), "the same bytes come out, so nothing else runs");
    assert_eq!(second.why("a"), ["its output `text` is gone in the cache"]);

    let folder = project.store().object(&first.records["end"].outputs["joined"].digest);
    let inner = folder.join("sub/all.txt");
    fs::remove_file(&inner).unwrap();
    fs::write(&inner, "short").unwrap();
    let third = project.run(DIAMOND);
    assert_eq!(third.why("end"), ["its output `joined` is damaged in the cache"]);
    assert_eq!(third.records["end"].outputs, first.records["end"].outputs);
    project.check_store();
}

/// What it says is counted, and must not be able to stop a run.
#[test]
fn a_record_may_say_any_time() {
    let project = Project::new();
    project.run(DIAMOND);
    for path in files(&project.root.join("cache/records")) {
        let text = fs::read_to_string(&path).unwrap();
        let (head, body) = text.split_once("\"key\"").unwrap();
        let from = body.find("\"took_ms\":").unwrap() + 10;
        let to = from + body[from..].find([',', '}']).unwrap();
        let body = format!("\"key\"{}{}{}", &body[..from], u64::MAX, &body[to..]);
        let start = head.find("\"checksum\":\"").unwrap() + 12;
        let sealed = format!("{}{}{}{body}", &head[..start], Digest::of(body.as_bytes()), &head[start + 64..]);
        fs::write(&path, sealed).unwrap();
    }
    let again = project.run(DIAMOND);
    assert_eq!((again.outcome, again.reused().len()), (Outcome::Done, 5));
    assert!(matches!(again.events.last(), Some(Event::RunFinished { saved_ms: u64::MAX, .. })));
}

#[test]
fn a_cache_that_cannot_be_written_is_told_and_still_serves_what_it_has() {
    let project = Project::new();
    fs::write(project.root.join("cache"), "a file where a folder should be").unwrap();
    let ran = project.run(DIAMOND);
    assert_eq!(ran.outcome, Outcome::Failed);
    assert!(ran.problem().starts_with("cannot lock ") && ran.problem().contains("cache"), "{}", ran.problem());
    fs::remove_file(project.root.join("cache")).unwrap();

    project.run(DIAMOND);
    // Nothing can be written below a file either, whoever runs the test.
    fs::remove_dir_all(project.root.join("cache/tmp")).unwrap();
    fs::write(project.root.join("cache/tmp"), "").unwrap();
    assert_eq!(project.run(DIAMOND).outcome, Outcome::Done);
    let changed = project.run_with(DIAMOND, &["b=три"], 2);
    assert_eq!(changed.outcome, Outcome::Failed);
    assert!(changed.problem().contains("cache/tmp"), "{}", changed.problem());
}

// ---- plan -------------------------------------------------------------------------------------------------------

#[test]
fn the_plan_tells_what_a_run_then_does_and_writes_nothing() {
    let project = Project::new();
    let plan = |sets: &[&str]| -> BTreeMap<String, String> {
        let pipeline = project.pipeline(DIAMOND, sets);
        let machine = Machine::plain("cpu", 2);
        let store = project.store();
        let lock = Lockfile::none();
        let decider = Decider { pipeline: &pipeline, store: &store, machine: &machine, lock: &lock };
        let (_, planned) = exec::plan(&decider, &|_, _| {});
        let word = |verdict: &Verdict| match verdict {
            Verdict::Reuse(_) => "reuse".to_owned(),
            Verdict::Run => "run".to_owned(),
            Verdict::Depends(on) => format!("after {}", on.len()),
            Verdict::Fail(problem) => problem.to_string(),
        };
        planned.iter().map(|(&step, plan)| (pipeline.steps[step].id.clone(), word(&plan.verdict))).collect()
    };
    let expect = |words: [&str; 5]| -> BTreeMap<String, String> {
        let ids = ["a", "b", "left", "right", "end"];
        ids.into_iter().map(str::to_owned).zip(words.map(str::to_owned)).collect()
    };
    assert_eq!(plan(&[]), expect(["run", "run", "after 1", "after 2", "after 2"]));
    assert!(!project.root.join("cache").exists());
    project.run(DIAMOND);
    assert_eq!(plan(&[]), expect(["reuse"; 5]));
    let before = snapshot(&project.root);
    assert_eq!(plan(&["b=три"]), expect(["reuse", "run", "reuse", "after 1", "after 1"]));
    assert_eq!(snapshot(&project.root), before);
}

#[test]
fn an_explanation_names_the_step_that_changed() {
    let project = Project::new();
    project.run(DIAMOND);
    project.run_with(DIAMOND, &["b=три", "glue=+"], 2);
    let pipeline = project.pipeline(DIAMOND, &["b=четыре", "glue=+"]);
    let machine = Machine::plain("cpu", 2);
    let store = project.store();
    let lock = Lockfile::none();
    let decider = Decider { pipeline: &pipeline, store: &store, machine: &machine, lock: &lock };
    let (_, planned) = exec::plan(&decider, &|_, _| {});
    let end = pipeline.steps.iter().position(|step| step.id == "end").unwrap();
    let causes = exec::causes(&decider, &planned, end);
    let lines: Vec<String> = causes.iter().map(|cause| format!("{}: {}", cause.step, cause.why.join(", "))).collect();
    assert_eq!(lines, ["b: params.text: три → четыре"]);
}

// ---- what lies on the disk --------------------------------------------------------------------------------------

#[test]
fn manifests_are_readable_and_say_nothing_of_place_and_time() {
    let project = Project::new();
    fs::write(project.root.join("f.txt"), "line\n").unwrap();
    let yaml = format!("{DIAMOND}  line: {{ uses: first, with: {{ file: f.txt }} }}\n");
    let ran = project.run(&yaml);
    assert_eq!(project.check_store(), 6);
    let manifest = |record: &Record| project.store().record(&record.key).unwrap().manifest;
    for record in ran.records.values() {
        let text = key::canonical(&manifest(record));
        assert_eq!(blake3::hash(format!("pipe key 1\n{text}").as_bytes()).to_hex().as_str(), record.key.as_str());
        for word in [project.root.to_str().unwrap(), "f.txt", "202", "cores"] {
            assert!(!text.contains(word), "{word}: {text}");
        }
    }
    let join = manifest(&ran.records["left"]);
    assert_eq!((&join["kind"], &join["version"], &join["params"]["slow_ms"]), (&"join".into(), &3.into(), &0.into()));
    assert_eq!(join["inputs"]["parts"][0]["name"], "a");
}

// ---- several processes ------------------------------------------------------------------------------------------

const MANY: &str = "
name: many
params: { slow: 3 }
steps:
  cells: { uses: join, matrix: { glue: [a, b, c, d, e, f, g, h, i, j, k, l] }, with: { glue: '${matrix.glue}', slow_ms: '${params.slow}' } }
  all: { uses: join, in: { parts: cells } }
";

/// Not a test of its own: the process that other tests start and kill.
#[test]
fn helper_process() {
    let Some(root) = std::env::var_os("PIPE_TEST_PROJECT") else { return };
    let pipeline = load(Path::new(&root), MANY, &[]);
    let store = Store::at(Path::new(&root).join("cache"));
    let ran = execute(&pipeline, &store, 4, &Arc::new(AtomicBool::new(false)), &mut |_| {});
    assert_eq!(ran.outcome, Outcome::Done, "{}", ran.problem());
}

fn helper(project: &Project) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "engine::helper_process", "--nocapture"])
        .env("PIPE_TEST_PROJECT", &project.root)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_kill_at_any_instant_leaves_a_sound_store() {
    let project = Project::new();
    let (mut kept, mut killed) = (0, 0);
    // How long a run takes is the machine's: whoever outlives the blow shows that it has to come earlier.
    let mut whole = Duration::from_millis(120);
    for round in 1.. {
        if killed == 12 {
            break;
        }
        assert!(round < 200, "the helper was killed {killed} times only");
        let mut child = helper(&project);
        std::thread::sleep(whole * (killed + 1) / 12);
        child.kill().unwrap();
        let outlived = child.wait().unwrap().success();
        let count = project.check_store();
        assert!(count >= kept, "records do not get lost");
        kept = count;
        killed += u32::from(!outlived);
        if outlived {
            whole = whole * 9 / 10;
            fs::remove_dir_all(project.root.join("cache")).unwrap();
            kept = 0;
        }
    }
    assert!(helper(&project).wait().unwrap().success());
    assert_eq!(project.check_store(), 13);
    assert!(project.scratch().is_empty(), "what dead processes left is cleared away");
    assert_eq!(project.run(MANY).ran(), set(&[]));
}

#[test]
fn two_processes_at_once_do_not_harm_each_other() {
    let project = Project::new();
    let mut both = [helper(&project), helper(&project)];
    for child in &mut both {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(project.check_store(), 13);
    assert!(project.scratch().is_empty());
    assert_eq!(project.run(MANY).ran(), set(&[]));
}

#[test]
fn a_thousand_steps_that_fail_are_each_told_once() {
    let project = Project::new();
    let glues = (0..1000).map(|i| format!("'{i}'")).collect::<Vec<_>>().join(", ");
    let yaml = format!(
        "
name: p
steps:
  bad: {{ uses: join, matrix: {{ glue: [{glues}] }}, with: {{ glue: '${{matrix.glue}}', wrong: problem }} }}
  good: {{ uses: write, with: {{ text: good }} }}
"
    );
    let choice = Choice { keep_going: true, ..Choice::default() };
    let ran = execute_chosen(&project.pipeline(&yaml, &[]), &project.store(), 2, &Arc::default(), choice, &mut |_| {});
    let failed = ran.events.iter().filter(|event| matches!(event, Event::StepFailed { .. })).count();
    assert_eq!((ran.outcome, failed, ran.ran()), (Outcome::Failed, 1000, set(&["good"])));
    assert_eq!(project.check_store(), 1);
}
