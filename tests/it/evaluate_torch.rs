//! `evaluate` with a model: the figures of lm-evaluation-harness through the whole step, twice the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use pipe::ml::models::load;
use serde_json::{Value, json};
use tch::{Device, Kind};

use crate::data_steps::{Ran, artifact, project, run, told};
use crate::golden_metrics::{cases, read};
use crate::ml_laws::trained;
use crate::support;

/// The golden model with its tokenizer, in one folder as `evaluate` takes it.
struct Golden {
    case: PathBuf,
    root: tempfile::TempDir,
}

impl Golden {
    fn find() -> Option<Self> {
        let golden = support::golden()?;
        let case = cases(&golden, "lm_eval").into_iter().next().expect("a case of the kind `lm_eval`");
        let manifest: Value =
            serde_json::from_slice(&fs::read(case.join("manifest.json")).expect("there")).expect("JSON");
        let base = manifest["base"].as_str().expect("a path").trim_start_matches("shared/");
        let root = project(&[]);
        let model = root.path().join("model");
        fs::create_dir(&model).expect("created");
        for (folder, name) in
            [(&golden.join(base), "config.json"), (&golden.join(base), "model.safetensors"), (&case, "tokenizer.json")]
        {
            fs::copy(folder.join(name), model.join(name)).expect("copied");
        }
        Some(Self { case, root })
    }

    /// Puts adapters that change something before the model.
    fn adapt(&self, yaml: &str) {
        let model = load(&self.root.path().join("model"), Device::Cpu, Kind::Float).expect("the golden model");
        trained(yaml, model.as_ref()).save(&self.root.path().join("adapter"), "base").expect("written");
    }

    /// Evaluates TERRa on rows with these premises and labels in turn.
    fn evaluate(&self, premises: &[&str], with: Value) -> Result<Ran, Vec<pipe::error::Problem>> {
        let row = |(i, premise): (usize, &&str)| {
            let label = ["entailment", "not_entailment"][i % 2];
            json!({ "premise": premise, "hypothesis": "х", "label": label, "idx": i }).to_string() + "\n"
        };
        let data = self.root.path().join("val");
        fs::write(&data, premises.iter().enumerate().map(row).collect::<String>()).expect("written");
        let mut inputs = vec![
            ("model", vec![artifact(&self.root.path().join("model"), "base")]),
            ("data", vec![artifact(&data, "val")]),
        ];
        let adapter = self.root.path().join("adapter");
        if adapter.exists() {
            inputs.push(("adapter", vec![artifact(&adapter, "arm")]));
        }
        let mut params = json!({ "task": "terra", "prompt": "{{ premise }}", "dtype": "f32" });
        params.as_object_mut().expect("a map").extend(with.as_object().expect("a map").clone());
        run("evaluate", params, inputs, self.root.path())
    }
}

fn records(ran: &Ran) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_path(ran.path("result/records.csv")).expect("opens");
    reader.deserialize().collect::<Result<_, _>>().expect("CSV")
}

#[test]
fn answers_are_scored_as_lm_evaluation_harness_does() {
    let Some(golden) = Golden::find() else { return };
    let scores = read(&golden.case.join("loglikelihood.json"));
    let score = |context: &str, answer: &str| {
        let case = scores.iter().find(|case| case["context"] == context && case["continuation"] == answer);
        case.map(|case| case["loglikelihood"].as_f64().expect("a number"))
    };
    let contexts: Vec<&str> = scores.iter().filter_map(|case| case["context"].as_str()).collect();
    let mut contexts: Vec<&str> =
        contexts.into_iter().filter(|c| score(c, " да").is_some() && score(c, " нет").is_some()).collect();
    contexts.sort_unstable();
    contexts.dedup();
    assert!(contexts.len() >= 2, "the golden case has too few contexts with both answers");

    let ran = golden.evaluate(&contexts, json!({})).unwrap_or_else(|p| panic!("{p:?}"));
    for (context, line) in contexts.iter().zip(records(&ran)) {
        for (column, answer) in [("loglik_entailment", " да"), ("loglik_not_entailment", " нет")] {
            let ours: f64 = line[column].parse().expect("a number");
            let right = score(context, answer).expect("just found");
            assert!((ours - right).abs() < 5e-4, "{context:?} {answer:?}: {ours}, but {right} is right");
        }
    }
    // The batch changes the speed; the same command gives the same bytes.
    let again = golden.evaluate(&contexts, json!({})).unwrap_or_else(|p| panic!("{p:?}"));
    assert_eq!(again.digest(), ran.digest());
}

#[test]
fn answers_are_generated_as_lm_evaluation_harness_does() {
    let Some(golden) = Golden::find() else { return };
    let cases = read(&golden.case.join("generate_until.json"));
    // White space at the end of a prompt belongs to the answer here, so that those contexts differ.
    let plain: Vec<&Value> = cases
        .iter()
        .filter(|case| case["until"] == json!([]))
        .filter(|case| case["context"].as_str().is_some_and(|context| context.trim_end() == context))
        .collect();
    assert!(plain.len() >= 2, "the golden case has too few plain contexts");
    let contexts: Vec<&str> = plain.iter().filter_map(|case| case["context"].as_str()).collect();
    let limit = plain[0]["max_new_tokens"].clone();
    let ran = golden.evaluate(&contexts, json!({ "mode": "generate", "max_new_tokens": limit }));
    for (case, line) in plain.iter().zip(records(&ran.unwrap_or_else(|p| panic!("{p:?}")))) {
        assert_eq!(json!(line["generated"]), case["text"], "{}", case["context"]);
    }
}

#[test]
fn a_tokenizer_that_does_not_fit_is_refused_by_name() {
    let Some(golden) = Golden::find() else { return };
    let trained = crate::data_steps::tokenizer(golden.root.path());
    let file = golden.root.path().join("model/tokenizer.json");
    fs::copy(trained.path("tokenizer/tokenizer.json"), file).expect("copied");
    let problem = told(golden.evaluate(&["а", "б"], json!({})));
    assert!(
        problem.starts_with("the tokenizer of the output of step `base` does not fit the model the output of step `base`: it has ids up to 399, the model's embedding has 320 rows"),
        "{problem}"
    );
}

#[test]
fn the_base_is_an_arm_of_its_own() {
    let Some(golden) = Golden::find() else { return };
    let ran = golden.evaluate(&["Ответ:", "Вопрос:"], json!({})).unwrap_or_else(|p| panic!("{p:?}"));
    let metrics: Value =
        serde_json::from_slice(&fs::read(ran.path("result/metrics.json")).expect("there")).expect("JSON");
    let nothing = json!({ "training": null, "selection": null, "certificate": null });
    let mut base = json!({ "name": "base", "coordinates": {}, "adapters": [], "trainable_parameters": 0 });
    base.as_object_mut().expect("a map").extend(nothing.as_object().expect("a map").clone());
    assert_eq!(metrics["arm"], base);
    assert_eq!(metrics["n"], 2);
}

const BOTH: &str = "{ lora: { rank: 3, alpha: 7, dropout: 0.1, target_modules: [q_proj, v_proj] },
    mlp: { hidden_size: 5, layers: [0], dropout: 0.1 } }";

/// Evaluating an arm with another batch size or in another order gives the same records, bit for bit on the CPU in f32.
#[test]
fn records_do_not_depend_on_batches_or_order() {
    let Some(golden) = Golden::find() else { return };
    let premises: Vec<String> = (1..=24).map(|i| "Мир и труд. ".repeat(1 + i * 5 % 7) + &i.to_string()).collect();
    let premises: Vec<&str> = premises.iter().map(String::as_str).collect();
    // Two rows of each label, whatever the order: the label goes with the place.
    let turned: Vec<&str> = premises.iter().rev().copied().collect();
    for (mode, adapter) in [("loglik", ""), ("generate", ""), ("loglik", BOTH), ("generate", BOTH)] {
        if !adapter.is_empty() {
            golden.adapt(adapter);
        }
        let with = |batch: u64| json!({ "mode": mode, "max_new_tokens": 6, "batch_tokens": batch });
        let said = |premises: &[&str], batch: u64| -> BTreeMap<String, [String; 3]> {
            let ran = golden.evaluate(premises, with(batch)).unwrap_or_else(|p| panic!("{p:?}"));
            let line = |line: BTreeMap<String, String>| {
                let of = |column: &str| line.get(column).cloned().unwrap_or_default();
                (of("prompt"), [of("loglik_entailment"), of("loglik_not_entailment"), of("generated")])
            };
            records(&ran).into_iter().map(line).collect()
        };
        let alone = said(&premises, 1);
        assert_eq!(alone.len(), premises.len());
        for batch in [64, 200, 4096] {
            let together = said(&premises, batch);
            let differ = alone.iter().filter(|(prompt, line)| together[*prompt] != **line).count();
            assert_eq!(differ, 0, "{mode}, {batch} ids at once: {differ} of {} records differ", alone.len());
        }
        assert_eq!(said(&turned, 200), alone, "{mode}, in another order");
    }
}

/// In f32 on the CPU there is nothing to count; in bf16 it is counted and told.
#[test]
fn what_batches_change_is_counted_where_it_is_not_excluded() {
    let Some(golden) = Golden::find() else { return };
    let premises: Vec<String> = (1..=20).map(|i| "Мир и труд. ".repeat(1 + i * 5 % 7) + &i.to_string()).collect();
    let premises: Vec<&str> = premises.iter().map(String::as_str).collect();
    for (dtype, mode) in [("f32", "loglik"), ("bf16", "loglik"), ("bf16", "generate")] {
        let with = json!({ "mode": mode, "max_new_tokens": 4, "dtype": dtype });
        let ran = golden.evaluate(&premises, with).unwrap_or_else(|p| panic!("{p:?}"));
        let metrics: Value = serde_json::from_slice(&fs::read(ran.path("result/metrics.json")).unwrap()).unwrap();
        let found = metrics["findings"].as_array().unwrap().iter().find(|found| found["code"] == "batches");
        assert_eq!(found.is_some(), dtype == "bf16", "{dtype} {mode}: {metrics}");
        if let Some(found) = found {
            let text = found["text"].as_str().unwrap();
            assert!(text.contains("из 16 первых примеров"), "{text}");
            assert!(found["count"].as_u64().unwrap() <= 16 && found["severity"] == "note", "{found}");
            assert_eq!(text.contains("расходятся не больше чем на"), mode == "loglik", "{text}");
        }
    }
}

/// Lines of text, each a document; some longer than a block.
fn held_out() -> String {
    (1..=9).map(|i| "Мир и труд. ".repeat(1 + i * 5 % 7) + &i.to_string() + "\n").collect()
}

impl Golden {
    fn read(&self, text: &str, with: Value) -> Result<Ran, Vec<pipe::error::Problem>> {
        let file = self.root.path().join("held");
        fs::write(&file, text).expect("written");
        let mut inputs = vec![
            ("model", vec![artifact(&self.root.path().join("model"), "base")]),
            ("text", vec![artifact(&file, "held")]),
        ];
        let adapter = self.root.path().join("adapter");
        if adapter.exists() {
            inputs.push(("adapter", vec![artifact(&adapter, "arm")]));
        }
        let mut params = json!({ "block": 16, "dtype": "f32" });
        params.as_object_mut().expect("a map").extend(with.as_object().expect("a map").clone());
        run("perplexity", params, inputs, self.root.path())
    }
}

#[test]
fn the_loss_of_text_is_the_mean_of_its_records_whatever_the_batch() {
    let Some(golden) = Golden::find() else { return };
    let figures = |ran: &Ran| -> BTreeMap<String, f64> {
        let document: Value =
            serde_json::from_slice(&fs::read(ran.path("result/metrics.json")).expect("there")).expect("JSON");
        let all = document["metrics"].as_array().expect("a list").iter();
        all.map(|one| (one["name"].as_str().expect("a name").to_owned(), one["value"].as_f64().expect("a number")))
            .collect()
    };
    let mut losses = Vec::new();
    for adapter in ["", BOTH] {
        if !adapter.is_empty() {
            golden.adapt(adapter);
        }
        let ran = golden.read(&held_out(), json!({})).unwrap_or_else(|p| panic!("{p:?}"));
        let lines = records(&ran);
        let sum = |column: &str| lines.iter().map(|line| line[column].parse::<f64>().expect("a number")).sum::<f64>();
        let found = figures(&ran);
        assert!((found["loss"] - sum("loss") / sum("tokens")).abs() < 1e-12 && found["loss"] > 0.0);
        assert!((found["perplexity"] - found["loss"].exp()).abs() < 1e-9);
        assert!(lines.iter().any(|line| line["id"].ends_with("#1")), "a document of several blocks");
        assert!(lines.iter().all(|line| line["tokens"].parse::<u64>().expect("a number") < 16));
        let documents: std::collections::BTreeSet<&String> = lines.iter().map(|line| &line["document"]).collect();
        assert_eq!(documents.len(), 9);
        for batch in [1, 64, 200] {
            let again = golden.read(&held_out(), json!({ "batch_tokens": batch })).unwrap_or_else(|p| panic!("{p:?}"));
            assert_eq!(again.digest(), ran.digest(), "{batch} ids at once");
        }
        losses.push(found["loss"]);
    }
    assert_ne!(losses[0], losses[1], "the adapter changes something");
}

#[test]
fn another_text_of_the_same_shape_is_another_item() {
    let Some(golden) = Golden::find() else { return };
    let said = |text: &str| {
        let ran = golden.read(text, json!({})).unwrap_or_else(|p| panic!("{p:?}"));
        let label = "the result";
        pipe::report::results::read(&ran.path("result"), label).expect("readable").records
    };
    let (one, other) = (said("да да\nнет\n"), said("нет\nда да\n"));
    assert_eq!(one.len(), other.len());
    assert!(one.iter().zip(&other).all(|(a, b)| a.id == b.id && a.item != b.item));
    assert!(told(golden.read("\n\n", json!({}))).contains("has no text to foresee"));
}
