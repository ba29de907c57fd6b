//! Precision, recall and F1 over entities, under their full names: micro, macro over types, mean over documents.
//! It does not know how entities are written or found: only counts by document and type come in.

use std::collections::BTreeMap;

use super::{Counts, Scores};

/// The counts of one item (a sentence) by type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally(pub BTreeMap<String, Counts>);

impl Tally {
    /// Compares two sides as multisets of (type, place): what stands on both sides is found, what the prediction
    /// has beyond that is wrong, what the gold has beyond that is missed.
    pub fn of<K: Ord>(
        gold: impl IntoIterator<Item = (String, K)>,
        predicted: impl IntoIterator<Item = (String, K)>,
    ) -> Self {
        let mut sides: BTreeMap<(String, K), (u64, u64)> = BTreeMap::new();
        for entity in gold {
            sides.entry(entity).or_default().0 += 1;
        }
        for entity in predicted {
            sides.entry(entity).or_default().1 += 1;
        }
        let mut tally = Self::default();
        for ((kind, _), (gold, predicted)) in sides {
            let counts = tally.0.entry(kind).or_default();
            let both = gold.min(predicted);
            *counts += Counts { tp: both, fp: predicted - both, fn_: gold - both };
        }
        tally
    }

    /// All types together.
    pub fn total(&self) -> Counts {
        self.0.values().copied().sum()
    }

    /// Adds the counts of another item.
    pub fn add(&mut self, other: &Self) {
        for (kind, counts) in &other.0 {
            *self.0.entry(kind.clone()).or_default() += *counts;
        }
    }
}

/// The three averages of one evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct Averages {
    /// From all counts together: every entity weighs the same.
    pub micro: Scores,
    /// The plain mean over the types that the gold has: every type weighs the same. The gold alone says which
    /// types count, so that the mean is over the same types for every arm.
    pub macro_types: Scores,
    /// The plain mean over documents: every document weighs the same. A document without gold entities scores 1
    /// if none was predicted in it and 0 if any was, so that the mean is over the same documents for every arm.
    pub mean_documents: Scores,
}

/// Averages items, each with the document that it belongs to.
pub fn averages<'a>(items: impl IntoIterator<Item = (&'a str, &'a Tally)>) -> Averages {
    let mut all = Tally::default();
    let mut documents: BTreeMap<&str, Counts> = BTreeMap::new();
    for (document, tally) in items {
        all.add(tally);
        *documents.entry(document).or_default() += tally.total();
    }
    Averages {
        micro: all.total().scores(),
        macro_types: Scores::mean(all.0.values().filter(|c| c.support() > 0).map(|c| (c.scores(), 1.0))),
        mean_documents: Scores::mean(documents.values().map(|c| (document_scores(*c), 1.0))),
    }
}

/// The scores of one document; see [`Averages::mean_documents`].
pub fn document_scores(counts: Counts) -> Scores {
    if counts == Counts::default() { Scores { precision: 1.0, recall: 1.0, f1: 1.0 } } else { counts.scores() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(gold: &[(&str, u32)], predicted: &[(&str, u32)]) -> Tally {
        let owned = |side: &[(&str, u32)]| side.iter().map(|(k, p)| ((*k).to_owned(), *p)).collect::<Vec<_>>();
        Tally::of(owned(gold), owned(predicted))
    }

    #[test]
    fn a_repeated_prediction_is_right_only_as_often_as_the_gold_has_it() {
        let counts = tally(&[("LOC", 3)], &[("LOC", 3), ("LOC", 3)]).total();
        assert_eq!(counts, Counts { tp: 1, fp: 1, fn_: 0 });
    }

    #[test]
    fn the_right_place_with_the_wrong_type_is_wrong_twice() {
        assert_eq!(tally(&[("LOC", 3)], &[("ORG", 3)]).total(), Counts { tp: 0, fp: 1, fn_: 1 });
    }

    #[test]
    fn the_averages_differ_and_each_is_what_its_name_says() {
        let first = tally(&[("PER", 0), ("LOC", 1)], &[("PER", 0), ("LOC", 2)]);
        let second = tally(&[("PER", 5)], &[("PER", 5)]);
        let empty = tally(&[], &[]);
        let accused = tally(&[], &[("ORG", 1)]);
        let items = [("a", &first), ("a", &second), ("b", &empty), ("c", &accused)];
        let result = averages(items);
        assert_eq!(result.micro, Counts { tp: 2, fp: 2, fn_: 1 }.scores());
        // PER 1, LOC 0; ORG has no gold and does not count as a type.
        assert_eq!(result.macro_types.f1, 0.5);
        let a = Counts { tp: 2, fp: 1, fn_: 1 }.scores();
        assert!((result.mean_documents.f1 - (a.f1 + 1.0 + 0.0) / 3.0).abs() < 1e-15);
    }
}
