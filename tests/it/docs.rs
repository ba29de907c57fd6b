//! Generated pages are what the code says, and every step kind keeps the laws of step kinds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use pipe::spec::{Options, editor, guide, load, load_text, parameters};
use pipe::step::AnyKind;
use pipe::steps::KINDS;
use pipe::ui::problem;
use serde_json::{Value, json};

use crate::spec::kinds;
use crate::support::repository;

/// Compares a generated page with its file; `UPDATE=1 cargo test` writes the file.
fn page(file: &str, text: &str) {
    let path = repository().join(file);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("making the folder");
        std::fs::write(&path, text).expect("writing the page");
        return;
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "{file} is not what the code says; UPDATE=1 cargo test docs writes it anew");
}

#[test]
fn the_schema_is_what_the_code_says() {
    page("pipelines/pipe.schema.json", &editor::text(KINDS));
}

#[test]
fn the_guide_is_what_the_code_says() {
    page("pipelines/README.md", &guide::text(KINDS));
}

/// The registry, and the kinds of the tests, so that a law that cannot fail is noticed.
fn every_kind() -> impl Iterator<Item = &'static dyn AnyKind> {
    KINDS.iter().chain(kinds::KINDS).copied()
}

#[test]
fn names_of_kinds_are_unique() {
    for list in [KINDS, kinds::KINDS] {
        let names: BTreeSet<&str> = list.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), list.len());
    }
}

#[test]
fn every_kind_has_an_output_and_its_ports_differ() {
    for kind in every_kind() {
        let name = kind.name();
        assert!(!kind.outputs().is_empty(), "{name} has no output");
        assert!(!kind.summary().is_empty() && kind.version() > 0, "{name}");
        let unique = |ports: Vec<&str>| ports.iter().collect::<BTreeSet<_>>().len() == ports.len();
        assert!(unique(kind.inputs().iter().map(|input| input.name).collect()), "{name}");
        assert!(unique(kind.outputs().iter().map(|output| output.name).collect()), "{name}");
        assert!(unique(kind.outputs().iter().map(|output| output.file).collect()), "{name}");
    }
}

#[test]
fn everything_is_documented() {
    for kind in every_kind() {
        for row in parameters::rows(kind) {
            assert!(!row.doc.is_empty(), "`{}` of `{}` has no documentation", row.name, kind.name());
        }
        for input in kind.inputs() {
            assert!(!input.doc.is_empty(), "the input `{}` of `{}` has no documentation", input.name, kind.name());
        }
        for output in kind.outputs() {
            assert!(!output.doc.is_empty(), "the output `{}` of `{}` has no documentation", output.name, kind.name());
        }
    }
}

#[test]
fn kinds_speak_in_one_way() {
    for kind in KINDS {
        let ports = kind.inputs().iter().map(|input| input.doc).chain(kind.outputs().iter().map(|output| output.doc));
        for text in ports.chain([kind.summary()]) {
            let is_upper = text.starts_with(|c: char| !c.is_lowercase());
            assert!(
                is_upper && !text.ends_with('.'),
                "`{}`: begin with a capital, end without a stop: {text}",
                kind.name()
            );
        }
    }
}

/// Every schema below this one that has a default, with the place.
fn defaults<'s>(schema: &'s Value, place: &str, found: &mut Vec<(String, &'s Value)>) {
    match schema {
        Value::Object(entries) => {
            if entries.contains_key("default") && !place.ends_with("properties") {
                found.push((place.to_owned(), schema));
            }
            for (key, value) in entries.iter().filter(|(key, _)| *key != "default") {
                defaults(value, &format!("{place}/{key}"), found);
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                defaults(item, &format!("{place}/{i}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn every_default_is_within_its_range() {
    let mut count = 0;
    for kind in every_kind() {
        let root = kind.schema().to_value();
        let mut found = Vec::new();
        defaults(&root, "", &mut found);
        for (place, schema) in found {
            let mut alone = schema.clone();
            alone["$defs"] = root.get("$defs").cloned().unwrap_or(json!({}));
            let validator = jsonschema::validator_for(&alone).expect("a schema");
            let default = &schema["default"];
            assert!(validator.is_valid(default), "the default {default} at {place} of `{}`", kind.name());
            count += 1;
        }
    }
    assert!(count > 5, "{count} defaults");
}

fn to_json(yaml: &str) -> Value {
    let mut value: serde_yaml::Value = serde_yaml::from_str(yaml).expect("YAML");
    value.apply_merge().expect("merge keys");
    serde_json::to_value(value).expect("JSON")
}

fn against(schema: &Value, yaml: &str) -> Vec<String> {
    let validator = jsonschema::validator_for(schema).expect("a schema");
    validator.iter_errors(&to_json(yaml)).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// An example is one step. It refers to steps that are not there; nothing else may be wrong with it.
#[test]
fn every_example_is_a_step() {
    for list in [KINDS, kinds::KINDS] {
        let schema = editor::schema(list);
        for kind in list {
            let indented: String = kind.example().trim().lines().map(|line| format!("  {line}\n")).collect();
            let text = format!("steps:\n{indented}");
            assert_eq!(against(&schema, &text), Vec::<String>::new(), "{text}");
            let steps = to_json(&text)["steps"].as_object().expect("steps").clone();
            assert_eq!(steps.len(), 1, "{text}");
            assert!(steps.values().all(|step| step["uses"] == kind.name()), "{text}");
            let options = Options { kinds: list, ..Options::default() };
            let Err(mut problems) = load_text(Path::new("example.yaml"), &text, &options) else { continue };
            problems.list.retain(|located| !located.problem.what.contains("which does not exist"));
            assert!(problems.list.is_empty(), "{}", problem::render(&problems, false));
        }
    }
}

#[test]
fn every_pipeline_is_good() {
    let folder = repository().join("pipelines");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&folder).expect("pipelines").map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    let schema = editor::schema(KINDS);
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a pipeline");
        assert_eq!(against(&schema, &text), Vec::<String>::new(), "{}", file.display());
        if let Err(problems) = load(&file, &Options::default()) {
            panic!("{}", problem::render(&problems, false));
        }
    }
}

/// So that both take data, base and cells from the same cache entries.
#[test]
fn pipelines_write_what_they_share_the_same() {
    let read =
        |name: &str| to_json(&std::fs::read_to_string(repository().join("pipelines").join(name)).expect("a pipeline"));
    let (comparison, ablation) = (read("lora_vs_mlp.yaml"), read("ablation.yaml"));
    assert_eq!(comparison["profiles"], ablation["profiles"]);
    for (name, value) in comparison["params"].as_object().expect("params") {
        assert_eq!(value, &ablation["params"][name], "the parameter `{name}`");
    }
    // In the ablation these have cells.
    let own = ["lora", "mlp", "terra", "nerus", "text", "comparison"];
    for (name, step) in comparison["steps"].as_object().expect("steps") {
        assert!(own.contains(&name.as_str()) || *step == ablation["steps"][name], "the step `{name}`");
    }
    // What prompts.yaml asks first is what lora_vs_mlp.yaml asks.
    let prompts = read("prompts.yaml");
    for name in ["generated", "tokenizer", "terra_prompts", "nerus_prompts", "base", "tokens", "lora", "mlp"] {
        assert_eq!(prompts["steps"][name], comparison["steps"][name], "the step `{name}`");
    }
    for name in ["seed", "text", "terra", "model", "generated", "vocab_size", "base", "lora", "mlp", "training"] {
        assert_eq!(prompts["params"][name], comparison["params"][name], "the parameter `{name}`");
    }
    assert_eq!(prompts["params"]["prompts"]["follows"], pipe::task::prompt::TERRA);
    let words = pipe::task::prompt::Answers::default();
    assert_eq!(prompts["params"]["words"]["yes"][0], words.entailment);
    assert_eq!(prompts["params"]["words"]["no"][0], words.not_entailment);
}

#[test]
fn the_schema_knows_what_an_editor_should_underline() {
    let schema = editor::schema(kinds::KINDS);
    let good = "name: demo
params: { lora: { rank: 4 } }
profiles: { big: { lora: { rank: 8 } } }
targets: ['all[x=1]', text]
steps:
  text: { uses: fetch, with: { source: a, limit: '${params.limit}' } }
  tokens: { uses: tokenize, in: { data: text.index }, with: { labels: { a: b } } }
  lora:
    uses: train
    in: { data: tokens, start: null }
    matrix: { rank: [1, 2], alpha: '${params.alphas}', exclude: [{ rank: 1 }] }
    with: { adapter: { lora: { rank: '${matrix.rank}' } } }
  whole: { uses: train, in: { data: tokens }, with: { adapter: '${params.adapter}' } }
  all: { uses: gather, in: { results: [lora, whole.curve] } }
";
    assert_eq!(against(&schema, good), Vec::<String>::new());
    for (from, to) in [
        ("name: demo", "naem: demo"),
        ("uses: fetch", "uses: fetsch"),
        ("source: a", "sorce: a"),
        ("rank: '${matrix.rank}'", "rank: 0"),
        ("rank: '${matrix.rank}'", "rank: four"),
        ("start: null", "strat: null"),
        ("data: tokens, start", "start"),
        ("exclude: [{ rank: 1 }]", "exclude: { rank: 1 }"),
        ("rank: [1, 2]", "rank: []"),
        ("uses: gather", "use: gather"),
    ] {
        assert!(good.contains(from), "{from}");
        assert!(!against(&schema, &good.replacen(from, to, 1)).is_empty(), "{to} passed");
    }
}

#[test]
fn a_kind_is_described_with_its_types_ranges_and_defaults() {
    let page = guide::text(kinds::KINDS);
    for line in [
        "| `data` | one | The tokens. |",
        "| `curve` | `curve` | The losses. |",
        "| `source` | text | required | Where it comes from. |",
        "| `adapter.lora.rank` | a whole number from 1 to 512 | required | Its rank. |",
        "| `adapter.lora.alpha` | a number of at least 0 | `8.0` | Its scale. |",
        "| `task` | one of `terra`, `nerus` | `\"terra\"` | What to read. |",
    ] {
        assert!(page.contains(line), "{line}\n{page}");
    }
}

fn pipe(args: &[&str]) -> (i32, String, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_pipe"))
        .args(args)
        .current_dir(repository())
        .env_remove("NO_COLOR")
        .output()
        .expect("running pipe");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
}

#[test]
fn help_tells_every_verb_and_every_kind() {
    let (code, overview, _) = pipe(&["help"]);
    assert_eq!(code, 0);
    let verbs: Vec<&str> =
        overview.lines().skip(1).map_while(|line| line.strip_prefix("  ")?.split_whitespace().next()).collect();
    assert!(verbs.contains(&"run") && verbs.contains(&"render") && verbs.len() >= 7, "{verbs:?}");
    for verb in verbs {
        let (code, text, _) = pipe(&["help", verb]);
        assert!(code == 0 && text.contains("Usage:"), "{verb}\n{text}");
        assert!(
            text.contains("Example") && text.contains(&format!("\n  pipe {verb} ")),
            "no example of {verb}\n{text}"
        );
    }
    for kind in KINDS {
        assert!(overview.contains(kind.summary()), "{}", kind.name());
        let (_, text, _) = pipe(&["help", kind.name()]);
        let ports = kind.inputs().iter().map(|input| input.name).chain(kind.outputs().iter().map(|output| output.name));
        let rows = parameters::rows(*kind);
        for name in ports.chain(rows.iter().map(|row| row.name.as_str())) {
            assert!(text.contains(name), "{name}\n{text}");
        }
        assert!(text.contains(kind.example().trim().lines().next().expect("an example")), "{text}");
    }
    let (code, stdout, told) = pipe(&["help", "chekc"]);
    assert_eq!((code, stdout.as_str()), (2, ""));
    assert!(told.contains("did you mean `check`?"), "{told}");
}

#[test]
fn check_tells_problems_on_stderr_with_its_own_exit_code() {
    let (code, stdout, told) = pipe(&["check", "tests/bad/no_steps.yaml", "--set", "rank=8"]);
    assert_eq!((code, stdout.as_str()), (3, ""));
    let expected = std::fs::read_to_string(repository().join("tests/bad/no_steps.txt")).expect("the words");
    assert_eq!(told, expected);
}

#[test]
fn check_sums_a_good_pipeline_up_in_one_line() {
    for entry in std::fs::read_dir(repository().join("pipelines")).expect("pipelines") {
        let file = entry.expect("an entry").path();
        if file.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let (code, stdout, told) = pipe(&["check", &file.to_string_lossy()]);
        assert_eq!((code, told.as_str()), (0, ""));
        assert!(stdout.lines().count() == 1 && stdout.contains(" step") && stdout.contains("targets: "), "{stdout}");
    }
}

#[test]
fn the_schema_can_be_written_and_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("schema.json");
    let file = file.to_str().expect("UTF-8");
    assert_eq!(pipe(&["schema", "-o", file]).0, 0);
    assert_eq!(std::fs::read_to_string(file).expect("the schema"), pipe(&["schema"]).1);
    assert_eq!(pipe(&["schema", "--check", file]).0, 0);
    std::fs::write(file, "{}").expect("writing");
    let (code, _, told) = pipe(&["schema", "--check", file]);
    assert!(code == 1 && told.contains("pipe schema -o"), "{told}");
}
