//! Accuracy, per-class figures and their averages, by the conventions of scikit-learn with `labels=` given.
//! It does not know what the classes mean nor where the answers come from.

use super::{Counts, Scores};

/// All figures of one classification.
#[derive(Debug, Clone, PartialEq)]
pub struct Classification {
    /// Right answers among all items, also those whose answer is no class.
    pub accuracy: f64,
    /// Counts of each class, in the order of `labels`.
    pub per_class: Vec<Counts>,
    /// The plain mean over `labels`, also of a class without items.
    pub macro_: Scores,
    /// From the counts of all `labels` together.
    pub micro: Scores,
    /// The mean over `labels` weighted by the number of gold items.
    pub weighted: Scores,
}

/// Scores `predicted` against `gold` over `labels`. An answer outside `labels` (no answer at all, say) belongs
/// to no class: the item counts as wrong and misses its gold class, and no class gets a false positive.
///
/// # Panics
/// If the two sides differ in length.
pub fn classification(labels: &[&str], gold: &[&str], predicted: &[&str]) -> Classification {
    assert_eq!(gold.len(), predicted.len(), "one answer for each item");
    let position = |name: &str| labels.iter().position(|label| *label == name);
    let mut per_class = vec![Counts::default(); labels.len()];
    let mut right = 0_u64;
    for (gold, predicted) in gold.iter().zip(predicted) {
        right += u64::from(gold == predicted);
        match (position(gold), position(predicted)) {
            (Some(g), Some(p)) if g == p => per_class[g].tp += 1,
            (g, p) => {
                if let Some(g) = g {
                    per_class[g].fn_ += 1;
                }
                if let Some(p) = p {
                    per_class[p].fp += 1;
                }
            }
        }
    }
    let accuracy = if gold.is_empty() { 0.0 } else { right as f64 / gold.len() as f64 };
    Classification {
        accuracy,
        macro_: Scores::mean(per_class.iter().map(|c| (c.scores(), 1.0))),
        micro: per_class.iter().copied().sum::<Counts>().scores(),
        weighted: Scores::mean(per_class.iter().map(|c| (c.scores(), c.support() as f64))),
        per_class,
    }
}

/// Items by gold class (row) and answer (column), over `labels`; other items are left out.
pub fn confusion(labels: &[&str], gold: &[&str], predicted: &[&str]) -> Vec<Vec<u64>> {
    let position = |name: &str| labels.iter().position(|label| *label == name);
    let mut matrix = vec![vec![0; labels.len()]; labels.len()];
    for (gold, predicted) in gold.iter().zip(predicted) {
        if let (Some(row), Some(column)) = (position(gold), position(predicted)) {
            matrix[row][column] += 1;
        }
    }
    matrix
}

/// Matthews' correlation for any number of classes (Gorodkin 2004): cov(gold, answer) / √(cov(g,g)·cov(a,a)).
/// Zero where either side has one class only.
pub fn matthews(confusion: &[Vec<u64>]) -> f64 {
    let n: u64 = confusion.iter().flatten().sum();
    let right: u64 = (0..confusion.len()).map(|i| confusion[i][i]).sum();
    let rows: Vec<f64> = confusion.iter().map(|row| row.iter().sum::<u64>() as f64).collect();
    let columns: Vec<f64> =
        (0..confusion.len()).map(|j| confusion.iter().map(|row| row[j]).sum::<u64>() as f64).collect();
    let n = n as f64;
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let covariance = right as f64 * n - dot(&rows, &columns);
    let spread = (n * n - dot(&rows, &rows)) * (n * n - dot(&columns, &columns));
    if spread == 0.0 { 0.0 } else { covariance / spread.sqrt() }
}

/// The mean recall over the classes that the gold has.
pub fn balanced_accuracy(per_class: &[Counts]) -> f64 {
    Scores::mean(per_class.iter().filter(|c| c.support() > 0).map(|c| (c.scores(), 1.0))).recall
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: [&str; 2] = ["entailment", "not_entailment"];

    #[test]
    fn an_answer_that_is_no_class_misses_and_accuses_nobody() {
        let result = classification(&LABELS, &["entailment", "not_entailment"], &["", "not_entailment"]);
        assert_eq!(result.accuracy, 0.5);
        assert_eq!(result.per_class, [Counts { tp: 0, fp: 0, fn_: 1 }, Counts { tp: 1, fp: 0, fn_: 0 }]);
    }

    /// Gold of one class gives P = 1/2, R = a/2, F1 = a/(1+a), whatever the answers are: the signature of
    /// evaluation data without labels.
    #[test]
    fn one_class_gold_has_its_signature() {
        let gold = ["entailment"; 100];
        let predicted: Vec<&str> = (0..100).map(|i| LABELS[usize::from(i >= 44)]).collect();
        let result = classification(&LABELS, &gold, &predicted);
        assert_eq!((result.accuracy, result.macro_.precision, result.macro_.recall), (0.44, 0.5, 0.22));
        assert!((result.macro_.f1 - 0.44 / 1.44).abs() < 1e-15);
    }
}
