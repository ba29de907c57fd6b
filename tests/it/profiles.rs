//! The profiles of the pipelines: each is sound, and the reference experiment is what its report says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pipe::spec::{Options, load};
use pipe::ui::problem;
use serde_json::Value;

use crate::support::repository;

fn pipelines() -> Vec<PathBuf> {
    let folder = fs::read_dir(repository().join("pipelines")).expect("pipelines");
    let mut files: Vec<PathBuf> = folder.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files
}

fn profiles(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).expect("a pipeline");
    let pipeline: serde_yaml::Value = serde_yaml::from_str(&text).expect("YAML");
    let profiles = pipeline["profiles"].as_mapping().expect("profiles");
    profiles.keys().map(|name| name.as_str().expect("a name").to_owned()).collect()
}

/// The lines of `pipe plan --json`, where no other machine can be reached and no cache is there.
fn plan(folder: &Path, args: &[&str]) -> Vec<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
    command.arg("plan").args(args).args(["--json", "--device", "cpu"]).current_dir(folder);
    let nothing = tempfile::tempdir().expect("a folder");
    let cache = if args.contains(&"--cache") { None } else { Some(nothing.path().join("cache")) };
    let output = command
        .env_remove("PIPE_CACHE")
        .envs(cache.map(|cache| ("PIPE_CACHE", cache)))
        .env("HF_HOME", nothing.path())
        .env("HF_ENDPOINT", "http://127.0.0.1:9")
        .output()
        .expect("running pipe");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn of<'p>(plan: &'p [Value], step: &str) -> &'p Value {
    plan.iter().find(|line| line["step"] == step).unwrap_or_else(|| panic!("{step} is not planned"))
}

#[test]
fn every_profile_is_sound() {
    for file in pipelines() {
        let profiles = profiles(&file);
        // The wordings are tried on the small base alone; the comparisons promise real ones, too.
        let least = if file.ends_with("prompts.yaml") { 1 } else { 3 };
        assert!(profiles.len() >= least, "{}: {profiles:?}", file.display());
        for profile in profiles {
            let options = Options { profile: Some(profile.clone()), ..Options::default() };
            if let Err(problems) = load(&file, &options) {
                panic!("{} --profile {profile}\n{}", file.display(), problem::render(&problems, false));
            }
        }
    }
}

#[test]
fn the_reference_experiment_is_planned_with_exact_counts() {
    let plan = plan(repository(), &["pipelines/lora_vs_mlp.yaml", "--profile", "llama2-7b"]);
    assert_eq!(of(&plan, "lora")["facts"], serde_json::json!({ "trainable_parameters": 2_097_152 }));
    assert_eq!(of(&plan, "mlp")["facts"], serde_json::json!({ "trainable_parameters": 4_211_200 }));
    // Nothing of it is known yet but where it lies, and nothing small takes its place.
    for (step, address) in [
        ("llama2_7b", "hf://NousResearch/Llama-2-7b-hf@"),
        ("official_terra_val", "https://russiansuperglue.com/"),
        ("official_nerus_all", "https://storage.yandexcloud.net/natasha-nerus/"),
    ] {
        let why = of(&plan, step)["why"][0].as_str().expect("a reason").to_owned();
        assert!(why.starts_with(address) && why.ends_with("is not in pipe.lock yet"), "{why}");
    }
    assert!(plan.iter().all(|line| line["step"] != "base" && line["step"] != "generated"), "{plan:?}");
}

/// MLP h = 16 on four layers of width 128 has 16 960 parameters; LoRA at q_proj and v_proj has 2048 for each rank.
#[test]
fn a_matched_adapter_is_planned_in_its_size() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = "{ hidden_size: 128, intermediate_size: 256, num_hidden_layers: 4, num_attention_heads: 4 }";
    let yaml = format!(
        "steps:\n  data: {{ uses: generate }}\n  tokenizer: {{ uses: tokenizer, in: {{ text: data.text }} }}\n  base: {{ uses: pretrain, in: {{ tokenizer: tokenizer, text: data.text }}, with: {{ model: {model} }} }}\n  tokens: {{ uses: tokenize, in: {{ data: data.nerus_train, tokenizer: base }}, with: {{ task: nerus }} }}\n  lora: {{ uses: train, in: {{ model: base, data: tokens }}, with: {{ adapter: {{ lora: {{ rank: 1, target_modules: [q_proj, v_proj] }} }}, match_parameters: {{ mlp: {{ hidden_size: 16, layers: [0, 1, 2, 3] }} }} }} }}\n"
    );
    fs::write(folder.path().join("p.yaml"), yaml).expect("written");
    let plan = plan(folder.path(), &["p.yaml"]);
    let wanted = 16_384; // rank 8; rank 9 would have 18 432
    assert_eq!(of(&plan, "lora")["facts"], serde_json::json!({ "trainable_parameters": wanted }));
}

/// `reference/report_2025-03-15.txt` has these figures in its first table.
#[test]
fn the_reference_experiment_is_that_of_the_report() {
    let options = Options { profile: Some("llama2-7b".to_owned()), ..Options::default() };
    let pipeline = load(&repository().join("pipelines/lora_vs_mlp.yaml"), &options).unwrap_or_else(|_| panic!("sound"));
    let adapter = |name: &str| {
        let step = pipeline.steps.iter().find(|step| step.id == name).expect("a step");
        step.action.params()["adapter"][name].clone()
    };
    let (lora, mlp) = (adapter("lora"), adapter("mlp"));
    assert_eq!(
        (lora["rank"].as_i64(), lora["alpha"].as_f64(), lora["dropout"].as_f64()),
        (Some(4), Some(8.0), Some(0.05))
    );
    assert_eq!(lora["target_modules"], serde_json::json!(["q_proj", "v_proj"]));
    assert_eq!(lora["layers"], Value::Null);
    assert_eq!((mlp["hidden_size"].as_i64(), mlp["dropout"].as_f64()), (Some(128), Some(0.1)));
    assert_eq!(mlp["layers"], serde_json::json!([0, 6, 12, 18]));
}

#[test]
fn parameters_are_counted_from_a_model_that_is_here() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    fs::create_dir_all(root.join("model")).expect("created");
    fs::create_dir_all(root.join("pipelines")).expect("created");
    let config = serde_json::json!({ "model_type": "llama", "vocab_size": 9, "hidden_size": 8, "intermediate_size": 16,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1 });
    fs::write(root.join("model/config.json"), config.to_string()).expect("written");
    let yaml = "name: x
params: { layers: null }
steps:
  base: { uses: download, with: { source: model } }
  lora:
    uses: train
    in: { model: base, data: base }
    with: { adapter: { lora: { rank: 2, alpha: 4, layers: '${params.layers}' } } }
";
    fs::write(root.join("pipelines/x.yaml"), yaml).expect("written");
    let planned = |more: &[&str]| plan(root, &[&["pipelines/x.yaml", "--cache", "cache"], more].concat());
    // Before the model is brought in, nothing is known of it: it could be any.
    assert_eq!(of(&planned(&[]), "lora")["facts"], serde_json::json!({}));
    let run = Command::new(env!("CARGO_BIN_EXE_pipe"))
        .args(["run", "pipelines/x.yaml", "base", "--cache", "cache", "--device", "cpu"])
        .current_dir(root)
        .output()
        .expect("running pipe");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    // Two layers of 2·(8 + 8) at q_proj and 2·(8 + 4) at v_proj, which one key head makes half as wide.
    assert_eq!(of(&planned(&[]), "lora")["facts"]["trainable_parameters"], 112);
    assert_eq!(of(&planned(&["--set", "layers=[1]"]), "lora")["facts"]["trainable_parameters"], 56);

    let text = Command::new(env!("CARGO_BIN_EXE_pipe"))
        .args(["plan", "pipelines/x.yaml", "--cache", "cache", "--device", "cpu", "--set", "layers=[2]"])
        .current_dir(root)
        .output()
        .expect("running pipe");
    let text = String::from_utf8(text.stdout).expect("UTF-8");
    assert!(text.contains("it will fail: the adapter wants layer 2, but the model has 2"), "{text}");
}
