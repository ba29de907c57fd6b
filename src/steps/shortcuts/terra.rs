//! Rules for TERRa: the more frequent label, the hypothesis alone, shared words, the opposite of what training says of
//! the same premise. It does not know how figures are told.

use std::collections::BTreeMap;

use super::{Baseline, Found, Overlap, Params};
use crate::error::Result;
use crate::metric::classification::classification;
use crate::step::Context;
use crate::steps::evaluate::result::{Metric, averaged};
use crate::task::gate::{shared_words, words};
use crate::task::terra::{Label, Labelled, labelled};

/// See the module.
pub fn run(params: &Params, cx: &Context) -> Result<Found> {
    let data = cx.input("data")?;
    let rows = labelled(&data.path, &data.label(), Some(params.limit()), params.label2id)?;
    let mut train = Vec::new();
    for artifact in cx.inputs("train") {
        cx.check_cancelled()?;
        train.extend(labelled(&artifact.path, &artifact.label(), None, params.label2id)?);
    }
    let frequent = frequent(train.iter().map(|row| row.label));
    let premises = premises(&train);
    let bayes = Bayes::of(&train);
    let least = threshold(&train);
    let opposite = |row: &Labelled| premises.get(row.row.premise.as_str()).map_or(frequent, |label| other(*label));
    let rules: [(&str, &str, Vec<Label>); 4] = [
        ("majority", "всегда самая частая метка обучения", vec![frequent; rows.len()]),
        ("hypothesis_only", "только по словам гипотезы", rows.iter().map(|row| bayes.answer(row)).collect()),
        (
            "word_overlap",
            "по доле общих слов с посылкой",
            rows.iter().map(|row| by_overlap(overlap(row), least)).collect(),
        ),
        ("opposite_premise", "противоположно метке той же посылки в обучении", rows.iter().map(opposite).collect()),
    ];
    let baselines = rules.map(|(name, title, answers)| Baseline {
        name,
        title,
        metrics: metrics(&rows, &answers),
        answers: answers.iter().map(|label| label.name().to_owned()).collect(),
    });
    let free = rows.iter().filter(|row| !premises.contains_key(row.row.premise.as_str()));
    let leak_free: Vec<String> = free.map(|row| row.row.idx.to_string()).collect();
    Ok(Found {
        baselines: baselines.into(),
        overlap: Overlap {
            what: "premise",
            shared: (rows.len() - leak_free.len()) as u64,
            total: rows.len() as u64,
            leak_free,
        },
        items: rows.iter().map(|row| (row.row.idx.to_string(), row.label.name().to_owned())).collect(),
    })
}

fn metrics(rows: &[Labelled], answers: &[Label]) -> Vec<Metric> {
    let gold: Vec<&str> = rows.iter().map(|row| row.label.name()).collect();
    let answers: Vec<&str> = answers.iter().map(|label| label.name()).collect();
    let figures = classification(&Label::ALL.map(Label::name), &gold, &answers);
    let mut metrics = vec![Metric { name: "accuracy".to_owned(), average: None, value: figures.accuracy }];
    metrics.extend(averaged("macro", figures.macro_));
    metrics
}

fn other(label: Label) -> Label {
    match label {
        Label::Entailment => Label::NotEntailment,
        Label::NotEntailment => Label::Entailment,
    }
}

/// The more frequent label; of equal ones the first.
fn frequent(labels: impl Iterator<Item = Label>) -> Label {
    let mut counts = [0_u64; 2];
    labels.for_each(|label| counts[usize::from(label == Label::NotEntailment)] += 1);
    if counts[1] > counts[0] { Label::NotEntailment } else { Label::Entailment }
}

/// The label that training gives each premise: the more frequent, of equal ones that of its first row.
fn premises(train: &[Labelled]) -> BTreeMap<&str, Label> {
    let mut labels: BTreeMap<&str, Vec<Label>> = BTreeMap::new();
    for row in train {
        labels.entry(&row.row.premise).or_default().push(row.label);
    }
    let of = |labels: &Vec<Label>| {
        let entailed = labels.iter().filter(|label| **label == Label::Entailment).count();
        match (2 * entailed).cmp(&labels.len()) {
            std::cmp::Ordering::Greater => Label::Entailment,
            std::cmp::Ordering::Less => Label::NotEntailment,
            std::cmp::Ordering::Equal => labels[0],
        }
    };
    labels.iter().map(|(premise, labels)| (*premise, of(labels))).collect()
}

fn overlap(row: &Labelled) -> f64 {
    shared_words(&row.row.premise, &row.row.hypothesis)
}

fn by_overlap(share: f64, least: f64) -> Label {
    if share >= least { Label::Entailment } else { Label::NotEntailment }
}

/// The least share that counts as entailment: what is right most often in training; of equal ones the least.
fn threshold(train: &[Labelled]) -> f64 {
    let shares: Vec<(f64, bool)> = train.iter().map(|row| (overlap(row), row.label == Label::Entailment)).collect();
    let mut sorted = shares.clone();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    // Right if all are taken for entailed; each step upwards turns the rows below.
    let mut right = sorted.iter().filter(|(_, entails)| *entails).count() as i64;
    let (mut best, mut least) = (right, 0.0);
    for equal in sorted.chunk_by(|a, b| a.0 == b.0) {
        if right > best {
            (best, least) = (right, equal[0].0);
        }
        right += equal.iter().map(|(_, entails)| if *entails { -1 } else { 1 }).sum::<i64>();
    }
    least
}

/// Multinomial naive Bayes over the words of the hypothesis with Laplace's smoothing (scikit-learn's `MultinomialNB`
/// with α = 1); words that training does not know are passed over.
struct Bayes {
    log_prior: [f64; 2],
    log_words: BTreeMap<String, [f64; 2]>,
}

impl Bayes {
    fn of(train: &[Labelled]) -> Self {
        let mut counts: BTreeMap<String, [f64; 2]> = BTreeMap::new();
        let (mut rows, mut totals) = ([0.0; 2], [0.0; 2]);
        for row in train {
            let class = usize::from(row.label == Label::NotEntailment);
            rows[class] += 1.0;
            for word in words(&row.row.hypothesis) {
                counts.entry(word).or_default()[class] += 1.0;
                totals[class] += 1.0;
            }
        }
        let vocabulary = counts.len() as f64;
        let all = rows[0] + rows[1];
        let log = |[a, b]: [f64; 2]| {
            [((a + 1.0) / (totals[0] + vocabulary)).ln(), ((b + 1.0) / (totals[1] + vocabulary)).ln()]
        };
        Self {
            log_prior: rows.map(|count: f64| (count / all).ln()),
            log_words: counts.into_iter().map(|(word, count)| (word, log(count))).collect(),
        }
    }

    fn answer(&self, row: &Labelled) -> Label {
        let mut score = self.log_prior;
        for word in words(&row.row.hypothesis) {
            if let Some([a, b]) = self.log_words.get(&word) {
                score = [score[0] + a, score[1] + b];
            }
        }
        if score[1] > score[0] { Label::NotEntailment } else { Label::Entailment }
    }
}
