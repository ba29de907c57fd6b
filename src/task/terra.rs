//! TERRa's JSON lines: premise, hypothesis and whether the one follows from the other.
//! It does not know prompts; what is missing is told with file and line.

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::lines::Lines;
use crate::error::{Problem, Result};

/// Whether the hypothesis follows from the premise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Label {
    /// It follows.
    Entailment,
    /// It does not.
    NotEntailment,
}

impl Label {
    /// Both, in the order of every table.
    pub const ALL: [Self; 2] = [Self::Entailment, Self::NotEntailment];

    /// Its name in the files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Entailment => "entailment",
            Self::NotEntailment => "not_entailment",
        }
    }
}

/// Which number means which label, where a file has numbers instead of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Label2Id {
    /// The number of rows whose hypothesis follows.
    pub entailment: i64,
    /// The number of the others.
    pub not_entailment: i64,
}

impl Label2Id {
    fn label(self, number: i64) -> Option<Label> {
        if number == self.entailment {
            Some(Label::Entailment)
        } else if number == self.not_entailment {
            Some(Label::NotEntailment)
        } else {
            None
        }
    }
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The text that is given.
    pub premise: String,
    /// What may follow from it.
    pub hypothesis: String,
    /// The gold; `None` in files without labels, as TERRa's own test split is.
    pub label: Option<Label>,
    /// The row's own number.
    pub idx: u64,
    /// Its line in the file, counted from 1.
    pub line: u64,
    /// True if a generator made it.
    pub generated: bool,
}

/// The fields of a row; others are tolerated.
#[derive(Deserialize)]
struct Fields {
    premise: Option<Value>,
    hypothesis: Option<Value>,
    label: Option<Value>,
    idx: Option<Value>,
    #[serde(default)]
    generated: bool,
}

/// Reads rows one at a time.
pub struct Reader {
    lines: Lines,
    /// Line by `idx`.
    seen: BTreeMap<u64, u64>,
    numbers: Option<Label2Id>,
}

impl Reader {
    /// Opens a file; `label` is what messages call it.
    pub fn open(path: &Path, label: &str) -> Result<Self> {
        Ok(Self::new(Lines::open(path, label)?))
    }

    /// Reads rows from these lines.
    pub fn new(lines: Lines) -> Self {
        Self { lines, seen: BTreeMap::new(), numbers: None }
    }

    /// The same, where labels are numbers of which it is known what they mean.
    #[must_use]
    pub fn numbered(mut self, numbers: Option<Label2Id>) -> Self {
        self.numbers = numbers;
        self
    }

    fn next_row(&mut self) -> Result<Option<Row>> {
        loop {
            let Some(line) = self.lines.next_line()? else { return Ok(None) };
            if line.trim().is_empty() {
                continue;
            }
            let fields: std::result::Result<Fields, _> = serde_json::from_str(line);
            let fields = fields.map_err(|error| self.not_json(&error))?;
            return self.row(fields).map(Some);
        }
    }

    fn not_json(&self, error: &serde_json::Error) -> Problem {
        if error.is_eof() && !self.lines.ended() {
            return self
                .lines
                .problem("the file ends in the middle of a row")
                .help("it was probably cut off while it was copied: fetch it again");
        }
        self.lines
            .problem(format!("not a JSON object with the fields of TERRa: {error}"))
            .expected(r#"{"premise": "…", "hypothesis": "…", "label": "entailment", "idx": 0}"#)
    }

    fn row(&mut self, fields: Fields) -> Result<Row> {
        let premise = self.text("premise", fields.premise)?;
        let hypothesis = self.text("hypothesis", fields.hypothesis)?;
        let label = self.label(fields.label)?;
        let idx = match fields.idx {
            None => return Err(self.missing("idx")),
            Some(idx) => idx
                .as_u64()
                .ok_or_else(|| self.lines.problem(format!("`idx` is {idx}")).expected("a whole number from 0"))?,
        };
        if let Some(first) = self.seen.insert(idx, self.lines.number()) {
            return Err(self
                .lines
                .problem(format!("`idx` {idx} stands in line {first} already"))
                .help("each row has a number of its own: was the file joined from two?"));
        }
        Ok(Row { premise, hypothesis, label, idx, line: self.lines.number(), generated: fields.generated })
    }

    fn text(&self, name: &str, value: Option<Value>) -> Result<String> {
        match value {
            None => Err(self.missing(name)),
            Some(Value::String(text)) if text.trim().is_empty() => {
                Err(self.lines.problem(format!("`{name}` is empty")))
            }
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(self.lines.problem(format!("`{name}` is {other}")).expected("a text")),
        }
    }

    fn label(&self, value: Option<Value>) -> Result<Option<Label>> {
        let value = match value {
            None | Some(Value::Null) => return Ok(None),
            Some(value) => value,
        };
        if let Some(number) = number(&value) {
            return self.numbered_label(&value, number);
        }
        let problem = match &value {
            Value::String(name) => match Label::ALL.into_iter().find(|label| label.name() == name) {
                Some(label) if self.numbers.is_none() => return Ok(Some(label)),
                Some(_) => self
                    .lines
                    .problem(format!("`label2id` says that labels are numbers, but this one is `{name}`"))
                    .help("leave `label2id` out: names need no mapping"),
                None => self.lines.problem(format!("the label `{name}` is not one of TERRa's")),
            },
            other => self.lines.problem(format!("the label is {other}")),
        };
        Err(problem.expected("`entailment` or `not_entailment`"))
    }

    /// Copies differ in which class they call 0, so that a number means nothing until somebody says what.
    fn numbered_label(&self, value: &Value, number: i64) -> Result<Option<Label>> {
        let Some(numbers) = self.numbers else {
            return Err(self
                .lines
                .problem(format!("the label is {value}"))
                .expected("`entailment` or `not_entailment`")
                .help("numbers are not read, because copies of TERRa differ in which class is 0: write the names, or say what they mean with `label2id: { entailment: …, not_entailment: … }`"));
        };
        match numbers.label(number) {
            Some(label) => Ok(Some(label)),
            // What the `datasets` library writes where a row has no label.
            None if number == -1 => Ok(None),
            None => Err(self
                .lines
                .problem(format!("the label is {value}, which `label2id` does not have"))
                .expected(format!("{} or {}", numbers.entailment, numbers.not_entailment))),
        }
    }

    fn missing(&self, name: &str) -> Problem {
        self.lines.problem(format!("the row has no `{name}`"))
    }
}

impl Iterator for Reader {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_row().transpose()
    }
}

/// A row with its gold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labelled {
    /// The row.
    pub row: Row,
    /// Its gold.
    pub label: Label,
}

/// The first `limit` rows, each with its label; a file without labels is refused by name.
pub fn labelled(path: &Path, label: &str, limit: Option<usize>, numbers: Option<Label2Id>) -> Result<Vec<Labelled>> {
    let mut rows = Vec::new();
    for row in Reader::open(path, label)?.numbered(numbers).take(limit.unwrap_or(usize::MAX)) {
        let row = row?;
        let Some(gold) = row.label else {
            return Err(Problem::new(format!("{label} has no labels: row {} (line {}) has none", row.idx, row.line))
                .help("TERRa's test split is unlabelled: evaluate on val, train on train"));
        };
        rows.push(Labelled { row, label: gold });
    }
    if rows.is_empty() {
        return Err(Problem::new(format!("{label} has no rows")));
    }
    Ok(rows)
}

/// Refuses gold on which figures would mean nothing: of one class, or with a pair that stands in it twice.
pub fn gate(rows: &[Labelled], label: &str) -> Result<()> {
    let mut pairs: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for Labelled { row, .. } in rows {
        if let Some(first) = pairs.insert((&row.premise, &row.hypothesis), row.line) {
            return Err(Problem::new(format!("the same premise and hypothesis stand in line {first} already"))
                .in_file(label, Some(row.line))
                .help("a pair must not count twice: remove one of the rows"));
        }
    }
    for class in Label::ALL {
        if rows.iter().all(|row| row.label == class) {
            return Err(Problem::new(format!(
                "{label}: all {} rows that are evaluated have the label `{}`, and on one class accuracy, precision, recall and F1 say nothing",
                rows.len(),
                class.name()
            ))
            .help("evaluate on data with both classes; a `limit` may have cut off the other one"));
        }
    }
    Ok(())
}

/// The number that a label is, also where it is written as a text.
fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}
