//! The gold gate and the shortcuts: mutants of good data are caught before anything is computed, good data is not.
//! Evaluation itself needs libtorch and a model; the gate needs neither.

use std::fs;
use std::path::{Path, PathBuf};

use pipe::steps::evaluate;
use pipe::task::gate::{self, Code, Flaw};
use pipe::task::terra::{Labelled, labelled};
use serde_json::{Value, json};

use crate::data_steps::{Ran, artifact, run, told};
use crate::support;

/// Generated data, as the pipelines use it.
fn generated() -> &'static Ran {
    static MADE: std::sync::OnceLock<Ran> = std::sync::OnceLock::new();
    MADE.get_or_init(|| {
        let small = json!({"text_bytes": 1000, "base_nerus": 5, "base_terra": 10, "terra_train": 1200});
        run("generate", small, vec![], Path::new("/")).unwrap_or_else(|p| panic!("{p:?}"))
    })
}

fn rows(path: &Path) -> Vec<Labelled> {
    labelled(path, "val.jsonl", None, None).unwrap_or_else(|p| panic!("{p}"))
}

fn codes(flaws: &[Flaw]) -> Vec<(Code, bool)> {
    flaws.iter().map(|flaw| (flaw.code, flaw.misleads)).collect()
}

/// A file of JSON lines, each changed.
fn changed(from: &Path, folder: &Path, change: impl Fn(usize, &mut Value) -> bool) -> PathBuf {
    let text = fs::read_to_string(from).expect("data");
    let mut lines = String::new();
    for (i, line) in text.lines().enumerate() {
        let mut row: Value = serde_json::from_str(line).expect("JSON");
        if change(i, &mut row) {
            lines.push_str(&format!("{row}\n"));
        }
    }
    let path = folder.join(format!("{}.jsonl", lines.len()));
    fs::write(&path, lines).expect("written");
    path
}

fn flip(row: &mut Value) {
    let label = if row["label"] == "entailment" { "not_entailment" } else { "entailment" };
    row["label"] = json!(label);
}

/// What `evaluate` says of data: the model's folder is empty, so good data gets as far as the missing model.
pub fn evaluated(task: &str, data: &Path, train: &[&Path], with: Value) -> String {
    let model = tempfile::tempdir().expect("a folder");
    let mut inputs = vec![("model", vec![artifact(model.path(), "base")]), ("data", vec![artifact(data, "data")])];
    if !train.is_empty() {
        inputs.push(("train", train.iter().map(|path| artifact(path, "train")).collect()));
    }
    let mut params = json!({"task": task});
    params.as_object_mut().expect("a map").extend(with.as_object().expect("a map").clone());
    told(run("evaluate", params, inputs, Path::new("/")))
}

pub fn passes(said: &str) -> bool {
    said.contains("config.json") || said.contains("libtorch")
}

#[test]
fn good_data_passes_and_mutants_do_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let val = generated().path("terra_val.jsonl");
    let train = generated().path("terra_train.jsonl");
    let good = evaluated("terra", &val, &[&train], json!({}));
    assert!(passes(&good), "{good}");

    let refused = |wanted: &str, data: &Path, train: &[&Path], with: Value| {
        let said = evaluated("terra", data, train, with);
        assert!(said.contains(wanted), "{wanted}: {said}");
        said
    };
    let removed = changed(&val, folder.path(), |_, row| row.as_object_mut().expect("a row").remove("label").is_some());
    refused("has no labels: row 0 (line 1)", &removed, &[], json!({}));
    let one_class = changed(&val, folder.path(), |_, row| {
        row["label"] = json!("entailment");
        true
    });
    refused("all 300 rows that are evaluated have the label `entailment`", &one_class, &[], json!({}));
    let flipped = changed(&val, folder.path(), |_, row| {
        flip(row);
        true
    });
    let said = refused("the labels look turned round", &flipped, &[], json!({}));
    assert!(said.contains("allow: [polarity]"), "{said}");
    let allowed = evaluated("terra", &flipped, &[], json!({"allow": ["polarity"]}));
    assert!(passes(&allowed), "{allowed}");

    // Rows of the evaluation in the training data, a little rewritten.
    let copied = changed(&val, folder.path(), |i, row| {
        row["premise"] = json!(row["premise"].as_str().expect("a text").to_uppercase());
        i % 10 == 0
    });
    refused("30 of 300 pairs stand in the training data", &val, &[&train, &copied], json!({}));
    let turned = changed(&copied, folder.path(), |_, row| {
        flip(row);
        true
    });
    refused("30 of 300 pairs stand in the training data", &val, &[&turned], json!({}));
    let allow = json!({"allow": ["training_items"]});
    refused("30 pairs have the other label in the training data", &val, &[&turned], allow);

    let cut = fs::read_to_string(&val).expect("data");
    let path = folder.path().join("cut.jsonl");
    fs::write(&path, &cut[..cut.len() - 20]).expect("written");
    refused("ends in the middle of a row", &path, &[], json!({}));
    let end = cut.trim_end().rfind('\n').expect("lines") + 1;
    fs::write(&path, &cut[..end]).expect("written");
    refused("has 299 items, and `items` says 300", &path, &[], json!({"items": 300}));
}

#[test]
fn repeated_pairs_are_a_finding() {
    let folder = tempfile::tempdir().expect("a folder");
    let val = generated().path("terra_val.jsonl");
    let mut text = fs::read_to_string(&val).expect("data");
    let mut again: Value = serde_json::from_str(text.lines().next().expect("a row")).expect("JSON");
    again["idx"] = json!(9999);
    again["hypothesis"] = json!(format!("{} !", again["hypothesis"].as_str().expect("a text").to_uppercase()));
    text.push_str(&format!("{again}\n"));
    let path = folder.path().join("twice.jsonl");
    fs::write(&path, text).expect("written");
    let flaws = gate::terra::flaws(&rows(&path), &[]);
    assert_eq!(codes(&flaws), [(Code::Duplicates, false)]);
    assert_eq!((flaws[0].count, flaws[0].examples.as_slice()), (1, &["9999".to_owned()][..]));
}

#[test]
fn documents_of_the_training_data_are_caught() {
    let (test, train) = (generated().path("nerus_test.conllu"), generated().path("nerus_train.conllu"));
    let good = evaluated("nerus", &test, &[&train], json!({}));
    assert!(passes(&good), "{good}");
    let folder = tempfile::tempdir().expect("a folder");
    let text = fs::read_to_string(&test).expect("data");
    let third = text.match_indices("# newdoc").nth(3).expect("documents").0;
    let copied = folder.path().join("train.conllu");
    fs::write(&copied, text[..third].replace("# newdoc id = ", "# newdoc id = copied")).expect("written");
    let said = evaluated("nerus", &test, &[&train, &copied], json!({}));
    assert!(said.contains("3 of 60 documents stand whole in the training data"), "{said}");
    let allowed = evaluated("nerus", &test, &[&copied], json!({"allow": ["training_items"]}));
    assert!(passes(&allowed), "{allowed}");
}

#[test]
fn generated_data_of_any_seed_and_domain_passes() {
    for seed in [1, 2, 3] {
        let with = json!({"seed": seed, "text_bytes": 1000, "base_nerus": 5, "base_terra": 300, "terra_train": 300});
        let made = run("generate", with, vec![], Path::new("/")).unwrap_or_else(|p| panic!("{p:?}"));
        for file in ["terra_val.jsonl", "base_terra.jsonl"] {
            let flaws = gate::terra::flaws(&rows(&made.path(file)), &[]);
            assert!(flaws.iter().all(|flaw| flaw.code != Code::Polarity), "seed {seed}, {file}: {flaws:?}");
        }
    }
}

/// The figures of the research: 204 of 307 rows share a premise with the training data, and the opposite of its label
/// is right on .691 of them and on .609 of all.
#[test]
fn the_shortcuts_of_the_real_terra_are_what_was_measured() {
    let Some(data) = support::data() else { return };
    let (val, train) = (data.join("terra/val.jsonl"), data.join("terra/train.jsonl"));
    let flaws = gate::terra::flaws(&rows(&val), &rows(&train));
    assert!(flaws.iter().all(|flaw| !flaw.misleads), "{flaws:?}");
    let folder = tempfile::tempdir().expect("a folder");
    for file in [&val, &train] {
        let flipped = changed(file, folder.path(), |_, row| {
            flip(row);
            true
        });
        let flaws = gate::terra::flaws(&rows(&flipped), &[]);
        let polarity: Vec<bool> = flaws.iter().filter(|f| f.code == Code::Polarity).map(|f| f.misleads).collect();
        // 307 rows are doubtful, 2616 are sure.
        assert_eq!(polarity, [file == &train], "{}", file.display());
    }
    let inputs = vec![("data", vec![artifact(&val, "val")]), ("train", vec![artifact(&train, "train")])];
    let ran = run("shortcuts", json!({"task": "terra"}), inputs, Path::new("/")).unwrap_or_else(|p| panic!("{p:?}"));
    let found: Value = serde_json::from_slice(&fs::read(ran.path("shortcuts.json")).expect("written")).expect("JSON");
    assert_eq!((&found["overlap"]["shared"], &found["overlap"]["total"]), (&json!(204), &json!(307)));
    assert_eq!(found["overlap"]["leak_free"].as_array().expect("ids").len(), 103);
    assert!((ran.figures["opposite_premise.accuracy"] - 0.609).abs() < 5e-4, "{:?}", ran.figures);
    assert!((ran.figures["majority.accuracy"] - 153.0 / 307.0).abs() < 1e-12);

    // Every figure can be counted again from the answers.
    let mut reader = csv::Reader::from_path(ran.path("shortcuts.csv")).expect("written");
    let lines: Vec<std::collections::BTreeMap<String, String>> =
        reader.deserialize().collect::<Result<_, _>>().expect("CSV");
    for rule in ["majority", "hypothesis_only", "word_overlap", "opposite_premise"] {
        let right = lines.iter().filter(|line| line[rule] == line["gold"]).count();
        assert_eq!(ran.figures[&format!("{rule}.accuracy")], right as f64 / 307.0, "{rule}");
    }
    let free: Vec<&str> =
        found["overlap"]["leak_free"].as_array().expect("ids").iter().map(|id| id.as_str().expect("an id")).collect();
    let shared = lines.iter().filter(|line| !free.contains(&line["id"].as_str()));
    let right = shared.filter(|line| line["opposite_premise"] == line["gold"]).count();
    assert_eq!(right, 141, ".691 of 204");
}

#[test]
fn names_of_the_training_data_find_entities() {
    let (test, train) = (generated().path("nerus_test.conllu"), generated().path("nerus_train.conllu"));
    let inputs = || vec![("data", vec![artifact(&test, "test")]), ("train", vec![artifact(&train, "train")])];
    let ran = run("shortcuts", json!({"task": "nerus"}), inputs(), Path::new("/")).unwrap_or_else(|p| panic!("{p:?}"));
    let f1 = ran.figures["gazetteer.f1.micro"];
    assert!((0.05..1.0).contains(&f1), "{f1}");
    assert!(ran.figures["capitals.f1.micro"] > 0.0);
    let again =
        run("shortcuts", json!({"task": "nerus"}), inputs(), Path::new("/")).unwrap_or_else(|p| panic!("{p:?}"));
    assert_eq!(again.digest(), ran.digest());
    let limited = run("shortcuts", json!({"task": "nerus", "limit": 7}), inputs(), Path::new("/"));
    let limited = limited.unwrap_or_else(|p| panic!("{p:?}"));
    let found: Value =
        serde_json::from_slice(&fs::read(limited.path("shortcuts.json")).expect("written")).expect("JSON");
    assert_eq!(found["n"], 7);
    // Its own training data: every name is known, and every sentence.
    let own = vec![("data", vec![artifact(&test, "test")]), ("train", vec![artifact(&test, "test")])];
    let own = run("shortcuts", json!({"task": "nerus"}), own, Path::new("/")).unwrap_or_else(|p| panic!("{p:?}"));
    assert!(own.figures["gazetteer.recall.micro"] > 0.9, "{:?}", own.figures);
}

#[test]
fn shortcuts_refuse_what_they_cannot_read() {
    let val = generated().path("terra_val.jsonl");
    let folder = tempfile::tempdir().expect("a folder");
    let unlabelled =
        changed(&val, folder.path(), |_, row| row.as_object_mut().expect("a row").remove("label").is_some());
    let inputs = vec![("data", vec![artifact(&val, "val")]), ("train", vec![artifact(&unlabelled, "train")])];
    assert!(told(run("shortcuts", json!({"task": "terra"}), inputs, Path::new("/"))).contains("has no labels"));
    let inputs = vec![("data", vec![artifact(&val, "val")]), ("train", vec![artifact(&val, "train")])];
    let said = told(run("shortcuts", json!({"task": "nerus"}), inputs, Path::new("/")));
    assert!(said.contains("`train`:1: "), "{said}");
    // The parameters of `evaluate` know what may be allowed.
    assert!(serde_json::from_value::<evaluate::Params>(json!({"task": "terra", "allow": ["all"]})).is_err());
}

#[test]
fn numbers_are_labels_only_where_a_mapping_says_which() {
    let folder = tempfile::tempdir().expect("a folder");
    let val = generated().path("terra_val.jsonl");
    let numbers = changed(&val, folder.path(), |_, row| {
        row["label"] = json!(u8::from(row["label"] == "entailment"));
        true
    });
    let with = json!({"label2id": {"entailment": 1, "not_entailment": 0}});
    let said = evaluated("terra", &numbers, &[], json!({}));
    assert!(said.contains("numbers are not read"), "{said}");
    assert!(passes(&evaluated(
        "terra",
        &numbers,
        &[&numbers],
        json!({"label2id": with["label2id"], "allow": ["training_items"]})
    )));
    let said = evaluated("terra", &numbers, &[], json!({"label2id": {"entailment": 0, "not_entailment": 1}}));
    assert!(said.contains("the labels look turned round"), "{said}");
    let said = evaluated("terra", &val, &[], with.clone());
    assert!(said.contains("says that labels are numbers"), "{said}");
    let said = evaluated("terra", &numbers, &[], json!({"label2id": {"entailment": 2, "not_entailment": 0}}));
    assert!(said.contains("which `label2id` does not have"), "{said}");
    let unlabelled = changed(&numbers, folder.path(), |_, row| {
        row["label"] = json!(-1);
        true
    });
    let said = evaluated("terra", &unlabelled, &[], with);
    assert!(said.contains("has no labels: row 0 (line 1)"), "{said}");
}

#[test]
fn contradictions_stop_the_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let val = generated().path("terra_val.jsonl");
    let itself = changed(&val, folder.path(), |i, row| {
        if i == 5 {
            row["hypothesis"] = json!(row["premise"].as_str().expect("a text").to_uppercase());
            row["label"] = json!("not_entailment");
        }
        true
    });
    let said = evaluated("terra", &itself, &[], json!({}));
    assert!(
        said.contains("1 hypotheses that are the premise itself") && said.contains("allow: [contradictions]"),
        "{said}"
    );
    assert!(passes(&evaluated("terra", &itself, &[], json!({"allow": ["contradictions"]}))));
    let mut text = fs::read_to_string(&val).expect("data");
    let mut again: Value = serde_json::from_str(text.lines().next().expect("a row")).expect("JSON");
    again["idx"] = json!(9999);
    again["premise"] = json!(again["premise"].as_str().expect("a text").to_uppercase());
    flip(&mut again);
    text.push_str(&format!("{again}\n"));
    let path = folder.path().join("both.jsonl");
    fs::write(&path, text).expect("written");
    let said = evaluated("terra", &path, &[], json!({}));
    assert!(said.contains("1 pairs stand there with the other label, too") && said.contains(": 9999"), "{said}");
}

#[test]
fn an_exchange_of_the_real_val_is_shown_by_the_premises_of_train() {
    let Some(data) = support::data() else { return };
    let (val, train) = (data.join("terra/val.jsonl"), data.join("terra/train.jsonl"));
    let shared = |rows: &[Labelled]| gate::labels::shared_premises(rows, &self::rows(&train));
    assert_eq!(shared(&rows(&val)), None);
    let folder = tempfile::tempdir().expect("a folder");
    let flipped = changed(&val, folder.path(), |_, row| {
        flip(row);
        true
    });
    let flaw = shared(&rows(&flipped)).expect("shown");
    assert_eq!((flaw.code, flaw.misleads, flaw.count), (Code::Polarity, true, 108));
    assert!(flaw.what.contains("(521 of 802)") && flaw.what.contains("(108 of 154)"), "{}", flaw.what);
}
