//! A whole experiment through the binary, small enough for every run of the suite, in folders with awkward names.
//! It does not judge how good the figures are.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use pipe::digest::files_below;
use pipe::event::{Event, Say, Stamped};
use serde_json::Value;

use crate::support::repository;

const PIPELINE: &str = r#"name: сравнение
params: { lora: { rank: 2, alpha: 4 }, mlp: { hidden_size: 4 }, seed: 1 }
targets: [report]
steps:
  data:
    uses: generate
    with: { base_nerus: 10, base_terra: 10, nerus_train: 12, nerus_dev: 6, nerus_test: 6, terra_train: 10, terra_val: 10, text_bytes: 20000 }
  own: { uses: download, with: { source: "мои данные/проза и стихи.txt" } }
  tokenizer: { uses: tokenizer, in: { text: [data.text, own] }, with: { vocab_size: 400 } }
  prompts: { uses: tokenize, in: { data: data.base_terra, tokenizer: tokenizer }, with: { task: terra } }
  base:
    uses: pretrain
    in: { tokenizer: tokenizer, text: [data.text, own], prompts: prompts }
    with:
      model: { hidden_size: 16, intermediate_size: 32, num_hidden_layers: 4, num_attention_heads: 2 }
      steps: 12
      batch_tokens: 512
      sequence_length: 32
  tokens: { uses: tokenize, in: { data: data.nerus_train, tokenizer: base }, with: { task: nerus } }
  lora:
    uses: train
    in: { model: base, data: tokens }
    with: { adapter: { lora: "${params.lora}" }, steps: 6, seed: "${params.seed}" }
  mlp:
    uses: train
    in: { model: base, data: tokens }
    with: { adapter: { mlp: "${params.mlp}" }, steps: 6, seed: "${params.seed}" }
  terra_base: { uses: evaluate, in: { model: base, data: data.terra_val }, with: { task: terra } }
  nerus_base: { uses: evaluate, in: { model: base, data: data.nerus_test }, with: { task: nerus, limit: 8, max_new_tokens: 8 } }
  terra:
    uses: evaluate
    matrix: { adapter: [lora, mlp] }
    in: { model: base, data: data.terra_val, adapter: "${matrix.adapter}" }
    with: { task: terra }
  nerus:
    uses: evaluate
    matrix: { adapter: [lora, mlp] }
    in: { model: base, data: data.nerus_test, adapter: "${matrix.adapter}" }
    with: { task: nerus, limit: 8, max_new_tokens: 8 }
  comparison: { uses: compare, in: { results: [terra_base, terra, nerus_base, nerus] } }
  report: { uses: render, in: { data: comparison }, with: { template: templates/report.ru.txt } }
"#;

fn experiment() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("Мой проект (2)");
    for part in ["pipelines", "templates", "мои данные"] {
        fs::create_dir_all(root.join(part)).expect("a folder");
    }
    fs::write(root.join("pipelines/моё сравнение.yaml"), PIPELINE).expect("written");
    fs::write(root.join("мои данные/проза и стихи.txt"), "Зимой рано темнеет.\n".repeat(40)).expect("written");
    fs::copy(repository().join("templates/report.ru.txt"), root.join("templates/report.ru.txt")).expect("copied");
    (folder, root)
}

fn run(root: &Path, cache: &str, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
    command.args(["run", "pipelines/моё сравнение.yaml", "--device", "cpu", "--cache", cache, "--json"]).args(more);
    command.current_dir(root).env_remove("PIPE_CACHE").output().expect("the binary starts")
}

fn events(output: &Output) -> Vec<Event> {
    let text = String::from_utf8(output.stdout.clone()).expect("UTF-8");
    assert!(output.status.success() && output.stderr.is_empty(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text.lines().map(|line| serde_json::from_str::<Stamped>(line).expect("an event").event).collect()
}

fn ran(events: &[Event]) -> BTreeSet<&str> {
    let finished = events.iter().filter_map(|event| match event {
        Event::StepFinished { step, .. } => Some(step.as_str()),
        _ => None,
    });
    finished.collect()
}

fn result(root: &Path, cache: &str, step: &str) -> std::path::PathBuf {
    root.join(cache).join("results/сравнение").join(step)
}

#[test]
fn an_experiment_runs_whole_and_again_only_what_changed() {
    let (_folder, root) = experiment();
    let first = events(&run(&root, "мой кэш", &[]));
    assert_eq!(ran(&first).len(), 16, "{:?}", ran(&first));
    assert_eq!(ran(&events(&run(&root, "мой кэш", &[]))), BTreeSet::new());

    let file = root.join("pipelines/моё сравнение.yaml");
    fs::write(&file, format!("# слово\n{PIPELINE}")).expect("written");
    assert_eq!(ran(&events(&run(&root, "мой кэш", &[]))), BTreeSet::new());

    let cone = ["lora", "terra[adapter=lora]", "nerus[adapter=lora]", "comparison", "report"].into();
    let changed = events(&run(&root, "мой кэш", &["--set", "lora.rank=3"]));
    assert_eq!(ran(&changed), cone);
    // Of what the comparison reads, only what changed is told.
    let why = changed.iter().find_map(|event| match event {
        Event::StepStarted { step, why, .. } if step == "comparison" => Some(why.clone()),
        _ => None,
    });
    let why = why.expect("it started");
    assert_eq!(why.len(), 2, "{why:?}");
    assert!(
        why[0].starts_with("inputs.results[1]: ") && why[0].ends_with("(from step terra[adapter=lora])"),
        "{why:?}"
    );
    assert!(why[1].ends_with("(from step nerus[adapter=lora])"), "{why:?}");
    assert_eq!(ran(&events(&run(&root, "мой кэш", &[]))), BTreeSet::new(), "back to what was there");

    // From an empty cache, with another number of jobs: the same bytes.
    run(&root, "другой кэш", &["-j", "1"]);
    for step in ["lora", "mlp", "comparison", "report", "nerus[adapter=mlp]"] {
        let [one, two] = ["мой кэш", "другой кэш"].map(|cache| result(&root, cache, step));
        let names = files_below(&one).expect("results");
        assert!(!names.is_empty() && names == files_below(&two).expect("results"), "{step}");
        for name in names {
            assert!(fs::read(one.join(&name)).unwrap() == fs::read(two.join(&name)).unwrap(), "{step}/{name}");
        }
    }
}

#[test]
fn training_says_how_it_goes_and_the_report_names_all_layers() {
    let (_folder, root) = experiment();
    let told = events(&run(&root, "кэш", &[]));
    let said = |id: &'static str| {
        told.iter().filter_map(move |event| match event {
            Event::StepSaid { step, say } if step == id => Some(say),
            _ => None,
        })
    };
    for step in ["base", "lora", "mlp"] {
        let training = |say: &&Say| {
            matches!(say, Say::Progress { total: Some(_), unit, text, .. }
                if unit == "steps" && text.starts_with("loss ") && text.ends_with(" tok/s"))
        };
        assert!(said(step).any(|say| training(&say)), "{step} does not tell loss and tokens");
    }
    let chosen = |say: &Say| matches!(say, Say::Note { text } if text.contains("(`dtype: auto`: "));
    assert!(said("lora").any(chosen) && said("terra_base").any(chosen), "what `auto` chose is not told");

    let metrics = fs::read(result(&root, "кэш", "nerus[adapter=mlp]").join("result/metrics.json")).expect("metrics");
    let metrics: Value = serde_json::from_slice(&metrics).expect("JSON");
    assert_eq!(metrics["arm"]["adapters"][0]["layers"], serde_json::json!([0, 1, 2, 3]));
    let report = fs::read_to_string(result(&root, "кэш", "report").join("report/report.ru.txt")).expect("the report");
    let row = |title: &str| report.lines().find(|line| line.starts_with(&format!("| {title} "))).unwrap_or_default();
    assert!(row("Количество слоев").matches(" 4 ").count() == 2, "{report}");
    assert!(row("Слои для адаптации").matches(" 0–3 ").count() == 2, "{report}");
}
