//! Whether an adapter does anything: its weights at every site, and the logits of a few prompts with and without it.
//! It does not know tasks or gold.

use crate::error::Result;
use crate::ml::adapters::{Arm, Change};
use crate::ml::models::Model;
use crate::ml::probe::Probe;
use crate::report::evidence::{self, Certificate, Effect, Site, Tensors};

/// How many prompts are tried: the first of the task.
pub const INPUTS: usize = 16;

/// Tries an adapter on the prompts of a probe. By these rules, the first that holds:
/// - untrained: its weights change nothing at any site, whatever their scale (LoRA's B is 0, IA3's vectors are 1);
/// - disabled: they would, but are scaled by 0 everywhere;
/// - no effect: no logit at the end of any prompt changes by more than the rounding of the base's numbers,
///   ε · max |logit|;
/// - active.
///
/// That an adapter is not loaded is no state here: a tensor without a place, or a place without a tensor, is an error.
pub fn certify(model: &dyn Model, arm: &Arm, probe: &Probe) -> Result<Certificate> {
    let changes = arm.changes(model)?;
    let shift = probe.shift(model, arm);
    let all = |test: fn(&Change) -> bool| changes.iter().all(test);
    let (state, reason) = if all(|change| change.seat.idle) {
        (
            Effect::Untrained,
            "веса не меняют базовую модель ни в одном месте: они такие же, как в начале обучения".to_owned(),
        )
    } else if all(|change| change.seat.idle || change.seat.off) {
        (Effect::Disabled, "веса обучены, но их множитель везде равен нулю".to_owned())
    } else if shift.most <= shift.rounding {
        let change = shift.most;
        (
            Effect::NoEffect,
            format!("веса отличны от нуля, но логиты не меняются больше чем на округление ({change:.1e})"),
        )
    } else {
        let active = changes.iter().filter(|change| !change.seat.idle && !change.seat.off).count();
        (Effect::Active, format!("меняет базовую модель в {active} из {} мест", changes.len()))
    };
    let placed = arm.parameters().len() as u64;
    let site = |change: &Change| Site {
        name: change.name.clone(),
        kind: change.kind.to_owned(),
        delta_norm: change.norms.map(|(delta, _)| delta),
        weight_norm: change.norms.map(|(_, weight)| weight),
    };
    Ok(Certificate {
        state,
        reason,
        tensors: Tensors { placed, expected: placed },
        sites: changes.iter().map(site).collect(),
        probe: Some(evidence::Probe {
            inputs: probe.inputs() as u64,
            max_logit_change: shift.most,
            mean_logit_change: shift.mean,
            argmax_flips: shift.flips,
        }),
    })
}

/// A certificate in a line of English.
pub fn told(certificate: &Certificate) -> &'static str {
    match certificate.state {
        Effect::Untrained => "its weights are as before training",
        Effect::NotLoaded => "it is not loaded",
        Effect::Disabled => "its scale is zero everywhere",
        Effect::NoEffect => "no logit changes beyond rounding",
        Effect::Active => "it changes logits",
    }
}
