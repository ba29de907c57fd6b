//! What `evaluate` leaves: `metrics.json`, and `records.csv` from which every metric can be computed again.
//! It does not know how answers come about.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Problem, Result};
use crate::metric::Scores;
use crate::report::evidence::{Certificate, Finding, Selection, Training};
use crate::steps::json;

/// The only value of [`Metrics::format`].
pub const FORMAT: &str = "pipe/metrics@2";

/// The content of `metrics.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Always [`FORMAT`].
    pub format: String,
    /// `terra` or `nerus`.
    pub task: String,
    /// True if a generator made the data.
    pub generated: bool,
    /// Which arm of the comparison it is.
    pub arm: Arm,
    /// Rows or sentences that were evaluated.
    pub n: u64,
    /// Gold rows by label, or gold entities by type.
    pub classes: BTreeMap<String, u64>,
    /// Documents of the sentences.
    pub documents: Option<u64>,
    /// The figures.
    pub metrics: Vec<Metric>,
    /// What became of the answers.
    pub parse: Parse,
    /// How the items were asked about.
    pub asked: Asked,
    /// What was found about the data.
    pub findings: Vec<Finding>,
    /// Content digests of the inputs by port.
    pub inputs: BTreeMap<String, String>,
    /// What of the machine may change the answers.
    pub environment: BTreeMap<String, String>,
}

/// How items are asked about: arms are compared only where it is the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// `loglik` or `generate`.
    pub mode: String,
    /// The template of the prompt.
    pub prompt: String,
    /// The words of the answers, by what they say.
    pub answers: BTreeMap<String, String>,
}

/// An arm of a comparison: the base, or the base with an adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Arm {
    /// `base`, or the step that made the adapter.
    pub name: String,
    /// Axis to value, where a matrix made the adapter.
    pub coordinates: BTreeMap<String, Value>,
    /// The adapters' own parameters; none for the base.
    pub adapters: Vec<Value>,
    /// Weights that were trained.
    pub trainable_parameters: u64,
    /// What its training was given; `None` for the base, and for adapters from elsewhere.
    pub training: Option<Training>,
    /// Among what it was chosen, if it was.
    pub selection: Option<Selection>,
    /// What it does to the base; `None` for the base.
    pub certificate: Option<Certificate>,
}

/// A figure with its full name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// `accuracy`, `precision`, `recall` or `f1`.
    pub name: String,
    /// `macro`, `micro`, `macro_types` or `mean_documents`; none where there is nothing to average.
    pub average: Option<String>,
    /// The figure, 0..=1.
    pub value: f64,
}

/// What became of the answers. The first three add up to the number of answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parse {
    /// Answers in the format.
    pub valid: u64,
    /// Answers of which a part is not in the format.
    pub unparsed: u64,
    /// Answers that did not end within the limit.
    pub truncated: u64,
    /// Entities that are not in the text.
    pub hallucinated: u64,
    /// Entities that an answer names more often than the text has them.
    pub duplicate: u64,
}

/// Three figures of one average.
pub fn averaged(average: &str, scores: Scores) -> [Metric; 3] {
    [("precision", scores.precision), ("recall", scores.recall), ("f1", scores.f1)].map(|(name, value)| Metric {
        name: name.to_owned(),
        average: Some(average.to_owned()),
        value,
    })
}

impl Metrics {
    /// Writes `metrics.json`.
    pub fn write(&self, folder: &Path) -> Result<()> {
        json::write(&folder.join("metrics.json"), self)
    }
}

/// Writes `records.csv`: a header and one line for each record.
pub fn write_records(folder: &Path, header: &[&str], records: impl IntoIterator<Item = Vec<String>>) -> Result<()> {
    let path = folder.join("records.csv");
    let failed = |e: csv::Error| match e.into_kind() {
        csv::ErrorKind::Io(e) => Problem::io("write", &path, &e),
        other => Problem::new(format!("cannot write {}: {other:?}", path.display())),
    };
    let mut writer = csv::Writer::from_path(&path).map_err(failed)?;
    writer.write_record(header).map_err(failed)?;
    for record in records {
        writer.write_record(&record).map_err(failed)?;
    }
    writer.flush().map_err(|e| Problem::io("write", &path, &e))
}
