//! What `dtype: auto` is for a base on this machine: what was measured there, or else the rule.
//! It does not know how that is measured, nor what is computed.

use std::collections::BTreeMap;

use crate::ml::config::ModelConfig;
use crate::ml::device::{Dtype, Precision};
use crate::step::{Artifact, Machine};

/// The precision of a base with this configuration for a step with so many threads, and why `auto` is that.
pub fn choose(dtype: Dtype, config: &ModelConfig, machine: &Machine, threads: usize) -> (Precision, Option<String>) {
    let (rule, why) = dtype.choose(&machine.device, machine.bf16, config.hidden_size);
    match measured(dtype, config, machine, threads) {
        Some(precision) => (precision, Some("it was measured to be the faster one on this machine".to_owned())),
        None => (rule, why),
    }
}

fn measured(dtype: Dtype, config: &ModelConfig, machine: &Machine, threads: usize) -> Option<Precision> {
    let asked = (dtype == Dtype::Auto && !machine.precisions.is_empty()).then(|| config.shape())?;
    match machine.precision(threads, &asked)? {
        "f32" => Some(Precision::F32),
        "bf16" => Some(Precision::Bf16),
        _ => None,
    }
}

/// See [`crate::step::Kind::decided`], for kinds with a base at the input `model`: what was measured, where it is not
/// what the rule says. Where it is, the answer is the same, and so is the key.
pub fn decided(
    dtype: Dtype,
    inputs: &BTreeMap<String, Vec<Artifact>>,
    machine: &Machine,
    threads: usize,
) -> BTreeMap<String, String> {
    let mut decided = BTreeMap::new();
    if dtype != Dtype::Auto || machine.precisions.is_empty() {
        return decided;
    }
    let base = inputs.get("model").and_then(|all| all.first());
    // A base that cannot be read is told where it is used.
    if let Some(config) = base.and_then(|base| ModelConfig::read(&base.path).ok()) {
        let (rule, _) = dtype.choose(&machine.device, machine.bf16, config.hidden_size);
        let measured = measured(dtype, &config, machine, threads);
        if let Some(precision) = measured.filter(|precision| *precision != rule) {
            decided.insert("dtype".to_owned(), precision.name().to_owned());
        }
    }
    decided
}
