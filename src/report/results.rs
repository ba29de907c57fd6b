//! What `evaluate` leaves for one arm on one task, read strictly: `metrics.json` and `records.csv`.
//! It does not know the other arms.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::comparison::Adapter;
use super::evidence::{Certificate, Finding, Selection, Training};
use crate::digest::Digest;
use crate::error::{Problem, Result};

/// The format of `metrics.json` that is read here.
pub const FORMAT: &str = "pipe/metrics@2";

/// The largest `metrics.json` that is read.
const MOST_BYTES: u64 = 16 << 20;

/// `metrics.json`; fields beyond these are not read.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Metrics {
    /// [`FORMAT`].
    pub format: String,
    /// The task's name.
    pub task: String,
    /// True if the data was made by the step `generate`.
    #[serde(default)]
    pub generated: bool,
    /// The arm.
    pub arm: ArmInfo,
    /// Evaluated items.
    pub n: u64,
    /// Gold items per class.
    #[serde(default)]
    pub classes: BTreeMap<String, u64>,
    /// The items' documents.
    #[serde(default)]
    pub documents: Option<u64>,
    /// Every figure.
    pub metrics: Vec<Metric>,
    /// How answers were read.
    #[serde(default)]
    pub parse: BTreeMap<String, u64>,
    /// How the items were asked about; the same for arms that are compared.
    #[serde(default)]
    pub asked: Asked,
    /// What was found about the data.
    #[serde(default)]
    pub findings: Vec<Finding>,
    /// Content digests of the inputs by port: `model`, `data`, `adapter`.
    #[serde(default)]
    pub inputs: BTreeMap<String, String>,
    /// What of the machine may change the answers.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

/// How items were asked about.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Asked {
    /// `loglik` or `generate`.
    #[serde(default)]
    pub mode: String,
    /// The template of the prompt.
    #[serde(default)]
    pub prompt: String,
    /// The words of the answers, by what they say.
    #[serde(default)]
    pub answers: BTreeMap<String, String>,
}

/// The arm that was evaluated.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ArmInfo {
    /// Its name.
    pub name: String,
    /// The cell of a matrix that it is.
    #[serde(default)]
    pub coordinates: BTreeMap<String, Value>,
    /// Its adapters.
    #[serde(default)]
    pub adapters: Vec<Adapter>,
    /// Parameters that training could change.
    #[serde(default)]
    pub trainable_parameters: u64,
    /// What its training was given.
    #[serde(default)]
    pub training: Option<Training>,
    /// How it was chosen among trials.
    #[serde(default)]
    pub selection: Option<Selection>,
    /// What it does to the base.
    #[serde(default)]
    pub certificate: Option<Certificate>,
}

/// A figure with its full name.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Metric {
    /// `f1`.
    pub name: String,
    /// `micro`; none for a figure that is no average, such as accuracy.
    #[serde(default)]
    pub average: Option<String>,
    /// Its value; none where it is not defined.
    pub value: Option<f64>,
}

/// What was asked and answered about one item.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The item's id.
    pub id: String,
    /// Everything that must be the same for all arms: id, document, prompt, gold.
    pub item: Digest,
    /// What it is resampled with: its document or its premise; itself where it has neither.
    pub cluster: String,
    /// The text that was asked about, where the records tell it.
    pub text: Option<String>,
    /// The right answer, as the records write it.
    pub gold: String,
    /// The answer as it was given.
    pub answer: String,
    /// The entities in the answer, written like the gold; none where an answer is a label.
    pub predicted: Option<String>,
    /// Loss and tokens of a text that was only read.
    pub loss: Option<(f64, f64)>,
    /// The log-likelihoods of the possible answers, if it was scored.
    pub scores: Option<Vec<f64>>,
}

impl Record {
    /// What the arm said, written like the gold.
    pub fn said(&self) -> &str {
        self.predicted.as_deref().unwrap_or(&self.answer)
    }

    /// The share of probability on the possible answers, if it was scored.
    pub fn label_mass(&self) -> Option<f64> {
        self.scores.as_ref().map(|scores| scores.iter().map(|score| score.exp()).sum())
    }
}

/// One arm on one task.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluated {
    /// `metrics.json`.
    pub metrics: Metrics,
    /// `records.csv`, in its order.
    pub records: Vec<Record>,
    /// What a record is resampled with: `document`, `premise` or `item`.
    pub clustered_by: &'static str,
}

/// Reads a result folder; `label` names it in messages.
pub fn read(folder: &Path, label: &str) -> Result<Evaluated> {
    let metrics: Metrics = read_json(&folder.join("metrics.json"), &format!("metrics.json of {label}"))?;
    let wrong = |what: String| Problem::new(what).in_file(format!("metrics.json of {label}"), None);
    if metrics.format != FORMAT {
        return Err(wrong(format!("the format is `{}`, and this program reads `{FORMAT}`", metrics.format)));
    }
    if metrics.n == 0 {
        return Err(wrong("no item was evaluated: n is 0".to_owned()));
    }
    if metrics.task.is_empty() || metrics.arm.name.is_empty() {
        return Err(wrong("the task or the arm has no name".to_owned()));
    }
    let mut seen = std::collections::BTreeSet::new();
    for metric in &metrics.metrics {
        if !seen.insert((&metric.name, &metric.average)) {
            let average = metric.average.as_deref().unwrap_or("no average");
            return Err(wrong(format!("the metric `{}` ({average}) stands there twice", metric.name)));
        }
    }
    let (records, clustered_by) = read_records(&folder.join("records.csv"), &format!("records.csv of {label}"))?;
    if records.len() as u64 != metrics.n {
        let what = format!("{} records, but n is {} in metrics.json", records.len(), metrics.n);
        return Err(Problem::new(what).in_file(format!("records.csv of {label}"), None));
    }
    Ok(Evaluated { metrics, records, clustered_by })
}

/// Reads a JSON file of moderate size; `label` names it in messages.
pub fn read_json<T: DeserializeOwned>(path: &Path, label: &str) -> Result<T> {
    let meta = fs::metadata(path).map_err(|error| Problem::io("read", path, &error))?;
    if meta.len() > MOST_BYTES {
        return Err(Problem::new("it has more than 16 MiB").in_file(label, None));
    }
    let text = fs::read_to_string(path).map_err(|error| Problem::io("read", path, &error))?;
    let mut json = serde_json::Deserializer::from_str(&text);
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let line = u64::try_from(error.inner().line()).ok().filter(|line| *line > 0);
        Problem::new(format!("`{}` is wrong: {}", error.path(), error.inner())).in_file(label, line)
    })
}

fn read_records(path: &Path, label: &str) -> Result<(Vec<Record>, &'static str)> {
    let wrong = |what: String, line: Option<u64>| Problem::new(what).in_file(label, line);
    let broken = |error: csv::Error| {
        let line = error.position().map(csv::Position::line);
        wrong(format!("it is not CSV: {error}"), line)
    };
    let file = fs::File::open(path).map_err(|error| Problem::io("read", path, &error))?;
    let mut reader = csv::Reader::from_reader(file);
    let headers = reader.headers().map_err(broken)?.clone();
    let column = |name: &str| headers.iter().position(|header| header == name);
    let needed = |name: &str| {
        column(name).ok_or_else(|| {
            let found = headers.iter().collect::<Vec<_>>().join(", ");
            wrong(format!("there is no column `{name}`, only {found}"), Some(1))
        })
    };
    let (id, gold, answer) = (needed("id")?, needed("gold")?, needed("answer")?);
    let (document, premise, predicted) = (column("document"), column("premise"), column("predicted"));
    let fixed: Vec<usize> = [Some(id), document, column("prompt"), Some(gold)].into_iter().flatten().collect();
    let scores: Vec<usize> = (0..headers.len()).filter(|c| headers[*c].starts_with("loglik_")).collect();
    let read = column("loss").zip(column("tokens"));
    let text: Vec<usize> = match (premise, column("hypothesis")) {
        (Some(premise), Some(hypothesis)) => vec![premise, hypothesis],
        _ => column("text").into_iter().collect(),
    };
    let mut records = Vec::new();
    for row in reader.records() {
        let row = row.map_err(broken)?;
        let line = row.position().map(csv::Position::line);
        // Lengths go in as well, so that no two rows can run together into the same text.
        let item: String = fixed.iter().map(|c| format!("{}:{}", row[*c].len(), &row[*c])).collect();
        let number = |c: usize| {
            let value = row[c].parse::<f64>().ok().filter(|value| !value.is_nan());
            value.ok_or_else(|| wrong(format!("`{}` of item `{}` is no number", &headers[c], &row[id]), line))
        };
        let scored = !scores.is_empty() && scores.iter().all(|c| !row[*c].is_empty());
        let scores = if scored { Some(scores.iter().map(|c| number(*c)).collect::<Result<_>>()?) } else { None };
        let texts: Vec<&str> = text.iter().map(|c| &row[*c]).collect();
        records.push(Record {
            id: row[id].to_owned(),
            item: Digest::of(item.as_bytes()),
            cluster: row[document.or(premise).unwrap_or(id)].to_owned(),
            text: (!texts.is_empty()).then(|| texts.join(" → ")),
            gold: row[gold].to_owned(),
            answer: row[answer].to_owned(),
            predicted: predicted.map(|c| row[c].to_owned()),
            loss: read.map(|(loss, tokens)| Ok::<_, Problem>((number(loss)?, number(tokens)?))).transpose()?,
            scores,
        });
    }
    let clustered_by = match (document, premise) {
        (Some(_), _) => "document",
        (None, Some(_)) => "premise",
        (None, None) => "item",
    };
    Ok((records, clustered_by))
}
