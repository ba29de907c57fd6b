//! Trains the adapters of an arm on tokenised rows, over a frozen base.
//! It does not know kinds of adapters nor architectures.

use rand_chacha::ChaCha8Rng;
use tch::Tensor;

use super::adamw::{AdamW, AdamWOptions};
use super::batch::Plan;
use super::curve::Curve;
use super::fit::{Fit, Watch, fit};
use super::loss::{Learner, Micro};
use crate::error::{Problem, Result};
use crate::ml::adapters::{Arm, Dropout};
use crate::ml::models::{Input, Model};
use crate::ml::tokens::Tokens;

/// A model seen through an arm.
pub struct Adapted<'a> {
    /// The base.
    pub model: &'a dyn Model,
    /// What is attached to it.
    pub arm: &'a Arm,
    /// Draws the masks; `None` trains without dropout.
    pub dropout: Option<&'a Dropout>,
}

impl Learner for Adapted<'_> {
    fn hidden(&self, ids: &Tensor) -> Tensor {
        self.model.hidden(&Input { ids, mask: None, dropout: self.dropout }, self.arm, None)
    }
    fn logits(&self, rows: &Tensor) -> Tensor {
        self.model.logits(rows)
    }
    fn vocabulary(&self) -> i64 {
        self.model.config().vocab_size
    }
}

/// Trains the arm's tensors on the rows of `plan`; only answers have loss. `dropout` seeds the masks.
pub fn train_arm(
    model: &dyn Model,
    arm: &Arm,
    tokens: &Tokens,
    plan: &Plan,
    options: &Fit,
    adamw: AdamWOptions,
    dropout: ChaCha8Rng,
    watch: &mut dyn Watch,
) -> Result<Curve> {
    let vocabulary = model.config().vocab_size as u64;
    if tokens.info.vocab_size > vocabulary {
        let what = format!("the rows have ids up to {}", tokens.info.vocab_size - 1);
        return Err(Problem::new(what).expected(format!("ids below the model's vocabulary of {vocabulary}")));
    }
    let mut adamw = AdamW::new(&arm.parameters(), adamw, |_, _| true)?;
    let dropout = Dropout::new(dropout);
    let learner = Adapted { model, arm, dropout: Some(&dropout) };
    let device = model.device();
    let mut batches = |step: u64| {
        let micros = &plan.steps[step as usize];
        Ok(micros.iter().map(|rows| Micro::from_rows(tokens, rows, false, device)).collect())
    };
    fit(options, &learner, &mut adamw, &mut batches, watch)
}
