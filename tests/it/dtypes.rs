//! What `dtype: auto` is where it was measured: in plans, explanations and runs, and what is none of this machine's.
//! It does not judge which precision is faster.

use std::fs;
use std::path::Path;

use pipe::ml::config::ModelConfig;
use pipe::ml::device::device;
use pipe::step::{Machine, Share};
use serde_json::{Value, json};

use crate::bench::{pipe, run, speed};
use crate::engine::command::{stderr, stdout};

const TRAINS: &str = "params: { dtype: auto }
steps:
  base: { uses: download, with: { source: 'file:model' } }
  raw: { uses: generate, with: { nerus_train: 3, nerus_dev: 1, nerus_test: 1, terra_train: 10, terra_val: 10, base_nerus: 4, base_terra: 4, text_bytes: 2000 } }
  rows: { uses: tokenize, in: { data: raw.terra_train, tokenizer: base }, with: { task: terra } }
  lora: { uses: train, in: { model: base, data: rows }, with: { adapter: { lora: { rank: 2, alpha: 4 } }, dtype: '${params.dtype}' } }
";

fn machine() -> Machine {
    let device = device("cpu").expect("a processor");
    let (cores, bf16) = (device.cores, device.bf16);
    Machine { device: device.name, cores, bf16, variables: Default::default(), precisions: Default::default() }
}

/// An answer for this machine and a step that trains or answers.
fn answer(shape: &str, dtype: &str) -> Value {
    let machine = machine();
    json!({
        "processor": pipe::exec::processor(&machine).expect("a name"),
        "threads": machine.threads(Share::Half),
        "shape": shape, "dtype": dtype, "step": "lora (train)", "f32": 100.0, "bf16": 150.0,
    })
}

fn keep(root: &Path, answer: &Value) {
    let document = json!({"format": "pipe/dtypes@1", "choices": [answer]});
    fs::write(root.join("cache/dtypes.json"), document.to_string()).expect("written");
}

/// A pipeline whose base is a folder, so that a training is decided without libtorch.
fn decided() -> (tempfile::TempDir, String) {
    let root = speed();
    run(root.path(), &["words"]);
    let model = root.path().join("model");
    fs::create_dir(&model).expect("made");
    let words = fs::canonicalize(root.path().join("cache/results/скорость/words/tokenizer")).expect("a tokenizer");
    for entry in fs::read_dir(words).expect("a folder") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), model.join(entry.file_name())).expect("copied");
    }
    let config = json!({"model_type": "llama", "vocab_size": 400, "hidden_size": 16, "intermediate_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 512, "rms_norm_eps": 1e-5});
    fs::write(model.join("config.json"), config.to_string()).expect("written");
    fs::write(root.path().join("q.yaml"), TRAINS).expect("written");
    let output = pipe(root.path(), &["run", "q.yaml", "rows"]);
    assert!(output.status.success(), "{}", stderr(&output));
    (root, ModelConfig::from_value(&config).expect("a model").shape())
}

fn explained(root: &Path, more: &[&str]) -> Value {
    let output = pipe(root, &[&["explain", "q.yaml", "lora", "--json"], more].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_str(&stdout(&output)).expect("JSON")
}

fn planned(root: &Path) -> String {
    let output = pipe(root, &["plan", "q.yaml", "lora", "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let line = stdout(&output).lines().find(|line| line.contains("\"lora\"")).expect("a line").to_owned();
    serde_json::from_str::<Value>(&line).expect("JSON")["key"].as_str().expect("a key").to_owned()
}

/// Below a hidden size of 512 the rule says f32 on every processor.
#[cfg(target_os = "linux")]
#[test]
fn what_was_measured_decides_where_it_is_not_what_the_rule_says() {
    let (root, shape) = decided();
    let root = root.path();
    let before = explained(root, &[]);
    assert!(before["manifest"]["environment"]["dtype"].is_null(), "{before}");
    keep(root, &answer(&shape, "bf16"));
    let after = explained(root, &[]);
    assert_eq!(after["manifest"]["environment"]["dtype"], "bf16");
    assert_ne!(after["key"], before["key"]);
    assert_eq!(planned(root), after["key"].as_str().expect("a key"), "plan and explain agree");
    assert_eq!(explained(root, &["--set", "dtype=f32"])["manifest"]["environment"]["dtype"], Value::Null);
    keep(root, &answer(&shape, "f32"));
    assert_eq!(explained(root, &[])["key"], before["key"], "the rule says the same");
    for (field, value) in [
        ("processor", json!("another, bf16 native")),
        ("threads", json!(4096)),
        ("shape", json!(format!("{shape} more"))),
    ] {
        let mut other = answer(&shape, "bf16");
        other[field] = value;
        keep(root, &other);
        assert_eq!(explained(root, &[])["key"], before["key"], "another {field}");
    }
}

#[test]
fn an_answer_that_cannot_be_read_stops_everybody_with_its_name() {
    let (root, _) = decided();
    let file = root.path().join("cache/dtypes.json");
    for text in
        ["", "{", "[1]", r#"{"format":"pipe/dtypes@2","choices":[]}"#, r#"{"format":"pipe/dtypes@1","choices":[1]}"#]
    {
        fs::write(&file, text).expect("written");
        for verb in ["plan", "explain", "run", "bench"] {
            let output = pipe(root.path(), &[verb, "q.yaml", "raw"]);
            let told = stderr(&output);
            assert_eq!(output.status.code(), Some(2), "{verb}: {told}");
            assert!(told.contains("cache/dtypes.json") && told.contains("delete the file"), "{verb}: {told}");
        }
        assert_eq!(fs::read_to_string(&file).expect("there"), text);
    }
    fs::remove_file(&file).expect("there");
    assert!(pipe(root.path(), &["plan", "q.yaml"]).status.success());
}

#[test]
fn a_step_without_a_precision_has_none_to_choose() {
    let root = speed();
    let output = pipe(root.path(), &["bench", "p.yaml", "raw", "--dtype"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("`raw` has no `dtype` to choose"), "{}", stderr(&output));
    let output = pipe(root.path(), &["bench", "p.yaml", "raw", "--keep"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

#[cfg(all(feature = "torch", target_os = "linux"))]
#[test]
fn steps_run_again_with_what_was_measured_and_say_so() {
    let root = speed();
    let root = root.path();
    let summed = |end: &str| {
        let output = pipe(root, &["run", "p.yaml", "terra"]);
        assert!(output.status.success() && stderr(&output).contains(end), "{}", stderr(&output));
        stderr(&output)
    };
    let told = summed("6 steps ran, 0 reused");
    assert!(told.contains("the base computes in f32 on cpu (`dtype: auto`: bf16 is slower below"), "{told}");
    let output = pipe(root, &["bench", "p.yaml", "lora", "--dtype", "--keep", "--json", "--steps", "5"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", stderr(&output));
    let measured: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    assert_eq!(measured["kept"].as_bool(), Some(!measured["faster"].is_null()), "{measured}");
    assert_eq!(measured["processor"], answer("", "f32")["processor"]);
    for dtype in ["f32", "bf16"] {
        assert_eq!(measured[dtype]["rounds"].as_array().expect("rounds").len(), 3, "{measured}");
    }
    let file = root.join("cache/dtypes.json");
    assert_eq!(file.exists(), measured["kept"] == true);
    let shape = measured["shape"].as_str().expect("a shape").to_owned();
    keep(root, &answer(&shape, "f32"));
    summed("0 steps ran, 6 reused");
    keep(root, &answer(&shape, "bf16"));
    let why = stdout(&pipe(root, &["explain", "p.yaml", "lora"]));
    assert!(why.starts_with("lora: runs"), "{why}");
    assert!(
        why.contains("environment.dtype: bf16 is new (what `dtype: auto` is, as measured on this machine)"),
        "{why}"
    );
    let told = summed("2 steps ran, 4 reused");
    assert!(told.contains("the base computes in bf16 on cpu (`dtype: auto`: it was measured to be"), "{told}");
    summed("0 steps ran, 6 reused");
    let summary = fs::read(root.join("cache/results/скорость/lora/summary.json")).expect("a summary");
    assert_eq!(serde_json::from_slice::<Value>(&summary).expect("JSON")["dtype"], "bf16");
    fs::remove_file(&file).expect("there");
    summed("0 steps ran, 6 reused");
    let summary = fs::read(root.join("cache/results/скорость/lora/summary.json")).expect("a summary");
    assert_eq!(serde_json::from_slice::<Value>(&summary).expect("JSON")["dtype"], "f32");
}
