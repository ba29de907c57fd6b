//! Round trips with the Python libraries: their adapters here, ours there and back, merged ones in transformers.
//! It needs the environment that `make interop` installs, and says that it skips where there is none.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pipe::error::Result;
use pipe::ml::adapters::merge::{Merge, merge};
use pipe::ml::adapters::{AdapterParams, Arm, Format};
use pipe::ml::models::{Input, Model, load};
use pipe::ml::train::adamw::{AdamW, AdamWOptions};
use pipe::ml::train::arms::Adapted;
use pipe::ml::train::micro::Micro;
use pipe::ml::train::schedule::Schedule;
use pipe::ml::train::{Fit, Watch, fit};
use pipe::ml::weights::{read_file, write_file};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::support::repository;

/// The largest difference of a logit that both sides may have, in f32.
const NEAR: f64 = 1e-4;

/// What is trained here: base, case, format, parameters.
const OURS: &[(&str, &str, Format, &str)] = &[
    ("llama", "lora", Format::Peft, "lora: { rank: 4, alpha: 9 }"),
    ("llama", "lora_dropout_layers", Format::Peft, "lora: { rank: 2, alpha: 7, dropout: 0.1, layers: [0, 2] }"),
    ("llama", "lora_all_linear", Format::Peft, "lora: { rank: 2, alpha: 3, target_modules: all-linear }"),
    (
        "llama",
        "lora_regex",
        Format::Peft,
        r"lora: { rank: 2, alpha: 3, target_modules: '.*[12]\.mlp\.(up|down)_proj' }",
    ),
    (
        "llama",
        "lora_odd",
        Format::Peft,
        r"lora: { rank: 2, alpha: 3, target_modules: '.*(0\.self_attn\.q|1\.mlp\.up)_proj' }",
    ),
    (
        "llama",
        "rslora_patterns",
        Format::Peft,
        r"lora: { rank: 2, alpha: 3, use_rslora: true, rank_pattern: { v_proj: 4 }, alpha_pattern: { 'layers\.1\..*': 5 } }",
    ),
    ("llama", "dora", Format::Peft, "lora: { rank: 3, alpha: 7, use_dora: true, target_modules: all-linear }"),
    ("llama", "ia3", Format::Peft, "ia3: {}"),
    ("llama", "ia3_layers", Format::Peft, "ia3: { layers: [1] }"),
    ("qwen2", "lora", Format::Peft, "lora: { rank: 2, alpha: 5 }"),
    ("qwen2", "dora", Format::Peft, "lora: { rank: 2, alpha: 5, use_dora: true }"),
    ("gpt2", "lora", Format::Peft, "lora: { rank: 2, alpha: 5, target_modules: [c_attn] }"),
    ("gpt2", "dora", Format::Peft, "lora: { rank: 2, alpha: 5, use_dora: true, target_modules: [c_attn, mlp.c_proj] }"),
    ("gpt2", "ia3", Format::Peft, "ia3: { target_modules: [c_attn, mlp.c_proj], feedforward_modules: [mlp.c_proj] }"),
    ("llama", "seq_bn", Format::AdapterHub, "mlp: { hidden_size: 6, layers: [0, 2], dropout: 0.1 }"),
    ("llama", "double_seq_bn", Format::AdapterHub, "mlp: { config: double_seq_bn, hidden_size: 5 }"),
    ("llama", "par_bn", Format::AdapterHub, "mlp: { config: par_bn, hidden_size: 5 }"),
    (
        "llama",
        "seq_bn_options",
        Format::AdapterHub,
        "mlp: { hidden_size: 7, ln_after: true, scaling: channel, non_linearity: gelu_new, init_weights: houlsby }",
    ),
    ("llama", "seq_bn_ln_before", Format::AdapterHub, "mlp: { hidden_size: 7, ln_before: true, scaling: learned }"),
    ("llama", "lora", Format::AdapterHub, "lora: { rank: 4, alpha: 9, target_modules: [q_proj, v_proj, down_proj] }"),
    ("llama", "ia3", Format::AdapterHub, "ia3: { feedforward_modules: [] }"),
    (
        "llama",
        "union",
        Format::AdapterHub,
        "lora: { rank: 4, alpha: 9, layers: [1] }\nmlp: { hidden_size: 6, layers: [0, 2] }",
    ),
    ("mistral", "union", Format::AdapterHub, "lora: { rank: 4, alpha: 9 }\nmlp: { hidden_size: 6 }"),
];

/// What is merged and given to transformers.
const MERGED: &[(&str, &str, &str)] = &[
    ("llama", "lora", "lora: { rank: 4, alpha: 9, target_modules: all-linear }"),
    ("llama", "dora", "lora: { rank: 4, alpha: 9, use_dora: true }"),
    ("llama", "ia3", "ia3: {}"),
    ("qwen2", "ia3_biases", "ia3: { target_modules: [q_proj, v_proj, down_proj] }"),
    ("gpt2", "dora", "lora: { rank: 2, alpha: 5, use_dora: true, target_modules: all-linear }"),
];

struct Silent;

impl Watch for Silent {
    fn check(&mut self) -> Result<()> {
        Ok(())
    }
}

/// The bases, ids and folders of one run.
struct Desk {
    root: PathBuf,
    ids: Tensor,
    bases: BTreeMap<String, Box<dyn Model>>,
}

impl Desk {
    fn logits(&self, base: &str, arm: &Arm) -> Tensor {
        logits(self.bases[base].as_ref(), arm, &self.ids)
    }

    fn arm(&self, folder: &Path, base: &str) -> Arm {
        Arm::load(folder, self.bases[base].as_ref()).unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
    }

    /// An adapter after some steps of a real training.
    fn trained(&self, base: &str, yaml: &str) -> Arm {
        let params: AdapterParams = serde_yaml::from_str(yaml).unwrap();
        let model = self.bases[base].as_ref();
        let arm =
            Arm::init(&params, model, &mut ChaCha8Rng::seed_from_u64(5)).unwrap_or_else(|e| panic!("{yaml}: {e}"));
        let options = AdamWOptions { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0 };
        let mut adamw = AdamW::new(&arm.parameters(), options, |_, _| true).unwrap();
        let learner = Adapted::new(model, &arm, None);
        let mut batches = |_| Ok(vec![Micro::from_labels(&self.ids, &self.ids, 20)]);
        let fit_options =
            Fit { lr: 0.02, schedule: Schedule::Constant, schedule_steps: 12, warmup: 0, steps: 12, clip: Some(1.0) };
        fit(&fit_options, &learner, &mut adamw, &mut batches, &mut Silent).unwrap();
        let effect = far(&self.logits(base, &arm), &self.logits(base, &Arm::none()));
        assert!(effect > 0.05, "{base} {yaml}: an effect of {effect} shows nothing");
        arm
    }
}

fn logits(model: &dyn Model, arm: &Arm, ids: &Tensor) -> Tensor {
    tch::no_grad(|| model.logits(&model.hidden(&Input::of(ids), arm, None)))
}

fn far(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().nan_to_num(f64::INFINITY, f64::INFINITY, f64::INFINITY).max().double_value(&[])
}

fn python(environment: &Path, verb: &str, root: &Path) -> Value {
    let output = Command::new(environment.join("bin/python"))
        .arg(repository().join("tests/interop/interop.py"))
        .args([verb, root.to_str().expect("UTF-8")])
        .output()
        .expect("running Python");
    assert!(output.status.success(), "{verb}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The environment, if there is one: `PIPE_INTEROP`, or `.interop`.
fn environment() -> Option<PathBuf> {
    let folder = std::env::var_os("PIPE_INTEROP").map_or_else(|| repository().join(".interop"), PathBuf::from);
    if folder.join("bin/python").exists() {
        return Some(folder);
    }
    eprintln!("skipped: {} is not there (`make interop` installs it)", folder.display());
    None
}

#[test]
fn adapters_go_to_python_and_come_back() {
    let Some(environment) = environment() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let made = python(&environment, "make", scratch.path());
    let rows: Vec<Vec<i64>> = serde_json::from_value(made["ids"].clone()).unwrap();
    let ids = Tensor::from_slice2(&rows);
    let names =
        fs::read_dir(scratch.path().join("bases")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let open = |name: String| {
        let model = load(&scratch.path().join("bases").join(&name), Device::Cpu, Kind::Float);
        (name.clone(), model.unwrap_or_else(|e| panic!("{name}: {e}")))
    };
    let desk = Desk { root: scratch.path().to_owned(), ids, bases: names.map(open).collect() };
    let theirs = theirs_here(&desk, &made);
    ours_written(&desk);
    merged_written(&desk);
    let ours = ours_there_and_back(&desk, &python(&environment, "check", &desk.root));
    if let Some(file) = std::env::var_os("PIPE_INTEROP_REPORT") {
        let file = repository().join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, report(&made["versions"], &theirs, &ours)).unwrap();
    }
}

/// A case, how far the logits are apart, and how much the adapter changes them.
struct Row {
    case: String,
    apart: f64,
    other: f64,
}

/// Adapters that Python made, read here.
fn theirs_here(desk: &Desk, made: &Value) -> Vec<Row> {
    let cases = made["cases"].as_array().expect("cases");
    let rows: Vec<Row> = cases
        .iter()
        .map(|case| {
            let (name, base) = (case["case"].as_str().unwrap(), case["base"].as_str().unwrap());
            let folder = desk.root.join("theirs").join(name);
            let right = &read_file(&folder.join("expected.safetensors"), None, Device::Cpu).unwrap()["logits"];
            let arm = desk.arm(&folder, base);
            let apart = far(&desk.logits(base, &arm), right);
            let effect = case["effect"].as_f64().unwrap();
            assert!(apart <= NEAR && effect > 0.05, "{name}: {apart} apart, an effect of {effect}");
            // What we write of theirs is theirs.
            let copy = tempfile::tempdir().unwrap();
            arm.save(copy.path(), "base").unwrap();
            assert!(desk.logits(base, &desk.arm(copy.path(), base)).equal(&desk.logits(base, &arm)), "{name}");
            Row { case: name.to_owned(), apart, other: effect }
        })
        .collect();
    assert!(!rows.is_empty());
    rows
}

fn put(folder: &Path, base: &str, logits: &Tensor) {
    write_file(&folder.join("expected.safetensors"), &[("logits".to_owned(), logits.copy())]).unwrap();
    fs::write(folder.join("case.json"), json!({ "base": base }).to_string()).unwrap();
}

fn ours_written(desk: &Desk) {
    for (base, case, format, yaml) in OURS {
        let arm = desk.trained(base, yaml);
        let folder = desk.root.join("ours").join(format!("{}-{base}-{case}", format.library().to_lowercase()));
        arm.save_as(*format, &folder, "base").unwrap_or_else(|e| panic!("{base} {case}: {e}"));
        put(&folder, base, &desk.logits(base, &arm));
    }
}

fn merged_written(desk: &Desk) {
    let probes = [vec![1, 5, 9, 60], vec![3, 3, 2, 11]];
    for (base, case, yaml) in MERGED {
        let arm = desk.trained(base, yaml);
        let adapter = tempfile::tempdir().unwrap();
        arm.save(adapter.path(), "base").unwrap();
        let folder = desk.root.join("ours").join(format!("merged-{base}-{case}"));
        fs::create_dir_all(&folder).unwrap();
        let what = Merge {
            adapter: adapter.path(),
            base: &desk.root.join("bases").join(base),
            output: &folder,
            dtype: None,
            probes: &probes,
            device: Device::Cpu,
        };
        merge(&what, &mut |_| Ok(())).unwrap();
        put(&folder, base, &desk.logits(base, &arm));
    }
}

/// What Python says of ours, and what it wrote of it, read here again.
fn ours_there_and_back(desk: &Desk, found: &Value) -> Vec<Row> {
    let found = found.as_array().expect("cases");
    assert_eq!(found.len(), OURS.len() + MERGED.len());
    found
        .iter()
        .map(|case| {
            let name = case["case"].as_str().unwrap();
            let there = case["difference"].as_f64().expect("a number");
            assert!(there <= NEAR, "{name}: {there} apart in Python");
            assert_eq!(case["said"], json!([]), "{name}");
            let back = desk.root.join("back").join(name);
            let base = name.split('-').nth(1).unwrap();
            let mut again = 0.0;
            if back.exists() {
                let ours = desk.logits(base, &desk.arm(&desk.root.join("ours").join(name), base));
                again = far(&desk.logits(base, &desk.arm(&back, base)), &ours);
                assert!(again == 0.0, "{name}: {again} apart after the way there and back");
            }
            Row { case: name.to_owned(), apart: there, other: again }
        })
        .collect()
}

fn report(versions: &Value, theirs: &[Row], ours: &[Row]) -> String {
    let versions: Vec<String> = versions
        .as_object()
        .expect("versions")
        .iter()
        .map(|(name, version)| format!("{name} {}", version.as_str().unwrap_or_default()))
        .collect();
    let mut text = format!(
        "# Round trips with the Python libraries\n\n\
         Written by `make interop` (`tests/it/interop.rs`, `tests/interop/interop.py`). Random tiny bases of 3 blocks \
         (width 32, vocabulary 61), f32, CPU; 2 texts of 10 ids; a difference is the largest of all 1220 logits. \
         Every case must stay within {NEAR:e}.\n\nVersions: {}.\n\n",
        versions.join(", ")
    );
    text.push_str(
        "## Made there, read here\n\nThe Python library makes the adapter, draws all its tensors, and saves it; `pipe` \
         reads it and computes the same texts. *Effect* is the largest change of a logit against the bare base.\n\n\
         | case | difference | effect |\n|---|---|---|\n",
    );
    for row in theirs {
        let _ = writeln!(text, "| {} | {:.1e} | {:.2} |", row.case, row.apart, row.other);
    }
    text.push_str(
        "\n## Trained here, read there, written there, read here\n\n`pipe` trains the adapter (12 steps) and writes it; \
         the library reads it, computes the same texts, and writes it again; `pipe` reads that. *Back* is the \
         difference of the logits here before and after: the tensors went there and back bit by bit. `merged` is the \
         merged checkpoint, read by transformers.\n\n| case | difference there | back |\n|---|---|---|\n",
    );
    for row in ours {
        let none = row.case.starts_with("merged") || row.case.ends_with("ln_before");
        let back = if none { "–".to_owned() } else { format!("{}", row.other) };
        let _ = writeln!(text, "| {} | {:.1e} | {back} |", row.case, row.apart);
    }
    text.push_str(
        "\nThe library cannot write a bottleneck with `ln_before` as safetensors (its norm has two names that share \
         memory), so that case is not read back.\n",
    );
    text
}
