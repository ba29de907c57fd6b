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
//! So it pays where a step is so small that what is around its products costs as much as they do. Above, the activations
//! of eight leave the cache. A GPU has more to gain, but was not measured: there it is only done when it is asked for.

use std::collections::BTreeMap;

use serde_json::json;

use super::Params;
use crate::ml::config::ModelConfig;
use crate::ml::device::Precision;
use crate::ml::tokens;
use crate::ml::train::memory::Memory;
use crate::step::{Artifact, Machine, Share, Together};

/// Ids of a micro-batch up to which it pays.
const IDS: u64 = 96;
/// The widest product whose rows are the same beside others.
const WIDTH: i64 = 1024;
/// Arms that were measured together.
const MOST: usize = 8;

/// See [`crate::step::Kind::together`].
pub fn together(params: &Params, inputs: &BTreeMap<String, Vec<Artifact>>, machine: &Machine) -> Option<Together> {
    if params.memory == Memory::Low {
        return None;
    }
    let one = |port: &str| inputs.get(port).and_then(|all| all.first());
    let (base, data) = (one("model")?, one("data")?);
    let config = ModelConfig::read(&base.path).ok()?;
    let info = tokens::read_info(&data.path.join(tokens::INFO)).ok()?;
    let (precision, _) = params.dtype.choose(&machine.device, machine.bf16, config.hidden_size);
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
    let ids = u64::from(params.batch_size) * info.tokens / info.rows.max(1);
    let pays = machine.device == "cpu"
        && precision == Precision::F32
        && machine.threads(Share::Half) == 1
        && config.hidden_size.max(config.intermediate_size) <= WIDTH
        && ids <= IDS;
    Some(Together { with: with.to_string(), most: MOST, pays })
}
