//! Trains the adapters of an arm on tokenised rows, over a frozen base.
//! It does not know kinds of adapters nor architectures.

use std::cell::RefCell;

use tch::Tensor;

use super::adamw::{AdamW, AdamWOptions};
use super::batch::Plan;
use super::curve::Curve;
use super::fit::{Fit, Watch, fit};
use super::loss::{Learner, Micro};
use super::memory::Memory;
use super::recomputed::Recomputed;
use crate::error::Result;
use crate::ml::adapters::Arm;
use crate::ml::dropout::Dropout;
use crate::ml::models::{Input, Model, check_ids, check_length};
use crate::ml::tokens::Tokens;

/// A model seen through an arm.
pub struct Adapted<'a> {
    /// The base.
    pub model: &'a dyn Model,
    /// What is attached to it.
    pub arm: &'a Arm,
    /// Draws the masks of the current step; `None` trains without dropout.
    pub dropout: RefCell<Option<Dropout>>,
}

impl Learner for Adapted<'_> {
    fn hidden(&self, ids: &Tensor, positions: &Tensor) -> Tensor {
        let dropout = self.dropout.borrow();
        let input = Input { wanted: Some(positions), dropout: dropout.as_ref(), ..Input::of(ids) };
        self.model.hidden(&input, self.arm, None)
    }
    fn logits(&self, rows: &Tensor) -> Tensor {
        self.model.logits(rows)
    }
    fn vocabulary(&self) -> i64 {
        self.model.config().vocab_size
    }
    fn frozen_head(&self) -> Option<Tensor> {
        self.model.plain_head().filter(|head| !head.requires_grad())
    }
}

/// How an arm is trained.
pub struct Recipe {
    /// Length, learning rate and clipping.
    pub fit: Fit,
    /// The optimiser.
    pub adamw: AdamWOptions,
    /// Seed of the dropout masks.
    pub seed: u64,
    /// What is kept for the way back.
    pub memory: Memory,
}

/// Trains the arm's tensors on the rows of `plan`; only answers have loss.
pub fn train_arm(
    model: &dyn Model,
    arm: &Arm,
    tokens: &Tokens,
    plan: &Plan,
    recipe: &Recipe,
    watch: &mut dyn Watch,
) -> Result<Curve> {
    check_ids(model, tokens.ids.iter().map(|&id| i64::from(id)))?;
    check_length(model, (0..tokens.rows()).map(|row| tokens.row(row).len()).max().unwrap_or(0))?;
    let mut adamw = AdamW::new(&arm.parameters(), recipe.adamw, |_, _| true)?;
    adamw.round_to(arm.seen_in(model));
    let adapted = Adapted { model, arm, dropout: RefCell::default() };
    let recomputed = match recipe.memory {
        Memory::Normal => None,
        Memory::Low => Some(Recomputed::new(&adapted)?),
    };
    let learner: &dyn Learner = recomputed.as_ref().map_or(&adapted, |recomputed| recomputed);
    let device = model.device();
    let mut batches = |step: u64| {
        adapted.dropout.replace(Some(Dropout::new(recipe.seed, step)));
        let micros = &plan.steps[step as usize];
        Ok(micros.iter().map(|rows| Micro::from_rows(tokens, rows, false, device)).collect())
    };
    fit(&recipe.fit, learner, &mut adamw, &mut batches, watch)
}
