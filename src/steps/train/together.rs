//! Which trainings go through one base together, and where that pays.
//! It does not know how they do.
//!
//! Measured with `bench/ml` (`ml pack`), eight LoRA of rank 2 to 16 in f32, one thread each, on AVX-512: processor
//! seconds one by one over together, by ids of a micro-batch.
//!
//! | base | 20 ids | 80 | 160 | 640 and more |
//! |---|---:|---:|---:|---:|
//! | 4 layers, width 128 | 1.88 | 1.20 | 1.15 | 0.80 |
//! | 8 layers, width 256 | 1.90 | 1.22 | 1.02 | 0.84 |
//!
//! So it pays where a step is so small that what is around its products costs as much as they do; above, the activations
//! of eight leave the cache. But a product of so few rows is made by another kernel than one of many (below 16 rows in
//! any case), so that results differ by rounding from those of arms alone. Law 9 goes before speed: on a processor it is
//! done only when it is asked for.
//!
//! A GPU promises no bits, and waits for its processor in small steps. An H200, Llama-2 7B's shape, bf16, eight LoRA of
//! rank 2 to 16 at all projections, seconds one by one over together: 4.7 for 20 ids, 3.7 for 190; a version before, 2.2
//! for 760 and 2.0 for 1024. There it is done wherever the activations of all fit into [`ACTIVATIONS`].

use std::collections::BTreeMap;

use serde_json::json;

use super::{Params, Train};
use crate::ml::config::ModelConfig;
use crate::ml::device::Precision;
use crate::ml::tokens::TokensInfo;
use crate::ml::train::memory::Memory;
use crate::step::{Artifact, Kind, Machine, Together};
use crate::steps::precision::choose;

/// Arms that were measured together.
const MOST: usize = 8;
/// Bytes of activations that arms on a GPU may keep together: those of 1700 ids in a model of 7B.
const ACTIVATIONS: u64 = 8 << 30;

/// See [`crate::step::Kind::together`].
pub fn together(params: &Params, inputs: &BTreeMap<String, Vec<Artifact>>, machine: &Machine) -> Option<Together> {
    if params.memory == Memory::Low {
        return None;
    }
    let one = |port: &str| inputs.get(port).and_then(|all| all.first());
    let (base, data) = (one("model")?, one("data")?);
    let config = ModelConfig::read(&base.path).ok()?;
    let (precision, _) = choose(params.dtype, &config, machine, machine.threads(Train::share(params)));
    // The same rows in the same batches, so that nothing is padded for the sake of others.
    let with = json!([
        base.digest.as_str(),
        data.digest.as_str(),
        precision.name(),
        params.seed,
        params.batch_size,
        params.batch_tokens,
        params.accumulation,
    ]);
    let with = with.to_string();
    if !machine.device.starts_with("cuda") {
        return Some(Together { with, most: MOST, pays: false });
    }
    let info = TokensInfo::read(&data.path).ok()?;
    let row = (info.tokens / info.rows.max(1)).max(1);
    let ids = params.batch_tokens.map_or(row * u64::from(params.batch_size), u64::from).max(row);
    let most = most(&config, precision, ids);
    Some(Together { with, most, pays: most > 1 })
}

/// How many arms may keep the activations of so many ids each.
fn most(config: &ModelConfig, precision: Precision, ids: u64) -> usize {
    let size = |number: i64| u64::try_from(number).unwrap_or(0);
    // Of each block: its norms' inputs and outputs, queries, keys, values and what attention gives, each as wide as the
    // model, and four times the width of its feed-forward.
    let numbers = size(config.num_hidden_layers) * (8 * size(config.hidden_size) + 4 * size(config.intermediate_size));
    let bytes = if precision == Precision::F32 { 4 } else { 2 };
    let fits = ACTIVATIONS / numbers.saturating_mul(bytes).saturating_mul(ids).max(1);
    usize::try_from(fits).unwrap_or(MOST).clamp(1, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_a_gpu_as_many_as_their_activations_leave_room_for() {
        let config = |hidden: i64, inner: i64, layers: i64| {
            let value = json!({"model_type": "llama", "vocab_size": 9, "hidden_size": hidden, "num_attention_heads": 2,
                "intermediate_size": inner, "num_hidden_layers": layers});
            ModelConfig::from_value(&value).unwrap()
        };
        let (large, small) = (config(4096, 11_008, 32), config(128, 256, 4));
        let of = |ids| most(&large, Precision::Bf16, ids);
        assert_eq!([of(20), of(190), of(500), of(1024), of(9000)], [8, 8, 3, 1, 1]);
        assert_eq!(most(&large, Precision::F32, 190), 4);
        assert_eq!(most(&small, Precision::Bf16, 8 * 1024), 8);
    }
}
