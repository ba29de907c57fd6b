//! TERRa: from scores or words of the model to records and figures.
//! It does not compute the scores.

use std::collections::BTreeMap;
use std::path::Path;

use super::result::{self, Metric, Parse};
use crate::error::{Problem, Result};
use crate::metric::classification::classification;
use crate::task::answer::{self, State};
use crate::task::prompt::{Answers, Prompt};
use crate::task::terra::{self, Label, Label2Id, Labelled};

/// A row that is to be answered.
#[derive(Debug, Clone)]
pub struct Item {
    /// The row with its gold.
    pub row: Labelled,
    /// Its prompt.
    pub prompt: String,
}

/// Rows that passed the gate, with their prompts.
pub fn items(
    path: &Path,
    label: &str,
    limit: Option<usize>,
    numbers: Option<Label2Id>,
    prompt: &Prompt,
) -> Result<Vec<Item>> {
    let rows = terra::labelled(path, label, limit, numbers)?;
    terra::gate(&rows, label)?;
    rows.into_iter().map(|row| Ok(Item { prompt: prompt.terra(&row.row)?, row })).collect()
}

/// How a row was answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The row's `idx`.
    pub id: u64,
    /// Its prompt.
    pub prompt: String,
    /// The text that is given.
    pub premise: String,
    /// What may follow from it.
    pub hypothesis: String,
    /// The right label.
    pub gold: Label,
    /// The label that was answered; `None` if the words say neither.
    pub answer: Option<Label>,
    /// Log-likelihoods of the answers for both labels, in the order of [`Label::ALL`]; `None` where words were made.
    pub loglik: Option<[f64; 2]>,
    /// The words, and what became of them; `None` where answers were scored.
    pub words: Option<(String, State)>,
}

impl Record {
    /// The likelier label is the answer; equal ones give the first, as lm-evaluation-harness's argmax does.
    pub fn scored(item: &Item, loglik: [f64; 2]) -> Result<Self> {
        if loglik.iter().any(|value| value.is_nan()) {
            return Err(Problem::new(format!("the model gives no number for the row {}", item.row.row.idx))
                .help("its weights or the adapter's are damaged, or overflow in this dtype: try `dtype: f32`"));
        }
        let answer = if loglik[1] > loglik[0] { Label::NotEntailment } else { Label::Entailment };
        Ok(Self { answer: Some(answer), loglik: Some(loglik), ..Self::open(item) })
    }

    /// The label whose word comes first is the answer.
    pub fn said(item: &Item, words: String, stopped: bool, answers: &Answers) -> Self {
        let answer = answer::label(&words, answers);
        let state = match (answer, stopped) {
            (Some(_), _) => State::Valid,
            (None, true) => State::Unparsed,
            (None, false) => State::Truncated,
        };
        Self { answer, words: Some((words, state)), ..Self::open(item) }
    }

    fn open(item: &Item) -> Self {
        let Labelled { row, label } = &item.row;
        Self {
            id: row.idx,
            prompt: item.prompt.clone(),
            premise: row.premise.clone(),
            hypothesis: row.hypothesis.clone(),
            gold: *label,
            answer: None,
            loglik: None,
            words: None,
        }
    }

    fn correct(&self) -> bool {
        self.answer == Some(self.gold)
    }
}

/// Writes the records; the column `generated` is there only where words were made.
pub fn write(folder: &Path, records: &[Record]) -> Result<()> {
    let mut header = vec!["id", "prompt", "gold", "answer", "loglik_entailment", "loglik_not_entailment", "correct"];
    header.extend(["premise", "hypothesis"]);
    let words = records.iter().any(|record| record.words.is_some());
    if words {
        header.push("generated");
    }
    let lines = records.iter().map(|record| {
        let loglik = |i: usize| record.loglik.map(|values| values[i].to_string()).unwrap_or_default();
        let mut line = vec![
            record.id.to_string(),
            record.prompt.clone(),
            record.gold.name().to_owned(),
            record.answer.map_or("", Label::name).to_owned(),
            loglik(0),
            loglik(1),
            record.correct().to_string(),
            record.premise.clone(),
            record.hypothesis.clone(),
        ];
        if words {
            line.push(record.words.as_ref().map(|(words, _)| words.clone()).unwrap_or_default());
        }
        line
    });
    result::write_records(folder, &header, lines)
}

/// Accuracy, and precision, recall and F1 as plain means over both labels.
pub fn metrics(records: &[Record]) -> Vec<Metric> {
    let gold: Vec<&str> = records.iter().map(|record| record.gold.name()).collect();
    let answers: Vec<&str> = records.iter().map(|record| record.answer.map_or("", Label::name)).collect();
    let figures = classification(&Label::ALL.map(Label::name), &gold, &answers);
    let mut metrics = vec![Metric { name: "accuracy".to_owned(), average: None, value: figures.accuracy }];
    metrics.extend(result::averaged("macro", figures.macro_));
    metrics
}

/// Gold rows by label.
pub fn classes(records: &[Record]) -> BTreeMap<String, u64> {
    let count = |label: Label| records.iter().filter(|record| record.gold == label).count() as u64;
    Label::ALL.into_iter().map(|label| (label.name().to_owned(), count(label))).collect()
}

/// What became of the answers; a scored answer is always valid.
pub fn parse(records: &[Record]) -> Parse {
    let mut parse = Parse::default();
    for record in records {
        match record.words.as_ref().map_or(State::Valid, |(_, state)| *state) {
            State::Valid => parse.valid += 1,
            State::Unparsed => parse.unparsed += 1,
            State::Truncated => parse.truncated += 1,
        }
    }
    parse
}
