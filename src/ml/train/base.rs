//! Trains a base from random weights on blocks of running text and on rows of prompts.
//! It does not know where they come from, nor where the base goes.

use tch::Device;

use super::adamw::{AdamW, AdamWOptions};
use super::arms::Adapted;
use super::batch::Plan;
use super::curve::Curve;
use super::fit::{Fit, Watch, fit};
use super::micro::Micro;
use crate::error::Result;
use crate::ml::adapters::Arm;
use crate::ml::models::Model;
use crate::ml::tokens::Tokens;

/// Bytes that a training keeps for each weight, all in f32: its value, the gradient of the step, that of a
/// micro-batch as it comes and in one piece, and AdamW's two moments. Activations come on top.
pub const BYTES_PER_WEIGHT: u128 = 6 * 4;

/// What a base is trained on.
pub struct Diet {
    /// Running text, cut into blocks of `width` ids one after the other; what is left at the end is not used.
    pub text: Vec<u32>,
    /// Ids of a block.
    pub width: usize,
    /// Which blocks stand together in which text step.
    pub blocks: Plan,
    /// Rows of prompts with their answers, a task each, and which of them stand together in which of its steps. The
    /// tasks take turns: a short answer, such as a label, would hardly count beside the long ones of another task.
    pub prompts: Vec<(Tokens, Plan)>,
    /// Share of the steps that take prompts, 0 without any; they are spread evenly.
    pub prompt_share: f64,
    /// True if the prompts have loss too, false if only the answers have.
    pub prompt_loss: bool,
}

impl Diet {
    /// How many of the first `steps` steps take prompts.
    pub fn prompt_steps(steps: u64, share: f64) -> u64 {
        (steps as f64 * share).floor() as u64
    }

    fn micro(&self, step: u64, device: Device) -> Micro {
        let before = Self::prompt_steps(step, self.prompt_share);
        let takes_prompts = Self::prompt_steps(step + 1, self.prompt_share) > before;
        if takes_prompts {
            let before = before as usize;
            let (tokens, plan) = &self.prompts[before % self.prompts.len()];
            return Micro::from_rows(tokens, &plan.steps[before / self.prompts.len()][0], self.prompt_loss, device);
        }
        let blocks = &self.blocks.steps[(step - before) as usize][0];
        let ids: Vec<i64> = blocks
            .iter()
            .flat_map(|block| &self.text[block * self.width..(block + 1) * self.width])
            .map(|&id| i64::from(id))
            .collect();
        Micro::from_blocks(&ids, self.width, device)
    }
}

/// Trains every weight of `model`, which is one of `models::fresh`. Matrices have weight decay, norms have not.
pub fn train_base(
    model: &dyn Model,
    diet: &Diet,
    options: &Fit,
    adamw: AdamWOptions,
    watch: &mut dyn Watch,
) -> Result<Curve> {
    let weights: Vec<_> = model.weights().into_iter().collect();
    let mut adamw = AdamW::new(&weights, adamw, |_, tensor| tensor.dim() >= 2)?;
    let arm = Arm::none();
    let learner = Adapted::new(model, &arm, None);
    let device = model.device();
    fit(options, &learner, &mut adamw, &mut |step| Ok(vec![diet.micro(step, device)]), watch)
}
