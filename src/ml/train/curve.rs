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
