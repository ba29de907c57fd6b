//! `pipe run`, `plan` and `explain` as a user calls them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use pipe::event::{Event, Outcome, Say, Stamped};
use pipe::run;

const PIPELINE: &str = "
name: части
params: { seed: 42 }
steps:
  documents: { uses: download, with: { source: 'данные/n.conllu' } }
  parts: { uses: split, in: { data: documents }, with: { seed: '${params.seed}', dev: 0.2, test: 0.2 } }
";

/// A project in a folder with an awkward name: a CoNLL-U file of so many documents, brought in and parted.
pub struct Project {
    _folder: tempfile::TempDir,
    pub root: PathBuf,
}

impl Project {
    pub fn new(documents: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("проект с пробелом");
        fs::create_dir_all(root.join("данные")).unwrap();
        fs::create_dir_all(root.join("pipelines")).unwrap();
        fs::write(root.join("данные/n.conllu"), conllu(documents)).unwrap();
        fs::write(root.join("pipelines/части.yaml"), PIPELINE).unwrap();
        Self { _folder: folder, root }
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
        command.current_dir(&self.root).env_remove("PIPE_CACHE").args(args);
        command
    }

    pub fn pipe(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    pub fn run(&self, more: &[&str]) -> Output {
        self.pipe(&[&["run", "pipelines/части.yaml"], more].concat())
    }

    fn events(&self, more: &[&str]) -> Vec<Event> {
        let output = self.run(&[&["--json"], more].concat());
        assert!(output.status.success() && output.stderr.is_empty(), "{}", stderr(&output));
        let stamped = |line: &str| serde_json::from_str::<Stamped>(line).expect("one event per line").event;
        stdout(&output).lines().map(stamped).collect()
    }
}

pub fn conllu(documents: usize) -> String {
    let one = |id: usize| {
        format!(
            "# newdoc id = {id}\n# sent_id = {id}_0\n# text = Анна{id} в Москве.\n\
             1\tАнна{id}\t_\tPROPN\t_\t_\t3\tnsubj\t_\tTag=B-PER\n2\tв\t_\t_\t_\t_\t_\t_\t_\tTag=O\n\
             3\tМоскве\t_\t_\t_\t_\t_\t_\t_\tSpaceAfter=No|Tag=B-LOC\n4\t.\t_\t_\t_\t_\t_\t_\t_\tTag=O\n\n"
        )
    };
    (0..documents).map(one).collect()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn text_goes_to_stderr_and_the_results_to_stdout() {
    let project = Project::new(40);
    let first = project.run(&[]);
    assert!(first.status.success(), "{}", stderr(&first));
    let text = stderr(&first);
    assert!(text.contains("▸ documents       runs   never run before\n"), "{text}");
    assert!(text.contains(": 2 steps ran, 0 reused\nresults:\n") && !text.contains('\x1b'), "{text}");
    let results = stdout(&first);
    assert_eq!(results.lines().count(), 3);
    for path in results.lines() {
        assert!(path.contains("cache/results/части/parts/"), "{path}");
        assert!(fs::read_to_string(project.root.join(path)).unwrap().contains("newdoc"));
    }
    let second = project.run(&[]);
    assert_eq!(stdout(&second), results);
    assert!(stderr(&second).contains("= parts         reused   (saved "), "{}", stderr(&second));
    let quiet = project.run(&["--quiet"]);
    assert_eq!((stdout(&quiet), stderr(&quiet)), (results, String::new()));
}

#[test]
fn json_is_the_event_stream_and_the_log_has_the_same() {
    let project = Project::new(40);
    let events = project.events(&["--cache", "other cache"]);
    let Some(Event::RunStarted { run: name, steps, .. }) = events.first() else { panic!("{events:?}") };
    assert_eq!(steps, &["documents", "parts"]);
    assert!(matches!(events.last(), Some(Event::RunFinished { outcome: Outcome::Done, ran: 2, .. })));
    let (head, logged) = run::read(&project.root.join(format!("other cache/runs/{name}.jsonl"))).unwrap();
    assert_eq!((&head.run, head.format.as_str()), (name, run::FORMAT));
    let passing =
        |event: &Event| matches!(event, Event::StepSaid { say: Say::Progress { .. }, .. } | Event::Forecast { .. });
    let told = events.into_iter().filter(|event| !passing(event));
    assert!(told.eq(logged.into_iter().map(|stamped| stamped.event)));
    assert!(!project.root.join("cache").exists());

    let output = project.command(&["run", "pipelines/части.yaml"]).env("PIPE_CACHE", "other cache").output().unwrap();
    assert!(stderr(&output).contains(": 0 steps ran, 2 reused"), "{}", stderr(&output));
}

#[test]
fn plan_and_explain_tell_what_and_why_and_write_nothing() {
    let project = Project::new(40);
    let plan = project.pipe(&["plan", "pipelines/части.yaml"]);
    assert_eq!(
        stdout(&plan),
        "run      documents  never run before\ndepends  parts      unknown until documents has run\n"
    );
    let sum = "1 to run, 0 to reuse, 1 that depend on the results\n2 steps of unknown length\n";
    assert_eq!(stderr(&plan), sum);
    assert!(!project.root.join("cache").exists());

    assert!(project.run(&[]).status.success());
    let plan = project.pipe(&["plan", "pipelines/части.yaml", "--set", "seed=7", "--json"]);
    let lines: Vec<serde_json::Value> = stdout(&plan).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["plan"], &lines[1]["plan"]), (&"reuse".into(), &"run".into()));
    assert_eq!(lines[1]["why"][0], "params.seed: 42 → 7");

    let explained = stdout(&project.pipe(&["explain", "pipelines/части.yaml", "parts", "--set", "seed=7"]));
    assert!(explained.starts_with("parts: runs\n  why, against run 2"), "{explained}");
    assert!(explained.contains(" UTC:\n    params.seed: 42 → 7   --set seed=7\n"), "{explained}");
    let key = lines[1]["key"].as_str().unwrap();
    let (_, manifest) = explained.split_once(&format!("key {key}\n= blake3 of this manifest:\n")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(manifest).unwrap();
    assert_eq!(pipe::key::key_of(&manifest).as_str(), key);

    let hit = stdout(&project.pipe(&["explain", "pipelines/части.yaml", "parts"]));
    assert!(hit.starts_with("parts: is reused\n  made by the step parts of run 2"), "{hit}");

    fs::write(project.root.join("данные/n.conllu"), conllu(41)).unwrap();
    let explained = stdout(&project.pipe(&["explain", "pipelines/части.yaml", "parts"]));
    assert!(explained.starts_with("parts: is unknown until documents has run\n"), "{explained}");
    assert!(explained.contains("where that comes from:\n    documents: sources."), "{explained}");

    let unknown = project.pipe(&["explain", "pipelines/части.yaml", "prats"]);
    assert_eq!(unknown.status.code(), Some(3));
    assert!(stderr(&unknown).contains("`parts`"), "{}", stderr(&unknown));
}

#[test]
fn a_grid_runs_every_combination_over_one_cache() {
    let project = Project::new(40);
    let output = project.run(&["--grid", "seed=1,2,3"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stderr(&output).matches("✓ documents").count(), 1);
    assert_eq!(stderr(&output).matches("✓ parts").count(), 3);
    let csv = fs::read_to_string(project.root.join("cache/results/части/grid.csv")).unwrap();
    let lines: Vec<&str> = csv.lines().collect();
    assert!(lines[0].starts_with("seed,dev.documents,"), "{csv}");
    assert_eq!(lines.len(), 4);
    for (line, seed) in lines[1..].iter().zip(["1,", "2,", "3,"]) {
        assert!(line.starts_with(seed), "{csv}");
    }
    assert!(stdout(&output).lines().any(|line| line.starts_with("seed  dev.documents")), "{}", stdout(&output));

    let wrong = project.run(&["--grid", "sead=1,2"]);
    assert_eq!(wrong.status.code(), Some(3));
    assert!(stderr(&wrong).contains("did you mean `seed`"), "{}", stderr(&wrong));
}

#[test]
fn a_failure_is_told_and_ends_with_one() {
    let project = Project::new(40);
    fs::remove_file(project.root.join("данные/n.conllu")).unwrap();
    let output = project.run(&["--quiet"]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(1), String::new()));
    let text = stderr(&output);
    assert!(text.contains("✗ documents") && text.contains("данные/n.conllu"), "{text}");
}

/// The limit on the size of files stands for a full disk: both let a write fail half-way.
#[test]
fn a_write_that_fails_half_way_leaves_nothing() {
    let project = Project::new(400);
    let pipe = env!("CARGO_BIN_EXE_pipe");
    let script = format!("trap '' XFSZ; ulimit -f 8; exec '{pipe}' run 'pipelines/части.yaml'");
    let output = Command::new("sh").args(["-c", &script]).current_dir(&project.root).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("File too large"), "{}", stderr(&output));
    for folder in ["records", "objects"] {
        let left = pipe::digest::files_below(&project.root.join("cache").join(folder)).unwrap_or_default();
        assert!(left.is_empty(), "{left:?}");
    }
    let again = project.run(&[]);
    assert!(stderr(&again).contains("2 steps ran"), "{}", stderr(&again));
}

#[test]
fn ctrl_c_stops_cleanly() {
    // Enough documents that parting them is still going on when the signal comes.
    let project = Project::new(150_000);
    let mut child = project
        .command(&["run", "pipelines/части.yaml", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id().to_string();
    let mut last = None;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let stamped: Stamped = serde_json::from_str(&line.unwrap()).unwrap();
        if matches!(&stamped.event, Event::StepStarted { step, .. } if step == "parts") {
            assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        }
        last = Some(stamped.event);
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(stderr(&output).matches("stopping…").count(), 1);
    let Some(Event::RunFinished { outcome, ran, failed, skipped, .. }) = last else { panic!("{last:?}") };
    assert_eq!((outcome, ran, failed, skipped), (Outcome::Interrupted, 1, 0, 0));
    let records = pipe::digest::files_below(&project.root.join("cache/records")).unwrap();
    assert_eq!(records.len(), 1);
    let scratch = fs::read_dir(project.root.join("cache/tmp")).unwrap();
    assert!(scratch.map(|entry| entry.unwrap().path()).all(|path: PathBuf| !Path::is_dir(&path)));
}
