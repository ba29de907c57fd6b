//! `pipe bench` as a user calls it: what it tells of a step, and that nothing is left of it.
//! It does not judge how fast anything is.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use pipe::digest::{Digest, files_below};
use serde_json::Value;

use crate::data_steps::project;
use crate::engine::command::{stderr, stdout};

const PIPELINE: &str = "name: скорость
params: { steps: 200 }
steps:
  raw: { uses: generate, with: { nerus_train: 12, nerus_dev: 4, nerus_test: 4, terra_train: 10, terra_val: 10, base_nerus: 4, base_terra: 4, text_bytes: 20000 } }
  words: { uses: tokenizer, in: { text: raw.text }, with: { vocab_size: 400 } }
  tokens: { uses: tokenize, matrix: { task: [terra, nerus] }, in: { data: 'raw.${matrix.task}_train', tokenizer: words }, with: { task: '${matrix.task}' } }
  base:
    uses: pretrain
    in: { text: raw.text, tokenizer: words }
    with: { model: { hidden_size: 16, intermediate_size: 32, num_hidden_layers: 3, num_attention_heads: 2 }, steps: 40, batch_tokens: 512, sequence_length: 32 }
  rows: { uses: tokenize, in: { data: raw.nerus_train, tokenizer: base }, with: { task: nerus } }
  lora:
    uses: train
    in: { model: base, data: rows }
    with: { adapter: { lora: { rank: 2, alpha: 4 } }, steps: '${params.steps}', batch_size: 4 }
  terra: { uses: evaluate, in: { model: base, adapter: lora, data: raw.terra_val }, with: { task: terra } }
  nerus: { uses: evaluate, in: { model: base, data: raw.nerus_test }, with: { task: nerus, limit: 8, max_new_tokens: 8 } }
  text: { uses: perplexity, in: { model: base, text: raw.text }, with: { block: 32, limit: 20 } }
";

pub fn speed() -> tempfile::TempDir {
    project(&[("p.yaml", PIPELINE.as_bytes())])
}

pub fn pipe(root: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
    command.args(args).args(["--device", "cpu"]).current_dir(root).env_remove("PIPE_CACHE");
    command.output().expect("the binary starts")
}

pub fn run(root: &Path, steps: &[&str]) {
    let output = pipe(root, &[&["run", "p.yaml"], steps].concat());
    assert!(output.status.success(), "{}", stderr(&output));
}

fn bench(root: &Path, more: &[&str]) -> Value {
    let output = pipe(root, &[&["bench", "p.yaml", "--json"], more].concat());
    assert!(output.status.success() && output.stderr.is_empty(), "{}", stderr(&output));
    serde_json::from_str(&stdout(&output)).expect("one line of JSON")
}

/// Everything that lies in the cache, by content; the file that is locked while somebody writes comes with it.
fn cache(root: &Path) -> BTreeMap<String, Digest> {
    let folder = root.join("cache");
    let files = files_below(&folder).expect("a cache").into_iter().filter(|name| name != "tmp/guard");
    files.map(|name| (name.clone(), Digest::of_path(&folder.join(name)).expect("readable"))).collect()
}

#[test]
fn what_is_not_there_is_told_with_what_makes_it() {
    let root = speed();
    let output = pipe(root.path(), &["bench", "p.yaml", "tokens[task=terra]"]);
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("cannot be measured yet: it reads `raw`, `words`, not in the cache"), "{told}");
    assert!(told.contains("pipe run p.yaml --until 'raw' --until 'words'"), "{told}");
    assert!(!root.path().join("cache").exists());
    let output = pipe(root.path(), &["bench", "p.yaml", "tokens"]);
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("`tokens` is 2 steps") && told.contains("`tokens[task=terra]`"), "{told}");
}

#[test]
fn steps_without_a_model_are_measured_as_far_as_that_goes() {
    let root = speed();
    run(root.path(), &["words"]);
    let before = cache(root.path());
    for task in ["terra", "nerus"] {
        let told = bench(root.path(), &[&format!("tokens[task={task}]")]);
        assert!(told["ids"].as_u64().is_some_and(|ids| ids > 100), "{told}");
        assert!(told["ids_per_second"].as_f64().is_some_and(|rate| rate > 0.0), "{told}");
        for unknown in ["flop", "flop_per_second", "limit", "share_of_limit", "dtype", "padding_share", "gpu_bytes"] {
            assert!(told[unknown].is_null(), "{unknown}: {told}");
        }
    }
    let output = pipe(root.path(), &["bench", "p.yaml", "raw"]);
    let told = stdout(&output);
    assert!(told.starts_with("raw (generate): cpu, "), "{told}");
    assert!(told.contains("`generate` computes nothing with a model") && told.contains("all of it"), "{told}");
    assert_eq!(told.contains("peak memory") && told.contains("iB"), cfg!(target_os = "linux"), "{told}");
    assert!(!told.contains("ids/s") && !told.contains("of the limit"), "{told}");
    assert_eq!(cache(root.path()), before, "something is left of it");
    let output = pipe(root.path(), &["plan", "p.yaml", "tokens"]);
    assert_eq!(stdout(&output).matches("never run before").count(), 2, "{}", stdout(&output));
}

#[test]
fn a_step_that_fails_says_why() {
    let root = project(&[(
        "p.yaml",
        b"steps:\n  a: { uses: command, with: { run: [sh, -c, 'exit 3'], outputs: { b: b } } }\n",
    )]);
    let output = pipe(root.path(), &["bench", "p.yaml", "a"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("exit status 3"), "{}", stderr(&output));
    assert!(stdout(&output).is_empty() && !stderr(&output).contains("all that it left"), "{}", stderr(&output));
    let left = files_below(&root.path().join("cache")).unwrap_or_default();
    assert!(left.iter().all(|name| name.starts_with("tmp/guard")), "{left:?}");
}

#[cfg(not(feature = "torch"))]
#[test]
fn without_libtorch_nothing_is_guessed() {
    let root = speed();
    run(root.path(), &["words"]);
    let output = pipe(root.path(), &["bench", "p.yaml", "base"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("built without libtorch"), "{}", stderr(&output));
}

#[cfg(feature = "torch")]
mod torch {
    use std::fs;

    use super::*;

    fn number(told: &Value, name: &str) -> f64 {
        told[name].as_f64().unwrap_or_else(|| panic!("{name}: {told}"))
    }

    fn holds(told: &Value) {
        for name in ["ids_per_second", "flop_per_second", "seconds", "share_of_limit", "peak_bytes"] {
            assert!(number(told, name) > 0.0, "{name}: {told}");
        }
        let limit = &told["limit"];
        let [low, middle, high] = ["low", "flop_per_second", "high"].map(|name| number(limit, name));
        assert!(low <= middle && middle <= high, "{told}");
        let rate = number(told, "flop") / number(told, "seconds");
        assert!((rate / number(told, "flop_per_second") - 1.0).abs() < 1e-6, "{told}");
        assert!((rate / middle / number(told, "share_of_limit") - 1.0).abs() < 1e-6, "{told}");
        assert_eq!(told["dtype"], "f32");
        assert!((0.0..1.0).contains(&number(told, "padding_share")), "{told}");
    }

    #[test]
    fn every_step_that_computes_is_measured_and_nothing_is_kept() {
        let root = speed();
        run(root.path(), &["lora"]);
        let before = cache(root.path());
        for step in ["base", "lora", "terra", "nerus", "text"] {
            holds(&bench(root.path(), &[step]));
        }
        assert_eq!(cache(root.path()), before, "something is left of it");
    }

    #[test]
    fn a_training_is_stopped_when_it_is_enough() {
        let root = speed();
        run(root.path(), &["lora"]);
        let before = cache(root.path());
        let told = bench(root.path(), &["lora", "--steps", "7", "--warm-up", "2"]);
        assert_eq!((told["pieces"].as_u64(), told["warm_up"].as_u64()), (Some(7), Some(2)));
        let output = pipe(root.path(), &["bench", "p.yaml", "lora", "--steps", "3"]);
        let text = stdout(&output);
        for part in
            ["lora (train): cpu, ", ", f32\n", "ids/s", "padding", "FLOP/s", "of the limit", "peak memory", "all of it"]
        {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(text.contains("3 pieces, after 3 to warm up"), "{text}");
        assert!(stderr(&output).contains("`dtype: auto`"), "{}", stderr(&output));
        // The step itself is as it was.
        let planned = stdout(&pipe(root.path(), &["plan", "p.yaml", "lora"]));
        assert_eq!(planned.matches("reuse").count(), 5, "{planned}");
        // Other settings are measured, too, without becoming a result.
        bench(root.path(), &["lora", "--steps", "2", "--set", "steps=90"]);
        assert_eq!(cache(root.path()), before, "something is left of it");
    }

    /// The ids of a whole training are those that its summary tells, and the operations those of the formula.
    #[test]
    fn what_is_counted_is_what_was_computed() {
        let root = speed();
        run(root.path(), &["lora"]);
        let summary = |step: &str| -> Value {
            let path = root.path().join("cache/results/скорость").join(step).join("summary.json");
            serde_json::from_slice(&fs::read(path).expect("a summary")).expect("JSON")
        };
        let told = bench(root.path(), &["lora", "--warm-up", "0", "--steps", "10000"]);
        assert_eq!(told["ids"], summary("lora")["tokens"]);
        assert!((number(&told, "padding_share") - number(&summary("lora"), "padding_share")).abs() < 1e-5);

        // All weights are trained on whole blocks of 32 ids: 6 a weight and id. Nobody wants the hidden states at the ends
        // of blocks.
        let told = bench(root.path(), &["base", "--warm-up", "0", "--steps", "10000"]);
        assert_eq!(told["ids"], summary("base")["tokens"]);
        let (ids, h, inner, vocabulary) = (number(&told, "ids"), 16.0, 32.0, number(&summary("base"), "vocab_size"));
        let wanted = ids * 31.0 / 32.0;
        let (attention, feed_forward) = (4.0 * h * h, 3.0 * h * inner);
        // The output projection of the last block, its feed-forward half and the head see the wanted positions alone.
        let last = h * h + feed_forward + h * vocabulary;
        let products = 6.0 * (ids * (3.0 * attention - h * h + 2.0 * feed_forward) + wanted * last);
        let pairs = ids / 32.0 * (32.0 * 33.0 / 2.0);
        let expected = products + 12.0 * 3.0 * h * pairs;
        assert_eq!(number(&told, "flop"), expected, "{told}");
    }
}
