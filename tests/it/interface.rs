//! `--json` as the whole interface, Ctrl-C once and twice, and kills of the binary in the middle of its work.
//! It does not look at the screen: `terminal` does.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use pipe::digest::{Digest, files_below};
use pipe::event::{Event, Outcome, Stamped};
use pipe::key;
use pipe::store::{Record, Store};

use crate::data_steps::project;
use crate::engine::command::{Project, stderr, stdout};

fn pipe(root: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
    command.args(arguments).current_dir(root).env_remove("PIPE_CACHE").output().expect("the binary starts")
}

/// Every line of stdout as an event; nothing is on stderr.
fn events(output: &Output) -> Vec<Event> {
    assert_eq!(stderr(output), "", "everything is told as JSON");
    let event = |line: &str| serde_json::from_str::<Stamped>(line).unwrap_or_else(|e| panic!("{e}: {line}")).event;
    stdout(output).lines().map(event).collect()
}

#[test]
fn json_tells_a_failure_with_its_place() {
    let root = project(&[
        (
            "pipelines/p.yaml",
            b"steps:\n  a: { uses: download, with: { source: d } }\n  b: { uses: split, in: { data: a } }\n",
        ),
        ("d", "# newdoc id = 0\n1\tx\n".as_bytes()),
    ]);
    let output = pipe(root.path(), &["run", "pipelines/p.yaml", "--json"]);
    let events = events(&output);
    assert_eq!(output.status.code(), Some(1));
    let problem = events.iter().find_map(|event| match event {
        Event::StepFailed { step, problem } if step == "b" => Some(problem.to_string()),
        _ => None,
    });
    assert!(problem.as_ref().is_some_and(|text| text.starts_with("d:")), "{problem:?}");
    assert!(matches!(events.last(), Some(Event::RunFinished { outcome: Outcome::Failed, ran: 1, failed: 1, .. })));
}

#[test]
fn json_tells_what_is_wrong_with_the_file_and_the_command() {
    let root = project(&[("pipelines/ж.yaml", "steps:\n  ж: { uses: downlaod }\n  b: { usse: split }\n".as_bytes())]);
    let refused = |arguments: &[&str], code: i32| {
        let output = pipe(root.path(), &[&["run", "pipelines/ж.yaml", "--json"], arguments].concat());
        assert_eq!(output.status.code(), Some(code));
        match events(&output).as_slice() {
            [Event::Refused { problems }] => problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        }
    };
    let told = refused(&[], 3);
    assert!(told.len() >= 2, "{told:?}");
    // Columns are characters, not bytes.
    assert!(told[0].starts_with("pipelines/ж.yaml:2:14: ") && told[0].contains("did you mean `download`?"), "{told:?}");
    assert!(told[1].starts_with("pipelines/ж.yaml:3:"), "{told:?}");
    assert!(refused(&["--grid", "rank"], 2)[0].contains("there is no `=`"));
    assert!(refused(&["--device", "tpu"], 2)[0].contains("unknown device `tpu`"));
    assert!(!root.path().join("cache").exists());
}

#[test]
fn json_tells_which_combination_of_a_grid_runs_and_where_the_table_is() {
    let project = Project::new(40);
    let output = project.run(&["--json", "--set", "seed=9", "--grid", "seed=1,2"]);
    let events = events(&output);
    let sets: Vec<&[String]> = events
        .iter()
        .filter_map(|event| if let Event::RunStarted { sets, .. } = event { Some(sets.as_slice()) } else { None })
        .collect();
    assert_eq!(sets, [["seed=9".to_owned(), "seed=1".to_owned()], ["seed=9".to_owned(), "seed=2".to_owned()]]);
    let Some(Event::GridFinished { file }) = events.last() else { panic!("{:?}", events.last()) };
    assert_eq!(fs::read_to_string(project.root.join(file)).expect("the table").lines().count(), 3);
}

// ---- Ctrl-C and kills -------------------------------------------------------------------------------------------

fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().expect("kill").success());
}

/// Text whose many different words keep the training of a tokenizer busy, which cannot be interrupted.
fn words(count: u32) -> String {
    let word = |n: u32| -> String {
        let mut n = n.wrapping_mul(2_654_435_761);
        (0..12)
            .map(|_| {
                n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                char::from(b'a' + (n >> 24) as u8 % 26)
            })
            .collect()
    };
    (0..count).map(|n| word(n) + if n % 10 == 9 { "\n" } else { " " }).collect()
}

const BUSY: &str = "name: busy
steps:
  text: { uses: download, with: { source: text.txt } }
  tokenizer: { uses: tokenizer, in: { text: text }, with: { vocab_size: 60000 } }
";

#[test]
fn a_second_ctrl_c_leaves_at_once_and_nothing_half_written() {
    let root = project(&[("pipelines/busy.yaml", BUSY.as_bytes()), ("text.txt", words(400_000).as_bytes())]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_pipe"))
        .args(["run", "pipelines/busy.yaml"])
        .current_dir(root.path())
        .env_remove("PIPE_CACHE")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut told = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
    assert!(told.by_ref().any(|line| line.contains("▸ tokenizer")), "it began");
    // Until it has counted its words it listens to Ctrl-C.
    std::thread::sleep(Duration::from_millis(1500));
    signal("-INT", child.id());
    assert!(told.by_ref().any(|line| line.contains("stopping… (again to leave at once)")));
    std::thread::sleep(Duration::from_millis(200));
    assert!(child.try_wait().expect("a child").is_none(), "the step ended too soon for this test");
    let begun = Instant::now();
    signal("-INT", child.id());
    assert_eq!(child.wait().expect("a child").code(), Some(130));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(sound(&root.path().join("cache")).len(), 1, "what was finished before is kept, and nothing else");

    // What lies in the scratch folder is cleared away by the next run.
    let yaml = BUSY.replace("60000", "300");
    fs::write(root.path().join("pipelines/busy.yaml"), yaml).expect("written");
    let again = pipe(root.path(), &["run", "pipelines/busy.yaml"]);
    assert!(stderr(&again).contains("1 step ran, 1 reused"), "{}", stderr(&again));
    let left = files_below(&root.path().join("cache/tmp")).expect("the scratch folder");
    assert_eq!(left, ["guard"]);
}

/// Every record of a cache holds what it promises; the digests of its outputs by step.
fn sound(cache: &Path) -> BTreeMap<String, Vec<Digest>> {
    let store = Store::at(cache);
    let mut outputs = BTreeMap::new();
    for name in files_below(&cache.join("records")).unwrap_or_default() {
        let text = fs::read(cache.join("records").join(&name)).expect("a record");
        let record: Record = serde_json::from_slice(&text).expect("a whole record");
        assert_eq!(key::key_of(&record.manifest), record.key);
        for object in record.outputs.values() {
            assert_eq!(Digest::of_path(&store.object(&object.digest)).expect("its output"), object.digest, "{name}");
        }
        outputs.insert(record.step, record.outputs.values().map(|object| object.digest.clone()).collect());
    }
    outputs
}

const WORK: &str = "name: работа
steps:
  data: { uses: generate, with: { base_nerus: 60, base_terra: 60, nerus_train: 80, nerus_dev: 20, nerus_test: 20, terra_train: 60, terra_val: 20, text_bytes: 20000 } }
  tokenizer: { uses: tokenizer, in: { text: data.text }, with: { vocab_size: 400 } }
  tokens: { uses: tokenize, in: { data: data.nerus_train, tokenizer: tokenizer }, with: { task: nerus } }
  prompts: { uses: tokenize, in: { data: data.terra_train, tokenizer: tokenizer }, with: { task: terra } }
";

#[test]
fn a_kill_in_the_middle_of_the_work_leaves_the_old_state_or_the_new_one() {
    let root = project(&[("pipelines/работа.yaml", WORK.as_bytes())]);
    let run = ["run", "pipelines/работа.yaml", "--cache"];
    let began = Instant::now();
    assert!(pipe(root.path(), &[&run[..], &["whole"]].concat()).status.success());
    let took = began.elapsed();
    let whole = sound(&root.path().join("whole"));
    assert_eq!(whole.len(), 4);

    let cache = root.path().join("мой кэш");
    let (mut kept, mut killed) = (0, 0);
    for round in 1..=10 {
        let mut child = Command::new(env!("CARGO_BIN_EXE_pipe"))
            .args(run)
            .arg("мой кэш")
            .current_dir(root.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        std::thread::sleep(took * round / 12);
        child.kill().expect("killed");
        killed += u32::from(child.wait().expect("a child").code().is_none());
        let now = sound(&cache);
        assert!(now.len() >= kept, "a record is lost");
        assert!(now.iter().all(|(step, outputs)| whole[step] == *outputs), "other bytes than in one go");
        kept = now.len();
    }
    assert!(killed >= 1, "no run was killed in the middle");
    assert!(pipe(root.path(), &[&run[..], &["мой кэш"]].concat()).status.success());
    assert_eq!(sound(&cache), whole);
    assert_eq!(files_below(&cache.join("tmp")).expect("the scratch folder"), ["guard"]);
}

// ---- sources ----------------------------------------------------------------------------------------------------

/// A sparse file: large to read, and nothing on the disk.
#[test]
fn a_large_source_is_read_with_progress_and_can_be_left() {
    let root = project(&[("pipelines/p.yaml", b"steps:\n  a: { uses: download, with: { source: big } }\n")]);
    let file = fs::File::create(root.path().join("big")).expect("a file");
    file.set_len(16 << 30).expect("a sparse file");
    let mut child = Command::new(env!("CARGO_BIN_EXE_pipe"))
        .args(["run", "pipelines/p.yaml", "--json"])
        .current_dir(root.path())
        .env_remove("PIPE_CACHE")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let (mut progress, mut last) = (0, None);
    for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
        let event = serde_json::from_str::<Stamped>(&line.expect("a line")).expect("an event").event;
        if let Event::StepSaid { say: pipe::event::Say::Progress { done, total, unit, text }, .. } = &event {
            assert!(*done <= 16 << 30 && *total == Some(16 << 30) && unit == "B" && text == "reading its sources");
            progress += 1;
            if progress == 3 {
                signal("-INT", child.id());
            }
        }
        last = Some(event);
    }
    assert_eq!(child.wait().expect("a child").code(), Some(130));
    assert!((3..60).contains(&progress), "{progress}");
    let Some(Event::RunFinished { outcome, ran, failed, .. }) = last else { panic!("{last:?}") };
    assert_eq!((outcome, ran, failed), (Outcome::Interrupted, 0, 0));
    assert!(sound(&root.path().join("cache")).is_empty());
}
