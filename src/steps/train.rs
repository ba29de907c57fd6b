//! The step kind `train`: trains LoRA, a bottleneck MLP, or both together on a frozen base.
//! It does not know how a step of training works (`ml::train`) nor how good the result is (`evaluate`).

#[cfg(feature = "torch")]
pub(super) mod compute;
#[cfg(feature = "torch")]
pub(super) mod listener;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Path, Problem, Result};
use crate::ml::adapters::AdapterParams;
use crate::ml::device::Dtype;
use crate::ml::train::schedule::Schedule;
use crate::step::{Arity, Context, Input, Kind, Machine, Output, Share};

/// See the module.
pub struct Train;

/// The adapters and how they are trained.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The adapters: `lora`, `mlp`, or both.
    pub adapter: AdapterParams,
    /// How many times every row is seen; not used where `steps` is given.
    #[serde(default = "defaults::epochs")]
    #[schemars(range(min = 1, max = 10_000))]
    pub epochs: u64,
    /// Optimiser steps, instead of `epochs`.
    #[serde(default)]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub steps: Option<u64>,
    /// Rows of a micro-batch.
    #[serde(default = "defaults::batch_size")]
    #[schemars(range(min = 1, max = 65_536))]
    pub batch_size: u32,
    /// Ids of a micro-batch at most, padding counted; longer rows then stand in smaller batches.
    #[serde(default)]
    #[schemars(range(min = 1, max = 16_777_216))]
    pub batch_tokens: Option<u32>,
    /// Micro-batches whose gradients are added up for one optimiser step.
    #[serde(default = "defaults::accumulation")]
    #[schemars(range(min = 1, max = 65_536))]
    pub accumulation: u32,
    /// The highest learning rate.
    #[serde(default = "defaults::lr")]
    #[schemars(range(min = 0.0, max = 10.0))]
    pub lr: f64,
    /// How the learning rate moves after the warm-up: `constant`, `linear` or `cosine`.
    #[serde(default = "defaults::schedule")]
    pub schedule: Schedule,
    /// Share of the steps over which the learning rate rises from 0; not used where `warmup_steps` is given.
    #[serde(default = "defaults::warmup_ratio")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub warmup_ratio: f64,
    /// Steps over which the learning rate rises from 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10_000_000))]
    pub warmup_steps: Option<u64>,
    /// AdamW's β₁ and β₂.
    #[serde(default = "defaults::betas")]
    #[schemars(inner(range(min = 0.0, max = 0.999_999)))]
    pub betas: [f64; 2],
    /// AdamW's ε.
    #[serde(default = "defaults::eps")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub eps: f64,
    /// AdamW's decoupled weight decay, on every tensor of the adapters.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 10.0))]
    pub weight_decay: f64,
    /// The largest norm of the gradient of a step; 0 leaves it as it is.
    #[serde(default = "defaults::clip")]
    #[schemars(range(min = 0.0, max = 1_000_000.0))]
    pub clip: f64,
    /// Seed of the adapters' first values, of the order of rows, and of dropout.
    #[serde(default = "defaults::seed")]
    pub seed: u64,
    /// The precision of the frozen base: `auto`, `f32` or `bf16`.
    #[serde(default)]
    pub dtype: Dtype,
}

mod defaults {
    use super::Schedule;

    pub fn epochs() -> u64 {
        3
    }
    pub fn batch_size() -> u32 {
        16
    }
    pub fn accumulation() -> u32 {
        1
    }
    pub fn lr() -> f64 {
        1e-3
    }
    pub fn schedule() -> Schedule {
        Schedule::Cosine
    }
    pub fn warmup_ratio() -> f64 {
        0.05
    }
    pub fn betas() -> [f64; 2] {
        [0.9, 0.999]
    }
    pub fn eps() -> f64 {
        1e-8
    }
    pub fn clip() -> f64 {
        1.0
    }
    pub fn seed() -> u64 {
        42
    }
}

impl Kind for Train {
    const NAME: &'static str = "train";
    /// 1: AdamW on LoRA and bottleneck adapters, loss on answers.
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Trains LoRA, a bottleneck MLP, or both together on a frozen base";
    const EXAMPLE: &'static str = "lora:\n  uses: train\n  in: { model: base, data: tokens }\n  with:\n    adapter: { lora: { rank: 4, alpha: 8 } }\n    epochs: 3\n";
    const INPUTS: &'static [Input] = &[
        Input {
            name: "model",
            arity: Arity::One,
            named: false,
            doc: "The base: a folder in Hugging Face's layout with its tokenizer",
        },
        Input { name: "data", arity: Arity::One, named: false, doc: "Rows made by `tokenize` with the same tokenizer" },
    ];
    const OUTPUTS: &'static [Output] = &[
        Output { name: "adapter", file: "adapter", doc: "The adapter in PEFT's layout, AdapterHub's, or both" },
        Output { name: "curve", file: "curve.csv", doc: "Loss, learning rate and gradient norm of every step" },
        Output { name: "summary", file: "summary.json", doc: "Sizes, first and last loss, dtype" },
    ];
    type Params = Params;

    fn check(params: &Params) -> Vec<Problem> {
        let mut problems = Vec::new();
        if params.adapter.lora.is_none() && params.adapter.mlp.is_none() {
            let problem = Problem::new("there is no adapter to train").at(Path::root().key("adapter"));
            problems.push(problem.expected("`lora`, `mlp`, or both"));
        }
        if let (Some(steps), Some(warmup)) = (params.steps, params.warmup_steps)
            && warmup > steps
        {
            let what = format!("the warm-up of {warmup} steps is longer than the {steps} steps of the run");
            problems.push(Problem::new(what).at(Path::root().key("warmup_steps")));
        }
        problems
    }

    fn environment(_params: &Params, machine: &Machine) -> BTreeMap<String, String> {
        machine.torch_environment()
    }

    /// Half, so that two arms train side by side.
    fn share(_params: &Params) -> Share {
        Share::Half
    }

    #[cfg(feature = "torch")]
    fn run(params: &Params, cx: &mut Context) -> Result<()> {
        compute::run(params, cx)
    }

    #[cfg(not(feature = "torch"))]
    fn run(_params: &Params, _cx: &mut Context) -> Result<()> {
        Err(super::without_torch())
    }
}
