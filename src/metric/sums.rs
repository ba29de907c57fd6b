//! Figures as functions of sums: what is counted per cluster of items (premise, document), added up, and read as a
//! metric. It does not know tasks or files; resampling clusters is adding other ones up.

use super::{Counts, Scores};

/// What one cluster of items adds to every figure. As a row of numbers, so that rows can be added and resampled:
/// right answers, items, loss, tokens, the three scores of the cluster as a document, documents, then true positives,
/// false positives and false negatives of each class.
#[derive(Debug, Clone, PartialEq)]
pub struct Sums(Vec<f64>);

const RIGHT: usize = 0;
const ITEMS: usize = 1;
const LOSS: usize = 2;
const TOKENS: usize = 3;
const SCORES: usize = 4;
const DOCUMENTS: usize = 7;
const CLASSES: usize = 8;

impl Sums {
    /// Of nothing, over so many classes.
    pub fn new(classes: usize) -> Self {
        Self(vec![0.0; CLASSES + 3 * classes])
    }

    /// Adds an item of a classification. Classes are positions; `None` is an answer or a gold outside of them.
    pub fn classified(&mut self, gold: Option<usize>, answer: Option<usize>, right: bool) {
        self.0[ITEMS] += 1.0;
        self.0[RIGHT] += f64::from(u8::from(right));
        match (gold, answer) {
            (Some(gold), Some(answer)) if gold == answer => self.0[CLASSES + 3 * gold] += 1.0,
            (gold, answer) => {
                if let Some(gold) = gold {
                    self.0[CLASSES + 3 * gold + 2] += 1.0;
                }
                if let Some(answer) = answer {
                    self.0[CLASSES + 3 * answer + 1] += 1.0;
                }
            }
        }
    }

    /// Adds what was found in an item of one class.
    pub fn found(&mut self, class: usize, counts: Counts) {
        let at = CLASSES + 3 * class;
        for (sum, count) in self.0[at..at + 3].iter_mut().zip([counts.tp, counts.fp, counts.fn_]) {
            *sum += count as f64;
        }
    }

    /// Adds an item whose parts were [found](Self::found).
    pub fn item(&mut self, right: bool) {
        self.0[ITEMS] += 1.0;
        self.0[RIGHT] += f64::from(u8::from(right));
    }

    /// Adds the loss of a text: a sum over its tokens, in nats.
    pub fn loss(&mut self, loss: f64, tokens: f64) {
        self.0[ITEMS] += 1.0;
        self.0[LOSS] += loss;
        self.0[TOKENS] += tokens;
    }

    /// Says that this cluster is a whole document: its own scores enter the mean over documents.
    pub fn close_document(&mut self) {
        let all = self.0[CLASSES..].as_chunks::<3>().0.iter().fold([0.0; 3], |sum, class| add(sum, *class));
        // A document without gold scores 1 if nothing was found in it; see `entities::document_scores`.
        let scores = if all == [0.0; 3] { Scores { precision: 1.0, recall: 1.0, f1: 1.0 } } else { scores(all) };
        self.0[SCORES..SCORES + 3].copy_from_slice(&[scores.precision, scores.recall, scores.f1]);
        self.0[DOCUMENTS] = 1.0;
    }

    /// The row of numbers.
    pub fn row(&self) -> &[f64] {
        &self.0
    }
}

/// A metric under its full name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure {
    /// `accuracy`, `precision`, `recall`, `f1`, `loss` or `perplexity`.
    pub metric: String,
    /// `micro`, `macro`, `macro_types`, `mean_documents` or `weighted`; none for a share or a loss.
    pub average: Option<String>,
}

impl Figure {
    /// The figure of added rows; `None` for a name that is not known, or where it is not defined.
    pub fn of(&self, row: &[f64]) -> Option<f64> {
        match (self.metric.as_str(), self.average.as_deref()) {
            ("accuracy", None) => quotient(row[RIGHT], row[ITEMS]),
            ("loss", None) => quotient(row[LOSS], row[TOKENS]),
            ("perplexity", None) => quotient(row[LOSS], row[TOKENS]).map(f64::exp),
            ("precision", Some(average)) => averaged(row, average).map(|scores| scores.precision),
            ("recall", Some(average)) => averaged(row, average).map(|scores| scores.recall),
            ("f1", Some(average)) => averaged(row, average).map(|scores| scores.f1),
            _ => None,
        }
    }
}

fn averaged(row: &[f64], average: &str) -> Option<Scores> {
    let classes = || row[CLASSES..].as_chunks::<3>().0.iter().copied();
    let support = |class: [f64; 3]| class[0] + class[2];
    match average {
        "micro" => Some(scores(classes().fold([0.0; 3], add))),
        "macro" => Some(Scores::mean(classes().map(|class| (scores(class), 1.0)))),
        "weighted" => Some(Scores::mean(classes().map(|class| (scores(class), support(class))))),
        "macro_types" => {
            Some(Scores::mean(classes().filter(|class| support(*class) > 0.0).map(|class| (scores(class), 1.0))))
        }
        "mean_documents" if row[DOCUMENTS] > 0.0 => {
            let mean = |at: usize| row[SCORES + at] / row[DOCUMENTS];
            Some(Scores { precision: mean(0), recall: mean(1), f1: mean(2) })
        }
        _ => None,
    }
}

fn add(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

/// [`Counts::scores`] for sums.
fn scores([tp, fp, fn_]: [f64; 3]) -> Scores {
    let share = |part: f64, whole: f64| if whole == 0.0 { 0.0 } else { part / whole };
    Scores { precision: share(tp, tp + fp), recall: share(tp, tp + fn_), f1: share(2.0 * tp, 2.0 * tp + fp + fn_) }
}

fn quotient(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::classification::classification;
    use crate::metric::entities::{Tally, averages};

    fn figure(metric: &str, average: Option<&str>, rows: &[Sums]) -> Option<f64> {
        let mut total = vec![0.0; rows[0].row().len()];
        for row in rows {
            total.iter_mut().zip(row.row()).for_each(|(sum, value)| *sum += value);
        }
        Figure { metric: metric.to_owned(), average: average.map(str::to_owned) }.of(&total)
    }

    #[test]
    fn classification_is_the_same_by_sums() {
        let labels = ["a", "b"];
        let (gold, answers) = (["a", "b", "b", "a", "b"], ["a", "a", "b", "", "b"]);
        let position = |name: &str| labels.iter().position(|label| *label == name);
        let mut rows = vec![Sums::new(2); 3];
        for (i, (gold, answer)) in gold.iter().zip(answers).enumerate() {
            rows[i % 3].classified(position(gold), position(answer), *gold == answer);
        }
        let whole = classification(&labels, &gold, &answers);
        assert_eq!(figure("accuracy", None, &rows), Some(whole.accuracy));
        for (average, scores) in [("macro", whole.macro_), ("micro", whole.micro), ("weighted", whole.weighted)] {
            assert_eq!(figure("precision", Some(average), &rows), Some(scores.precision));
            assert_eq!(figure("recall", Some(average), &rows), Some(scores.recall));
            assert_eq!(figure("f1", Some(average), &rows), Some(scores.f1));
        }
    }

    #[test]
    fn entities_are_the_same_by_sums() {
        let tally = |gold: &[(&str, u32)], found: &[(&str, u32)]| {
            let owned = |side: &[(&str, u32)]| side.iter().map(|(k, p)| ((*k).to_owned(), *p)).collect::<Vec<_>>();
            Tally::of(owned(gold), owned(found))
        };
        let documents = [
            vec![tally(&[("PER", 0), ("LOC", 1)], &[("PER", 0), ("LOC", 2)]), tally(&[("PER", 5)], &[("PER", 5)])],
            vec![tally(&[], &[])],
            vec![tally(&[], &[("ORG", 1)])],
        ];
        let types = ["LOC", "ORG", "PER"];
        let mut rows = Vec::new();
        let mut items = Vec::new();
        for (name, document) in ["a", "b", "c"].iter().zip(&documents) {
            let mut sums = Sums::new(types.len());
            for tally in document {
                for (kind, counts) in &tally.0 {
                    sums.found(types.iter().position(|known| known == kind).expect("a type"), *counts);
                }
                items.push((*name, tally));
            }
            sums.close_document();
            rows.push(sums);
        }
        let whole = averages(items);
        for (average, scores) in
            [("micro", whole.micro), ("macro_types", whole.macro_types), ("mean_documents", whole.mean_documents)]
        {
            assert_eq!(figure("f1", Some(average), &rows), Some(scores.f1), "{average}");
            assert_eq!(figure("recall", Some(average), &rows), Some(scores.recall), "{average}");
        }
        assert_eq!(figure("f1", Some("unknown"), &rows), None);
        assert_eq!(figure("loss", None, &rows), None, "nothing was read");
    }
}
