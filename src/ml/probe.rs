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

/// Logits at the end of each prompt with and without the adapters. Each prompt goes through alone, so that neither
/// padding nor neighbours have a part in it.
pub fn probe(model: &dyn Model, arm: &Arm, prompts: &[Vec<i64>]) -> Shift {
    let none = Arm::none();
    let mut shift = Shift { most: 0.0, mean: 0.0, flips: 0, rounding: 0.0 };
    let mut largest = 0.0_f64;
    for prompt in prompts {
        let ids = Tensor::from_slice(prompt).unsqueeze(0).to_device(model.device());
        let last = Tensor::from(prompt.len() as i64 - 1).view([1]).to_device(model.device());
        let logits = |arm: &Arm| {
            let wanted = Some(&last);
            model.logits(&model.hidden(&Input { wanted, ..Input::of(&ids) }, arm, None)).to_kind(Kind::Double)
        };
        let (base, adapted) = tch::no_grad(|| (logits(&none), logits(arm)));
        let change = (&adapted - &base).abs();
        shift.most = shift.most.max(change.max().double_value(&[]));
        shift.mean += change.mean(Kind::Double).double_value(&[]) / prompts.len() as f64;
        let best = |logits: &Tensor| logits.argmax(-1, false).int64_value(&[0]);
        shift.flips += u64::from(best(&base) != best(&adapted));
        largest = largest.max(base.abs().max().double_value(&[]));
    }
    let epsilon = if model.kind() == Kind::BFloat16 { 0.5_f64.powi(7) } else { f64::from(f32::EPSILON) };
    shift.rounding = epsilon * largest;
    shift
}
