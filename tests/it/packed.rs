//! Arms that are trained together over one base end as they would have ended alone, but for rounding. It does not look at who is trained together; `together` does.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pipe::error::{Problem, Result};
use pipe::event::{Event, Say, Stamped};
use pipe::ml::adapters::{AdapterParams, Arm};
use pipe::ml::device::use_threads;
use pipe::ml::models::{Model, load};
use pipe::ml::tokens::{FORMAT, Tokens, TokensInfo};
use pipe::ml::train::adamw::AdamWOptions;
use pipe::ml::train::arms::{Recipe, train_arm};
use pipe::ml::train::batch::{Length, Limits, Plan};
use pipe::ml::train::curve::Curve;
use pipe::ml::train::fit::Write;
use pipe::ml::train::memory::Memory;
use pipe::ml::train::pack::{Joining, Member, train_pack};
use pipe::ml::train::schedule::Schedule;
use pipe::ml::train::{Fit, Watch};
use pipe::step::stream;
use serde_json::json;
use tch::{Device, Kind, Tensor};

use crate::ml_laws::checkpoint;

const ARMS: [&str; 8] = [
    "lora: { rank: 2, alpha: 4, dropout: 0.3, target_modules: [q_proj, v_proj] }",
    "lora: { rank: 5, alpha: 4, target_modules: all-linear }",
    "lora: { rank: 3, alpha: 4, dropout: 0.2, use_dora: true, target_modules: [q_proj, down_proj], layers: [1] }",
    "mlp: { hidden_size: 5, dropout: 0.3, non_linearity: gelu }",
    "mlp: { config: par_bn, hidden_size: 8, layers: [0] }",
    "mlp: { config: double_seq_bn, hidden_size: 3, ln_after: true, scaling: channel }",
    "ia3: {}",
    "{ lora: { rank: 2, alpha: 2, target_modules: [o_proj] }, mlp: { hidden_size: 4 } }",
];

/// A base of a family that the adapters have names for, its hidden states in whole vectors.
fn base(model: &str) -> (tempfile::TempDir, Box<dyn Model>) {
    let folder = tempfile::tempdir().unwrap();
    let mut config = json!({"model_type": model, "vocab_size": 41, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2});
    if model == "gemma2" {
        config["head_dim"] = json!(8);
    }
    checkpoint(&config, folder.path());
    let model = load(folder.path(), Device::Cpu, Kind::Float).unwrap();
    (folder, model)
}

/// Rows of 20 to 35 ids, of which all but the first three have loss.
fn tokens() -> Tokens {
    let (mut ids, mut offsets, mut targets) = (Vec::new(), vec![0], Vec::new());
    for row in 0..24 {
        let length = 20 + row * 5 % 16;
        ids.extend((0..length).map(|at| (row * 7 + at * (row % 3 + 1)) % 41));
        offsets.push(ids.len() as i64);
        targets.push(3);
    }
    let info = TokensInfo {
        format: FORMAT.to_owned(),
        task: "text".to_owned(),
        prompt: String::new(),
        vocab_size: 41,
        rows: 24,
        tokens: ids.len() as u64,
        target_tokens: 0,
        truncated: 0,
        longest: 35,
        tokenizer: String::new(),
    };
    Tokens { ids, offsets, targets, info }
}

struct Silent;

impl Watch for Silent {
    fn check(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Its own learning rate, length, schedule and masks for each arm; one order of rows for all, or one for each.
fn plan(tokens: &Tokens, at: usize, own: bool) -> (Plan, Recipe) {
    let lengths: Vec<usize> = (0..tokens.rows()).map(|row| tokens.row(row).len()).collect();
    let (steps, seed) = (5 + at as u64 % 3, if own { at } else { 0 });
    let epoch = |epoch| stream(seed as u64, &format!("{epoch}"));
    let plan = Plan::new(&lengths, Limits { rows: 2, tokens: None }, 2, Length::Steps(steps), epoch).unwrap();
    let schedule = if at.is_multiple_of(2) { Schedule::Cosine } else { Schedule::Constant };
    let clip = (!at.is_multiple_of(3)).then_some(0.5);
    let fit = Fit { lr: 1e-3 * (1 + at % 4) as f64, schedule, schedule_steps: steps, warmup: 1, steps, clip };
    let adamw = AdamWOptions { betas: (0.9, 0.999), eps: 1e-3, weight_decay: 0.01 };
    (plan, Recipe { fit, adamw, seed: at as u64, memory: Memory::Normal })
}

fn arm(yaml: &str, at: usize, model: &dyn Model) -> Arm {
    let params: AdapterParams = serde_yaml::from_str(yaml).unwrap();
    Arm::init(&params, model, &mut stream(at as u64, "adapter")).unwrap()
}

fn values(arm: &Arm) -> Vec<f32> {
    let flat: Vec<Tensor> = arm.parameters().iter().map(|(_, tensor)| tensor.detach().reshape([-1])).collect();
    Vec::try_from(Tensor::cat(&flat, 0)).unwrap()
}

fn apart(one: &[f32], other: &[f32]) -> f32 {
    assert_eq!(one.len(), other.len());
    one.iter().zip(other).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max)
}

type End = (Vec<f32>, Curve);

fn alone(model: &dyn Model, own: bool) -> Vec<End> {
    let tokens = tokens();
    let train = |(at, yaml): (usize, &&str)| {
        let (plan, recipe) = plan(&tokens, at, own);
        let arm = arm(yaml, at, model);
        let curve = train_arm(model, &arm, &tokens, &plan, &recipe, &mut Silent).unwrap();
        (values(&arm), curve)
    };
    ARMS.iter().enumerate().map(train).collect()
}

fn together(model: &dyn Model, own: bool, joining: Joining, watches: &mut [&mut dyn Watch]) -> Vec<Result<End>> {
    let tokens = tokens();
    let pack = Arm::pack(ARMS.iter().enumerate().map(|(at, yaml)| arm(yaml, at, model)).collect());
    let plans: Vec<(Plan, Recipe)> = (0..ARMS.len()).map(|at| plan(&tokens, at, own)).collect();
    let mut members: Vec<Member> = Vec::new();
    for ((plan, recipe), watch) in plans.iter().zip(watches.iter_mut()) {
        members.push(Member { tokens: &tokens, plan, recipe, watch: &mut **watch });
    }
    let curves = train_pack(model, &pack, &mut members, joining).unwrap();
    let ends = curves.into_iter().zip(pack.packed().unwrap().arms());
    ends.map(|(curve, arm)| curve.map(|(curve, _)| (values(arm), curve))).collect()
}

fn near(one: &End, other: &End) -> bool {
    let losses = one.1.points.iter().zip(&other.1.points).all(|(one, other)| (one.loss - other.loss).abs() < 1e-5);
    losses && one.1.points.len() == other.1.points.len() && apart(&one.0, &other.0) < 1e-5
}

fn silent(all: &mut [Silent]) -> Vec<&mut dyn Watch> {
    all.iter_mut().map(|one| one as &mut dyn Watch).collect()
}

fn all_silent() -> [Silent; 8] {
    [const { Silent }; 8]
}

/// Ranks and hidden sizes differ, and so do scales and shares of dropout; those of one form are computed at once.
#[test]
fn adapters_of_one_form_are_computed_at_once() {
    use_threads(1);
    let (_folder, model) = base("llama");
    let lora = |rank: i64, dropout: f64| {
        format!("lora: {{ rank: {rank}, alpha: {}, dropout: {dropout}, target_modules: all-linear }}", rank + 3)
    };
    let mlp = |hidden: i64, more: &str| format!("mlp: {{ hidden_size: {hidden}, non_linearity: gelu, {more} }}");
    for arms in [
        [lora(2, 0.0), lora(5, 0.3), lora(3, 0.5)],
        [mlp(3, "dropout: 0.2"), mlp(9, "dropout: 0.0"), mlp(5, "scaling: 0.5")],
    ] {
        let tokens = tokens();
        let (plan, recipe) = plan(&tokens, 1, false);
        let fresh =
            || -> Vec<Arm> { arms.iter().enumerate().map(|(at, yaml)| arm(yaml, at, model.as_ref())).collect() };
        let end = |batched: bool| {
            let pack = Arm::pack(fresh());
            let mut silent = [Silent, Silent, Silent];
            let mut members = Vec::new();
            for watch in &mut silent {
                members.push(Member { tokens: &tokens, plan: &plan, recipe: &recipe, watch });
            }
            let joining = Joining { waste: 0.0, batched };
            train_pack(model.as_ref(), &pack, &mut members, joining).unwrap().into_iter().for_each(|end| {
                end.unwrap();
            });
            pack.packed().unwrap().arms().iter().map(values).collect::<Vec<_>>()
        };
        let (once, each) = (end(true), end(false));
        for ((once, each), arm) in once.iter().zip(&each).zip(fresh()) {
            assert!(apart(once, each) < 1e-6, "{}", apart(once, each));
            assert!(apart(&values(&arm), each) > 1e-4, "nothing was learnt");
        }
    }
}

#[test]
fn arms_with_rows_of_their_own_end_as_they_would_alone() {
    use_threads(1);
    // A head that logits are bent behind goes another way.
    for family in ["llama", "gemma2"] {
        let (_folder, model) = base(family);
        let alone = alone(model.as_ref(), true);
        for (waste, batched) in [(0.05, true), (0.9, true), (0.9, false)] {
            let joining = Joining { waste, batched };
            let together = together(model.as_ref(), true, joining, &mut silent(&mut all_silent()));
            for ((yaml, alone), together) in ARMS.iter().zip(&alone).zip(together) {
                let together = together.unwrap();
                for (one, other) in together.1.points.iter().zip(&alone.1.points) {
                    assert!((one.loss - other.loss).abs() < 1e-5, "{family} {yaml}: {} {}", one.loss, other.loss);
                    assert_eq!((one.tokens, one.target_tokens, one.lr), (other.tokens, other.target_tokens, other.lr));
                }
                assert_eq!(together.1.points.len(), alone.1.points.len());
                let apart = apart(&together.0, &alone.0);
                assert!(apart < 1e-5, "{family} {yaml}: {apart}");
            }
        }
    }
}

/// Keeps states, goes on from one, and stops before a step.
struct Keeper {
    folder: PathBuf,
    from: Option<u64>,
    stop: u64,
    step: u64,
    problem: fn() -> Problem,
}

impl Keeper {
    fn new(folder: &Path, at: usize) -> Self {
        let folder = folder.join(at.to_string());
        Self { folder, from: None, stop: u64::MAX, step: 0, problem: Problem::cancelled }
    }
}

impl Watch for Keeper {
    fn check(&mut self) -> Result<()> {
        if self.step == self.stop { Err((self.problem)()) } else { Ok(()) }
    }
    fn updated(&mut self, step: u64) {
        self.step = step + 1;
    }
    fn restore(&mut self, _steps: u64) -> Result<Option<PathBuf>> {
        Ok(self.from.map(|step| self.folder.join(step.to_string())))
    }
    fn save(&mut self, steps: u64, _finished: bool, write: Write) -> Result<()> {
        let folder = self.folder.join(steps.to_string());
        fs::create_dir_all(&folder).unwrap();
        write(&folder)
    }
}

#[test]
fn who_stops_or_fails_leaves_the_others_alone_and_goes_on_later_alone_or_together() {
    use_threads(1);
    let (_folder, model) = base("llama");
    let alone = alone(model.as_ref(), false);
    let joining = Joining { waste: 0.0, batched: true };
    let states = tempfile::tempdir().unwrap();
    let run = |change: &dyn Fn(usize, &mut Keeper)| {
        let mut keepers: Vec<Keeper> = (0..ARMS.len()).map(|at| Keeper::new(states.path(), at)).collect();
        keepers.iter_mut().enumerate().for_each(|(at, keeper)| change(at, keeper));
        let mut watches: Vec<&mut dyn Watch> = keepers.iter_mut().map(|keeper| keeper as &mut dyn Watch).collect();
        together(model.as_ref(), false, joining, &mut watches)
    };
    // One stops after its third step, one fails in its first.
    let first = run(&|at, keeper| match at {
        1 => keeper.stop = 3,
        4 => (keeper.stop, keeper.problem) = (0, || Problem::new("no")),
        _ => {}
    });
    for (at, (end, alone)) in first.iter().zip(&alone).enumerate() {
        match end {
            Ok(end) => assert!(at != 1 && at != 4 && near(end, alone), "{at}"),
            Err(problem) => assert!(if at == 1 { problem.cancelled } else { problem.what == "no" }, "{problem}"),
        }
    }
    // It goes on beside others that begin,
    let second = run(&|at, keeper| keeper.from = (at == 1).then_some(3));
    assert!(second.iter().zip(&alone).all(|(end, alone)| near(end.as_ref().unwrap(), alone)));
    // and alone.
    let tokens = tokens();
    let (plan, recipe) = plan(&tokens, 1, false);
    let one = arm(ARMS[1], 1, model.as_ref());
    let mut keeper = Keeper { from: Some(3), ..Keeper::new(states.path(), 1) };
    let curve = train_arm(model.as_ref(), &one, &tokens, &plan, &recipe, &mut keeper).unwrap();
    assert!(near(&(values(&one), curve), &alone[1]));
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let (_folder, model) = base("llama");
    let near = Joining { waste: 0.0, batched: true };
    let one = arm(ARMS[0], 0, model.as_ref());
    assert!(train_pack(model.as_ref(), &one, &mut [], near).err().unwrap().what.contains("no pack"));
    let pack = Arm::pack(vec![one]);
    assert!(train_pack(model.as_ref(), &pack, &mut [], near).err().unwrap().what.contains("1 arms for 0"));
}

/// A grid over one base; `HOW` stands for what all cells have in common, `CELLS` for the cells.
const GRID: &str = r#"
steps:
  data: { uses: generate, with: { nerus_train: 12, text_bytes: 4000, base_nerus: 2, base_terra: 2, nerus_dev: 2, nerus_test: 2, terra_train: 2, terra_val: 2 } }
  tokenizer: { uses: tokenizer, in: { text: data.text }, with: { vocab_size: 300 } }
  model:
    uses: pretrain
    in: { tokenizer: tokenizer, text: data.text }
    with: { model: { hidden_size: 32, intermediate_size: 48, num_hidden_layers: 2, num_attention_heads: 2 }, steps: 2, batch_tokens: 64, sequence_length: 16 }
  tokens: { uses: tokenize, in: { data: data.nerus_train, tokenizer: model }, with: { task: nerus, max_length: 90 } }
  arm:
    uses: train
    in: { model: model, data: tokens }
    HOW
    matrix: { CELLS }
    with: { adapter: { lora: { rank: '${matrix.rank}', alpha: 4, dropout: 0.1 } }, lr: '${matrix.lr}', batch_size: 1, dtype: f32, STEPS }
"#;

struct Project(tempfile::TempDir);

struct Ran {
    code: Option<i32>,
    events: Vec<Event>,
    text: String,
}

impl Project {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn command(&self, cache: &str, cells: &str, steps: &str, how: &str, more: &[&str]) -> Command {
        let yaml = GRID.replace("CELLS", cells).replace("STEPS", steps).replace("HOW", how);
        fs::write(self.0.path().join("x.yaml"), yaml).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
        command.args(["run", "x.yaml", "--device", "cpu", "--json", "-j", "1", "--cache", cache]).args(more);
        // Threads that spin while they wait are slow beside other tests.
        command.env("OMP_WAIT_POLICY", "PASSIVE").current_dir(self.0.path()).env_remove("PIPE_CACHE");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, cache: &str, cells: &str, more: &[&str]) -> Ran {
        told(self.command(cache, cells, "steps: 6", "", more).spawn().unwrap())
    }
}

fn told(child: Child) -> Ran {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let events = text.lines().filter_map(|line| Some(serde_json::from_str::<Stamped>(line).ok()?.event)).collect();
    Ran { code: output.status.code(), events, text: text + &String::from_utf8_lossy(&output.stderr) }
}

/// What is known of a cell: its key, what it made, and its figures.
type Known = (String, Vec<String>, BTreeMap<String, f64>);

impl Ran {
    fn arms(&self) -> BTreeMap<String, Known> {
        let made = |event: &Event| match event {
            Event::StepFinished { step, key, outputs, figures, .. } if step.starts_with("arm") => {
                let made = outputs.iter().map(|(name, made)| format!("{name} {}", made.digest)).collect();
                Some((step.clone(), (key.to_string(), made, figures.clone())))
            }
            _ => None,
        };
        self.events.iter().filter_map(made).collect()
    }

    fn together(&self) -> Vec<&str> {
        fn said(event: &Event) -> Option<&str> {
            match event {
                Event::StepSaid { step, say: Say::Remark { text } } if text.contains("works together") => Some(step),
                _ => None,
            }
        }
        self.events.iter().filter_map(said).collect()
    }
}

const CELLS: &str = "rank: [2, 3, 5], lr: [0.001]";

#[test]
fn a_grid_has_the_same_results_together_and_alone() {
    let project = Project::new();
    let alone = project.run("alone", CELLS, &["--together", "1"]);
    assert_eq!(alone.code, Some(0), "{}", alone.text);
    assert!(alone.together().is_empty() && alone.arms().len() == 3, "{}", alone.text);
    // By itself only where no byte changes: not at all.
    let auto = project.run("auto", CELLS, &[]);
    assert_eq!(auto.arms(), alone.arms(), "{}", auto.text);
    assert!(auto.together().is_empty(), "{}", auto.text);
    // Asked for: the figures are the same but for rounding, and the keys are.
    let asked = project.run("asked", CELLS, &["--together", "8"]);
    assert_eq!(asked.together().len(), 1, "{}", asked.text);
    for ((step, alone), asked) in alone.arms().iter().zip(asked.arms().values()) {
        assert_eq!(alone.0, asked.0, "{step}");
        for (name, figure) in &alone.2 {
            assert!((figure - asked.2[name]).abs() < 1e-4, "{step} {name}: {figure} {}", asked.2[name]);
        }
    }
    // One more is trained alone; nothing else is.
    let more = project.run("asked", "rank: [2, 3, 5, 4], lr: [0.001]", &["--together", "8"]);
    let ran: Vec<String> = more.arms().into_keys().collect();
    assert_eq!((ran, more.together().len()), (vec!["arm[rank=4,lr=0.001]".to_owned()], 0));
}

#[test]
fn a_cell_that_fails_fails_alone() {
    let project = Project::new();
    let alone = project.run("alone", CELLS, &["--together", "1"]);
    let ran = project.run("cache", "rank: [2, 3, 5], lr: [0.001, 10]", &["--together", "8", "--keep-going"]);
    let arms = ran.arms();
    assert_eq!((ran.together().len(), alone.arms().len()), (1, 3), "{}", ran.text);
    for (step, (key, _, figures)) in alone.arms() {
        assert_eq!(arms[&step].0, key);
        assert!((arms[&step].2["loss"] - figures["loss"]).abs() < 1e-4, "{step}");
    }
}

#[test]
fn an_interrupted_grid_goes_on_alone() {
    let project = Project::new();
    let (how, steps) = ("checkpoint: 0s", "steps: 400");
    let mut child = project.command("cache", CELLS, steps, how, &["--together", "8"]).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(120);
    let states = || {
        let below = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        below(project.0.path().join("cache/checkpoints")).flat_map(below).flat_map(below).count()
    };
    while states() == 0 {
        assert!(Instant::now() < until && child.try_wait().unwrap().is_none(), "no state came");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(told(child).code, Some(130));
    let rest = told(project.command("cache", CELLS, steps, how, &["--together", "1"]).spawn().unwrap());
    let resumed = rest.events.iter().any(|event| matches!(event, Event::StepSaid { say: Say::Resumed { .. }, .. }));
    assert!(resumed, "{}", rest.text);
    let whole = told(project.command("whole", CELLS, steps, how, &["--together", "1"]).spawn().unwrap());
    assert_eq!(rest.arms().len(), 3, "{}", rest.text);
    for (step, (key, _, figures)) in whole.arms() {
        assert_eq!(rest.arms()[&step].0, key);
        assert!((rest.arms()[&step].2["loss"] - figures["loss"]).abs() < 1e-3, "{step}");
    }
}
