//! Why a step runs again: one exact text for each cause, as `pipe run` prints it unasked.
//! It does not look at `pipe explain`, which tells the same with the lines of the file.

use std::collections::BTreeMap;
use std::fs;

use pipe::event::Costs;
use pipe::store::{Draft, Store};
use serde_json::{Value, json};

use super::{Case, Told, short};
use crate::engine::command::conllu;

const YAML: &str = "name: p
params: { text: one, rank: 4, seed: 42 }
steps:
  raw: { uses: download, with: { source: data/raw.conllu } }
  split: { uses: split, in: { data: raw }, with: { seed: '${params.seed}', dev: 0.2, test: 0.2 } }
  a: { uses: command, with: { shell: 'echo ${params.text} > o; echo more > q', outputs: { o: o, q: q } } }
  b: { uses: command, in: { m: a.o }, with: { run: [sh, s.sh, '${params.rank}'], code: [s.sh, lib], outputs: { o: o }, env: { K: v }, pass_env: [PASSED] } }
  c: { uses: command, in: { parts: [a.q, b] }, with: { shell: 'cat in/*/* > o', outputs: { o: o } } }
";

const SCRIPT: &str = "cat in/* lib/* > o\necho $1 $K >> o\n";

/// What `b` makes of these.
fn b(text: &str, rank: u32, lib: &str) -> String {
    format!("{text}\n{lib}{rank} v\n")
}

fn case() -> Case {
    let raw = conllu(30);
    let case = Case::new(YAML, &[("data/raw.conllu", raw.as_str()), ("s.sh", SCRIPT), ("lib/x", "x\n")]);
    let first = case.good(&[]);
    assert_eq!(first.ran().len(), 5, "{}", first.text);
    assert!(first.reasons().iter().all(|(_, why)| *why == "never run before"), "{}", first.text);
    case
}

/// What a run says after something changed; that every step that runs says why is looked at each time.
fn after(change: impl FnOnce(&Case), more: &[&str]) -> Told {
    let case = case();
    change(&case);
    reasoned(case.run(more))
}

fn reasoned(told: Told) -> Told {
    assert!(!told.reasons().is_empty(), "nothing ran:\n{}", told.text);
    assert!(told.reasons().iter().all(|(_, why)| !why.is_empty()), "{}", told.text);
    told
}

#[test]
fn b4_every_rerun_says_why_with_old_and_new() {
    let case = case();
    let told = reasoned(case.good(&["--set", "text=two"]));
    let (one, two) = (b("one", 4, "x\n"), b("two", 4, "x\n"));
    assert_eq!(
        told.reasons(),
        [
            ("a", "params.shell: echo one > o; echo more > q → echo two > o; echo more > q"),
            ("b", &format!("inputs.m: {} → {} (from step a)", short("one\n"), short("two\n"))),
            ("c", &format!("inputs.parts[b]: {} → {}", short(&one), short(&two))),
        ]
    );
    // The nearest result is what it is held against, not the last.
    case.good(&["--set", "seed=7"]);
    let told = reasoned(case.good(&["--set", "text=two", "--set", "rank=8"]));
    assert_eq!(told.why("b"), "params.run: [sh, s.sh, 4] → [sh, s.sh, 8]");
    assert!(case.good(&["--set", "text=two"]).ran().is_empty(), "what is set back runs nothing");
}

#[test]
fn b9_changed_code_is_named_file_by_file() {
    let (old, new) = (SCRIPT.to_owned(), format!("{SCRIPT}# a word\n"));
    let told = after(|case| case.write("s.sh", &new), &[]);
    assert_eq!(told.reasons(), [("b", format!("sources.s.sh: {} → {}", short(&old), short(&new)).as_str())]);
    let told = after(
        |case| {
            case.write("lib/x", "y\n");
            case.write("lib/helper", "z\n");
        },
        &[],
    );
    let (x, y, z) = (short("x\n"), short("y\n"), short("z\n"));
    assert_eq!(told.why("b"), format!("sources.lib/helper: {z} is new, sources.lib/x: {x} → {y}"));
    let told = after(|case| fs::rename(case.root().join("lib/x"), case.root().join("lib/y")).expect("moved"), &[]);
    assert_eq!(told.why("b"), format!("sources.lib/x: {x} is gone, sources.lib/y: {x} is new"));
}

#[test]
fn l5_parameters() {
    assert_eq!(after(|_| (), &["--set", "seed=7"]).why("split"), "params.seed: 42 → 7");
    assert_eq!(after(|case| case.edit("dev: 0.2", "dev: 0.3"), &[]).why("split"), "params.dev: 0.2 → 0.3");
    let two = after(|case| case.edit("dev: 0.2, test: 0.2", "dev: 0.1, test: 0.1"), &[]);
    assert_eq!(two.why("split"), "params.dev: 0.2 → 0.1, params.test: 0.2 → 0.1");
    let three = after(|case| case.edit("dev: 0.2, test: 0.2", "dev: 0.1, test: 0.1"), &["--set", "seed=7"]);
    assert_eq!(three.why("split"), "params.dev: 0.2 → 0.1, params.seed: 42 → 7 and 1 more");
}

#[test]
fn l5_a_source() {
    let told = after(|case| case.write("data/raw.conllu", &conllu(31)), &[]);
    let (old, new) = (short(&conllu(30)), short(&conllu(31)));
    assert_eq!(told.why("raw"), format!("sources.source: {old} → {new} (data/raw.conllu)"));
    assert_eq!(told.why("split"), format!("inputs.data: {old} → {new} (from step raw)"));
}

#[test]
fn l5_what_a_command_is() {
    let told = |from: &str, to: &str, step: &str| after(|case| case.edit(from, to), &[]).why(step).to_owned();
    assert_eq!(told("[sh, s.sh, '${", "[sh, -e, s.sh, '${", "b"), "params.run: [sh, s.sh, 4] → [sh, -e, s.sh, 4]");
    assert_eq!(told("env: { K: v }", "env: { K: w }", "b"), "params.env.K: v → w");
    assert_eq!(told("env: { K: v }", "env: { K: v, L: '' }", "b"), "params.env.L: \"\" is new");
    assert_eq!(told("env: { K: v }, ", "", "b"), "params.env.K: v is gone");
    assert_eq!(
        told("cat in/*/* > o', outputs: { o: o }", "cat in/*/* > p', outputs: { o: p }", "c"),
        "params.outputs.o: o → p, params.shell: cat in/*/* > o → cat in/*/* > p"
    );
    assert_eq!(
        told("run: [sh, s.sh, '${params.rank}']", "shell: sh s.sh 4", "b"),
        "params.run: [sh, s.sh, 4] is gone, params.shell: sh s.sh 4 is new"
    );
    // Of a long line that part that differs.
    let long = format!("cat in/*/* > o; # {}", "and so on ".repeat(12));
    let case = case();
    case.edit("cat in/*/* > o", &long);
    case.good(&[]);
    case.edit("cat in/*/* > o;", "sort in/*/* > o;");
    assert_eq!(reasoned(case.good(&[])).why("c"), "params.shell: cat in/*/* > o; # and… → sort in/*/* > o; # and…");
}

#[test]
fn l5_the_environment() {
    let case = case();
    let run = |value: Option<&str>| {
        let mut command = case.command(&["run", "p.yaml", "--device", "cpu"]);
        value.map(|value| command.env("PASSED", value));
        reasoned(Told::of(&command.output().expect("the binary starts"))).why("b").to_owned()
    };
    assert_eq!(run(Some("ja")), "environment.PASSED: ja is new");
    case.edit("{ K: v }", "{ K: w }");
    assert_eq!(run(Some("ja")), "params.env.K: v → w");
    assert_eq!(run(Some("nein")), "environment.PASSED: ja → nein");
    case.edit("{ K: w }", "{ K: u }");
    assert_eq!(run(None), "params.env.K: v → u");
}

#[test]
fn l5_inputs_that_came_went_and_changed_their_names() {
    let told = |from: &str, to: &str, step: &str| after(|case| case.edit(from, to), &[]).why(step).to_owned();
    let (q, b) = (short("more\n"), short(&b("one", 4, "x\n")));
    assert_eq!(told("parts: [a.q, b]", "parts: [b]", "c"), format!("inputs.parts[a]: {q} is gone"));
    let raw = short(&conllu(30));
    assert_eq!(told("parts: [a.q, b]", "parts: [a.q, b, raw]", "c"), format!("inputs.parts[raw]: {raw} is new"));
    assert_eq!(told("parts: [a.q, b]", "parts: [b, a.q]", "c"), "inputs: parts[a, b] → parts[b, a]");
    assert_eq!(told("parts: [a.q, b]", "teile: [a.q, b]", "c"), "inputs: parts → teile");
    assert_eq!(told("m: a.o", "n: a.o", "b"), "inputs: m → n");
    assert_eq!(told("m: a.o", "m: a.q", "b"), format!("inputs.m: {} → {q} (from step a)", short("one\n")));
    assert_eq!(
        told("parts: [a.q, b]", "parts: b", "c"),
        format!("inputs.parts: {b} is new (from step b), inputs.parts[a]: {q} is gone and 1 more")
    );
    // A step with another name is reused, and its consumers see the name.
    let told = after(
        |case| {
            case.edit("  b: ", "  z: ");
            case.edit("parts: [a.q, b]", "parts: [a.q, z]");
        },
        &[],
    );
    assert_eq!(told.reasons(), [("c", "inputs: parts[b] → parts[z]")]);
}

#[test]
fn l5_cells_of_a_matrix() {
    let yaml = "name: p
steps:
  cell: { uses: command, matrix: { i: [1, 2] }, with: { shell: 'echo ${matrix.i} > o', outputs: { o: o } } }
  all: { uses: command, in: { cells: cell }, with: { shell: 'cat in/cells/* > o', outputs: { o: o } } }
";
    let case = Case::new(yaml, &[]);
    case.good(&[]);
    case.edit("i: [1, 2]", "i: [1, 2, 3]");
    let told = case.good(&[]);
    let new = format!(
        "inputs.cells[cell[i=3]].coordinates.i: 3 is new, inputs.cells[cell[i=3]].digest: {} is new",
        short("3\n")
    );
    assert_eq!(told.reasons(), [("cell[i=3]", "never run before"), ("all", new.as_str())]);
    case.edit("i: [1, 2, 3]", "k: [1, 2, 3]");
    case.edit("matrix.i", "matrix.k");
    let told = case.good(&[]);
    assert_eq!(
        told.reasons(),
        [(
            "all",
            "inputs: cells[cell[i=1]] → cells[cell[k=1]], inputs: cells[cell[i=2]] → cells[cell[k=2]] and 1 more"
        )]
    );
}

#[test]
fn l5_results_that_are_gone_or_damaged() {
    let record = |case: &Case| {
        let manifest = manifest(case, "a");
        let key = pipe::key::key_of(&manifest);
        case.cache().join(format!("records/{}/{key}.json", &key.as_str()[..2]))
    };
    let told = after(|case| fs::remove_file(record(case)).expect("gone"), &[]);
    assert_eq!(told.reasons(), [("a", "its record is gone from the cache")]);
    let told = after(|case| fs::remove_file(record(case)).expect("gone"), &["--set", "text=two"]);
    assert_eq!(told.why("a"), "its last record is gone from the cache, so what changed is not known");
    let told = after(
        |case| {
            let whole = fs::read(record(case)).expect("there");
            fs::write(record(case), &whole[..whole.len() / 2]).expect("cut");
        },
        &[],
    );
    assert_eq!(told.reasons(), [("a", "its record is damaged")]);
    let told = after(
        |case| {
            let text = fs::read_to_string(record(case)).expect("there").replace("pipe/record@2", "pipe/record@1");
            fs::write(record(case), text).expect("written");
        },
        &[],
    );
    assert_eq!(told.reasons(), [("a", "its record has the format `pipe/record@1`, not `pipe/record@2`")]);
    let object = |case: &Case| case.cache().join("results/p/a/q").canonicalize().expect("there");
    let told = after(|case| fs::remove_file(object(case)).expect("gone"), &[]);
    assert_eq!(told.reasons(), [("a", "its output `q` is gone in the cache")]);
    let told = after(
        |case| {
            let object = object(case);
            fs::remove_file(&object).expect("gone");
            fs::write(object, "shorter").expect("written");
        },
        &[],
    );
    assert_eq!(told.reasons(), [("a", "its output `q` is damaged in the cache")]);
}

#[test]
fn l5_what_the_user_asks_for() {
    assert_eq!(after(|_| (), &["--force", "a"]).reasons(), [("a", "it is forced to run")]);
    let from = after(|_| (), &["--from", "b"]);
    assert_eq!(from.reasons(), [("b", "it is forced to run"), ("c", "it is forced to run")]);
    // What would run anyway has its own reason.
    let told = after(|_| (), &["--force", "split", "--set", "seed=7"]);
    assert_eq!(told.reasons(), [("split", "params.seed: 42 → 7")]);
}

/// Another version and another device, as an earlier `pipe` on another machine would have left them.
#[test]
fn l5_the_kind_its_version_and_the_device() {
    let case = case();
    earlier(&case, "split", |manifest| manifest["version"] = json!(0));
    let version = manifest(&case, "split")["version"].clone();
    assert_eq!(case.good(&[]).reasons(), [("split", format!("version: 0 → {version}").as_str())]);

    let other = "uses: command, with: { run: [cp, data/raw.conllu, o], code: [data/raw.conllu], outputs: { o: o } }";
    let told = after(|case| case.edit("uses: download, with: { source: data/raw.conllu }", other), &[]);
    assert!(told.why("raw").starts_with("kind: download → command, "), "{}", told.text);

    let yaml = "name: p
steps:
  text: { uses: download, with: { source: text.txt } }
  tokenizer: { uses: tokenizer, in: { text: text }, with: { vocab_size: 300 } }
  base: { uses: pretrain, in: { tokenizer: tokenizer, text: text } }
";
    let case = Case::new(yaml, &[("text.txt", &"Кошка спит на окне, а собака во дворе. ".repeat(40))]);
    case.good(&["tokenizer"]);
    earlier(&case, "base", |manifest| manifest["environment"]["device"] = json!("cuda"));
    let told = case.pipe(&["plan", "p.yaml", "--device", "cpu"]);
    assert!(told.out.contains("run      base       environment.device: cuda → cpu\n"), "{}{}", told.out, told.text);
}

/// The manifest that a step has now.
fn manifest(case: &Case, step: &str) -> Value {
    let told = case.pipe(&["explain", "p.yaml", step, "--json", "--device", "cpu"]);
    assert_eq!(told.code, Some(0), "{}", told.text);
    serde_json::from_str::<Value>(&told.out).expect("JSON")["manifest"].clone()
}

/// Puts the result of a step under the key that a slightly different manifest has, as if it had been made by that.
fn earlier(case: &Case, step: &str, differ: impl FnOnce(&mut Value)) {
    let mut manifest = manifest(case, step);
    let store = Store::at(case.cache());
    if let Ok(Some(_)) = store.forget(&pipe::key::key_of(&manifest)) {
        fs::remove_dir_all(case.cache().join("steps")).expect("the history");
    }
    differ(&mut manifest);
    let stage = store.stage().expect("a stage");
    fs::create_dir(stage.out()).expect("a folder");
    fs::write(stage.out().join("o"), "text").expect("written");
    let draft = Draft {
        manifest,
        outputs: BTreeMap::from([("o".to_owned(), "o".to_owned())]),
        figures: BTreeMap::new(),
        said: Vec::new(),
        costs: Costs::default(),
        run: "2026-01-01T00-00-00Z-abcdef".into(),
        step: step.into(),
    };
    let record = store.commit(&stage, draft, None, &mut |_| Ok(())).expect("kept");
    store.remember("p", step, &record.key).expect("remembered");
    assert_eq!(store.flush(), []);
}
