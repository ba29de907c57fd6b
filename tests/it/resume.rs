//! Checkpoints through the binary: after a kill or Ctrl-C a training goes on, a finished one is made longer, and the
//! result is byte for byte that of a run which never stopped.
//! It does not look into states; `store::checkpoint` and `training` do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use pipe::event::{Event, Say, Stamped};

/// `EXTRA` stands for keys of `base`, `HOW` for keys of its `with`.
const PIPELINE: &str = r#"
steps:
  text: { uses: download, with: { source: text.txt } }
  tokenizer: { uses: tokenizer, in: { text: text }, with: { vocab_size: 300 } }
  base:
    uses: pretrain
    EXTRA
    in: { tokenizer: tokenizer, text: text }
    with:
      model: { hidden_size: 16, intermediate_size: 24, num_hidden_layers: 2, num_attention_heads: 2 }
      batch_tokens: 64
      sequence_length: 16
      HOW
"#;

/// Two adapters together over a base, with dropout.
const ADAPTERS: &str = r#"
steps:
  data: { uses: generate, with: { nerus_train: 12, text_bytes: 4000, base_nerus: 2, base_terra: 2, nerus_dev: 2, nerus_test: 2, terra_train: 2, terra_val: 2 } }
  tokenizer: { uses: tokenizer, in: { text: data.text }, with: { vocab_size: 300 } }
  model:
    uses: pretrain
    in: { tokenizer: tokenizer, text: data.text }
    with: { model: { hidden_size: 16, intermediate_size: 24, num_hidden_layers: 2, num_attention_heads: 2 }, steps: 2, batch_tokens: 64, sequence_length: 16 }
  tokens: { uses: tokenize, in: { data: data.nerus_train, tokenizer: model }, with: { task: nerus } }
  base:
    uses: train
    EXTRA
    in: { model: model, data: tokens }
    with:
      adapter: { lora: { rank: 2, alpha: 4, dropout: 0.1 }, mlp: { hidden_size: 4, dropout: 0.1 } }
      batch_size: 4
      accumulation: 2
      HOW
"#;

struct Project {
    folder: tempfile::TempDir,
    pipeline: &'static str,
}

/// What a run told.
struct Ran {
    code: Option<i32>,
    events: Vec<Event>,
    text: String,
}

impl Project {
    fn new(extra: &str, how: &str) -> Self {
        Self::of(PIPELINE, extra, how)
    }

    /// One whose step `base` is what is looked at.
    fn of(pipeline: &'static str, extra: &str, how: &str) -> Self {
        let project = Self { folder: tempfile::tempdir().unwrap(), pipeline };
        let text = "Зимой в Снежинске тихо. Летом в Снежинске шумно, и это видят все.\n".repeat(60);
        fs::write(project.root().join("text.txt"), text).unwrap();
        project.write(extra, how);
        project
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, extra: &str, how: &str) {
        let text = self.pipeline.replace("EXTRA", extra).replace("HOW", how);
        fs::write(self.root().join("x.yaml"), text).unwrap();
    }

    fn command(&self, cache: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
        command.args(["run", "x.yaml", "--device", "cpu", "--json", "--cache", cache]).args(more);
        // Threads that spin while they wait are slow beside other tests.
        command.env("OMP_WAIT_POLICY", "PASSIVE").current_dir(self.root()).env_remove("PIPE_CACHE");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, cache: &str, more: &[&str]) -> Ran {
        told(self.command(cache, more).spawn().unwrap())
    }

    /// The digest of the base of a run that is done.
    fn made(&self, cache: &str, more: &[&str]) -> (String, Ran) {
        let ran = self.run(cache, more);
        assert_eq!(ran.code, Some(0), "{}", ran.text);
        (ran.base(), ran)
    }

    /// Positions of all states.
    fn states(&self, cache: &str) -> Vec<u64> {
        let below = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let series = below(self.root().join(cache).join("checkpoints")).flat_map(below).flat_map(below);
        let mut all: Vec<u64> = series.filter_map(|state| state.file_name()?.to_str()?.parse().ok()).collect();
        all.sort_unstable();
        all
    }

    /// Starts a run and waits until a state is there that is further than `after`.
    fn begun(&self, cache: &str, after: u64) -> Child {
        let mut child = self.command(cache, &[]).spawn().unwrap();
        let until = Instant::now() + Duration::from_secs(120);
        while self.states(cache).last().is_none_or(|last| *last <= after) {
            let ended = child.try_wait().unwrap();
            if Instant::now() >= until || ended.is_some() {
                let _ = child.kill();
                panic!("no state came: {ended:?}\n{}", told(child).text);
            }
            thread::sleep(Duration::from_millis(1));
        }
        child
    }
}

fn told(child: Child) -> Ran {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let events = text.lines().filter_map(|line| Some(serde_json::from_str::<Stamped>(line).ok()?.event)).collect();
    Ran { code: output.status.code(), events, text: text + &String::from_utf8_lossy(&output.stderr) }
}

impl Ran {
    fn base(&self) -> String {
        let made = self.events.iter().find_map(|event| match event {
            Event::StepFinished { step, outputs, .. } | Event::StepReused { step, outputs, .. } if step == "base" => {
                let parts: Vec<&str> = outputs.values().map(|made| made.digest.as_str()).collect();
                Some(parts.join(" "))
            }
            _ => None,
        });
        made.unwrap_or_else(|| panic!("there is no base: {}", self.text))
    }

    /// Where it went on, and how far it goes.
    fn resumed(&self) -> Option<(u64, u64)> {
        self.events.iter().find_map(|event| match event {
            Event::StepSaid { say: Say::Resumed { at, total, .. }, .. } => Some((*at, *total)),
            _ => None,
        })
    }
}

const OFTEN: &str = "checkpoint: 0s";

#[test]
fn after_kills_the_work_goes_on_and_ends_with_the_same_bytes() {
    let project = Project::new("", "steps: 1500");
    let (whole, ran) = project.made("whole", &[]);
    assert!(ran.resumed().is_none() && project.states("whole").is_empty(), "quick work leaves no states");
    project.write(OFTEN, "steps: 1500");
    let mut far = 0;
    for _ in 0..3 {
        let mut child = project.begun("killed", far);
        child.kill().unwrap();
        let ran = told(child);
        assert!(ran.code.is_none(), "{}", ran.text);
        assert_eq!(ran.resumed().map(|(at, _)| at >= far), (far > 0).then_some(true), "{}", ran.text);
        far = *project.states("killed").last().unwrap();
        assert!(far < 1500);
    }
    let (made, ran) = project.made("killed", &[]);
    assert_eq!((made, ran.resumed()), (whole, Some((far, 1500))));
    assert!(project.states("killed").is_empty(), "the result is there: nobody needs its states");
    let log = project.run("killed", &[]);
    assert!(!log.text.contains("resumed"), "it is no part of the result: {}", log.text);
}

#[test]
fn ctrl_c_leaves_the_state_of_that_moment() {
    let project = Project::new(OFTEN, "steps: 1500");
    let child = project.begun("cache", 3);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(told(child).code, Some(130));
    let far = *project.states("cache").last().unwrap();
    // Rare states do not change that.
    project.write("checkpoint: 1h", "steps: 1500");
    let mut child = project.command("cache", &[]).spawn().unwrap();
    let log = project.root().join("cache/runs");
    let until = Instant::now() + Duration::from_secs(120);
    let speaks = || {
        let logs = fs::read_dir(&log).into_iter().flatten().flatten();
        logs.filter_map(|log| fs::read_to_string(log.path()).ok()).any(|text| text.contains("\"resumed\""))
    };
    while !speaks() {
        assert!(Instant::now() < until && child.try_wait().unwrap().is_none());
        thread::sleep(Duration::from_millis(1));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let ran = told(child);
    let (made, last) = project.made("cache", &[]);
    if ran.code == Some(130) {
        let (at, _) = last.resumed().unwrap();
        assert!(at >= far, "{at} {far}");
    }
    assert_eq!(made, project.made("other", &[]).0);
}

#[test]
fn a_finished_run_is_made_longer() {
    let how = "steps: STEPS\n      schedule: linear\n      schedule_steps: 50";
    let of = |steps: &str| how.replace("STEPS", steps);
    let project = Project::new("extends: steps", &of("30"));
    let (short, _) = project.made("cache", &[]);
    assert_eq!(project.states("cache"), [30]);
    project.write("extends: steps", &of("70"));
    let plan = Command::new(env!("CARGO_BIN_EXE_pipe"))
        .args(["plan", "x.yaml", "--device", "cpu", "--cache", "cache"])
        .current_dir(project.root())
        .output()
        .unwrap();
    let plan = String::from_utf8_lossy(&plan.stdout).into_owned() + &String::from_utf8_lossy(&plan.stderr);
    assert!(plan.contains("steps: 30 → 70") && plan.contains("goes on from step 30"), "{plan}");
    let (long, ran) = project.made("cache", &[]);
    assert_eq!(ran.resumed(), Some((30, 70)));
    assert_eq!(project.states("cache"), [30, 70]);
    let (afresh, ran) = project.made("other", &[]);
    assert_eq!((&afresh, ran.resumed()), (&long, None));
    assert_ne!(short, long);
    // In between, and back: nothing is made twice.
    project.write("extends: steps", &of("50"));
    let (between, ran) = project.made("cache", &[]);
    assert_eq!(ran.resumed(), Some((30, 50)));
    project.write("extends: steps", &of("30"));
    assert_eq!(project.made("cache", &[]).0, short);
    // By force it begins at its beginning.
    project.write("extends: steps", &of("50"));
    let (forced, ran) = project.made("cache", &["--force", "base"]);
    assert_eq!((forced, ran.resumed()), (between, None));
    // Another learning rate is another piece of work.
    project.write("extends: steps", &format!("{}\n      lr: 0.002", of("50")));
    assert_eq!(project.made("cache", &[]).1.resumed(), None);
    // Whoever does not want it to be extended keeps no end.
    project.write("", &format!("{}\n      lr: 0.004", of("50")));
    let before = project.states("cache");
    project.made("cache", &[]);
    assert_eq!(project.states("cache"), before);
}

#[test]
fn adapters_with_dropout_go_on_over_more_epochs() {
    let how = "epochs: EPOCHS\n      schedule: constant\n      warmup_steps: 2";
    let of = |epochs: &str| how.replace("EPOCHS", epochs);
    let project = Project::of(ADAPTERS, "extends: epochs", &of("2"));
    project.made("cache", &[]);
    let short = *project.states("cache").last().unwrap();
    project.write("extends: epochs", &of("5"));
    let (long, ran) = project.made("cache", &[]);
    assert_eq!(ran.resumed().map(|(at, _)| at), Some(short));
    assert!(project.states("cache").last() > Some(&short));
    let (afresh, ran) = project.made("other", &[]);
    assert_eq!((afresh, ran.resumed()), (long, None));
    // A kill on the way, and the rest.
    project.write("extends: epochs\n    checkpoint: 0s", &of("60"));
    let mut child = project.begun("cache", *project.states("cache").last().unwrap());
    child.kill().unwrap();
    told(child);
    let far = *project.states("cache").last().unwrap();
    let (made, ran) = project.made("cache", &[]);
    assert_eq!(ran.resumed().map(|(at, _)| at), Some(far));
    assert_eq!(made, project.made("other", &["--force", "base"]).0);
}

#[test]
fn a_state_that_is_damaged_is_passed_over() {
    let how = "steps: STEPS\n      schedule: constant\n      warmup_ratio: 0";
    let project = Project::new("extends: steps", &how.replace("STEPS", "20"));
    project.made("cache", &[]);
    let below = |folder: PathBuf| fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let state = below(below(below(project.root().join("cache/checkpoints")))).join("state.safetensors");
    let mut bytes = fs::read(&state).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&state, bytes).unwrap();
    project.write("extends: steps", &how.replace("STEPS", "25"));
    let (made, ran) = project.made("cache", &[]);
    assert_eq!(ran.resumed(), None);
    assert_eq!(made, project.made("other", &[]).0);
}

#[test]
fn where_no_state_can_be_left_the_work_is_done_all_the_same() {
    let project = Project::new(OFTEN, "steps: 5");
    fs::create_dir(project.root().join("cache")).unwrap();
    fs::write(project.root().join("cache/checkpoints"), "a file where a folder should be").unwrap();
    let (made, ran) = project.made("cache", &[]);
    assert!(ran.text.contains("no checkpoint is left at step 1: "), "{}", ran.text);
    assert_eq!(made, project.made("other", &[]).0);
    assert!(!project.run("cache", &[]).text.contains("no checkpoint"), "it is no part of the result");
}

#[test]
fn what_nobody_needs_is_collected() {
    let how = "steps: STEPS\n      schedule: constant\n      warmup_ratio: 0";
    let project = Project::new("extends: steps", &how.replace("STEPS", "10"));
    project.made("cache", &[]);
    let collect = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
        command.args(["cache", "gc", "--cache", "cache", "--yes"]).args(more).current_dir(project.root());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    collect(&[]);
    assert_eq!(project.states("cache"), [10], "the last run needs it");
    collect(&["--keep-runs", "0"]);
    assert!(project.states("cache").is_empty());
}
