//! Rules for Nerus: the names of the training data wherever they stand, and whatever is written with a capital.
//! It does not know how figures are told.

use std::collections::BTreeMap;

use super::{Baseline, Found, Overlap, Params, most};
use crate::error::Result;
use crate::metric::entities::{Averages, Tally, averages};
use crate::step::Context;
use crate::steps::evaluate::result::{Metric, averaged};
use crate::task::gate::nerus::Texts;
use crate::task::nerus::{Entity, Reader, Sentence};

/// An entity of a rule: type, first character, the one after the last.
type Spot = (String, usize, usize);

/// See the module.
pub fn run(params: &Params, cx: &Context) -> Result<Found> {
    let mut known = Gazetteer::default();
    let mut texts = Texts::default();
    for artifact in cx.inputs("train") {
        for document in Reader::open(&artifact.path, &artifact.label())? {
            cx.check_cancelled()?;
            for sentence in &document?.sentences {
                known.add(sentence);
                texts.add(&sentence.text);
            }
        }
    }
    let data = cx.input("data")?;
    let mut sentences: Vec<(String, Sentence)> = Vec::new();
    for document in Reader::open(&data.path, &data.label())? {
        let document = document?;
        let room = params.limit() - sentences.len();
        sentences.extend(document.sentences.into_iter().take(room).map(|sentence| (document.id.clone(), sentence)));
        if sentences.len() == params.limit() {
            break;
        }
    }
    let frequent = most(&known.types).unwrap_or_else(|| "PER".to_owned());
    let names = known.best();
    let rules: [(&str, &str, Vec<Vec<Spot>>); 2] = [
        ("gazetteer", "имена из обучающих данных", sentences.iter().map(|(_, s)| gazetteer(s, &names)).collect()),
        (
            "capitals",
            "слова с заглавной буквы не в начале, самый частый тип",
            sentences.iter().map(|(_, s)| capitals(s, &frequent)).collect(),
        ),
    ];
    let baselines = rules.map(|(name, title, answers)| Baseline {
        name,
        title,
        metrics: metrics(&sentences, &answers),
        answers: answers.iter().map(|spots| told(spots)).collect(),
    });
    let free = sentences.iter().filter(|(_, sentence)| !texts.has(&sentence.text));
    let leak_free: Vec<String> = free.map(|(_, sentence)| sentence.id.clone()).collect();
    Ok(Found {
        baselines: baselines.into(),
        overlap: Overlap {
            what: "sentence",
            shared: (sentences.len() - leak_free.len()) as u64,
            total: sentences.len() as u64,
            leak_free,
        },
        items: sentences.iter().map(|(_, s)| (s.id.clone(), told(&gold(s)))).collect(),
    })
}

fn gold(sentence: &Sentence) -> Vec<Spot> {
    let spot = |entity: &Entity| (entity.kind.clone(), entity.start, entity.end);
    sentence.entities.iter().map(spot).collect()
}

/// As `records.csv` writes entities.
fn told(spots: &[Spot]) -> String {
    spots.iter().map(|(kind, start, end)| format!("{kind}:{start}:{end}")).collect::<Vec<_>>().join(" ")
}

fn metrics(sentences: &[(String, Sentence)], answers: &[Vec<Spot>]) -> Vec<Metric> {
    let place = |spots: &[Spot]| -> Vec<(String, (usize, usize))> {
        spots.iter().map(|(kind, start, end)| (kind.clone(), (*start, *end))).collect()
    };
    let tallies: Vec<(&str, Tally)> = sentences
        .iter()
        .zip(answers)
        .map(|((document, sentence), found)| (document.as_str(), Tally::of(place(&gold(sentence)), place(found))))
        .collect();
    let Averages { micro, macro_types, mean_documents } =
        averages(tallies.iter().map(|(document, tally)| (*document, tally)));
    let all = [("micro", micro), ("macro_types", macro_types), ("mean_documents", mean_documents)];
    all.into_iter().flat_map(|(average, scores)| averaged(average, scores)).collect()
}

/// How often training gives names and types.
#[derive(Default)]
struct Gazetteer {
    names: BTreeMap<String, BTreeMap<String, u64>>,
    types: BTreeMap<String, u64>,
}

impl Gazetteer {
    fn add(&mut self, sentence: &Sentence) {
        for entity in &sentence.entities {
            *self.names.entry(entity.surface.clone()).or_default().entry(entity.kind.clone()).or_default() += 1;
            *self.types.entry(entity.kind.clone()).or_default() += 1;
        }
    }

    /// Each name with its most frequent type.
    fn best(&self) -> BTreeMap<&str, String> {
        self.names.iter().filter_map(|(name, types)| Some((name.as_str(), most(types)?))).collect()
    }
}

/// Where each token stands in the text, in characters; a token that is not there ends the search.
fn places(sentence: &Sentence) -> Vec<(usize, usize)> {
    let characters: Vec<char> = sentence.text.chars().collect();
    let mut places = Vec::new();
    let mut from = 0;
    for token in &sentence.tokens {
        let token: Vec<char> = token.chars().collect();
        let mut rest = from..=characters.len().saturating_sub(token.len());
        let Some(start) = rest.find(|at| characters.get(*at..*at + token.len()) == Some(token.as_slice())) else {
            break;
        };
        from = start + token.len();
        places.push((start, from));
    }
    places
}

/// The longest names first, from left to right; whole tokens, written as in training.
fn gazetteer(sentence: &Sentence, names: &BTreeMap<&str, String>) -> Vec<Spot> {
    /// The most tokens of a name.
    const LONGEST: usize = 8;
    let characters: Vec<char> = sentence.text.chars().collect();
    let places = places(sentence);
    let mut spots = Vec::new();
    let mut at = 0;
    while at < places.len() {
        let longest = (1..=LONGEST.min(places.len() - at)).rev().find_map(|count| {
            let (start, end) = (places[at].0, places[at + count - 1].1);
            let name: String = characters[start..end].iter().collect();
            names.get(name.as_str()).map(|kind| (count, (kind.clone(), start, end)))
        });
        match longest {
            Some((count, spot)) => {
                spots.push(spot);
                at += count;
            }
            None => at += 1,
        }
    }
    spots
}

/// Runs of tokens with a capital that do not begin the sentence.
fn capitals(sentence: &Sentence, kind: &str) -> Vec<Spot> {
    let places = places(sentence);
    let is_capital = |at: usize| sentence.tokens[at].chars().next().is_some_and(char::is_uppercase);
    let mut spots: Vec<Spot> = Vec::new();
    let mut last = None;
    for at in (1..places.len()).filter(|at| is_capital(*at)) {
        match spots.last_mut() {
            Some(spot) if last == Some(at - 1) => spot.2 = places[at].1,
            _ => spots.push((kind.to_owned(), places[at].0, places[at].1)),
        }
        last = Some(at);
    }
    spots
}
