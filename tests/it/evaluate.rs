//! `evaluate`: the gate before it, and that its records are enough to compute every figure again.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use pipe::error::Result;
use pipe::metric::classification::classification;
use pipe::metric::{Counts, Scores};
use pipe::steps::evaluate::result::{Arm, Metrics};
use pipe::steps::evaluate::{self, nerus, terra};
use pipe::task::Task;
use pipe::task::answer::State;
use pipe::task::prompt::{Answers, Prompt};
use serde_json::json;

use crate::data_steps::{Ran, artifact, project, told, within};
use crate::support;

fn base() -> Arm {
    Arm {
        name: "base".to_owned(),
        coordinates: BTreeMap::new(),
        adapters: Vec::new(),
        trainable_parameters: 0,
        training: None,
        selection: None,
        certificate: None,
    }
}

fn about(generated: bool) -> evaluate::About {
    evaluate::About { generated, ..evaluate::About::default() }
}

fn prompt(task: Task) -> Prompt {
    Prompt::new(task, None, &Answers::default()).expect("the default is right")
}

fn ran(work: impl FnOnce(&mut pipe::step::Context) -> Result<()>) -> (Ran, Metrics, Vec<BTreeMap<String, String>>) {
    let ran = within(vec![], Path::new("/"), work).expect("written");
    let metrics = fs::read_to_string(ran.path("result/metrics.json")).expect("there");
    let metrics = serde_json::from_str(&metrics).expect("JSON");
    let mut reader = csv::Reader::from_path(ran.path("result/records.csv")).expect("opens");
    let records = reader.deserialize().collect::<std::result::Result<Vec<_>, _>>().expect("CSV");
    (ran, metrics, records)
}

fn value(metrics: &Metrics, name: &str, average: Option<&str>) -> f64 {
    let found = metrics.metrics.iter().find(|m| m.name == name && m.average.as_deref() == average);
    found.unwrap_or_else(|| panic!("{name} {average:?} is not there")).value
}

fn assert_scores(metrics: &Metrics, average: &str, scores: Scores) {
    for (name, computed) in [("precision", scores.precision), ("recall", scores.recall), ("f1", scores.f1)] {
        assert_eq!(value(metrics, name, Some(average)), computed, "{average} {name}");
    }
}

/// `PER:0:12` or `PER:hallucinated` by type; entities without a place never equal another.
fn entities(text: &str) -> Vec<(&str, Option<&str>)> {
    text.split_whitespace()
        .map(|entity| {
            let (kind, place) = entity.split_once(':').expect("a type and a place");
            (kind, Some(place).filter(|place| place.starts_with(|c: char| c.is_ascii_digit())))
        })
        .collect()
}

#[test]
fn nerus_figures_come_out_of_the_records_alone() {
    let Some(data) = support::data() else { return };
    let prompt = prompt(Task::Nerus);
    let path = data.join("nerus/nerus_first10docs.conllu");
    let (items, generated) = nerus::items(&path, "nerus", None, &prompt).expect("good gold");
    assert!(!generated);
    // Answers with every kind of defect, each with its own share.
    let records: Vec<nerus::Record> = items
        .iter()
        .enumerate()
        .map(|(i, item)| {
            let right = prompt.entities(&item.sentence);
            let (answer, stopped) = match i % 6 {
                0 => (" нет".to_owned(), true),
                1 => (format!("{right}; Несуществующий Город — LOC"), true),
                2 => (format!("{right};{right}"), true),
                3 => (right.chars().take(25).collect(), false),
                4 => (right.replace("PER", "ORG").replace("LOC", "GPE"), true),
                _ => (right, true),
            };
            nerus::Record::read(item, answer, stopped, " нет")
        })
        .collect();
    // Cut by the limit: told as such, however whole the answer looks.
    for (i, record) in records.iter().enumerate() {
        assert_eq!(record.state == State::Truncated, i % 6 == 3, "{}", record.answer);
    }
    let (ran, metrics, lines) = ran(|cx| evaluate::write_nerus(cx, &records, base(), about(generated)));
    assert_eq!((metrics.n, metrics.documents), (117, Some(10)));
    assert_eq!(metrics.classes, BTreeMap::from([("LOC".into(), 56), ("ORG".into(), 50), ("PER".into(), 43)]));

    let mut types: BTreeMap<&str, Counts> = BTreeMap::new();
    let mut documents: BTreeMap<&str, Counts> = BTreeMap::new();
    let mut states: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut hallucinated, mut duplicate) = (0, 0);
    for line in &lines {
        let gold = entities(&line["gold"]);
        let predicted = entities(&line["predicted"]);
        let mut total = Counts::default();
        for entity in &gold {
            let found = Counts {
                tp: u64::from(predicted.contains(entity)),
                fp: 0,
                fn_: u64::from(!predicted.contains(entity)),
            };
            *types.entry(entity.0).or_default() += found;
            total += found;
        }
        for entity in &predicted {
            let wrong = Counts { tp: 0, fp: u64::from(entity.1.is_none() || !gold.contains(entity)), fn_: 0 };
            *types.entry(entity.0).or_default() += wrong;
            total += wrong;
        }
        assert_eq!(
            ["tp", "fp", "fn"].map(|name| line[name].clone()),
            [total.tp, total.fp, total.fn_].map(|n| n.to_string())
        );
        *documents.entry(&line["document"]).or_default() += total;
        *states.entry(&line["state"]).or_default() += 1;
        hallucinated += line["predicted"].matches(":hallucinated").count() as u64;
        duplicate += line["predicted"].matches(":duplicate").count() as u64;
    }
    assert_scores(&metrics, "micro", types.values().copied().sum::<Counts>().scores());
    let gold_types = types.values().filter(|c| c.support() > 0);
    assert_scores(&metrics, "macro_types", Scores::mean(gold_types.map(|c| (c.scores(), 1.0))));
    assert_scores(&metrics, "mean_documents", Scores::mean(documents.values().map(|c| (c.scores(), 1.0))));
    let parse = metrics.parse;
    assert_eq!(
        states,
        BTreeMap::from([("truncated", parse.truncated), ("unparsed", parse.unparsed), ("valid", parse.valid)])
    );
    assert_eq!((parse.hallucinated, parse.duplicate), (hallucinated, duplicate));
    assert!(parse.hallucinated > 0 && parse.duplicate > 0 && parse.unparsed > 0);
    assert_eq!(ran.figures["f1.micro"], value(&metrics, "f1", Some("micro")));
}

#[test]
fn terra_figures_come_out_of_the_records_alone() {
    let Some(data) = support::data() else { return };
    let prompt = prompt(Task::Terra);
    let items = terra::items(&data.join("terra/val.jsonl"), "val", None, None, &prompt).expect("good gold");
    let scored = |i: usize, item| terra::Record::scored(item, [-0.1 - (i % 7) as f64 / 3.0, -1.0 / 3.0]);
    let records: Vec<terra::Record> =
        items.iter().enumerate().map(|(i, item)| scored(i, item)).collect::<Result<_>>().expect("numbers");
    let (ran, metrics, lines) = ran(|cx| evaluate::write_terra(cx, &records, base(), about(false)));
    assert_eq!(metrics.classes, BTreeMap::from([("entailment".into(), 153), ("not_entailment".into(), 154)]));

    let (gold, answers): (Vec<&str>, Vec<&str>) = lines
        .iter()
        .map(|line| {
            let loglik = |name: &str| line[&format!("loglik_{name}")].parse::<f64>().expect("a number");
            let answer = if loglik("not_entailment") > loglik("entailment") { "not_entailment" } else { "entailment" };
            assert_eq!((line["answer"].as_str(), line["correct"] == "true"), (answer, answer == line["gold"]));
            (line["gold"].as_str(), answer)
        })
        .unzip();
    let figures = classification(&["entailment", "not_entailment"], &gold, &answers);
    assert_eq!(value(&metrics, "accuracy", None), figures.accuracy);
    assert_scores(&metrics, "macro", figures.macro_);
    assert_eq!(metrics.parse.valid, 307);
    assert_eq!(ran.figures["accuracy"], figures.accuracy);
    // What is printed is what was computed, to the last bit.
    let first = records[0].loglik.expect("scored");
    assert_eq!(lines[0]["loglik_not_entailment"].parse::<f64>().ok(), Some(first[1]));
    assert!(lines[0]["prompt"].starts_with("Текст: "));
}

#[test]
fn generated_labels_are_recorded_with_their_words() {
    let rows: String = (0..4)
        .map(|i| {
            let label = ["entailment", "not_entailment"][i % 2];
            format!("{{\"premise\": \"{i}\", \"hypothesis\": \"б\", \"label\": \"{label}\", \"idx\": {i}, \"generated\": true}}\n")
        })
        .collect();
    let root = project(&[("val", rows.as_bytes())]);
    let items = terra::items(&root.path().join("val"), "val", None, None, &prompt(Task::Terra)).expect("good gold");
    let said = [(" да", true), (" всегда", true), (" эээ", false), ("Нет!", false)];
    let records: Vec<terra::Record> = items
        .iter()
        .zip(said)
        .map(|(item, (words, stopped))| terra::Record::said(item, words.to_owned(), stopped, &Answers::default()))
        .collect();
    let (_, metrics, lines) = ran(|cx| evaluate::write_terra(cx, &records, base(), about(true)));
    assert_eq!(value(&metrics, "accuracy", None), 0.5);
    assert_eq!((metrics.parse.valid, metrics.parse.unparsed, metrics.parse.truncated), (2, 1, 1));
    let column = |name: &str| lines.iter().map(|line| line[name].as_str()).collect::<Vec<_>>();
    assert_eq!(column("answer"), ["entailment", "", "", "not_entailment"]);
    assert_eq!(column("generated"), [" да", " всегда", " эээ", "Нет!"]);
    assert_eq!(column("loglik_entailment"), [""; 4]);
}

#[test]
fn numbers_that_are_none_are_refused() {
    let row = |i: u64, label: &str| {
        format!("{{\"premise\": \"{i}\", \"hypothesis\": \"б\", \"label\": \"{label}\", \"idx\": {i}}}\n")
    };
    let root = project(&[("val", (row(0, "entailment") + &row(1, "not_entailment")).as_bytes())]);
    let items = terra::items(&root.path().join("val"), "val", None, None, &prompt(Task::Terra)).expect("good gold");
    let problem = terra::Record::scored(&items[1], [f64::NAN, -1.0]).expect_err("not a number").to_string();
    assert!(problem.starts_with("the model gives no number for the row 1"), "{problem}");
}

#[test]
fn the_gold_is_looked_at_before_anything_else() {
    let tagless = "# newdoc id = 0\n# sent_id = 0_0\n# text = да\n1\tда\t_\t_\t_\t_\t_\t_\t_\tTag=O\n\n";
    let root = project(&[
        ("one", "{\"premise\": \"а\", \"hypothesis\": \"б\", \"label\": \"entailment\", \"idx\": 0}\n".as_bytes()),
        ("test", "{\"premise\": \"а\", \"hypothesis\": \"б\", \"idx\": 0}\n".as_bytes()),
        ("tagless", tagless.as_bytes()),
        ("twice", format!("{tagless}{tagless}").as_bytes()),
    ]);
    for (task, file, expected) in [
        ("terra", "one", "the output of step `one`: all 1 rows that are evaluated have the label `entailment`"),
        ("terra", "test", "the output of step `test` has no labels: row 0 (line 1) has none"),
        ("nerus", "tagless", "the output of step `tagless`: none of the 1 sentences has an entity"),
        ("nerus", "twice", "the output of step `twice`:7: the sentence id `0_0` stands in line 2 already"),
    ] {
        // There is not even a model: the gold is judged first.
        let inputs = vec![("data", vec![artifact(&root.path().join(file), file)])];
        let problem = told(crate::data_steps::run("evaluate", json!({ "task": task }), inputs, root.path()));
        assert!(problem.starts_with(expected), "{file}: {problem}");
    }
    let problem =
        told(crate::data_steps::run("evaluate", json!({ "task": "nerus", "mode": "loglik" }), vec![], root.path()));
    assert!(problem.starts_with("mode: entities cannot be scored by log-likelihood"), "{problem}");
}
