//! What a run went through, step by step, as rows of `curve.csv`; time is not in it.
//! It does not know the loop.

use std::path::Path;

use serde::Serialize;

use crate::error::{Problem, Result};

/// One optimiser step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// Counted from 1.
    pub step: u64,
    /// Mean negative log-likelihood of the step's target ids before the update, in nats.
    pub loss: f64,
    /// Learning rate of the update.
    pub lr: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Ids that went through the model in this step, padding not counted.
    pub tokens: u64,
    /// Ids of them that had loss.
    pub target_tokens: u64,
}

/// All steps of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Curve {
    /// In order.
    pub points: Vec<Point>,
}

impl Curve {
    /// The loss of the first step.
    pub fn first_loss(&self) -> Option<f64> {
        self.points.first().map(|point| point.loss)
    }

    /// The mean loss of the last tenth of the steps, at least one.
    pub fn last_loss(&self) -> Option<f64> {
        let tail = &self.points[self.points.len() - self.points.len().div_ceil(10)..];
        (!tail.is_empty()).then(|| tail.iter().map(|point| point.loss).sum::<f64>() / tail.len() as f64)
    }

    /// Ids of all steps, padding not counted.
    pub fn tokens(&self) -> u64 {
        self.points.iter().map(|point| point.tokens).sum()
    }

    /// Ids of all steps that had loss.
    pub fn target_tokens(&self) -> u64 {
        self.points.iter().map(|point| point.target_tokens).sum()
    }

    /// At most so many points, (step, loss): the steps are cut into stretches of equal length, the last one shorter,
    /// and each gives its last step and its mean loss.
    pub fn thinned(&self, most: usize) -> Vec<(u64, f64)> {
        let stretch = self.points.len().div_ceil(most.max(1)).max(1);
        let point = |stretch: &[Point]| {
            let mean = stretch.iter().map(|point| point.loss).sum::<f64>() / stretch.len() as f64;
            (stretch.last().map_or(0, |point| point.step), mean)
        };
        self.points.chunks(stretch).map(point).collect()
    }

    /// Writes `step,loss,lr,grad_norm,tokens,target_tokens`.
    pub fn write(&self, path: &Path) -> Result<()> {
        let failed = |error: csv::Error| Problem::new(format!("cannot write {}: {error}", path.display()));
        let mut writer = csv::Writer::from_path(path).map_err(failed)?;
        for point in &self.points {
            writer.serialize(point).map_err(failed)?;
        }
        writer.flush().map_err(|e| Problem::io("write", path, &e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_curve_is_thinned_by_means() {
        let point = |step| Point { step, loss: step as f64, lr: 0.1, grad_norm: 1.0, tokens: 1, target_tokens: 1 };
        let curve = Curve { points: (1..=7).map(point).collect() };
        assert_eq!(curve.thinned(3), [(3, 2.0), (6, 5.0), (7, 7.0)]);
        assert_eq!(curve.thinned(7).len(), 7);
        assert_eq!(Curve::default().thinned(3), []);
    }
}
