//! The training loop as a whole: it learns, repeats itself to the byte, stops when told, and refuses what cannot be.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use pipe::error::{Problem, Result};
use pipe::ml::config::ModelConfig;
use pipe::ml::device::use_threads;
use pipe::ml::models::{load, tensors};
use pipe::ml::tokens::{FORMAT, Tokens, TokensInfo};
use pipe::ml::train::adamw::{AdamW, AdamWOptions};
use pipe::ml::train::batch::{Length, Limits, Plan};
use pipe::ml::train::curve::Curve;
use pipe::ml::train::fit::Write;
use pipe::ml::train::loss::Learner;
use pipe::ml::train::micro::Micro;
use pipe::ml::train::schedule::Schedule;
use pipe::ml::train::{Fit, Watch, fit};
use pipe::ml::weights::shapes_of;
use pipe::step::stream;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::data_steps::{artifact, run};

const VOCABULARY: i64 = 11;

/// Predicts the next id from the mean of all ids before: embedding, one layer, head.
struct Toy {
    named: Vec<(String, Tensor)>,
}

impl Toy {
    fn new() -> Self {
        let matrix = |rows: i64, columns: i64, shift: f64| {
            let values =
                (Tensor::arange(rows * columns, (Kind::Double, Device::Cpu)) * 12.9898 + shift).sin() * 43758.5453;
            ((&values - values.floor() - 0.5) * 0.5).to_kind(Kind::Float).view_([rows, columns])
        };
        let named = [
            ("embed", matrix(VOCABULARY, 24, 1.0)),
            ("layer", matrix(24, 24, 2.0)),
            ("head", matrix(VOCABULARY, 24, 3.0)),
        ];
        Self { named: named.map(|(name, tensor)| (name.to_owned(), tensor)).into() }
    }

    fn adamw(&self) -> AdamW {
        let options = AdamWOptions { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.01 };
        AdamW::new(&self.named, options, |_, _| true).unwrap()
    }

    fn bytes(&self) -> Vec<f32> {
        let flat: Vec<Tensor> = self.named.iter().map(|(_, tensor)| tensor.detach().reshape([-1])).collect();
        Vec::try_from(Tensor::cat(&flat, 0)).unwrap()
    }
}

impl Learner for Toy {
    fn hidden(&self, ids: &Tensor, positions: &Tensor) -> Tensor {
        let before = Tensor::embedding(&self.named[0].1, ids, -1, false, false);
        let count = Tensor::arange(ids.size()[1], (Kind::Float, Device::Cpu)).view_([-1, 1]) + 1.0;
        let mean = before.cumsum(1, Kind::Float) / count;
        (mean + before).matmul(&self.named[1].1).tanh().flatten(0, 1).index_select(0, positions)
    }
    fn logits(&self, rows: &Tensor) -> Tensor {
        rows.matmul(&self.named[2].1.tr())
    }
    fn vocabulary(&self) -> i64 {
        VOCABULARY
    }
}

/// Stops the run before the n-th micro-batch.
struct StopAt(u64);

impl Watch for StopAt {
    fn check(&mut self) -> Result<()> {
        if self.0 == 0 {
            return Err(Problem::cancelled());
        }
        self.0 -= 1;
        Ok(())
    }
}

struct Silent;

impl Watch for Silent {
    fn check(&mut self) -> Result<()> {
        Ok(())
    }
}

/// 24 rows of 4 to 12 ids that all differ.
fn rows() -> Tokens {
    let (mut ids, mut offsets, mut targets) = (Vec::new(), vec![0], Vec::new());
    for row in 0..24 {
        let length = 4 + row * 5 % 9;
        ids.extend((0..length).map(|at| (row * 7 + at * (row % 3 + 1)) % VOCABULARY as i32));
        offsets.push(ids.len() as i64);
        targets.push(1 + row % 2);
    }
    let info = TokensInfo {
        format: FORMAT.to_owned(),
        task: "text".to_owned(),
        prompt: String::new(),
        vocab_size: VOCABULARY as u64,
        rows: 24,
        tokens: ids.len() as u64,
        target_tokens: 0,
        truncated: 0,
        longest: 12,
        tokenizer: String::new(),
    };
    Tokens { ids, offsets, targets, info }
}

fn options(steps: u64) -> Fit {
    Fit { lr: 1e-2, schedule: Schedule::Cosine, schedule_steps: steps, warmup: 3, steps, clip: Some(1.0) }
}

/// Trains a fresh toy and gives its weights and curve.
fn train(seed: u64, epochs: u64) -> (Vec<f32>, Curve) {
    use_threads(1);
    let toy = Toy::new();
    let tokens = rows();
    let lengths: Vec<usize> = (0..tokens.rows()).map(|row| tokens.row(row).len()).collect();
    let limits = Limits { rows: 4, tokens: None };
    let plan = Plan::new(&lengths, limits, 2, Length::Epochs(epochs), |epoch| stream(seed, &format!("epoch {epoch}")))
        .unwrap();
    let mut batches = |step: u64| {
        let step = &plan.steps[step as usize];
        Ok(step.iter().map(|rows| Micro::from_rows(&tokens, rows, false, Device::Cpu)).collect())
    };
    let steps = plan.steps.len() as u64;
    let curve = fit(&options(steps), &toy, &mut toy.adamw(), &mut batches, &mut Silent).unwrap();
    assert_eq!(curve.points.len() as u64, steps);
    (toy.bytes(), curve)
}

/// Keeps the state after each step in a folder, goes on from one, and stops after so many steps.
struct Keeper {
    folder: PathBuf,
    from: Option<u64>,
    stop: u64,
    saved: Vec<u64>,
    /// Saves after each step; otherwise only when it stops.
    often: bool,
    step: u64,
}

impl Keeper {
    fn state(&self, step: u64) -> PathBuf {
        self.folder.join(step.to_string())
    }
}

impl Watch for Keeper {
    fn check(&mut self) -> Result<()> {
        if self.step == self.stop { Err(Problem::cancelled()) } else { Ok(()) }
    }
    fn updated(&mut self, step: u64) {
        self.step = step + 1;
    }
    fn restore(&mut self, _steps: u64) -> Result<Option<PathBuf>> {
        Ok(self.from.map(|step| self.state(step)))
    }
    fn due(&mut self, _finished: bool) -> bool {
        self.often
    }
    fn save(&mut self, step: u64, _finished: bool, write: Write) -> Result<()> {
        self.saved.push(step);
        let folder = self.state(step);
        std::fs::create_dir_all(&folder).unwrap();
        write(&folder)
    }
}

/// Trains the toy for so many steps, two micro-batches each.
fn kept(options: &Fit, keeper: &mut Keeper) -> Result<(Vec<f32>, Curve)> {
    use_threads(1);
    let (toy, tokens) = (Toy::new(), rows());
    let lengths: Vec<usize> = (0..tokens.rows()).map(|row| tokens.row(row).len()).collect();
    let limits = Limits { rows: 4, tokens: None };
    let epoch = |epoch| stream(7, &format!("epoch {epoch}"));
    let plan = Plan::new(&lengths, limits, 2, Length::Steps(options.steps), epoch).unwrap();
    let mut batches = |step: u64| {
        let step = &plan.steps[step as usize];
        Ok(step.iter().map(|rows| Micro::from_rows(&tokens, rows, false, Device::Cpu)).collect())
    };
    let curve = fit(options, &toy, &mut toy.adamw(), &mut batches, keeper)?;
    Ok((toy.bytes(), curve))
}

fn keeper(folder: &std::path::Path, often: bool) -> Keeper {
    Keeper { folder: folder.to_owned(), from: None, stop: u64::MAX, saved: Vec::new(), often, step: 0 }
}

#[test]
fn whoever_goes_on_from_a_state_ends_like_one_who_never_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(17);
    let whole = kept(&options, &mut keeper(folder.path(), false)).unwrap();
    assert!(kept(&options, &mut keeper(folder.path(), true)).unwrap() == whole, "saving changes the run");
    for from in 1..=17 {
        let mut keeper = Keeper { from: Some(from), ..keeper(folder.path(), false) };
        assert!(kept(&options, &mut keeper).unwrap() == whole, "another end from step {from}");
        assert_eq!(keeper.step, if from == 17 { 0 } else { 17 });
    }
}

#[test]
fn whoever_is_stopped_leaves_a_state_once() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(17);
    let whole = kept(&options, &mut keeper(folder.path(), false)).unwrap();
    let mut stopped = Keeper { stop: 11, ..keeper(folder.path(), false) };
    assert!(kept(&options, &mut stopped).unwrap_err().cancelled);
    assert_eq!(stopped.saved, [11]);
    assert!(kept(&options, &mut Keeper { from: Some(11), ..keeper(folder.path(), false) }).unwrap() == whole);
    // The figures of the tenth step are read back at once, and those of no other are left then.
    let mut told = Keeper { stop: 10, ..keeper(folder.path(), false) };
    assert!(kept(&options, &mut told).unwrap_err().cancelled);
    assert_eq!(told.saved, [10]);
    assert!(kept(&options, &mut Keeper { from: Some(10), ..keeper(folder.path(), false) }).unwrap() == whole);
    // Nothing was done since.
    let mut again = Keeper { from: Some(11), stop: 0, ..keeper(folder.path(), false) };
    assert!(kept(&options, &mut again).unwrap_err().cancelled);
    assert!(again.saved.is_empty());
}

#[test]
fn a_longer_run_begins_like_a_shorter_one_if_the_schedule_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let of = |steps| Fit { steps, ..options(9) };
    kept(&of(8), &mut keeper(folder.path(), true)).unwrap();
    let whole = kept(&of(20), &mut keeper(&folder.path().join("other"), false)).unwrap();
    assert!(kept(&of(20), &mut Keeper { from: Some(8), ..keeper(folder.path(), false) }).unwrap() == whole);
    assert_eq!(whole.1.points[19].lr, 0.0, "after its end the schedule stays where it is");
}

#[test]
fn a_state_of_something_else_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    kept(&options(2), &mut keeper(folder.path(), true)).unwrap();
    let state = folder.path().join("1/state.safetensors");
    let named = [("w".to_owned(), Tensor::from_slice(&[1f32, 2.0]))];
    let mut other =
        AdamW::new(&named, AdamWOptions { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0 }, |_, _| true).unwrap();
    let problem = pipe::ml::train::state::read(state.parent().unwrap(), &mut other).unwrap_err().to_string();
    assert!(problem.contains("no `parameters` of 2 f32 numbers"), "{problem}");
    assert_eq!(Vec::<f32>::try_from(&named[0].1.detach()).unwrap(), [1.0, 2.0]);
    std::fs::write(&state, "no tensors").unwrap();
    assert!(pipe::ml::train::state::read(state.parent().unwrap(), &mut other).is_err());
}

fn one_batch() -> Micro {
    Micro::from_rows(&rows(), &[0, 1, 2], false, Device::Cpu)
}

#[test]
fn it_learns_one_batch_by_heart() {
    let toy = Toy::new();
    let mut batches = |_| Ok(vec![one_batch()]);
    let curve = fit(&options(300), &toy, &mut toy.adamw(), &mut batches, &mut Silent).unwrap();
    assert!(curve.first_loss().unwrap() > 2.0 && curve.last_loss().unwrap() < 0.2, "{:?}", curve.points.last());
    assert_eq!(curve.points[0].lr, 0.0);
    assert!(curve.points[299].lr < 1e-5 && curve.points[3].lr == 1e-2);
}

#[test]
fn two_runs_and_two_runs_side_by_side_give_the_same_bytes() {
    let alone = [train(1, 6), train(2, 6)];
    assert!(alone[0].0 != alone[1].0, "the seed does nothing");
    assert!(train(1, 6) == alone[0], "another run gave other weights or another curve");
    let together = std::thread::scope(|scope| {
        let threads = [1, 2].map(|seed| scope.spawn(move || train(seed, 6)));
        threads.map(|thread| thread.join().unwrap())
    });
    assert!(together == alone, "runs side by side gave other weights or another curve");
}

#[test]
fn two_micro_batches_are_one_of_double_size() {
    let tokens = rows();
    let parts = |sizes: &'static [&'static [usize]]| {
        let toy = Toy::new();
        let mut batches =
            |_| Ok(sizes.iter().map(|rows| Micro::from_rows(&tokens, rows, false, Device::Cpu)).collect());
        let curve = fit(&options(8), &toy, &mut toy.adamw(), &mut batches, &mut Silent).unwrap();
        (toy.bytes(), curve)
    };
    let (whole, two) = (parts(&[&[0, 1, 2, 3, 4]]), parts(&[&[0, 1], &[2, 3, 4]]));
    for (a, b) in whole.1.points.iter().zip(&two.1.points) {
        assert!((a.loss - b.loss).abs() < 1e-5, "{a:?} {b:?}");
        assert_eq!((a.tokens, a.target_tokens), (b.tokens, b.target_tokens));
    }
    let apart = whole.0.iter().zip(&two.0).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart < 1e-4 && whole.0 != Toy::new().bytes(), "{apart}");
}

#[test]
fn it_stops_before_the_next_micro_batch_when_told() {
    let toy = Toy::new();
    let given = AtomicU64::new(0);
    let mut batches = |_| {
        given.fetch_add(1, Ordering::Relaxed);
        Ok(vec![one_batch()])
    };
    let problem = fit(&options(1000), &toy, &mut toy.adamw(), &mut batches, &mut StopAt(5)).unwrap_err();
    assert!(problem.cancelled);
    assert_eq!(given.load(Ordering::Relaxed), 6);
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_with_its_step() {
    let toy = Toy::new();
    let mut batches = |_| Ok(vec![one_batch()]);
    let options = Fit { lr: 1e30, schedule: Schedule::Constant, schedule_steps: 50, warmup: 0, steps: 50, clip: None };
    let problem = fit(&options, &toy, &mut toy.adamw(), &mut batches, &mut Silent).unwrap_err().to_string();
    assert!(problem.contains("at step ") && problem.contains("lower `lr`"), "{problem}");
}

#[test]
fn a_batch_without_a_target_is_refused() {
    let toy = Toy::new();
    let ids = Tensor::from_slice(&[1i64, 2]).view_([1, 2]);
    let mut batches = |_| Ok(vec![Micro::from_labels(&ids, &Tensor::full_like(&ids, -100), 2)]);
    let problem = fit(&options(2), &toy, &mut toy.adamw(), &mut batches, &mut Silent).unwrap_err().to_string();
    assert!(problem.contains("step 1 has no id to predict"), "{problem}");
}

/// Work that libtorch splits by its number of threads: products, sums over long axes, and a step of AdamW.
fn heavy(threads: usize) -> Vec<f32> {
    use_threads(threads);
    let numbers = |rows: i64, columns: i64| {
        (Tensor::arange(rows * columns, (Kind::Float, Device::Cpu)) * 0.37).sin().view_([rows, columns])
    };
    let named = [("w".to_owned(), numbers(96, 2083))];
    let (weight, x) = (&named[0].1, numbers(300, 2083));
    let options = AdamWOptions { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.01 };
    let mut adamw = AdamW::new(&named, options, |_, _| true).unwrap();
    let mut told = Vec::new();
    for _ in 0..4 {
        let loss = x.matmul(&weight.tr()).softmax(-1, Kind::Float).square().sum(Kind::Float);
        adamw.gradient().backward(&loss, None);
        told.push(loss.double_value(&[]) as f32);
        let _norm = adamw.clip(Some(1.0));
        adamw.step(1e-2);
    }
    // A sum over everything is cut into as many parts as there are threads.
    told.extend([weight, &x].map(|all| all.detach().sum(Kind::Float).double_value(&[]) as f32));
    told.extend(Vec::<f32>::try_from(weight.detach().reshape([-1])).unwrap());
    told
}

#[test]
fn each_thread_keeps_its_own_number_of_threads() {
    let alone = [1, 2, 3].map(|threads| std::thread::spawn(move || heavy(threads)).join().unwrap());
    // Otherwise the rest would hold whatever `use_threads` does.
    assert!(alone[0] != alone[1], "the number of threads changes nothing here: the work is too small");
    for round in 0..8 {
        let together = std::thread::scope(|scope| {
            [1, 2, 3].map(|threads| scope.spawn(move || heavy(threads))).map(|thread| thread.join().unwrap())
        });
        for (threads, (alone, together)) in alone.iter().zip(&together).enumerate() {
            let bits = |all: &[f32]| all.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert!(
                bits(alone) == bits(together),
                "round {round}: {} threads beside others give other bytes",
                threads + 1
            );
        }
    }
}

/// Runs `pretrain` for two steps on a little text.
fn pretrain(model: &Value) -> std::result::Result<crate::data_steps::Ran, String> {
    let root = tempfile::tempdir().unwrap();
    let text = root.path().join("text.txt");
    std::fs::write(&text, "Зимой в Снежинске тихо. Летом в Снежинске шумно, и это видят все.\n".repeat(20)).unwrap();
    let text = artifact(&text, "text");
    let told = |problems: Vec<Problem>| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let tokenizer = run("tokenizer", json!({"vocab_size": 280}), vec![("text", vec![text.clone()])], root.path());
    let made = tokenizer.map_err(told)?;
    let tokenizer = made.artifact("tokenizer", "tokenizer");
    let with = json!({"model": model, "steps": 2, "batch_tokens": 64, "sequence_length": 16});
    run("pretrain", with, vec![("tokenizer", vec![tokenizer]), ("text", vec![text])], root.path()).map_err(told)
}

#[test]
fn a_base_from_nothing_is_a_checkpoint_like_any_other() {
    let ran = pretrain(&json!({"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "attention_bias": true}))
    .unwrap();
    let folder = ran.path("model");
    let config = ModelConfig::read(&folder).unwrap();
    assert_eq!((config.model_type, config.head_dim, config.num_key_value_heads), ("llama", 4, 2));
    let model = load(&folder, Device::Cpu, Kind::Float).unwrap();
    assert_eq!(shapes_of(&model.weights()), tensors::shapes(&config));
    assert!(model.weights().values().all(|tensor| tensor.isfinite().all().int64_value(&[]) == 1));
}

#[test]
fn a_base_larger_than_the_memory_is_refused_with_numbers() {
    let problem = pretrain(&json!({"hidden_size": 65_536, "intermediate_size": 262_144, "num_hidden_layers": 1024,
        "num_attention_heads": 64}))
    .err()
    .expect("refused");
    assert!(problem.contains("GB") && problem.contains("of 24 bytes") && problem.contains("free"), "{problem}");
}
