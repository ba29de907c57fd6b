//! The cache as several processes share it and as `pipe cache` looks after it, through the binary and through `Store`.
//! It does not know step kinds but `command`, whose programs are a line of shell.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use pipe::digest::{Digest, files_below};
use pipe::event::Costs;
use pipe::store::{Draft, Keep, Lookup, Record, Store};
use serde_json::{Value, json};

// ---- a project --------------------------------------------------------------------------------------------------

struct Project {
    _folder: tempfile::TempDir,
    root: PathBuf,
}

const PIPELINE: &str = "
name: p
params: { text: one }
steps:
  a: { uses: command, with: { shell: 'printf %s ${params.text} > a.txt', outputs: { a: a.txt } } }
  b: { uses: command, in: { a: a }, with: { shell: 'cat in/a in/a > b.txt', outputs: { b: b.txt } } }
";

impl Project {
    fn new(pipeline: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("проект");
        fs::create_dir_all(root.join("pipelines")).unwrap();
        fs::write(root.join("pipelines/p.yaml"), pipeline).unwrap();
        Self { _folder: folder, root }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
        command.current_dir(&self.root).env_remove("PIPE_CACHE").args(args);
        command
    }

    fn pipe(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// How many steps ran.
    fn run(&self, sets: &[&str]) -> u64 {
        let mut args = vec!["run", "pipelines/p.yaml", "--json"];
        sets.iter().for_each(|set| args.extend(["--set", set]));
        let output = self.pipe(&args);
        assert!(output.status.success(), "{}", text(&output.stdout));
        let last: Value = serde_json::from_str(text(&output.stdout).lines().last().unwrap()).unwrap();
        last["ran"].as_u64().unwrap()
    }

    fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    fn store(&self) -> Store {
        Store::at(self.cache())
    }

    fn files(&self) -> BTreeSet<String> {
        files_below(&self.cache()).unwrap().into_iter().collect()
    }

    fn last_run(&self) -> String {
        self.store().survey("runs").into_iter().max_by_key(|log| log.changed).unwrap().name
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn never(_: u64) -> pipe::error::Result<()> {
    Ok(())
}

/// Everything that a record promises is there, to the last byte.
fn sound(cache: &Path) -> usize {
    let verified = Store::at(cache).verify(&mut |_, _| Ok(())).unwrap();
    assert!(verified.damage.is_empty(), "{:?}", verified.damage);
    verified.records
}

// ---- looking after it -------------------------------------------------------------------------------------------

#[test]
fn damage_that_keeps_the_size_is_found_put_aside_and_made_anew() {
    let project = Project::new(PIPELINE);
    assert_eq!(project.run(&[]), 2);
    assert_eq!(project.pipe(&["cache", "verify"]).status.code(), Some(0));
    let object = project.cache().join("results/p/a/a.txt").canonicalize().unwrap();
    fs::remove_file(&object).unwrap();
    fs::write(&object, "0ne").unwrap();
    assert_eq!(project.run(&[]), 0, "a run without work reads no content");
    // Unless it is told to trust nothing: then what is damaged is made again.
    let paranoid = project.pipe(&["run", "pipelines/p.yaml", "--paranoid"]);
    let told = text(&paranoid.stderr);
    assert!(told.contains("its output `a` is damaged in the cache") && told.contains("1 step ran, 1 reused"), "{told}");
    assert_eq!(sound(&project.cache()), 2);
    let object = project.cache().join("results/p/a/a.txt").canonicalize().unwrap();
    fs::remove_file(&object).unwrap();
    fs::write(&object, "0ne").unwrap();

    let output = project.pipe(&["cache", "verify"]);
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stdout);
    assert!(told.contains("its content is not what its name says; of a (2"), "{told}");
    let output = project.pipe(&["cache", "verify", "--repair"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stderr).ends_with("put aside, and made again\n"), "{}", text(&output.stderr));
    assert_eq!(files_below(&project.cache().join("damaged")).unwrap().len(), 1);
    assert_eq!(sound(&project.cache()), 2);
    assert_eq!(project.run(&[]), 0);
    assert_eq!(fs::read_to_string(project.cache().join("results/p/a/a.txt")).unwrap(), "one");
}

#[test]
fn what_a_pipeline_does_not_make_any_more_waits_for_it() {
    let project = Project::new(PIPELINE);
    project.run(&["text=one"]);
    project.run(&["text=two"]);
    let damage = |project: &Project| {
        for name in files_below(&project.cache().join("objects")).unwrap() {
            let object = project.cache().join("objects").join(name);
            fs::remove_file(&object).unwrap();
            fs::write(&object, "?").unwrap();
        }
    };
    // Both runs are known with what was set for them, and each step waits for the one that it needs.
    damage(&project);
    let output = project.pipe(&["cache", "verify", "--repair"]);
    assert!(text(&output.stderr).ends_with("put aside, and made again\n"), "{}", text(&output.stderr));
    assert_eq!((sound(&project.cache()), project.run(&["text=one"]), project.run(&["text=two"])), (4, 0, 0));

    damage(&project);
    let file = project.root.join("pipelines/p.yaml");
    let before = fs::read_to_string(&file).unwrap();
    fs::write(&file, "steps: { a: ").unwrap();
    let output = project.pipe(&["cache", "verify", "--repair"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("made again once a pipeline needs it: a (2"), "{}", text(&output.stderr));
    fs::write(&file, before).unwrap();
    assert_eq!(project.run(&["text=two"]), 2);
}

#[test]
fn a_torn_record_and_a_missing_object_are_told() {
    let project = Project::new(PIPELINE);
    project.run(&[]);
    let records = files_below(&project.cache().join("records")).unwrap();
    let torn = project.cache().join("records").join(&records[0]);
    let whole = fs::read(&torn).unwrap();
    fs::write(&torn, &whole[..whole.len() / 2]).unwrap();
    let other: Value =
        serde_json::from_slice(&fs::read(project.cache().join("records").join(&records[1])).unwrap()).unwrap();
    let digest = other["outputs"].as_object().unwrap().values().next().unwrap()["digest"].as_str().unwrap();
    fs::remove_file(project.cache().join(format!("objects/{}/{digest}", &digest[..2]))).unwrap();
    let output = project.pipe(&["cache", "verify", "--repair"]);
    let told = text(&output.stdout);
    assert!(told.contains("its record is damaged") && told.contains("it is missing; of "), "{told}");
    assert_eq!(project.run(&[]), 0, "{}", text(&output.stderr));
    assert_eq!(sound(&project.cache()), 2);
}

#[test]
fn gc_keeps_what_the_last_runs_and_pinned_runs_used() {
    let project = Project::new(PIPELINE);
    project.run(&["text=one"]);
    let pinned = project.last_run();
    for text in ["text=two", "text=three"] {
        project.run(&[text]);
    }
    assert!(project.pipe(&["cache", "pin", &pinned]).status.success());
    assert_eq!(text(&project.pipe(&["cache", "pin"]).stdout), format!("{pinned}\n"));
    let before = project.files();
    let output = project.pipe(&["cache", "gc", "--keep-runs", "1"]);
    assert!(text(&output.stdout).contains("records             2"), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("--yes removes it"), "{}", text(&output.stderr));
    assert_eq!(project.files(), before, "without --yes nothing is removed");

    assert!(project.pipe(&["cache", "gc", "--keep-runs", "1", "--yes"]).status.success());
    assert_eq!(sound(&project.cache()), 4);
    assert_eq!((project.run(&["text=three"]), project.run(&["text=one"]), project.run(&["text=two"])), (0, 0, 2));
    assert!(project.pipe(&["cache", "unpin", &pinned]).status.success());
    assert!(project.store().pins().is_empty());
    assert_eq!(project.pipe(&["cache", "pin", "no such run"]).status.code(), Some(1));
}

#[test]
fn gc_keeps_what_a_named_pipeline_needs() {
    let project = Project::new(PIPELINE);
    project.run(&[]);
    project.run(&["text=two"]);
    assert!(project.pipe(&["cache", "gc", "pipelines/p.yaml", "--keep-runs", "0", "--yes"]).status.success());
    assert_eq!((sound(&project.cache()), project.run(&[])), (2, 0));
}

#[test]
fn gc_removes_the_least_recently_used_until_the_rest_is_small_enough() {
    let big = PIPELINE.replace("printf %s ${params.text}", "head -c 100000 /dev/zero | tr \"\\\\0\" ${params.text}");
    let project = Project::new(&big);
    for text in ["text=x", "text=y", "text=x"] {
        project.run(&[text]);
    }
    let output = project.pipe(&["cache", "gc", "--max-size", "300K", "--yes"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!((project.run(&["text=x"]), project.run(&["text=y"])), (0, 2), "used last, though made first");
}

#[test]
fn gc_leaves_alone_what_came_while_another_process_runs() {
    let project = Project::new(PIPELINE);
    project.run(&[]);
    let other = project.store();
    let stage = other.stage().unwrap();
    // Whatever the clock's ticks: what comes now is younger than the other process.
    std::thread::sleep(Duration::from_millis(20));
    project.run(&["text=two"]);
    assert!(project.pipe(&["cache", "gc", "--keep-runs", "0", "--yes"]).status.success());
    assert!(stage.folder().is_dir());
    assert_eq!((sound(&project.cache()), project.run(&["text=two"])), (2, 0));
    drop((stage, other));
    assert!(project.pipe(&["cache", "gc", "--keep-runs", "0", "--yes"]).status.success());
    assert_eq!(sound(&project.cache()), 0);
    assert!(files_below(&project.cache().join("objects")).unwrap().is_empty());
}

#[test]
fn gc_leaves_what_is_not_the_caches_own() {
    let project = Project::new(PIPELINE);
    project.run(&[]);
    let own = project.cache().join("objects/ab/заметка.txt");
    fs::create_dir_all(own.parent().unwrap()).unwrap();
    fs::write(&own, "mine").unwrap();
    // A download that may still be going on, one that was given up, and one that is whole.
    let part = |name: &str| project.cache().join("downloads").join(name).join("part");
    for name in ["now", "once", "whole"] {
        fs::create_dir_all(part(name).parent().unwrap()).unwrap();
        fs::write(part(name), "part").unwrap();
    }
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(200_000);
    fs::File::options().write(true).open(part("once")).unwrap().set_modified(long_ago).unwrap();
    fs::rename(part("whole"), part("whole").with_file_name("file")).unwrap();
    project.store().collect(&Keep::default()).unwrap();
    assert!(own.exists() && part("now").exists() && !part("once").exists());
    assert!(part("whole").with_file_name("file").exists());
}

#[test]
fn stats_count_each_part_and_what_gc_would_remove() {
    let project = Project::new(PIPELINE);
    project.run(&[]);
    let before = project.files();
    let output = project.pipe(&["cache", "stats", "--json", "--keep-runs", "0"]);
    let stats: Value = serde_json::from_slice(&output.stdout).unwrap();
    let objects = &stats["parts"]["objects"];
    assert_eq!((&objects["count"], &objects["bytes"], &objects["garbage"]["count"]), (&json!(2), &json!(9), &json!(2)));
    assert_eq!(stats["parts"]["records"]["count"], 2);
    assert!(text(&project.pipe(&["cache", "stats"]).stdout).contains("objects             2        9 B"));
    assert_eq!(project.files(), before, "looking changes nothing");
    let elsewhere = project.pipe(&["cache", "stats", "--cache", "nowhere"]);
    assert_eq!(elsewhere.status.code(), Some(2));
    assert!(text(&elsewhere.stderr).contains("there is no cache at nowhere"), "{}", text(&elsewhere.stderr));
}

#[test]
fn gc_says_of_which_run_it_knows_nothing_and_keeps_its_log() {
    let project = Project::new(PIPELINE);
    project.run(&[]);
    let log = project.cache().join("runs/2020-01-01T00-00-00Z-abcdef.jsonl");
    fs::write(&log, "{\"format\":\"pipe/run@9\"}\n").unwrap();
    let output = project.pipe(&["cache", "gc", "--yes"]);
    let told = text(&output.stderr);
    assert!(told.contains("what the run 2020-01-01T00-00-00Z-abcdef used is not known"), "{told}");
    assert!(log.exists() && sound(&project.cache()) == 2);
}

#[test]
fn a_run_whose_results_cannot_be_recorded_has_failed_and_says_so() {
    let project = Project::new(PIPELINE);
    fs::create_dir_all(project.cache()).unwrap();
    fs::write(project.cache().join("records"), "a file where a folder should be").unwrap();
    let output = project.pipe(&["run", "pipelines/p.yaml"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let told = text(&output.stderr);
    assert!(told.contains("the result of `a` could not be kept: cannot "), "{told}");
    fs::remove_file(project.cache().join("records")).unwrap();
    assert_eq!(project.run(&[]), 2);
    assert_eq!(sound(&project.cache()), 2);
}

// ---- several processes ------------------------------------------------------------------------------------------

fn manifest(number: u32) -> Value {
    json!({"number": format!("{number:06}")})
}

fn commit(store: &Store, number: u32) -> Option<Record> {
    let lease = store.lease(&pipe::key::key_of(&manifest(number))).unwrap()?;
    if let Lookup::Hit(record) = store.find(&pipe::key::key_of(&manifest(number))) {
        return Some(*record);
    }
    let stage = store.stage().unwrap();
    fs::create_dir(stage.out()).unwrap();
    fs::write(stage.out().join("file"), format!("{number:06}")).unwrap();
    if let Some(made) = std::env::var_os("PIPE_TEST_MADE") {
        let mut made = fs::File::options().append(true).create(true).open(made).unwrap();
        made.write_all(format!("{number}\n").as_bytes()).unwrap();
    }
    let draft = Draft {
        manifest: manifest(number),
        outputs: BTreeMap::from([("text".to_owned(), "file".to_owned())]),
        figures: BTreeMap::new(),
        said: Vec::new(),
        costs: Costs::default(),
        run: "run".into(),
        step: "step".into(),
    };
    let record = store.commit(&stage, draft, Some(lease), &mut never).unwrap();
    store.remember("p", &format!("s{number:06}"), &record.key).unwrap();
    Some(record)
}

/// Not a test of its own: processes that make the same results, or hold one lease until they are killed.
#[test]
fn helper_process() {
    let Some(cache) = std::env::var_os("PIPE_TEST_CACHE") else { return };
    let store = Store::at(cache);
    if std::env::var_os("PIPE_TEST_HOLD").is_some() {
        let take = || store.lease(&pipe::key::key_of(&manifest(0))).unwrap();
        // Whoever waits for it to be taken may have it for an instant.
        let _lease = std::iter::repeat_with(take).flatten().next();
        std::thread::sleep(Duration::from_secs(600));
    }
    let mut open: Vec<u32> = (0..60).collect();
    let begun = Instant::now();
    while !open.is_empty() {
        open.retain(|&number| commit(&store, number).is_none());
        assert!(begun.elapsed() < Duration::from_secs(300), "nobody lets go of {open:?}");
    }
    assert_eq!(store.flush(), []);
}

fn helper(cache: &Path, variable: &str, value: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "cache::helper_process", "--nocapture"])
        .env("PIPE_TEST_CACHE", cache)
        .env(variable, value)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn six_processes_make_each_result_once() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, made) = (folder.path().join("cache"), folder.path().join("made"));
    let mut helpers: Vec<Child> = (0..6).map(|_| helper(&cache, "PIPE_TEST_MADE", &made)).collect();
    for helper in &mut helpers {
        assert!(helper.wait().unwrap().success());
    }
    let mut numbers: Vec<u32> = fs::read_to_string(&made).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..60).collect::<Vec<_>>());
    assert_eq!(sound(&cache), 60);
    assert!(files_below(&cache.join("leases")).unwrap().len() <= 1, "lock files pile up");
}

#[test]
fn a_killed_holder_leaves_nothing_to_unlock() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, key) = (folder.path().join("cache"), pipe::key::key_of(&manifest(0)));
    let store = Store::at(&cache);
    let mut holder = helper(&cache, "PIPE_TEST_HOLD", Path::new("yes"));
    // Once it cannot be taken, the helper has it.
    while store.lease(&key).unwrap().is_some() {
        assert!(holder.try_wait().unwrap().is_none(), "the helper has ended");
        std::thread::sleep(Duration::from_millis(5));
    }
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(store.lease(&key).unwrap().is_some());
}

#[test]
fn what_is_written_per_step_does_not_depend_on_how_many_there_are() {
    let per_step = |count: u32| {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().join("cache"));
        for number in 0..count {
            commit(&store, number).unwrap();
        }
        assert_eq!(store.flush(), []);
        drop(store);
        let cache = folder.path().join("cache");
        // The file of the leases is there once, where the system has such locks.
        let files = files_below(&cache).unwrap();
        let files: Vec<String> = files.into_iter().filter(|name| name != "leases/lock").collect();
        let bytes = |name: &String| fs::metadata(cache.join(name)).unwrap().len();
        let journals = files.iter().filter(|name| name.ends_with(".log")).map(bytes).sum::<u64>();
        // The first line of the journal is written once.
        let all = files.iter().map(bytes).sum::<u64>() - "pipe/steps@2\n".len() as u64;
        assert_eq!((all % u64::from(count), journals > 0), (0, true));
        // The guard of tmp/ and the journal are there once, too.
        (all / u64::from(count), (files.len() - 2) as f64 / f64::from(count))
    };
    assert_eq!(per_step(100), per_step(1500));
}

// ---- kills ------------------------------------------------------------------------------------------------------

const MANY: &str = "
name: many
steps:
  cells:
    uses: command
    matrix: { n: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19] }
    with: { shell: 'echo ${matrix.n} > out.txt', outputs: { out: out.txt } }
  all: { uses: command, in: { cells: cells }, with: { shell: 'cat in/cells/* > all.txt', outputs: { all: all.txt } } }
";

/// Kills runs after a part of the time that a whole one takes, spread evenly by the golden ratio, and looks at the
/// store after each.
fn kills(wanted: u32) {
    let project = Project::new(MANY);
    let begun = Instant::now();
    project.run(&[]);
    let mut whole = begun.elapsed();
    let result = Digest::of_file(&project.cache().join("results/many/all/all.txt")).unwrap();
    fs::remove_dir_all(project.cache()).unwrap();
    let (mut killed, mut round) = (0, 0u32);
    while killed < wanted {
        round += 1;
        assert!(round < 20 * wanted + 100, "killed {killed} times only");
        let mut child = project.command(&["run", "pipelines/p.yaml", "-q"]).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(whole.mul_f64((f64::from(round) * 0.618_033_988_75).fract()));
        child.kill().unwrap();
        let outlived = child.wait().unwrap().success();
        killed += u32::from(!outlived);
        if project.cache().is_dir() {
            sound(&project.cache());
        }
        if outlived {
            let made = Digest::of_file(&project.cache().join("results/many/all/all.txt")).unwrap();
            assert_eq!(made, result);
            fs::remove_dir_all(project.cache()).unwrap();
            whole = whole.mul_f64(0.99);
        }
    }
    project.run(&[]);
    assert_eq!(Digest::of_file(&project.cache().join("results/many/all/all.txt")).unwrap(), result);
    assert_eq!(sound(&project.cache()), 21);
    assert_eq!(project.run(&[]), 0);
}

#[test]
fn kills_at_any_instant_leave_a_sound_cache() {
    kills(15);
}

#[test]
fn long_a_thousand_kills_leave_a_sound_cache() {
    if crate::support::long() {
        kills(1000);
    }
}
