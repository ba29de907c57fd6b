//! One piece of work each: it runs, is timed, and says what it cost and what came out.
//! It does not know how it is repeated or compared.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use pipe::error::{Problem, Result};
use pipe::ml::adapters::Arm;
use pipe::ml::device::{torch_device, use_threads};
use pipe::ml::models::{Model, load, load_to_read};
use pipe::ml::tokens::Tokens;
use pipe::ml::train::adamw::AdamWOptions;
use pipe::ml::train::arms::{Recipe, divided, train_arm};
use pipe::ml::train::batch::{Length, Limits, Plan};
use pipe::ml::train::memory::Memory;
use pipe::ml::train::schedule::Schedule;
use pipe::ml::train::{Fit, Watch};
use pipe::ml::{generate, score, weights};
use pipe::step::stream;
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::{pack, shapes, text, usage};

/// `key=value` of the command line.
pub struct Options<'a>(pub BTreeMap<&'a str, &'a str>);

impl Options<'_> {
    pub fn text(&self, name: &str, default: &'static str) -> &str {
        self.0.get(name).copied().unwrap_or(default)
    }
    pub fn number(&self, name: &str, default: usize) -> usize {
        self.0.get(name).and_then(|text| text.parse().ok()).unwrap_or(default)
    }
    fn kind(&self) -> Kind {
        if self.text("dtype", "f32") == "bf16" { Kind::BFloat16 } else { Kind::Float }
    }
}

/// Times the steps of a run.
struct Clock {
    device: tch::Device,
    warm: u64,
    ready: Option<f64>,
    first: Option<f64>,
    times: Vec<Instant>,
    cpu: f64,
}

impl Watch for Clock {
    fn check(&mut self) -> Result<()> {
        self.ready.get_or_insert_with(usage::since_start);
        Ok(())
    }
    fn updated(&mut self, step: u64) {
        synchronize(self.device);
        self.first.get_or_insert_with(usage::since_start);
        if step + 1 >= self.warm {
            if step + 1 == self.warm {
                self.cpu = usage::cpu_seconds();
            }
            self.times.push(Instant::now());
        }
    }
}

pub fn synchronize(device: tch::Device) {
    if let tch::Device::Cuda(index) = device {
        tch::Cuda::synchronize(index as i64);
    }
}

/// Does it.
pub fn run(what: &str, folder: &Path, options: &Options) -> Result<Value> {
    use_threads(options.number("threads", 2));
    match what {
        "train" => train(folder, options),
        "pack" => pack::run(folder, options),
        "load" => loading(folder, options),
        "tokenize" => text::tokenize(folder, options),
        "score" => scoring(folder, options),
        "generate" => generation(folder, options),
        "limit" => Ok(limit(options)),
        other => Err(Problem::new(format!("unknown work `{other}`"))
            .expected("train, pack, score, generate, load, tokenize or limit")),
    }
}

pub fn base(folder: &Path, options: &Options) -> Result<Box<dyn Model>> {
    load(&folder.join("base"), torch_device(options.text("device", "cpu")), options.kind())
}

fn base_to_read(folder: &Path, options: &Options) -> Result<Box<dyn Model>> {
    load_to_read(&folder.join("base"), torch_device(options.text("device", "cpu")), options.kind())
}

fn arm(folder: &Path, name: &str, model: &dyn Model) -> Result<Arm> {
    match name {
        "base" => Ok(Arm::none()),
        "lora" | "mlp" => Arm::load(&folder.join(name), model),
        other => Arm::init(&shapes::adapter(other)?, model, &mut stream(2, other)),
    }
}

/// Those that answer one after the other.
fn arms(folder: &Path, options: &Options, model: &dyn Model) -> Result<Vec<Arm>> {
    options.text("arms", "base,lora,mlp").split(',').map(|name| arm(folder, name, model)).collect()
}

fn train(folder: &Path, options: &Options) -> Result<Value> {
    let model = base(folder, options)?;
    let arm = arm(folder, options.text("arm", "lora"), model.as_ref())?;
    let tokens = Tokens::read(&folder.join(options.text("rows", "full")))?;
    let (steps, warm) = (options.number("steps", 13) as u64, options.number("warm", 3) as u64);
    let lengths: Vec<usize> = (0..tokens.rows()).map(|row| tokens.row(row).len()).collect();
    let limits = Limits { rows: options.number("batch", 8), tokens: None };
    let plan = Plan::new(&lengths, limits, 1, Length::Steps(steps), |epoch| stream(7, &format!("{epoch}")))?;
    let plan = divided(plan, &lengths, model.as_ref());
    let fit = Fit { lr: 1e-3, schedule: Schedule::Constant, schedule_steps: steps, warmup: 0, steps, clip: Some(1.0) };
    let adamw = AdamWOptions { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0 };
    let device = model.device();
    let mut clock = Clock { device, warm, ready: None, first: None, times: Vec::new(), cpu: 0.0 };
    let memory = if options.text("memory", "normal") == "low" { Memory::Low } else { Memory::Normal };
    let recipe = Recipe { fit, adamw, seed: 1, memory };
    let curve = train_arm(model.as_ref(), &arm, &tokens, &plan, &recipe, &mut clock)?;
    let seconds: Vec<f64> = clock.times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
    let ids: u64 = curve.points[warm as usize..].iter().map(|point| point.tokens).sum();
    Ok(json!({
        "tokens_per_second": ids as f64 / seconds.iter().sum::<f64>(),
        "tokens": ids,
        "seconds": seconds.iter().sum::<f64>(),
        "cpu_seconds": usage::cpu_seconds() - clock.cpu,
        "ready": clock.ready,
        "first_step": clock.first,
        "peak_mib": usage::peak_mib(),
        "padding": plan.padding_share(),
        "losses": curve.points.iter().map(|point| point.loss).collect::<Vec<_>>(),
        "rows": plan.steps,
    }))
}

/// Reads the base, and its fingerprint, which `train` writes beside an adapter.
fn loading(folder: &Path, options: &Options) -> Result<Value> {
    let before = usage::resident_mib();
    let (begun, cpu) = (Instant::now(), usage::cpu_seconds());
    let model = base(folder, options)?;
    synchronize(model.device());
    let (seconds, peak) = (begun.elapsed().as_secs_f64(), usage::peak_mib());
    let print = weights::fingerprint(&folder.join("base"))?;
    let weights: usize = model.weights().values().map(|t| t.numel() * t.kind().elt_size_in_bytes()).sum();
    Ok(json!({
        "seconds": seconds,
        "seconds_with_fingerprint": begun.elapsed().as_secs_f64(),
        "cpu_seconds": usage::cpu_seconds() - cpu,
        "weights_mib": weights as f64 / f64::from(1 << 20),
        "resident_before_mib": before,
        "peak_mib": peak,
        "losses": [print.as_str()],
    }))
}

/// The items of `pairs`: a prompt and a label each.
fn items(tokens: &Tokens) -> Vec<(Vec<i64>, Vec<i64>)> {
    let wide = |ids: &[i32]| ids.iter().map(|&id| i64::from(id)).collect::<Vec<_>>();
    (0..tokens.rows())
        .map(|row| {
            let (context, label) = tokens.row(row).split_at(tokens.target(row));
            (wide(context), wide(label))
        })
        .collect()
}

fn scoring(folder: &Path, options: &Options) -> Result<Value> {
    let model = base_to_read(folder, options)?;
    let items = items(&Tokens::read(&folder.join("pairs"))?);
    let arms = arms(folder, options, model.as_ref())?;
    let (begun, cpu) = (Instant::now(), usage::cpu_seconds());
    let mut sums = Vec::new();
    for arm in &arms {
        let scores =
            score::log_likelihoods(model.as_ref(), arm, &items, options.number("batch_tokens", 4096), &mut |_| Ok(()))?;
        sums.push(scores.iter().map(|score| score.sum).sum::<f64>() / scores.len() as f64);
    }
    synchronize(model.device());
    let seconds = begun.elapsed().as_secs_f64();
    let nominal: usize = items.iter().map(|(context, label)| context.len() + label.len()).sum();
    Ok(json!({
        "tokens_per_second": (nominal * arms.len()) as f64 / seconds,
        "seconds": seconds,
        "cpu_seconds": usage::cpu_seconds() - cpu,
        "peak_mib": usage::peak_mib(),
        "losses": sums,
    }))
}

fn generation(folder: &Path, options: &Options) -> Result<Value> {
    let model = base_to_read(folder, options)?;
    let mut prompts: Vec<Vec<i64>> =
        items(&Tokens::read(&folder.join("pairs"))?).into_iter().step_by(2).map(|(context, _)| context).collect();
    prompts.truncate(options.number("prompts", 100));
    let new = options.number("new", 64);
    let arms = arms(folder, options, model.as_ref())?;
    let (begun, cpu) = (Instant::now(), usage::cpu_seconds());
    let (mut generated, mut first) = (0, Vec::new());
    for arm in &arms {
        let batch = options.number("batch_tokens", 16_384);
        let answers = generate::greedy(model.as_ref(), arm, &prompts, new, &[], batch, &mut |_| Ok(()))?;
        generated += answers.iter().map(|answer| answer.ids.len()).sum::<usize>();
        first.push(answers[0].ids.clone());
    }
    let seconds = begun.elapsed().as_secs_f64();
    Ok(json!({
        "tokens_per_second": generated as f64 / seconds,
        "seconds": seconds,
        "cpu_seconds": usage::cpu_seconds() - cpu,
        "peak_mib": usage::peak_mib(),
        "losses": first,
    }))
}

/// The rate of matrix products [m, k] · [n, k]ᵀ in FLOP/s.
fn limit(options: &Options) -> Value {
    let device = torch_device(options.text("device", "cpu"));
    let [m, n, k] = ["m", "n", "k"].map(|name| options.number(name, 1024) as i64);
    let random = |shape: [i64; 2]| Tensor::randn(shape, (Kind::Float, device)).to_kind(options.kind());
    let (a, b) = (random([m, k]), random([n, k]));
    let product = || a.linear(&b, None::<&Tensor>);
    (0..3).for_each(|_| drop(product()));
    synchronize(device);
    let (begun, mut count) = (Instant::now(), 0);
    while begun.elapsed().as_secs_f64() < 1.0 {
        (0..4).for_each(|_| drop(product()));
        count += 4;
        synchronize(device);
    }
    let seconds = begun.elapsed().as_secs_f64();
    json!({"flops": (2 * m * n * k * count) as f64 / seconds})
}
