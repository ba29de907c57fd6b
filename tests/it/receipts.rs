//! Receipts make runs faster and change nothing else: whatever happened between two runs, the second does what it does
//! without the receipt of the first. Two equal projects go the same way, and one of them loses its receipts before each
//! run.
//! It does not know what stands in a receipt, but for one that it forges to see whether it is used.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use pipe::digest::{Digest, files_below};
use pipe::event::Say;
use pipe::step::Machine;
use pipe::steps::KINDS;
use pipe::store::receipt::KnownStep;
use pipe::store::{Receipt, Store};
use serde_json::{Value, json};

const PIPELINE: &str = "
name: p
params: { text: one, limit: 0 }
steps:
  a:
    uses: command
    with: { shell: 'cat src/a.txt > o; printf ${params.text} >> o', code: [src/a.txt], outputs: { o: o } }
  b:
    uses: command
    in: { a: a }
    with:
      shell: 'mkdir d; cat in/a code/*.txt > d/all; echo $PIPE_TEST_X > d/x; date >&2'
      code: [code]
      pass_env: [PIPE_TEST_X]
      outputs: { d: d }
  cut: { uses: command, in: { b: b }, with: { shell: 'ls in/b > o', outputs: { o: o } } }
  figure:
    uses: command
    in: { cut: cut }
    expect: f1 >= ${params.limit}
    with: { shell: 'echo {\\\"f1\\\":1} > f.json; cp f.json g', figures: f.json, outputs: { f: f.json, g: g } }
  text: { uses: render, in: { data: figure.f }, with: { template: templates/t.txt } }
  data: { uses: download, with: { source: data } }
  end: { uses: command, in: { all: [text, data, a] }, with: { shell: 'ls -R in/all/ > o', outputs: { o: o } } }
  beside: { uses: command, with: { shell: 'echo beside > o', outputs: { o: o } } }
";

/// A project, and how it is run.
struct Project {
    _folder: tempfile::TempDir,
    root: PathBuf,
    keeps: bool,
    args: Vec<String>,
    variable: Option<String>,
}

impl Project {
    fn new(keeps: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("проект");
        let files = [
            ("p.yaml", PIPELINE),
            ("src/a.txt", "source\n"),
            ("code/x.txt", "x\n"),
            ("code/deep/y.txt", "y\n"),
            ("templates/t.txt", "{% include \"parts/head.txt\" %}{{ f1 }}\n"),
            ("templates/parts/head.txt", "head\n"),
            ("data/one.txt", "1\n"),
            ("data/two/three.txt", "3\n"),
        ];
        for (name, text) in files {
            write(&root.join(name), text);
        }
        Self { _folder: folder, root, keeps, args: vec!["--keep-going".to_owned()], variable: None }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
        command.current_dir(&self.root).env_remove("PIPE_CACHE").env_remove("PIPE_TEST_X").args(args);
        command.envs(self.variable.iter().map(|value| ("PIPE_TEST_X", value)));
        command
    }

    fn output(&self) -> Output {
        if !self.keeps {
            let _ = fs::remove_dir_all(self.cache().join("receipts"));
        }
        let mut args = vec!["run", "p.yaml", "--json"];
        args.extend(self.args.iter().map(String::as_str));
        if !self.args.iter().any(|arg| arg == "--device") {
            args.extend(["--device", "cpu"]);
        }
        self.command(&args).output().unwrap()
    }

    /// What a run tells, without times and in an order of its own; the log tells the same.
    fn run(&self) -> (Option<i32>, Vec<String>) {
        let output = self.output();
        let told = String::from_utf8(output.stdout).unwrap();
        let all: Vec<&str> = told.lines().filter(|line| !is_passing(line)).collect();
        // Of a grid there is more than one.
        let runs: Vec<String> = all.iter().filter_map(|line| run_of(line)).collect();
        if let [run] = runs.as_slice() {
            let log = fs::read_to_string(self.cache().join(format!("runs/{run}.jsonl"))).unwrap();
            assert_eq!(log.lines().skip(1).collect::<Vec<_>>(), all);
        }
        let mut lines: Vec<String> = all.iter().map(|line| plain(line)).collect();
        lines.sort();
        (output.status.code(), lines)
    }

    fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The record of a step, and the object of its first output.
    fn result(&self, step: &str) -> (PathBuf, PathBuf) {
        let records = files_below(&self.cache().join("records")).unwrap();
        let found = records.iter().map(|name| self.cache().join("records").join(name)).find_map(|path| {
            let record: Value = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
            let outputs = record["outputs"].as_object()?.values().next()?["digest"].as_str()?.to_owned();
            (record["step"] == step).then_some((path, outputs))
        });
        let (record, digest) = found.unwrap();
        (record, self.cache().join("objects").join(&digest[..2]).join(digest))
    }

    /// Names and sound receipts.
    fn receipts(&self) -> Vec<(Digest, Receipt)> {
        let store = Store::at(self.cache());
        let names: BTreeSet<Digest> =
            store.survey("receipts").iter().filter_map(|found| Digest::parse(&found.name)).collect();
        names.into_iter().filter_map(|name| Some((name.clone(), store.receipt(&name)?))).collect()
    }

    /// Results that people find, with what they hold.
    fn results(&self) -> BTreeMap<String, String> {
        let folder = self.cache().join("results");
        let text = |name: String| (name.clone(), fs::read_to_string(folder.join(&name)).unwrap_or_default());
        files_below(&folder).unwrap().into_iter().map(text).collect()
    }
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// What no log keeps.
fn is_passing(line: &str) -> bool {
    line.contains("\"event\":\"forecast\"") || line.contains("\"say\":{\"progress\"")
}

fn run_of(line: &str) -> Option<String> {
    let event: Value = serde_json::from_str(line).ok()?;
    event["run"].as_str().map(str::to_owned)
}

fn plain(line: &str) -> String {
    let mut event: Value = serde_json::from_str(line).unwrap();
    let fields = event.as_object_mut().unwrap();
    ["at_ms", "took_ms", "saved_ms", "costs", "run"].iter().for_each(|name| drop(fields.remove(*name)));
    event.to_string()
}

/// What happens between two runs.
type Change = (&'static str, fn(&mut Project));

/// Gives a file another content of the same size, and the time that it had.
fn sly(path: &Path, text: &str) {
    let before = fs::metadata(path).unwrap();
    assert_eq!(before.len(), text.len() as u64);
    fs::write(path, text).unwrap();
    let file = File::options().write(true).open(path).unwrap();
    file.set_times(FileTimes::new().set_modified(before.modified().unwrap())).unwrap();
}

/// Objects and records are read-only for good reason.
fn overwrite(path: &Path, text: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, text).unwrap();
}

fn truncate(path: &Path) {
    let text = fs::read(path).unwrap();
    overwrite(path, &text[..text.len() / 2]);
}

fn append(path: &Path, text: &str) {
    let before = fs::read_to_string(path).unwrap();
    fs::write(path, before + text).unwrap();
}

const CHANGES: &[Change] = &[
    ("nothing", |_| {}),
    ("a source of the same size and time", |p| sly(&p.path("src/a.txt"), "SOURCE\n")),
    ("a source that is the same again", |p| write(&p.path("src/a.txt"), "source\n")),
    ("a source that is gone", |p| fs::remove_file(p.path("src/a.txt")).unwrap()),
    ("a file of code of the same size and time", |p| sly(&p.path("code/deep/y.txt"), "Y\n")),
    ("a new file of code", |p| write(&p.path("code/deep/z.txt"), "z\n")),
    ("a file of code less", |p| fs::remove_file(p.path("code/deep/y.txt")).unwrap()),
    ("a file of code with another name", |p| fs::rename(p.path("code/x.txt"), p.path("code/u.txt")).unwrap()),
    ("code that is left out", |p| write(&p.path("code/.hidden"), "")),
    ("code behind a link", |p| {
        fs::rename(p.path("code"), p.path("elsewhere")).unwrap();
        std::os::unix::fs::symlink("elsewhere", p.path("code")).unwrap();
    }),
    ("an included template", |p| sly(&p.path("templates/parts/head.txt"), "HEAD\n")),
    ("an included template behind a link out of the folder", |p| {
        fs::rename(p.path("templates/parts"), p.path("parts")).unwrap();
        std::os::unix::fs::symlink("../parts", p.path("templates/parts")).unwrap();
    }),
    ("a template that nobody includes", |p| write(&p.path("templates/other.txt"), "")),
    ("a new file of data", |p| write(&p.path("data/two/four.txt"), "4\n")),
    ("a file of data of the same size and time", |p| sly(&p.path("data/two/three.txt"), "4\n")),
    ("a comment in the pipeline", |p| append(&p.path("p.yaml"), "# a comment\n")),
    ("another parameter in the pipeline", |p| write(&p.path("p.yaml"), &PIPELINE.replace("text: one", "text: two"))),
    ("an expectation that is not met", |p| write(&p.path("p.yaml"), &PIPELINE.replace("limit: 0", "limit: 2"))),
    ("a pipeline that is wrong", |p| append(&p.path("p.yaml"), "stepz: {}\n")),
    ("a pipeline that is gone", |p| fs::remove_file(p.path("p.yaml")).unwrap()),
    ("another parameter on the command line", |p| p.args = vec!["--set".into(), "text=three".into()]),
    ("a target", |p| p.args = vec!["cut".into()]),
    ("another device", |p| p.args = vec!["--device".into(), "auto".into()]),
    ("a device that is not there", |p| p.args = vec!["--device".into(), "nothing".into()]),
    ("a step that is forced", |p| p.args = vec!["--force".into(), "cut".into()]),
    ("steps that are forced from one on", |p| p.args = vec!["--from".into(), "figure".into()]),
    ("only one step", |p| p.args = vec!["--only".into(), "end".into()]),
    ("every file is read", |p| p.args = vec!["--paranoid".into()]),
    ("a grid", |p| p.args = vec!["--grid".into(), "text=one,two".into()]),
    ("the cache under another name", |p| p.args = vec!["--cache".into(), "../проект/cache".into()]),
    ("a variable that was not set", |p| p.variable = Some("set".into())),
    ("an object that is gone", |p| fs::remove_file(p.result("a").1).unwrap()),
    ("an object that was cut short", |p| truncate(&p.result("cut").1)),
    ("a file of an object that is gone", |p| fs::remove_file(p.result("b").1.join("all")).unwrap()),
    ("a folder in place of an object", |p| {
        fs::remove_file(p.result("cut").1).unwrap();
        fs::create_dir(p.result("cut").1).unwrap();
    }),
    ("a record that is gone", |p| fs::remove_file(p.result("b").0).unwrap()),
    ("a record that was cut short", |p| truncate(&p.result("a").0)),
    ("a record with another letter", |p| {
        let path = p.result("figure").0;
        let text = fs::read_to_string(&path).unwrap().replace("\"f1\":1", "\"f1\":3");
        sly_overwrite(&path, &text);
    }),
    ("the record of another step", |p| {
        let (one, other) = (p.result("cut").0, p.result("end").0);
        fs::copy(other, one).unwrap();
    }),
    ("all objects are gone", |p| fs::remove_dir_all(p.cache().join("objects")).unwrap()),
    ("all records are gone", |p| fs::remove_dir_all(p.cache().join("records")).unwrap()),
    ("a link that is gone", |p| fs::remove_file(p.cache().join("results/p/a/o")).unwrap()),
    ("a file in place of a link", |p| overwrite(&p.cache().join("results/p/cut/o"), b"mine")),
    ("a link that leads elsewhere", |p| {
        let link = p.cache().join("results/p/end/o");
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink("../../../stat.log", link).unwrap();
    }),
    ("all links are gone", |p| fs::remove_dir_all(p.cache().join("results")).unwrap()),
    ("the last keys are not known", |p| fs::remove_dir_all(p.cache().join("steps")).unwrap()),
    ("no run is known", |p| fs::remove_dir_all(p.cache().join("runs")).unwrap()),
    ("no file is remembered", |p| drop(fs::remove_file(p.cache().join("stat.log")))),
    ("gc with nothing to keep", |p| {
        let output = p.command(&["cache", "gc", "--keep-runs", "0", "--yes"]).output().unwrap();
        assert!(output.status.success());
        assert!(p.receipts().is_empty(), "their results are gone");
    }),
    ("gc", |p| assert!(p.command(&["cache", "gc", "--yes"]).output().unwrap().status.success())),
    ("a damaged object that is put aside", |p| {
        let object = p.result("a").1;
        let text = fs::read_to_string(&object).unwrap();
        overwrite(&object, text.to_uppercase().as_bytes());
        assert!(p.command(&["cache", "verify", "--repair"]).output().unwrap().status.success());
    }),
    ("a run with another parameter", |p| {
        p.args = vec!["--set".into(), "text=two".into()];
        p.output();
        p.args.clear();
    }),
    ("a project in another place", |p| {
        let moved = p.root.with_file_name("moved");
        fs::rename(&p.root, &moved).unwrap();
        p.root = moved;
    }),
    ("a cache that was copied", |p| {
        let copied = Command::new("cp").args(["-r", "cache", "copy"]).current_dir(&p.root).status().unwrap();
        assert!(copied.success());
        fs::remove_dir_all(p.cache()).unwrap();
        fs::rename(p.path("copy"), p.cache()).unwrap();
    }),
    ("receipts of another project", |p| {
        let other = Project::new(true);
        write(&other.path("src/a.txt"), "other\n");
        other.run();
        let (theirs, ours) = (other.receipts(), p.receipts());
        if let (Some((_, receipt)), Some((name, _))) = (theirs.first(), ours.first()) {
            Store::at(p.cache()).keep_receipt(name, receipt).unwrap();
        }
    }),
    ("receipts that are damaged", |p| {
        for found in Store::at(p.cache()).survey("receipts") {
            let mut bytes = fs::read(&found.path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(&found.path, bytes).unwrap();
        }
    }),
    ("receipts that were cut short", |p| {
        Store::at(p.cache()).survey("receipts").iter().for_each(|found| truncate(&found.path));
    }),
    ("folders in place of receipts", |p| {
        for found in Store::at(p.cache()).survey("receipts") {
            fs::remove_file(&found.path).unwrap();
            fs::create_dir(&found.path).unwrap();
        }
    }),
];

fn sly_overwrite(path: &Path, text: &str) {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    sly(path, text);
}

/// Goes the same way with both projects; `patience` is how long files are left alone before the change, so that how
/// they look may be relied on.
fn hold(&(what, change): &Change, patience: Duration) {
    let mut pair = [Project::new(true), Project::new(false)];
    let [first, other] = pair.each_ref().map(Project::run);
    assert_eq!(first, other, "{what}: the first run");
    std::thread::sleep(patience);
    // What is certain by now is written down by this one.
    let [first, other] = pair.each_ref().map(Project::run);
    assert_eq!(first, other, "{what}: a run before");
    pair.iter_mut().for_each(change);
    for round in ["the run after", "one more", "and one"] {
        let [first, other] = pair.each_ref().map(Project::run);
        assert_eq!(first, other, "{what}: {round}");
        assert_eq!(pair[0].results(), pair[1].results(), "{what}: {round}");
        let names = |project: &Project| files_below(&project.cache().join("records")).unwrap_or_default();
        assert_eq!(names(&pair[0]), names(&pair[1]), "{what}: {round}");
    }
}

/// So many at a time: most of them wait.
fn hold_all(changes: &[Change], patience: Duration, at_once: usize) {
    for some in changes.chunks(at_once) {
        std::thread::scope(|scope| some.iter().for_each(|change| drop(scope.spawn(|| hold(change, patience)))));
    }
}

fn chosen(words: &[&str]) -> Vec<Change> {
    let found: Vec<Change> = CHANGES.iter().filter(|(what, _)| words.contains(what)).copied().collect();
    assert_eq!(found.len(), words.len());
    found
}

#[test]
fn a_run_does_what_it_does_without_a_receipt() {
    let changes = chosen(&[
        "nothing",
        "a source of the same size and time",
        "a new file of code",
        "another parameter in the pipeline",
        "a variable that was not set",
        "an object that was cut short",
        "a record that is gone",
        "a link that is gone",
        "receipts of another project",
        "receipts that are damaged",
        "a run with another parameter",
    ]);
    hold_all(&changes, Duration::ZERO, 6);
}

#[test]
fn a_receipt_that_relies_on_how_files_look_hides_no_change() {
    let changes = chosen(&[
        "a source of the same size and time",
        "a file of data of the same size and time",
        "an object that is gone",
        "a record with another letter",
        "a link that leads elsewhere",
    ]);
    hold_all(&changes, Duration::from_millis(3200), 5);
}

#[test]
fn long_no_change_is_hidden_by_a_receipt() {
    if !crate::support::long() {
        return;
    }
    for patience in [0, 3200] {
        hold_all(CHANGES, Duration::from_millis(patience), 16);
    }
}

/// The steps of a project's only receipt.
fn only(project: &Project) -> (Digest, Receipt) {
    let mut receipts = project.receipts();
    assert_eq!(receipts.len(), 1);
    receipts.remove(0)
}

#[test]
fn a_receipt_is_used_as_far_as_it_holds() {
    let project = Project::new(true);
    project.run();
    let store = Store::at(project.cache());
    let (name, mut receipt) = only(&project);
    assert_eq!(receipt.steps.len(), 8);
    // Nobody but this test writes such a thing: whoever tells it has it from there.
    let forged = |step: &mut KnownStep| {
        step.said = vec![Say::Warning { text: format!("{} is from the receipt", step.id) }];
    };
    receipt.steps.iter_mut().map(Arc::make_mut).for_each(forged);
    let recalled = || {
        store.keep_receipt(&name, &receipt).unwrap();
        let (_, told) = project.run();
        let found = told.iter().filter_map(|line| {
            let event: Value = serde_json::from_str(line).unwrap();
            event["say"]["warning"]["text"].as_str()?.strip_suffix(" is from the receipt").map(str::to_owned)
        });
        found.collect::<BTreeSet<_>>()
    };
    let set = |steps: &[&str]| steps.iter().map(|step| (*step).to_owned()).collect::<BTreeSet<_>>();
    let all = set(&["a", "b", "cut", "figure", "text", "data", "end", "beside"]);
    assert_eq!(recalled(), all);
    // What does not depend on the file, and what depends on it by bytes that are the same again.
    write(&project.path("code/x.txt"), "another\n");
    assert_eq!(recalled(), &all - &set(&["b", "cut"]));
    // It is the same again, although it does not look so.
    write(&project.path("code/x.txt"), "x\n");
    assert_eq!(recalled(), all);
    write(&project.path("src/a.txt"), "another\n");
    assert_eq!(recalled(), &all - &set(&["a", "b", "cut", "end"]));
    write(&project.path("src/a.txt"), "source\n");
    let key = &receipt.steps.iter().find(|step| step.id == "cut").unwrap().key;
    fs::remove_file(project.cache().join(format!("records/{}/{key}.json", &key.as_str()[..2]))).unwrap();
    assert_eq!(recalled(), &all - &set(&["cut"]));
    append(&project.path("p.yaml"), "# a comment\n");
    assert_eq!(recalled(), set(&[]));
}

#[test]
fn a_receipt_tells_no_values_and_is_no_part_of_what_must_be_there() {
    let mut project = Project::new(true);
    project.variable = Some("hush-hush".into());
    project.run();
    for found in Store::at(project.cache()).survey("receipts") {
        let bytes = fs::read(&found.path).unwrap();
        assert!(!bytes.windows(9).any(|part| part == b"hush-hush"), "{}", found.path.display());
    }
    let before = project.receipts();
    fs::remove_dir_all(project.cache().join("receipts")).unwrap();
    let (code, told) = project.run();
    assert_eq!((code, told.iter().filter(|line| line.contains("step_reused")).count()), (Some(0), 8));
    assert_eq!(project.receipts().len(), before.len());
    let stats = project.command(&["cache", "stats", "--json"]).output().unwrap();
    let stats: Value = serde_json::from_slice(&stats.stdout).unwrap();
    // The receipt, and the pipeline beside it.
    assert_eq!(stats["parts"]["receipts"]["count"], json!(2));
    assert_eq!(stats["parts"]["receipts"]["garbage"]["count"], json!(0));
}

#[test]
fn runs_at_once_leave_one_sound_receipt() {
    let project = Project::new(true);
    for _ in 0..3 {
        let run = || {
            let output = project.output();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        };
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(run))));
        only(&project);
        write(&project.path("src/a.txt"), "another\n");
    }
    let left = files_below(&project.cache().join("tmp")).unwrap_or_default();
    assert!(left.iter().all(|name| name == "guard"), "{left:?}");
}

#[test]
fn a_cache_that_cannot_be_written_is_read() {
    let project = Project::new(true);
    project.run();
    // A file where the folder should be: nothing can be kept.
    fs::remove_dir_all(project.cache().join("receipts")).unwrap();
    fs::write(project.cache().join("receipts"), "").unwrap();
    let (code, told) = project.run();
    assert_eq!((code, told.iter().filter(|line| line.contains("step_reused")).count()), (Some(0), 8));
}

/// A receipt knows of the environment what kinds say that they ask for.
#[test]
fn kinds_ask_for_the_variables_that_they_name_alone() {
    let mut asked = 0;
    for kind in KINDS {
        let example: Value = serde_yaml::from_str(kind.example()).unwrap();
        let mut with = example.as_object().unwrap().values().next().unwrap()["with"].clone();
        if kind.name() == "command" {
            with["pass_env"] = json!(["PIPE_TEST_X", "PIPE_TEST_Y"]);
        }
        let with = if with.is_null() { json!({}) } else { with };
        let action = kind.parse(&with).unwrap_or_else(|problems| panic!("{}: {problems:?}", kind.name()));
        let named = action.variables();
        let all = ["PATH", "HOME", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "HF_HOME", "PIPE_TEST_X"];
        let machine = |names: &mut dyn Iterator<Item = &&str>| Machine {
            device: "cpu".to_owned(),
            cores: 2,
            bf16: false,
            variables: Arc::new(names.map(|name| ((*name).to_owned(), OsString::from("value"))).collect()),
            precisions: Arc::default(),
        };
        let (full, less) = (
            machine(&mut all.iter()),
            machine(&mut all.iter().filter(|name| named.iter().any(|known| known == *name))),
        );
        assert_eq!(action.environment(&full), action.environment(&less), "{}", kind.name());
        asked += named.len();
    }
    assert_eq!(asked, 2);
}
