//! Bad input through the binary: one clear sentence that names the place, and nothing lost or half-written.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

use flate2::Compression;
use flate2::write::GzEncoder;
#[cfg(feature = "torch")]
use serde_json::json;

use crate::data_steps::project;
#[cfg(feature = "torch")]
use crate::data_steps::run;
use pipe::digest::files_below;

const SOUND: &str = "# newdoc id = 7\n# sent_id = 7_0\n# text = Анна в Москве.\n\
    1\tАнна\t_\tPROPN\t_\t_\t3\tnsubj\t_\tTag=B-PER\n2\tв\t_\t_\t_\t_\t_\t_\t_\tTag=O\n\
    3\tМоскве\t_\t_\t_\t_\t_\t_\t_\tSpaceAfter=No|Tag=B-LOC\n4\t.\t_\t_\t_\t_\t_\t_\t_\tTag=O\n\n";

/// A step that reads `data`, after one that brings it in.
fn yaml(step: &str) -> String {
    format!(
        "name: bad\ntargets: [last]\nsteps:\n  model: {{ uses: download, with: {{ source: model }} }}\n  \
         data: {{ uses: download, with: {{ source: data }} }}\n  last: {step}\n"
    )
}

fn evaluate(task: &str) -> String {
    yaml(&format!("{{ uses: evaluate, in: {{ model: model, data: data }}, with: {{ task: {task}, dtype: f32 }} }}"))
}

fn pipe(root: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pipe"))
        .args(["run", "pipelines/bad.yaml", "--device", "cpu"])
        .current_dir(root)
        .env_remove("PIPE_CACHE")
        .output()
        .expect("the binary starts")
}

fn told(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

/// A pipeline file that is wrong: exit code 3, these words, and no cache is begun.
fn wrong_pipeline(yaml: &str, words: &[&str]) {
    let root = project(&[("pipelines/bad.yaml", yaml.as_bytes())]);
    let output = pipe(root.path());
    let text = told(&output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    words.iter().for_each(|word| assert!(text.contains(word), "no {word:?} in\n{text}"));
    assert!(output.stdout.is_empty() && !root.path().join("cache").exists());
}

/// A step that fails on its input: exit code 1, these words, and of that step nothing is left.
fn failed(root: &Path, words: &[&str]) {
    let output = pipe(root);
    let text = told(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("✗ last"), "{text}");
    words.iter().for_each(|word| assert!(text.contains(word), "no {word:?} in\n{text}"));
    assert!(output.stdout.is_empty() && !text.contains("panicked"), "{text}");
    let cache = root.join("cache");
    assert!(!cache.join("results/bad/last").exists());
    let records = files_below(&cache.join("records")).expect("records");
    assert_eq!(records.len(), text.matches("✓ ").count(), "more is recorded than was done: {records:?}");
    let mut scratch = files_below(&cache.join("tmp")).unwrap_or_default();
    // The lock of the folder itself.
    scratch.retain(|file| file != "guard");
    assert!(scratch.is_empty(), "left behind: {scratch:?}");
}

/// The same for these data.
fn wrong_data(yaml: &str, data: &str, words: &[&str]) {
    let files: [(&str, &[u8]); 3] =
        [("pipelines/bad.yaml", yaml.as_bytes()), ("data", data.as_bytes()), ("model/config.json", b"{}")];
    failed(project(&files).path(), words);
}

#[test]
fn a_typo_in_the_file() {
    let yaml = "name: bad\nsteps:\n  a: { uses: generate, with: { sede: 1 } }\n  b: { usse: generate }\n";
    wrong_pipeline(yaml, &["pipelines/bad.yaml:3:", "did you mean `seed`?", "pipelines/bad.yaml:4:", "3 problems in"]);
    wrong_pipeline("name: bad\nsteps:\n  a: { uses: [generate\n", &["pipelines/bad.yaml:", "1 problem in"]);
}

#[test]
fn an_unknown_step_kind() {
    let yaml = "name: bad\nsteps:\n  a:\n    uses: genrate\n";
    wrong_pipeline(yaml, &["pipelines/bad.yaml:4:11", "`genrate`", "did you mean `generate`?"]);
}

#[test]
fn a_cycle() {
    let yaml = "name: bad\nsteps:\n  a: { uses: split, in: { data: b } }\n  b: { uses: split, in: { data: a } }\n";
    wrong_pipeline(yaml, &["pipelines/bad.yaml:3:", "`a` needs `b`, which needs `a`", "cut the circle"]);
}

#[test]
fn a_parameter_out_of_range() {
    let yaml = "name: bad\nsteps:\n  a:\n    uses: train\n    in: { model: a, data: a }\n    with:\n      \
        adapter: { lora: { rank: 0 } }\n      lr: -1\n";
    wrong_pipeline(yaml, &["pipelines/bad.yaml:7:", "`rank` is out of range: 0", "pipelines/bad.yaml:8:11", "`lr`"]);
}

#[test]
fn a_missing_file() {
    let yaml = "name: bad\nsteps:\n  last: { uses: download, with: { source: data/none.jsonl } }\n";
    let root = project(&[("pipelines/bad.yaml", yaml.as_bytes())]);
    let output = pipe(root.path());
    let text = told(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("✗ last") && text.contains("data/none.jsonl"), "{text}");
    assert_eq!(files_below(&root.path().join("cache/records")).unwrap_or_default(), Vec::<String>::new());
}

#[test]
fn truncated_json_lines() {
    let row = r#"{"premise": "а", "hypothesis": "б", "label": "entailment", "idx": 0}"#;
    let data = format!("{row}\n{}", &row[..40]);
    wrong_data(&evaluate("terra"), &data, &["data:2", "cut off"]);
}

#[test]
fn truncated_conllu() {
    let split = yaml("{ uses: split, in: { data: data } }");
    wrong_data(&split, &SOUND[..SOUND.len() - 9], &["data:7", "the row has 9 columns", "it was probably cut off"]);
    wrong_data(&evaluate("nerus"), &SOUND[..SOUND.len() - 1], &["data:7", "ends in the middle of a sentence"]);
}

#[test]
fn a_label_outside_the_two() {
    let data = r#"{"premise": "а", "hypothesis": "б", "label": "neutral", "idx": 0}"#;
    wrong_data(&evaluate("terra"), data, &["data:1", "`neutral`", "`entailment`", "`not_entailment`"]);
}

#[test]
fn rows_without_labels() {
    let data = r#"{"premise": "а", "hypothesis": "б", "idx": 0}"#;
    wrong_data(&evaluate("terra"), data, &["data has no labels: row 0 (line 1) has none", "evaluate on val"]);
}

/// A Llama of one block with a tokenizer of some 300 ids; `vocabulary` is what its config says.
#[cfg(feature = "torch")]
fn model(vocabulary: u32) -> tempfile::TempDir {
    let rows = "{\"premise\": \"а\", \"hypothesis\": \"б\", \"label\": \"entailment\", \"idx\": 0}\n\
        {\"premise\": \"а\", \"hypothesis\": \"в\", \"label\": \"not_entailment\", \"idx\": 1}\n";
    let config = json!({
        "model_type": "llama", "vocab_size": vocabulary, "hidden_size": 8, "intermediate_size": 8,
        "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
        "bos_token_id": 1, "eos_token_id": 2,
    });
    // The header promises 16 bytes of numbers; 8 are there.
    let header = r#"{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#;
    let weights = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 8]].concat();
    let root = project(&[
        ("pipelines/bad.yaml", evaluate("terra").as_bytes()),
        ("data", rows.as_bytes()),
        ("text", "Анна живёт в Москве, а Иван в Твери.\n".repeat(20).as_bytes()),
        ("model/config.json", config.to_string().as_bytes()),
        ("model/model.safetensors", &weights),
    ]);
    let text = crate::data_steps::artifact(&root.path().join("text"), "text");
    let made = run("tokenizer", json!({ "vocab_size": 300 }), vec![("text", vec![text])], root.path());
    let made = made.map_err(|problems| format!("{problems:?}")).expect("a tokenizer");
    fs::copy(made.path("tokenizer/tokenizer.json"), root.path().join("model/tokenizer.json")).expect("copied");
    root
}

#[cfg(feature = "torch")]
#[test]
fn truncated_safetensors() {
    failed(model(512).path(), &["model.safetensors", "not a whole safetensors file"]);
}

#[cfg(feature = "torch")]
#[test]
fn a_tokenizer_that_does_not_fit_the_model() {
    failed(
        model(100).path(),
        &["does not fit the model", "embedding has 100 rows", "the tokenizer that the model was trained with"],
    );
}

/// Ids mean nothing under another tokenizer, and nothing would fail: so `train` refuses them.
#[cfg(feature = "torch")]
#[test]
fn rows_of_another_tokenizer_than_the_models() {
    let root = model(512);
    let yaml = "name: bad\ntargets: [last]\nsteps:\n  model: { uses: download, with: { source: model } }\n  \
        data: { uses: download, with: { source: data } }\n  text: { uses: download, with: { source: text } }\n  \
        other: { uses: tokenizer, in: { text: text }, with: { vocab_size: 400 } }\n  \
        tokens: { uses: tokenize, in: { data: data, tokenizer: other }, with: { task: terra } }\n  \
        last: { uses: train, in: { model: model, data: tokens }, with: { adapter: { lora: {} } } }\n";
    fs::write(root.path().join("pipelines/bad.yaml"), yaml).expect("written");
    // Not the text that the model's own tokenizer has seen.
    fs::write(root.path().join("text"), "Пётр читает газету у окна.\n".repeat(20)).expect("written");
    failed(
        root.path(),
        &["was tokenized with another tokenizer than that of the model model", "connect the `tokenizer` input"],
    );
}

#[test]
fn terras_own_test_split_is_refused_with_its_name() {
    let Some(data) = crate::support::data() else { return };
    let source = data.canonicalize().expect("a folder").join("terra/test.jsonl");
    let yaml = evaluate("terra").replace("source: data }", &format!("source: {} }}", source.display()));
    let root = project(&[("pipelines/bad.yaml", yaml.as_bytes()), ("model/config.json", b"{}")]);
    let named = format!("{} has no labels: row 0 (line 1) has none", source.display());
    failed(root.path(), &[&named, "evaluate on val"]);
}

/// The binary behind `mount`, a shell command, in a name space of its own; `None` where that is not allowed.
fn mounted(root: &Path, mount: &str) -> Option<Output> {
    let inside = |script: &str| {
        Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-c", script])
            .current_dir(root)
            .env_remove("PIPE_CACHE")
            .output()
    };
    if !inside(mount).is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: `unshare --mount` is not allowed here");
        return None;
    }
    let script = format!("{mount} && '{}' run pipelines/bad.yaml --device cpu", env!("CARGO_BIN_EXE_pipe"));
    Some(inside(&script).expect("it worked a moment ago"))
}

fn copies(data: &[u8]) -> tempfile::TempDir {
    let yaml = "name: bad\nsteps:\n  a: { uses: download, with: { source: data } }\n";
    let root = project(&[("pipelines/bad.yaml", yaml.as_bytes()), ("data", data)]);
    fs::create_dir(root.path().join("cache")).expect("created");
    root
}

#[test]
fn a_full_disk() {
    // How much comes out of an archive is not known before, so that the disk runs full in the middle.
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&vec![b'x'; 1 << 20]).expect("packed");
    let root = copies(&packed.finish().expect("packed"));
    // What is left on the small disk is listed before it goes.
    let small = "mount -t tmpfs -o size=256k none cache && trap 'find cache -type f' EXIT";
    let Some(output) = mounted(root.path(), small) else { return };
    let text = told(&output);
    assert!(text.contains("No space left on device") && text.contains("free some space on that disk"), "{text}");
    let left = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(!left.contains("cache/objects/") && !left.contains("cache/records/"), "{left}");
    assert!(pipe(root.path()).status.success(), "with room it works");

    // Of a copy it is known, and said before the first byte.
    let root = copies(&vec![b'x'; 1 << 20]);
    let output = mounted(root.path(), small).expect("it worked a moment ago");
    assert!(told(&output).contains("a copy in the cache needs 1.0 MB, and "), "{}", told(&output));
}

#[test]
fn a_read_only_cache() {
    let root = copies(b"xxxxxxxxxx");
    let mount = "mount --bind cache cache && mount -o remount,bind,ro cache";
    let Some(output) = mounted(root.path(), mount) else { return };
    let text = told(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("Read-only file system") && text.contains("put the cache elsewhere with --cache DIR"),
        "{text}"
    );
    assert!(files_below(&root.path().join("cache")).expect("a folder").is_empty());
    // What the cache already has is served all the same.
    assert!(pipe(root.path()).status.success());
    let output = mounted(root.path(), mount).expect("it worked a moment ago");
    assert!(output.status.success() && !output.stdout.is_empty(), "{}", told(&output));
}
