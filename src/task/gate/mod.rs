//! What is wrong with evaluation data before anything is computed: duplicates, labels of the other polarity, tags beside
//! their words, items that stand in the training data. It does not know models, nor whether a flaw stops a run.

pub mod chance;
pub mod labels;
pub mod names;
pub mod nerus;
pub mod repeats;
pub mod tags;
pub mod terra;

use std::collections::{BTreeMap, BTreeSet};

/// Something about the data that must be known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// What kind it is.
    pub code: Code,
    /// True if figures on such data would mislead.
    pub misleads: bool,
    /// Items that it concerns.
    pub count: u64,
    /// A sentence in English, for errors.
    pub what: String,
    /// What to do.
    pub help: String,
    /// A sentence in Russian, for reports.
    pub text: String,
    /// Ids of the first items.
    pub examples: Vec<String>,
}

/// Kinds of flaws.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// Items that differ in case, spaces or punctuation only.
    Duplicates,
    /// Labels that look turned round, or types that look exchanged.
    Polarity,
    /// Tags that stand beside the names they are meant for.
    Tags,
    /// The same pair with both labels, or a hypothesis that is its premise and does not follow.
    Contradictions,
    /// Items that stand in the training data.
    TrainingItems,
    /// Items that share a premise or a sentence with the training data.
    SharedTexts,
}

impl Code {
    /// Its name in pipelines and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Duplicates => "duplicates",
            Self::Polarity => "polarity",
            Self::Tags => "tags",
            Self::Contradictions => "contradictions",
            Self::TrainingItems => "training_items",
            Self::SharedTexts => "shared_texts",
        }
    }
}

/// If more than this share of all items stands there twice, that is no oversight: figures count something else.
const WHOLE: f64 = 0.01;

/// How many ids are shown.
const SHOWN: usize = 5;

/// Lower case, ё as е, words alone: what people take for the same text.
pub fn normal(text: &str) -> String {
    words(text).join(" ")
}

/// The words of a text in lower case, ё as е.
pub fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase().replace('ё', "е");
    lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// The share of a hypothesis's words that stand in its premise.
pub fn shared_words(premise: &str, hypothesis: &str) -> f64 {
    let premise: BTreeSet<String> = words(premise).into_iter().collect();
    let hypothesis: BTreeSet<String> = words(hypothesis).into_iter().collect();
    hypothesis.intersection(&premise).count() as f64 / hypothesis.len().max(1) as f64
}

/// Ids of items whose key stood there before, and how many there are.
fn repeated<'a>(items: impl Iterator<Item = (String, &'a str)>) -> (u64, Vec<String>) {
    let mut seen: BTreeMap<String, ()> = BTreeMap::new();
    let mut found = Found::default();
    for (key, id) in items {
        if seen.insert(key, ()).is_some() {
            found.add(id);
        }
    }
    (found.count, found.examples)
}

/// A count with the first ids.
#[derive(Default)]
struct Found {
    count: u64,
    examples: Vec<String>,
}

impl Found {
    fn add(&mut self, id: impl ToString) {
        self.count += 1;
        if self.examples.len() < SHOWN {
            self.examples.push(id.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_the_same_whatever_their_case_and_marks() {
        assert_eq!(normal("  Ёлка — «в лесу»!\u{a0}"), normal("елка, в ЛЕСУ"));
        assert_ne!(normal("ёлка в лесу"), normal("ёлка в поле"));
    }
}
