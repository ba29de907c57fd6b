//! Figures of a comparison: classes, entities, BIO sequences; every average has a name.
//! It does not know tasks, files or models.

pub mod bio;
pub mod classification;
pub mod entities;
pub mod sums;

/// How many were found rightly, found wrongly and not found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// True positives: predicted and in the gold.
    pub tp: u64,
    /// False positives: predicted, not in the gold.
    pub fp: u64,
    /// False negatives: in the gold, not predicted.
    pub fn_: u64,
}

impl Counts {
    /// How many the gold has.
    pub fn support(&self) -> u64 {
        self.tp + self.fn_
    }

    /// Precision, recall and F1; a quotient with nothing below the line is 0 (sklearn's `zero_division=0`).
    pub fn scores(&self) -> Scores {
        let precision = ratio(self.tp, self.tp + self.fp);
        let recall = ratio(self.tp, self.tp + self.fn_);
        // 2·tp / (2·tp + fp + fn) equals 2PR/(P+R) and needs no case for P + R = 0.
        let f1 = ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn_);
        Scores { precision, recall, f1 }
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.tp += other.tp;
        self.fp += other.fp;
        self.fn_ += other.fn_;
    }
}

impl std::iter::Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut sum, counts| {
            sum += counts;
            sum
        })
    }
}

/// Precision, recall and F1, each in 0..=1.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Scores {
    /// Of what was predicted, how much is right.
    pub precision: f64,
    /// Of what is right, how much was predicted.
    pub recall: f64,
    /// Their harmonic mean; an average of F1 is not the F1 of averages.
    pub f1: f64,
}

impl Scores {
    /// The mean of each figure with these weights; zero without weight.
    pub fn mean(all: impl IntoIterator<Item = (Self, f64)>) -> Self {
        let mut sum = Self::default();
        let mut weights = 0.0;
        for (scores, weight) in all {
            sum.precision += weight * scores.precision;
            sum.recall += weight * scores.recall;
            sum.f1 += weight * scores.f1;
            weights += weight;
        }
        if weights == 0.0 {
            return Self::default();
        }
        Self { precision: sum.precision / weights, recall: sum.recall / weights, f1: sum.f1 / weights }
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_below_the_line_is_zero() {
        assert_eq!(Counts::default().scores(), Scores::default());
        let all_wrong = Counts { tp: 0, fp: 3, fn_: 0 }.scores();
        assert_eq!((all_wrong.precision, all_wrong.recall, all_wrong.f1), (0.0, 0.0, 0.0));
    }

    #[test]
    fn f1_is_the_harmonic_mean() {
        let scores = Counts { tp: 3, fp: 1, fn_: 2 }.scores();
        assert!((scores.f1 - 2.0 * 0.75 * 0.6 / (0.75 + 0.6)).abs() < 1e-15);
    }
}
