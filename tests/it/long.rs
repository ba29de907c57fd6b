//! What the pipelines that people type promise, at their full size: minutes each, so `make test-long` runs them alone.
//! It does not know how anything is done: it types commands, and reads what they leave.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use pipe::digest::{Digest, files_below};
use pipe::event::{Event, Stamped};
use serde_json::Value;

use crate::support::{data, long, repository};

/// They use all cores: one after the other.
static ALONE: Mutex<()> = Mutex::new(());

/// The ids of the steps that ran, in the order of their ends.
fn run(pipeline: &str, cache: &Path, more: &[&str]) -> Vec<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
    command.args(["run", pipeline, "--device", "cpu", "--json", "--cache"]).arg(cache).args(more);
    let output = command.current_dir(repository()).output().expect("the binary starts");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let events = text.lines().map(|line| serde_json::from_str::<Stamped>(line).expect("an event").event);
    let ran = events.filter_map(|event| match event {
        Event::StepFinished { step, .. } => Some(step),
        _ => None,
    });
    ran.collect()
}

fn results(cache: &Path, pipeline: &str) -> PathBuf {
    cache.join("results").join(pipeline)
}

/// What every file of the results is, by its name.
fn contents(cache: &Path) -> BTreeMap<String, Digest> {
    let folder = results(cache, "lora_vs_mlp");
    let mut found = BTreeMap::new();
    for step in fs::read_dir(&folder).expect("results").map(|entry| entry.expect("a step").path()) {
        for output in fs::read_dir(&step).expect("outputs").map(|entry| entry.expect("an output").path()) {
            let place = output.canonicalize().expect("an object");
            let name = output.strip_prefix(&folder).expect("below").display().to_string();
            if place.is_dir() {
                for file in files_below(&place).expect("files") {
                    found.insert(format!("{name}/{file}"), Digest::of_file(&place.join(&file)).expect("read"));
                }
            } else {
                found.insert(name, Digest::of_file(&place).expect("read"));
            }
        }
    }
    found
}

/// A column of `grid.csv`, by arm.
fn column(cache: &Path, pipeline: &str, name: &str) -> BTreeMap<String, f64> {
    let path = results(cache, pipeline).join("comparison/grid.csv");
    let mut table = csv::Reader::from_path(path).expect("a table");
    let at = table.headers().expect("a header").iter().position(|header| header == name).expect("the column");
    let rows = table.records().map(|row| row.expect("a row"));
    rows.map(|row| (row[0].to_owned(), row[at].parse().expect("a number"))).collect()
}

#[test]
fn long_the_comparison_is_the_same_from_two_empty_caches_and_adapters_help() {
    if !long() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().expect("a folder");
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    run("pipelines/lora_vs_mlp.yaml", &one, &[]);
    run("pipelines/lora_vs_mlp.yaml", &two, &["-j", "1"]);
    let (first, second) = (contents(&one), contents(&two));
    assert!(first.keys().any(|name| name.ends_with("adapter_model.safetensors")), "{:?}", first.keys());
    assert_eq!(first, second);

    let nerus = column(&one, "lora_vs_mlp", "nerus.f1.micro");
    let terra = column(&one, "lora_vs_mlp", "terra.accuracy");
    eprintln!("nerus {nerus:?}, terra {terra:?}");
    // 314 sentences with 588 entities: 0.1 is far outside what chance does.
    assert!(nerus["lora"] > nerus["base"] + 0.1 && nerus["mlp"] > nerus["base"] + 0.1, "{nerus:?}");
    // Of 300 rows, chance alone reaches 0.57 once in a hundred times.
    assert!(terra["base"] > 0.57, "{terra:?}");
    for arm in ["base", "lora", "mlp"] {
        let path = results(&one, "lora_vs_mlp").join(arm).join("summary.json");
        let summary: Value = serde_json::from_slice(&fs::read(path).expect("read")).expect("JSON");
        let loss = |name: &str| summary[name].as_f64().expect("a loss");
        assert!(loss("last_loss") < 0.8 * loss("first_loss"), "{arm}: {summary}");
    }

    assert_eq!(run("pipelines/lora_vs_mlp.yaml", &one, &[]), Vec::<String>::new());
    let mut ran = run("pipelines/lora_vs_mlp.yaml", &one, &["--set", "lora.rank=8"]);
    ran.sort();
    let expected = [
        "comparison",
        "lora",
        "nerus[adapter=lora]",
        "report[format=html]",
        "report[format=md]",
        "report[format=txt]",
        "terra[adapter=lora]",
        "text[adapter=lora]",
    ];
    assert_eq!(ran, expected);

    // The ablation shares data and base with it, and one more rank runs its own cells alone.
    let ran = run("pipelines/ablation.yaml", &one, &[]);
    assert!(!ran.iter().any(|step| ["generated", "tokenizer", "base", "tokens"].contains(&step.as_str())), "{ran:?}");
    let ran = run("pipelines/ablation.yaml", &one, &["--set", "lora_grid.rank=[2,4,8,16]"]);
    let others = |step: &&String| !step.contains("rank=16") && *step != "comparison" && !step.starts_with("report");
    assert_eq!(ran.iter().filter(others).count(), 0, "{ran:?}");
    assert!(ran.iter().any(|step| step == "lora[rank=16,alpha=8,seed=42]"), "{ran:?}");
}

#[test]
fn long_the_comparison_runs_on_real_files() {
    let Some(data) = data().filter(|_| long()) else { return };
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().expect("a folder");
    let files = format!("files={}", data.canonicalize().expect("a folder").display());
    run("pipelines/lora_vs_mlp.yaml", folder.path(), &["--profile", "files", "--set", &files]);
    let report = results(folder.path(), "lora_vs_mlp").join("report[format=txt]/report/report.ru.txt");
    let report = fs::read_to_string(report).expect("the report");
    assert!(report.contains("n = 307; эталон: entailment 153, not_entailment 154"), "{report}");
    assert!(!report.contains("сгенерированы"), "{report}");
}
