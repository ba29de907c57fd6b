//! Trains the adapters of an arm on tokenised rows, over a frozen base.
//! It does not know kinds of adapters nor architectures.

use std::cell::RefCell;

use tch::{Device, Tensor};

use super::adamw::{AdamW, AdamWOptions};
use super::batch::Plan;
use super::curve::Curve;
use super::fit::{Fit, Watch, fit_beside};
use super::loss::Learner;
use super::mate::Mate;
use super::memory::Memory;
use super::micro::Micro;
use super::recomputed::Recomputed;
use crate::error::Result;
use crate::ml::adapters::Arm;
use crate::ml::crew;
use crate::ml::dropout::Dropout;
use crate::ml::models::{Input, Model, check_ids, check_length};
use crate::ml::tokens::Tokens;

/// A model seen through an arm.
pub struct Adapted<'a> {
    /// The base.
    pub model: &'a dyn Model,
    /// What is attached to it.
    pub arm: &'a Arm,
    /// Seed of the dropout masks; `None` trains without dropout.
    seed: Option<u64>,
    /// Draws the masks of the current micro-batch.
    pub(super) dropout: RefCell<Option<Dropout>>,
}

impl<'a> Adapted<'a> {
    /// With this seed of the dropout masks; `None` trains without dropout.
    pub fn new(model: &'a dyn Model, arm: &'a Arm, seed: Option<u64>) -> Self {
        Self { model, arm, seed, dropout: RefCell::default() }
    }
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
    fn draw(&self, step: u64, micro: usize) {
        self.dropout.replace(self.seed.map(|seed| Dropout::new(seed, step).of(micro)));
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

/// The plan as this model takes it: on a processor in halves, for two threads. A GPU does everything at once, and is not
/// filled by half of a micro-batch. `lengths` are those of the rows.
pub fn divided(plan: Plan, lengths: &[usize], model: &dyn Model) -> Plan {
    let width = usize::try_from(model.config().hidden_size).unwrap_or(0);
    if model.device() == Device::Cpu { plan.halved(lengths, width) } else { plan }
}

/// Trains the arm's tensors on the rows of `plan`, best one that was [`divided`]; only answers have loss.
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
    let device = model.device();
    let mut batches = |step: u64| {
        let micros = &plan.steps[step as usize];
        Ok(micros.iter().map(|rows| Micro::of_answers(tokens, rows, model.kind(), device)).collect())
    };
    let several = plan.steps.iter().any(|micros| micros.len() > 1);
    let halves = crew::halves(device).filter(|_| several);
    std::thread::scope(|scope| {
        let mate = halves.map(|halves| {
            let (model, arm, memory, seed) = (model.share(), arm.share(), recipe.memory, recipe.seed);
            Mate::beside(scope, halves, adamw.gradient().share(), move |work| {
                // What goes wrong here goes wrong in the same way on the thread that this one is beside.
                let _ = with_learner(model.as_ref(), &arm, memory, seed, |learner| {
                    work(learner);
                    Ok(())
                });
            })
        });
        with_learner(model, arm, recipe.memory, recipe.seed, |learner| {
            fit_beside(&recipe.fit, learner, mate.as_ref(), &mut adamw, &mut batches, watch)
        })
    })
}

/// Does this with a learner that keeps so many activations.
fn with_learner<T>(
    model: &dyn Model,
    arm: &Arm,
    memory: Memory,
    seed: u64,
    work: impl FnOnce(&dyn Learner) -> Result<T>,
) -> Result<T> {
    let adapted = Adapted::new(model, arm, Some(seed));
    match memory {
        Memory::Normal => work(&adapted),
        Memory::Low => work(&Recomputed::new(&adapted)?),
    }
}
