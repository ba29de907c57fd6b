//! From the records of one arm to sums by cluster, from which every figure of the arm follows.
//! It does not know other arms, nor what the sums are resampled for.

use std::collections::BTreeMap;

use super::results::{Evaluated, Record};
use crate::error::{Problem, Result};
use crate::metric::entities::Tally;
use crate::metric::sums::{Figure, Sums};

/// How far a figure may lie from what its records say: figures are written with all their digits.
const TOLERANCE: f64 = 1e-9;

/// The sums of one arm.
#[derive(Debug, Clone, PartialEq)]
pub struct Clusters {
    /// A row for each cluster, in order of appearance; see [`Sums`].
    pub rows: Vec<Vec<f64>>,
}

impl Clusters {
    /// Adds the records up, those for which `keep` says so.
    pub fn of(evaluated: &Evaluated, keep: impl Fn(&Record) -> bool) -> Self {
        let classes: Vec<&str> = evaluated.metrics.classes.keys().map(String::as_str).collect();
        let mut sums: Vec<Sums> = Vec::new();
        let mut place: BTreeMap<&str, usize> = BTreeMap::new();
        for record in evaluated.records.iter().filter(|record| keep(record)) {
            let at = *place.entry(&record.cluster).or_insert_with(|| {
                sums.push(Sums::new(classes.len()));
                sums.len() - 1
            });
            add(&mut sums[at], record, &classes);
        }
        if evaluated.clustered_by == "document" {
            sums.iter_mut().for_each(Sums::close_document);
        }
        Self { rows: sums.iter().map(|sums| sums.row().to_vec()).collect() }
    }

    /// All rows together; empty without any.
    pub fn total(&self) -> Vec<f64> {
        let mut total = vec![0.0; self.rows.first().map_or(0, Vec::len)];
        for row in &self.rows {
            total.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        total
    }
}

/// True if the arm answered the item without fault.
pub fn is_right(record: &Record) -> bool {
    match &record.predicted {
        Some(predicted) => {
            let total = tally(&record.gold, predicted).total();
            total.fp == 0 && total.fn_ == 0
        }
        None => record.gold == record.answer,
    }
}

/// Refuses figures that the records do not give.
pub fn check(evaluated: &Evaluated, label: &str) -> Result<()> {
    let total = Clusters::of(evaluated, |_| true).total();
    for metric in &evaluated.metrics.metrics {
        let figure = Figure { metric: metric.name.clone(), average: metric.average.clone() };
        let (Some(told), Some(found)) = (metric.value, figure.of(&total)) else { continue };
        if (told - found).abs() > TOLERANCE * found.abs().max(1.0) {
            let average = metric.average.as_ref().map_or_else(String::new, |average| format!(" ({average})"));
            let what = format!("`{}`{average} is {told}, but the records give {found}", metric.name);
            return Err(Problem::new(what)
                .in_file(format!("metrics.json of {label}"), None)
                .help("evaluate again: one of the two files was changed"));
        }
    }
    Ok(())
}

fn add(sums: &mut Sums, record: &Record, classes: &[&str]) {
    let class = |name: &str| classes.iter().position(|known| *known == name);
    match (&record.predicted, record.loss) {
        (Some(predicted), _) => {
            let tally = tally(&record.gold, predicted);
            for (kind, counts) in &tally.0 {
                if let Some(class) = class(kind) {
                    sums.found(class, *counts);
                }
            }
            sums.item(is_right(record));
        }
        (None, Some((loss, tokens))) => sums.loss(loss, tokens),
        (None, None) => sums.classified(class(&record.gold), class(&record.answer), record.gold == record.answer),
    }
}

/// Compares entities as the records write them, `PER:0:12 LOC:hallucinated`: what has no place is wrong each time.
fn tally(gold: &str, predicted: &str) -> Tally {
    let entities = |text: &str| -> Vec<(String, (String, usize))> {
        let one = |(i, entity): (usize, &str)| {
            let (kind, place) = entity.split_once(':').unwrap_or((entity, ""));
            let apart = if place.contains(':') { 0 } else { i + 1 };
            (kind.to_owned(), (place.to_owned(), apart))
        };
        text.split_whitespace().enumerate().map(one).collect()
    };
    Tally::of(entities(gold), entities(predicted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Counts;

    #[test]
    fn entities_without_a_place_are_wrong_each_time() {
        let total = tally("PER:0:3 LOC:5:9", "PER:0:3 LOC:hallucinated LOC:hallucinated LOC:duplicate").total();
        assert_eq!(total, Counts { tp: 1, fp: 3, fn_: 1 });
        assert_eq!(tally("", "").total(), Counts::default());
    }
}
