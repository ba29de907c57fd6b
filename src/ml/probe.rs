//! What adapters change of a model's logits, tried on a few prompts.
//! It does not know what is made of it.

use tch::{Kind, Tensor};

use super::adapters::Arm;
use super::models::{Input, Model};

/// How far logits move.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shift {
    /// The largest absolute change of a logit.
    pub most: f64,
    /// The mean absolute change.
    pub mean: f64,
    /// Prompts whose likeliest next id is another.
    pub flips: u64,
    /// How far rounding alone may move them: ε of the base's dtype times its largest logit.
    pub rounding: f64,
}

/// Prompts, and the logits of the base at their ends.
pub struct Probe {
    prompts: Vec<Vec<i64>>,
    base: Vec<Tensor>, // [1, V]
}

impl Probe {
    /// Asks the base.
    pub fn of(model: &dyn Model, prompts: &[Vec<i64>]) -> Self {
        let base = prompts.iter().map(|prompt| logits(model, &Arm::none(), prompt)).collect();
        Self { prompts: prompts.to_vec(), base }
    }

    /// How many prompts there are.
    pub fn inputs(&self) -> usize {
        self.prompts.len()
    }

    /// How far the adapters move the logits.
    pub fn shift(&self, model: &dyn Model, arm: &Arm) -> Shift {
        let mut shift = Shift { most: 0.0, mean: 0.0, flips: 0, rounding: 0.0 };
        let mut largest = 0.0_f64;
        for (prompt, base) in self.prompts.iter().zip(&self.base) {
            let (base, adapted) = (base.to_kind(Kind::Double), logits(model, arm, prompt).to_kind(Kind::Double));
            let change = (&adapted - &base).abs();
            shift.most = shift.most.max(change.max().double_value(&[]));
            shift.mean += change.mean(Kind::Double).double_value(&[]) / self.prompts.len() as f64;
            let best = |logits: &Tensor| logits.argmax(-1, false).int64_value(&[0]);
            shift.flips += u64::from(best(&base) != best(&adapted));
            largest = largest.max(base.abs().max().double_value(&[]));
        }
        let epsilon = if model.kind() == Kind::BFloat16 { 0.5_f64.powi(7) } else { f64::from(f32::EPSILON) };
        shift.rounding = epsilon * largest;
        shift
    }
}

/// Logits at the end of a prompt. Each prompt goes through alone, so that neither padding nor neighbours have a part in
/// it.
fn logits(model: &dyn Model, arm: &Arm, prompt: &[i64]) -> Tensor {
    let ids = Tensor::from_slice(prompt).unsqueeze(0).to_device(model.device());
    let last = Tensor::from(prompt.len() as i64 - 1).view([1]).to_device(model.device());
    let input = Input { wanted: Some(&last), ..Input::of(&ids) };
    tch::no_grad(|| model.logits(&model.hidden(&input, arm, None)))
}
