//! Nerus: from generated answers to records and figures.
//! It does not generate them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::result::{self, Metric, Parse};
use crate::error::{Problem, Result};
use crate::metric::entities::{Averages, Tally, averages};
use crate::task::answer::{self, Spot, State};
use crate::task::nerus::{Reader, Sentence, TYPES};
use crate::task::prompt::Prompt;

/// A sentence that is to be answered.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its document.
    pub document: String,
    /// The sentence with its gold.
    pub sentence: Sentence,
    /// Its prompt.
    pub prompt: String,
}

/// The first `limit` sentences with their prompts, and whether a generator made them. Gold without any entity is
/// refused: recall and F1 would say nothing.
pub fn items(path: &Path, label: &str, limit: Option<usize>, prompt: &Prompt) -> Result<(Vec<Item>, bool)> {
    let mut items = Vec::new();
    let mut reader = Reader::open(path, label)?;
    let limit = limit.unwrap_or(usize::MAX);
    while items.len() < limit {
        let Some(document) = reader.next().transpose()? else { break };
        for sentence in document.sentences.into_iter().take(limit - items.len()) {
            let prompt = prompt.nerus(&sentence)?;
            items.push(Item { document: document.id.clone(), sentence, prompt });
        }
    }
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for Item { sentence, .. } in &items {
        if let Some(first) = seen.insert(&sentence.id, sentence.line) {
            return Err(Problem::new(format!("the sentence id `{}` stands in line {first} already", sentence.id))
                .in_file(label, Some(sentence.line))
                .help("a sentence must not count twice: was the file joined from two?"));
        }
    }
    if items.iter().all(|item| item.sentence.entities.is_empty()) {
        return Err(Problem::new(format!("{label}: none of the {} sentences has an entity", items.len()))
            .help("the gold is missing: evaluate on data with tags; a `limit` may have cut it off"));
    }
    Ok((items, reader.generated()))
}

/// Where an entity is, on either side. A prediction that is nowhere in the text is wrong all the same.
type Place = (Spot, usize);

/// How a sentence was answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The sentence's id.
    pub id: String,
    /// Its document.
    pub document: String,
    /// Its prompt.
    pub prompt: String,
    /// The sentence.
    pub text: String,
    /// The right entities, by type and place.
    pub gold: Vec<(String, Spot)>,
    /// The words of the model.
    pub answer: String,
    /// The entities in them.
    pub predicted: Vec<(String, Spot)>,
    /// How far they could be read.
    pub state: State,
    /// Both sides compared.
    pub tally: Tally,
}

impl Record {
    /// Reads an answer; `stopped` tells that the model ended it.
    pub fn read(item: &Item, answer: String, stopped: bool, none: &str) -> Self {
        let reading = answer::parse(&answer, stopped, none);
        let spots = answer::align(&item.sentence.text, &reading.mentions);
        let predicted: Vec<(String, Spot)> =
            reading.mentions.iter().map(|mention| mention.kind.to_owned()).zip(spots).collect();
        let gold: Vec<(String, Spot)> =
            item.sentence.entities.iter().map(|e| (e.kind.clone(), Spot::At(e.start, e.end))).collect();
        Self {
            id: item.sentence.id.clone(),
            document: item.document.clone(),
            prompt: item.prompt.clone(),
            text: item.sentence.text.clone(),
            tally: Tally::of(places(&gold), places(&predicted)),
            gold,
            answer,
            predicted,
            state: reading.state,
        }
    }
}

/// Entities as what a tally compares: those without a place differ from one another and from all gold.
fn places(entities: &[(String, Spot)]) -> Vec<(String, Place)> {
    let place = |(i, (kind, spot)): (usize, &(String, Spot))| match spot {
        Spot::At(..) => (kind.clone(), (*spot, 0)),
        _ => (kind.clone(), (*spot, i)),
    };
    entities.iter().enumerate().map(place).collect()
}

/// `PER:0:12 LOC:hallucinated ORG:duplicate`: type and characters, or why there is no place.
fn told(entities: &[(String, Spot)]) -> String {
    let one = |(kind, spot): &(String, Spot)| match spot {
        Spot::At(start, end) => format!("{kind}:{start}:{end}"),
        Spot::Hallucinated => format!("{kind}:hallucinated"),
        Spot::Duplicate => format!("{kind}:duplicate"),
    };
    entities.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// Writes the records.
pub fn write(folder: &Path, records: &[Record]) -> Result<()> {
    let header = ["id", "document", "prompt", "gold", "answer", "predicted", "state", "tp", "fp", "fn", "text"];
    let lines = records.iter().map(|record| {
        let total = record.tally.total();
        vec![
            record.id.clone(),
            record.document.clone(),
            record.prompt.clone(),
            told(&record.gold),
            record.answer.clone(),
            told(&record.predicted),
            record.state.name().to_owned(),
            total.tp.to_string(),
            total.fp.to_string(),
            total.fn_.to_string(),
            record.text.clone(),
        ]
    });
    result::write_records(folder, &header, lines)
}

/// Precision, recall and F1 in all three averages.
pub fn metrics(records: &[Record]) -> Vec<Metric> {
    let Averages { micro, macro_types, mean_documents } =
        averages(records.iter().map(|record| (record.document.as_str(), &record.tally)));
    [("micro", micro), ("macro_types", macro_types), ("mean_documents", mean_documents)]
        .into_iter()
        .flat_map(|(average, scores)| result::averaged(average, scores))
        .collect()
}

/// Gold entities by type.
pub fn classes(records: &[Record]) -> BTreeMap<String, u64> {
    let all = || records.iter().flat_map(|record| &record.gold);
    let count = |kind: &str| all().filter(|(other, _)| other == kind).count() as u64;
    TYPES.into_iter().map(|kind| (kind.to_owned(), count(kind))).collect()
}

/// The number of documents.
pub fn documents(records: &[Record]) -> u64 {
    records.iter().map(|record| &record.document).collect::<BTreeSet<_>>().len() as u64
}

/// What became of the answers.
pub fn parse(records: &[Record]) -> Parse {
    let mut parse = Parse::default();
    for record in records {
        match record.state {
            State::Valid => parse.valid += 1,
            State::Unparsed => parse.unparsed += 1,
            State::Truncated => parse.truncated += 1,
        }
        for (_, spot) in &record.predicted {
            match spot {
                Spot::At(..) => {}
                Spot::Hallucinated => parse.hallucinated += 1,
                Spot::Duplicate => parse.duplicate += 1,
            }
        }
    }
    parse
}
