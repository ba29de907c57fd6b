//! Metrics against scikit-learn and seqeval, for every golden case of the kind `metrics`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use pipe::metric::bio::{self, Mode};
use pipe::metric::classification::{balanced_accuracy, classification, confusion, matthews};
use pipe::metric::entities::Tally;
use pipe::metric::{Counts, Scores};
use serde_json::Value;

use crate::support;

/// Folders below `root` whose `manifest.json` says that they are of this kind.
pub fn cases(root: &Path, kind: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        if let Ok(text) = fs::read_to_string(folder.join("manifest.json")) {
            let manifest: Value = serde_json::from_str(&text).expect("a manifest is JSON");
            if manifest["kind"] == kind {
                found.push(folder.clone());
            }
        }
        for entry in fs::read_dir(&folder).expect("a golden folder can be listed") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    found.sort();
    found
}

pub fn read(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).expect("a list of cases")
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().expect("a list").iter().map(|v| v.as_str().expect("a string")).collect()
}

fn close(ours: f64, golden: &Value, what: &str) {
    let golden = golden.as_f64().unwrap_or_else(|| panic!("{what} is not in the golden case"));
    assert!((ours - golden).abs() <= 1e-9 + 1e-9 * golden.abs(), "{what}: {ours}, but {golden} is right");
}

fn close_scores(ours: Scores, golden: &Value, what: &str) {
    close(ours.precision, &golden["precision"], &format!("{what} precision"));
    close(ours.recall, &golden["recall"], &format!("{what} recall"));
    close(ours.f1, &golden["f1"], &format!("{what} f1"));
}

#[test]
fn classification_is_scikit_learns() {
    let Some(root) = support::golden() else { return };
    let folders = cases(&root, "metrics");
    support::has_cases(folders.len(), "metrics");
    for folder in folders {
        for (i, case) in read(&folder.join("classification.json")).iter().enumerate() {
            let (gold, predicted) = (strings(&case["y_true"]), strings(&case["y_pred"]));
            let labels = strings(&case["labels"]);
            let result = classification(&labels, &gold, &predicted);
            let what = format!("case {i}");
            close(result.accuracy, &case["accuracy"], &format!("{what} accuracy"));
            close_scores(result.macro_, &case["macro"], &format!("{what} macro"));
            close_scores(result.micro, &case["micro"], &format!("{what} micro"));
            close_scores(result.weighted, &case["weighted"], &format!("{what} weighted"));
            for (label, counts) in labels.iter().zip(&result.per_class) {
                let golden = &case["per_class"][label];
                close_scores(counts.scores(), golden, &format!("{what} {label}"));
                assert_eq!(counts.support(), golden["support"].as_u64().expect("support"), "{what} {label}");
            }

            let rows = strings(&case["confusion"]["labels"]);
            let matrix = confusion(&rows, &gold, &predicted);
            assert_eq!(serde_json::to_value(&matrix).expect("numbers"), case["confusion"]["matrix"], "{what}");
            close(matthews(&matrix), &case["matthews_corrcoef"], &format!("{what} matthews"));
            if let Some(golden) = case.get("balanced_accuracy") {
                close(balanced_accuracy(&result.per_class), golden, &format!("{what} balanced accuracy"));
            }

            let seen: BTreeSet<&str> = gold.iter().chain(&predicted).copied().collect();
            let seen: Vec<&str> = seen.into_iter().collect();
            let result = classification(&seen, &gold, &predicted);
            let golden = &case["no_labels_argument"];
            close_scores(result.macro_, &golden["macro"], &format!("{what} macro of all labels"));
            close_scores(result.micro, &golden["micro"], &format!("{what} micro of all labels"));
            close_scores(result.weighted, &golden["weighted"], &format!("{what} weighted over all labels"));
        }
    }
}

#[test]
fn entities_of_bio_sequences_are_seqevals() {
    let Some(root) = support::golden() else { return };
    for folder in cases(&root, "metrics") {
        for (i, case) in read(&folder.join("ner.json")).iter().enumerate() {
            for (mode, name) in [(Mode::Conlleval, "default"), (Mode::Strict, "strict_iob2")] {
                let what = format!("case {i} {name}");
                let sides = ["y_true", "y_pred"].map(|side| {
                    let sequences = case[side].as_array().expect("sequences");
                    let found: Vec<Vec<bio::Span>> =
                        sequences.iter().map(|tags| bio::spans(&strings(tags), mode)).collect();
                    let told: Vec<Vec<(&str, usize, usize)>> =
                        found.iter().map(|spans| spans.iter().map(|s| (s.kind, s.first, s.last)).collect()).collect();
                    let golden = &case[format!("entities_{name}")][side];
                    assert_eq!(&serde_json::to_value(&told).expect("plain"), golden, "{what} {side}");
                    found
                });
                let mut all = Tally::default();
                for (gold, predicted) in sides[0].iter().zip(&sides[1]) {
                    let keys = |spans: &[bio::Span]| {
                        spans.iter().map(|s| (s.kind.to_owned(), (s.first, s.last))).collect::<Vec<_>>()
                    };
                    all.add(&Tally::of(keys(gold), keys(predicted)));
                }
                // seqeval averages over the types that either side has: those of the tally.
                let golden = &case[name];
                close_scores(all.total().scores(), &golden["micro"], &format!("{what} micro"));
                let scores = |weight: fn(&Counts) -> f64| Scores::mean(all.0.values().map(|c| (c.scores(), weight(c))));
                // Without any entity seqeval divides by no types and answers nothing; here it is zero.
                if !all.0.is_empty() {
                    close_scores(scores(|_| 1.0), &golden["macro"], &format!("{what} macro"));
                    close_scores(scores(|c| c.support() as f64), &golden["weighted"], &format!("{what} weighted"));
                }
                let types: Vec<&String> = golden["per_type"].as_object().expect("types").keys().collect();
                assert_eq!(types, all.0.keys().collect::<Vec<_>>(), "{what}");
                for (kind, counts) in &all.0 {
                    close_scores(counts.scores(), &golden["per_type"][kind], &format!("{what} {kind}"));
                    assert_eq!(Some(counts.support()), golden["per_type"][kind]["support"].as_u64(), "{what} {kind}");
                }
            }
        }
    }
}
