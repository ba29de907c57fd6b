//! Arms that answer the same are evaluated together, and nobody can tell from what is kept. It does not look at who is
//! chosen for that among steps that do other work; `together` does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pipe::event::{Event, Say, Stamped};
use serde_json::Value;

/// A base of four layers, and arms on it: `low` from the lowest layer on, `high` and `top` above it.
const PIPELINE: &str = r#"
steps:
  data: { uses: generate, with: { nerus_train: 12, text_bytes: 4000, base_nerus: 2, base_terra: 2, nerus_dev: 2, nerus_test: 24, terra_train: 8, terra_val: 20 } }
  tokenizer: { uses: tokenizer, in: { text: data.text }, with: { vocab_size: 300 } }
  model:
    uses: pretrain
    in: { tokenizer: tokenizer, text: data.text }
    with: { model: { hidden_size: 32, intermediate_size: 48, num_hidden_layers: 4, num_attention_heads: 2 }, steps: 2, batch_tokens: 64, sequence_length: 16 }
  tokens: { uses: tokenize, in: { data: data.nerus_train, tokenizer: model }, with: { task: nerus, max_length: 90 } }
  low: { uses: train, in: { model: model, data: tokens }, with: { adapter: { lora: { rank: 2, alpha: 4 } }, steps: 2, batch_size: 1 } }
  high: { uses: train, in: { model: model, data: tokens }, with: { adapter: { lora: { rank: 2, alpha: 4, layers: [2, 3] } }, steps: 2, batch_size: 1 } }
  top: { uses: train, in: { model: model, data: tokens }, with: { adapter: { mlp: { hidden_size: 4, layers: [3] } }, steps: 2, batch_size: 1 } }
  terra_base: { uses: evaluate, in: { model: model, data: data.terra_val, train: data.terra_train }, with: { task: terra, dtype: DTYPE, batch_tokens: 700 } }
  nerus_base: { uses: evaluate, in: { model: model, data: data.nerus_test }, with: { task: nerus, dtype: DTYPE, max_new_tokens: NEW } }
  text_base: { uses: perplexity, in: { model: model, text: data.held_text }, with: { dtype: DTYPE, block: 32 } }
  terra:
    uses: evaluate
    matrix: { arm: [low, high, top] }
    in: { model: model, data: data.terra_val, train: data.terra_train, adapter: '${matrix.arm}' }
    TERRA
    with: { task: terra, dtype: DTYPE, batch_tokens: 700 }
  nerus:
    uses: evaluate
    matrix: { arm: [low, high, top] }
    in: { model: model, data: data.nerus_test, adapter: '${matrix.arm}' }
    with: { task: nerus, dtype: DTYPE, max_new_tokens: NEW }
  text:
    uses: perplexity
    matrix: { arm: [low, high, top] }
    in: { model: model, text: data.held_text, adapter: '${matrix.arm}' }
    with: { dtype: DTYPE, block: 32 }
"#;

struct Project(tempfile::TempDir);

struct Ran {
    code: Option<i32>,
    events: Vec<Event>,
    text: String,
}

impl Project {
    fn new(change: impl Fn(String) -> String) -> Self {
        let project = Self(tempfile::tempdir().unwrap());
        let yaml = change(PIPELINE.to_owned()).replace("DTYPE", "f32").replace("NEW", "12").replace("TERRA", "");
        fs::write(project.0.path().join("x.yaml"), yaml).unwrap();
        project
    }

    fn command(&self, cache: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
        command.args(["run", "x.yaml", "--device", "cpu", "--json", "--cache", cache]).args(more);
        // Threads that spin while they wait are slow beside other tests.
        command.env("OMP_WAIT_POLICY", "PASSIVE").current_dir(self.0.path()).env_remove("PIPE_CACHE");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, cache: &str, more: &[&str]) -> Ran {
        told(self.command(cache, more).spawn().unwrap())
    }

    /// What is kept of every step: its record but for costs and the name of the run, which has what it made by content.
    fn kept(&self, cache: &str) -> BTreeMap<String, Value> {
        let below = |folder: PathBuf| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let record = |path: PathBuf| {
            let mut record: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
            let fields = record.as_object_mut().unwrap();
            for name in ["costs", "run", "checksum"] {
                fields.remove(name).unwrap();
            }
            (record["step"].as_str().unwrap().to_owned(), record)
        };
        below(self.0.path().join(cache).join("records")).flat_map(below).map(record).collect()
    }

    /// Names of all that is kept: digests.
    fn objects(&self, cache: &str) -> BTreeSet<String> {
        fn walk(folder: &Path, found: &mut BTreeSet<String>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                if name.len() > 60 {
                    found.insert(name);
                } else if path.is_dir() {
                    walk(&path, found);
                }
            }
        }
        let mut found = BTreeSet::new();
        walk(&self.0.path().join(cache).join("objects"), &mut found);
        assert!(!found.is_empty());
        found
    }
}

fn told(child: Child) -> Ran {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let events = text.lines().filter_map(|line| Some(serde_json::from_str::<Stamped>(line).ok()?.event)).collect();
    Ran { code: output.status.code(), events, text: text + &String::from_utf8_lossy(&output.stderr) }
}

impl Ran {
    /// Who was told to work together, the first of them with the others.
    fn together(&self) -> Vec<String> {
        let said = |event: &Event| match event {
            Event::StepSaid { step, say: Say::Remark { text } } => {
                Some(format!("{step} {}", text.strip_prefix("works together with ")?))
            }
            _ => None,
        };
        self.events.iter().filter_map(said).collect()
    }

    fn finished(&self) -> BTreeSet<String> {
        let finished = |event: &Event| match event {
            Event::StepFinished { step, .. } => Some(step.clone()),
            _ => None,
        };
        self.events.iter().filter_map(finished).collect()
    }
}

/// Whose names stand in what was said of a task.
fn named(said: &[String], task: &str) -> BTreeSet<String> {
    let words = said.iter().flat_map(|said| said.split([' ', '`', ','])).filter(|word| word.starts_with(task));
    words.map(str::to_owned).collect()
}

#[test]
fn what_arms_answer_together_is_what_they_answer_alone() {
    for dtype in ["f32", "bf16"] {
        let project = Project::new(|yaml| yaml.replace("DTYPE", dtype));
        let alone = project.run("alone", &["-j", "1", "--together", "1"]);
        assert_eq!((alone.code, alone.together().len()), (Some(0), 0), "{}", alone.text);
        let itself = project.run("itself", &["-j", "1"]);
        // Trainings that are packed end in other bits, so they are not.
        project.run("asked", &["-j", "1", "--together", "1", "low", "high", "top"]);
        let asked = project.run("asked", &["-j", "1", "--together", "8"]);
        for (cache, ran, tasks) in
            [("itself", itself, &["terra", "text"][..]), ("asked", asked, &["nerus", "terra", "text"])]
        {
            assert_eq!((ran.code, ran.together().len()), (Some(0), tasks.len()), "{}", ran.text);
            for task in tasks {
                let right = ["[arm=high]", "[arm=low]", "[arm=top]", "_base"].map(|arm| format!("{task}{arm}"));
                assert_eq!(named(&ran.together(), task), BTreeSet::from(right));
            }
            let (kept, right) = (project.kept(cache), project.kept("alone"));
            assert_eq!(kept.len(), 19, "{:?}", kept.keys());
            for (step, record) in &kept {
                assert_eq!(*record, right[step], "{dtype} {step}");
            }
            assert_eq!(project.objects(cache), project.objects("alone"), "{dtype}");
        }
    }
}

#[test]
fn slots_that_would_be_without_work_are_not() {
    let project = Project::new(|yaml| yaml.replace("[low, high, top]", "[low]"));
    let ran = project.run("cache", &["-j", "2"]);
    assert_eq!((ran.code, ran.together().len()), (Some(0), 0), "{}", ran.text);
}

#[test]
fn who_is_asked_something_else_answers_alone() {
    // The same rows in other batches, and other rows.
    let change = |yaml: String| {
        let other = "  terra_other: { uses: evaluate, in: { model: model, data: data.terra_val, train: data.terra_train }, with: { task: terra, dtype: DTYPE, batch_tokens: 800 } }\n";
        let train = "  terra_train: { uses: evaluate, in: { model: model, data: data.terra_train }, with: { task: terra, dtype: DTYPE, batch_tokens: 700 } }\n";
        yaml.replace("[low, high, top]", "[low]") + other + train
    };
    let project = Project::new(change);
    let ran = project.run("cache", &["-j", "1"]);
    assert_eq!(ran.code, Some(0), "{}", ran.text);
    assert_eq!(
        named(&ran.together(), "te"),
        ["terra[arm=low]", "terra_base", "text[arm=low]", "text_base"].map(str::to_owned).into()
    );
}

#[test]
fn an_arm_that_fails_fails_alone() {
    // One does not reach what is expected of it, one has an adapter that is not for this base.
    let change = |yaml: String| {
        let other = "  other:
    uses: pretrain
    in: { tokenizer: tokenizer, text: data.text }
    with: { model: { hidden_size: 32, intermediate_size: 48, num_hidden_layers: 4, num_attention_heads: 2 }, steps: 3, batch_tokens: 64, sequence_length: 16 }
  foreign: { uses: train, in: { model: other, data: tokens }, with: { adapter: { mlp: { hidden_size: 4, layers: [2] } }, steps: 2, batch_size: 1 } }
";
        let expected = "  terra_high: { uses: evaluate, in: { model: model, data: data.terra_val, train: data.terra_train, adapter: high }, expect: 'accuracy > 2', with: { task: terra, dtype: DTYPE, batch_tokens: 700 } }\n";
        yaml.replace("[low, high, top]", "[low, top, foreign]") + other + expected
    };
    let project = Project::new(change);
    let alone = project.run("alone", &["-j", "1", "--together", "1", "--keep-going"]);
    project.run("cache", &["-j", "1", "--together", "1", "low", "high", "top", "foreign"]);
    let ran = project.run("cache", &["-j", "1", "--together", "8", "--keep-going"]);
    assert_eq!((alone.code, ran.code), (Some(1), Some(1)), "{}", ran.text);
    assert_eq!(ran.together().len(), 3, "{:?}", ran.together());
    let failed = |ran: &Ran| -> BTreeMap<String, String> {
        let failed = |event: &Event| match event {
            Event::StepFailed { step, problem } => Some((step.clone(), problem.to_string())),
            _ => None,
        };
        ran.events.iter().filter_map(failed).collect()
    };
    assert_eq!(failed(&ran), failed(&alone), "{}", ran.text);
    let names: Vec<String> = failed(&ran).into_keys().collect();
    assert_eq!(names, ["nerus[arm=foreign]", "terra[arm=foreign]", "terra_high", "text[arm=foreign]"]);
    assert_eq!(project.kept("cache"), project.kept("alone"));
    // What fails beside others is tried once more without them; what is expected is not.
    assert!(ran.text.contains("is tried alone"));
}

#[test]
fn what_was_answered_before_a_kill_stays() {
    let project = Project::new(|yaml| yaml.replace("NEW", "120"));
    let trained = project.run("cache", &["-j", "1", "low", "high", "top"]);
    assert_eq!(trained.code, Some(0), "{}", trained.text);
    let asked = ["-j", "1", "--together", "8", "nerus", "nerus_base"];
    let mut child = project.command("cache", &asked).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut first = None;
    let mut group = false;
    for line in lines {
        match serde_json::from_str::<Stamped>(&line.unwrap()).unwrap().event {
            Event::StepSaid { say: Say::Remark { text }, .. } => group |= text.starts_with("works together"),
            Event::StepFinished { step, .. } if step.starts_with("nerus") => {
                // Records of quick steps wait for each other for a moment.
                while !project.kept("cache").contains_key(&step) {
                    std::thread::sleep(Duration::from_millis(10));
                }
                first = Some(step);
                child.kill().unwrap();
                break;
            }
            _ => {}
        }
    }
    child.wait().unwrap();
    let first = first.expect("one of them ended");
    assert!(group);
    let rest = project.run("cache", &asked);
    assert_eq!(rest.code, Some(0), "{}", rest.text);
    assert!(!rest.finished().contains(&first), "{first} was kept: {}", rest.text);
    let whole = project.run("whole", &["-j", "1", "--together", "1", "nerus", "nerus_base"]);
    assert_eq!(whole.code, Some(0), "{}", whole.text);
    assert_eq!(project.kept("cache"), project.kept("whole"));
}
