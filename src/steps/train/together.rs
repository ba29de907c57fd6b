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
//! any case), so that results differ by rounding from those of arms alone. Law 9 goes before speed: it is done only when
//! it is asked for. A GPU has more to gain, and promises no bits, but was not measured.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Params, Train};
use crate::ml::config::ModelConfig;
use crate::ml::tokens::TokensInfo;
use crate::ml::train::memory::Memory;
use crate::step::{Artifact, Kind, Machine, Together};
use crate::steps::precision::choose;

/// Arms that were measured together.
const MOST: usize = 8;
/// Ids that go through the model at once on a GPU, so that arms together take no more memory than one on as many.
const IDS: u64 = 2048;

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
    let most = usize::try_from(IDS / ids).unwrap_or(MOST).min(MOST);
    Some(Together { with, most: most.max(1), pays: most > 1 })
}
