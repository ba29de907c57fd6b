//! Follows the training trajectories of PyTorch with PEFT and AdapterHub, step by step, with the product's own loop.
//! Every case under the golden root is walked; those of other ways to adapt are refused by name and counted.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use pipe::error::Result;
use pipe::ml::adapters::Arm;
use pipe::ml::models::{self, Input, MODELS};
use pipe::ml::train::adamw::{AdamW, AdamWOptions};
use pipe::ml::train::arms::Adapted;
use pipe::ml::train::micro::Micro;
use pipe::ml::train::schedule::Schedule;
use pipe::ml::train::{Fit, Watch, fit};
use pipe::ml::weights::{Tensors, read_file};
use serde::Deserialize;
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use crate::support;

/// `manifest.json`, as far as it says what to do: a field that is not known here fails the test.
#[derive(Deserialize)]
struct Manifest {
    name: String,
    base: String,
    config: Value,
    tolerances: BTreeMap<String, Tolerance>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tolerance {
    atol: f64,
    #[serde(default)]
    rtol: f64,
    #[serde(default, rename = "note")]
    _note: String,
}

/// The options of a run.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Said again by the adapter's own configuration.
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(default, rename = "lora")]
    _lora: Value,
    #[serde(default, rename = "bn")]
    _bn: Value,
    #[serde(default, rename = "dora")]
    _dora: Value,
    #[serde(default, rename = "ia3")]
    _ia3: Value,
    opt: Optimiser,
    accum: usize,
    steps: u64,
    #[serde(default)]
    warmup: Option<u64>,
    #[serde(default)]
    clip: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Optimiser {
    lr: f64,
    betas: (f64, f64),
    eps: f64,
    weight_decay: f64,
}

#[derive(Deserialize)]
struct Logged {
    step: u64,
    lr: f64,
    loss: f64,
    grad_norm_before_clip: f64,
    label_tokens: u64,
}

/// Keeps the first gradient and the adapters after the steps that were recorded.
struct Recorder<'a> {
    arm: &'a Arm,
    first_gradient: BTreeMap<String, Tensor>,
    after: BTreeMap<u64, Tensors>,
}

impl Watch for Recorder<'_> {
    fn check(&mut self) -> Result<()> {
        Ok(())
    }
    fn gradient(&mut self, step: u64, adamw: &AdamW) {
        if step == 0 {
            self.first_gradient = adamw.gradients();
        }
    }
    fn updated(&mut self, step: u64) {
        if step == 0 || step == 4 {
            self.after.insert(step + 1, parameters(self.arm));
        }
    }
}

fn parameters(arm: &Arm) -> Tensors {
    arm.parameters().into_iter().map(|(name, tensor)| (name, tensor.detach().copy())).collect()
}

#[test]
fn trajectories_are_followed() {
    let Some(golden) = support::golden() else { return };
    if !golden.join("train").is_dir() {
        return support::has_cases(0, "train");
    }
    let (mut followed, mut refused) = (0, Vec::new());
    let mut folders: Vec<_> = fs::read_dir(golden.join("train")).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    for folder in folders {
        let Ok(text) = fs::read_to_string(folder.join("manifest.json")) else { continue };
        let value: Value = serde_json::from_str(&text).unwrap();
        if value["kind"] != "training_trajectory" {
            continue;
        }
        let manifest: Manifest = serde_json::from_value(value).unwrap();
        let base = golden.join("models").join(Path::new(&manifest.base).file_name().unwrap());
        let config: Value = serde_json::from_str(&fs::read_to_string(base.join("config.json")).unwrap()).unwrap();
        let way = manifest.config["kind"].as_str().unwrap_or_default();
        let known = MODELS.iter().any(|model| config["model_type"] == model.name);
        if !known || !["lora", "bn", "dora", "ia3"].contains(&way) {
            refused.push(format!("{} ({way} on {})", manifest.name, config["model_type"]));
            continue;
        }
        follow(&folder, &base, &manifest);
        followed += 1;
    }
    eprintln!("{followed} trajectories followed, {} refused: {}", refused.len(), refused.join(", "));
    support::has_cases(followed, "train");
}

fn follow(folder: &Path, base: &Path, manifest: &Manifest) {
    let name = &manifest.name;
    let config: Config = serde_json::from_value(manifest.config.clone())
        .unwrap_or_else(|error| panic!("{name}: an option that this test does not know: {error}"));
    let log: Vec<Logged> = serde_json::from_str(&fs::read_to_string(folder.join("log.json")).unwrap()).unwrap();
    let read = |file: &str| read_file(&folder.join(file), None, Device::Cpu).unwrap();
    let tolerance = |what: &str| manifest.tolerances.get(what).unwrap_or_else(|| panic!("{name}: no tolerance {what}"));

    let model = models::load(base, Device::Cpu, Kind::Float).unwrap();
    let arm = initial_arm(folder, model.as_ref());
    let options = AdamWOptions { betas: config.opt.betas, eps: config.opt.eps, weight_decay: config.opt.weight_decay };
    let mut adamw = AdamW::new(&arm.parameters(), options, |_, _| true).unwrap();
    let fit_options = Fit {
        lr: config.opt.lr,
        schedule: if config.warmup.is_some() { Schedule::Linear } else { Schedule::Constant },
        schedule_steps: config.steps,
        warmup: config.warmup.unwrap_or(0),
        steps: config.steps,
        clip: config.clip,
    };
    let data = read("batches.safetensors");
    let mut batches = |step: u64| {
        let micro = |at: usize| {
            let pick = |what: &str| data[what].select(0, at as i64);
            let mask = pick("attention_mask");
            // Right padding needs no mask; the losses below would tell if there were another.
            assert!(
                bool::try_from((mask.diff::<Tensor>(1, 1, None, None)).le(0).all()).unwrap(),
                "{name}: left padding"
            );
            Micro::from_labels(&pick("input_ids"), &pick("labels"), mask.sum(Kind::Int64).int64_value(&[]) as u64)
        };
        let first = step as usize * config.accum;
        Ok((first..first + config.accum).map(micro).collect())
    };
    let mut recorder = Recorder { arm: &arm, first_gradient: BTreeMap::new(), after: BTreeMap::new() };
    let learner = Adapted::new(model.as_ref(), &arm, None);
    let curve = fit(&fit_options, &learner, &mut adamw, &mut batches, &mut recorder).unwrap();

    assert_eq!(curve.points.len(), log.len(), "{name}: steps");
    for (ours, theirs) in curve.points.iter().zip(&log) {
        let step = theirs.step;
        assert_eq!((ours.step, ours.target_tokens), (step + 1, theirs.label_tokens), "{name}: step {step}");
        assert!((ours.lr - theirs.lr).abs() <= 1e-12 + 1e-9 * theirs.lr, "{name}: lr {} of step {step}", ours.lr);
        let apart = (ours.loss - theirs.loss).abs();
        assert!(apart <= tolerance("loss").atol, "{name}: loss {} of step {step}, not {}", ours.loss, theirs.loss);
        let apart = (ours.grad_norm - theirs.grad_norm_before_clip).abs();
        assert!(
            apart <= 1e-3 * theirs.grad_norm_before_clip,
            "{name}: gradient norm {} of step {step}",
            ours.grad_norm
        );
    }
    same(name, "first gradient", &recorder.first_gradient, &read("grad_step0.safetensors"), tolerance("grad_step0"));
    let (first, last) = (tolerance("adapter_after_step1"), tolerance("adapter_final"));
    same(name, "after step 1", &recorder.after[&1], &read("adapter_after_step1.safetensors"), first);
    same(name, "after step 5", &recorder.after[&5], &read("adapter_after_step5.safetensors"), last);
    same(name, "at the end", &parameters(&arm), &read("adapter_final.safetensors"), last);

    let expected = read("expected.safetensors");
    let ids = &expected["probe.input_ids"];
    let hidden = model.hidden(&Input::of(ids), &arm, None);
    let probe = |tensor: &Tensor| Tensors::from([("probe".to_owned(), tensor.detach())]);
    let theirs = probe(&expected["probe.logits_after_training"]);
    same(name, "logits", &probe(&model.logits(&hidden)), &theirs, tolerance("probe_logits"));
}

/// The adapter before the first step, read as one that PEFT or AdapterHub saved.
fn initial_arm(folder: &Path, model: &dyn models::Model) -> Arm {
    let saved = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(folder.join("adapter_config.json")).unwrap();
    let adapter: Value = serde_json::from_str(&text).unwrap();
    let (file, adapter) = if adapter.get("peft_type").is_some() {
        ("adapter_model.safetensors", adapter)
    } else {
        // The configuration alone: AdapterHub wraps it when it saves.
        let wrapped = serde_json::json!({
            "config": adapter, "hidden_size": model.config().hidden_size, "model_class": "LlamaForCausalLM",
            "model_name": "base", "model_type": "llama", "name": "bn", "version": "adapters.1.3.0",
        });
        ("adapter.safetensors", wrapped)
    };
    fs::write(saved.path().join("adapter_config.json"), adapter.to_string()).unwrap();
    fs::copy(folder.join("adapter_init.safetensors"), saved.path().join(file)).unwrap();
    Arm::load(saved.path(), model).unwrap()
}

/// Names may differ in the adapter's own name (`.adapters.bn.`), never in number, order or place.
fn same(case: &str, what: &str, ours: &Tensors, theirs: &Tensors, tolerance: &Tolerance) {
    let plain = |name: &String| match name.split_once(".adapters.") {
        Some((head, tail)) => format!("{head}.{}", tail.split_once('.').map_or(tail, |(_, rest)| rest)),
        None => name.clone(),
    };
    let ours: BTreeMap<String, &Tensor> = ours.iter().map(|(name, tensor)| (plain(name), tensor)).collect();
    assert_eq!(ours.len(), theirs.len(), "{case}: tensors {what}");
    for (name, theirs) in theirs {
        let ours = ours.get(&plain(name)).unwrap_or_else(|| panic!("{case}: no `{name}` {what}"));
        let apart = (*ours - theirs).abs() - theirs.abs() * tolerance.rtol;
        let worst = apart.max().double_value(&[]);
        assert!(worst <= tolerance.atol, "{case}: `{name}` is {worst:.2e} off {what}");
    }
}
