//! The step kind `train`: trains LoRA, DoRA, IA3, a bottleneck MLP, or two of them together on a frozen base.
//! It does not know how a step of training works (`ml::train`) nor how good the result is (`evaluate`).

#[cfg(feature = "torch")]
pub(super) mod compute;
#[cfg(feature = "torch")]
pub(super) mod listener;
mod together;

use std::collections::BTreeMap;
use std::path::Path as FilePath;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::optimiser::optimised;
#[cfg(not(feature = "torch"))]
use super::without_torch as compute;
use crate::error::{Path, Problem, Result};
use crate::ml::adapters::{AdapterParams, matching, parameter_count};
use crate::ml::config::ModelConfig;
use crate::ml::device::Dtype;
use crate::ml::train::memory::Memory;
use crate::step::{Arity, Artifact, Context, Ended, Input, Kind, Machine, Outlook, Output, Share, Together};

/// See the module.
pub struct Train;

optimised! {
/// The adapters and how they are trained.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The adapters: `lora`, `ia3`, `mlp`, or `mlp` with one of the others.
    pub adapter: AdapterParams,
    /// Another adapter whose number of parameters this one shall have: `rank` or `hidden_size` is then solved for, to
    /// the nearest, and what stands there is not used.
    #[serde(default)]
    pub match_parameters: Option<AdapterParams>,
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
    /// Steps over which the learning rate rises from 0, instead of `warmup_ratio`.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10_000_000))]
    pub warmup_steps: Option<u64>,
    /// `low` keeps only what goes into each block and computes the rest again on the way back: much less memory, a quarter
    /// to a half more time.
    #[serde(default)]
    pub memory: Memory,
    /// Seed of the adapters' first values, of the order of rows, and of dropout.
    #[serde(default = "defaults::seed")]
    pub seed: u64,
    /// The precision of the frozen base: `auto`, `f32` or `bf16`.
    #[serde(default)]
    pub dtype: Dtype,
}
}

impl Params {
    /// The adapter in its size on a base of this shape.
    fn adapter_for(&self, config: &ModelConfig) -> Result<AdapterParams> {
        match &self.match_parameters {
            Some(other) => matching::matched(&self.adapter, other, config),
            None => Ok(self.adapter.clone()),
        }
    }
}

mod defaults {
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
    pub fn betas() -> [f64; 2] {
        [0.9, 0.999]
    }
    pub fn weight_decay() -> f64 {
        0.0
    }
    pub fn seed() -> u64 {
        42
    }
}

impl Kind for Train {
    const NAME: &'static str = "train";
    /// 1: AdamW on LoRA and bottleneck adapters, loss on answers.
    /// 2: a side-car beside the adapter; LoRA and MLP together as AdapterHub's `union`.
    /// 3: what the training was given stands beside the adapter.
    /// 4: products of f32 with all of the processor's instructions; one softmax gives loss and gradient.
    /// 5: the last block and the final norm at positions with a target alone; rotary angles and LoRA in fewer
    /// operations.
    const VERSION: u32 = 6;
    const SUMMARY: &'static str = "Trains LoRA, DoRA, IA3, a bottleneck MLP, or two together on a frozen base";
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
        Output {
            name: "adapter",
            file: "adapter",
            doc: "The adapter in PEFT's format, or in AdapterHub's where PEFT has none",
        },
        Output { name: "curve", file: "curve.csv", doc: "Loss, learning rate and gradient norm of every step" },
        Output { name: "summary", file: "summary.json", doc: "Sizes, first and last loss, dtype" },
    ];
    type Params = Params;
    const TORCH: bool = true;
    const LENGTHS: &'static [&'static str] = &["steps", "epochs"];

    fn check(params: &Params) -> Vec<Problem> {
        let mut problems = params.adapter.check(&Path::root().key("adapter"));
        if let Some(other) = &params.match_parameters {
            problems.extend(other.check(&Path::root().key("match_parameters")));
            problems.extend(matching::problem(&params.adapter));
        }
        let (length, what) = match params.schedule_steps {
            Some(steps) => (Some(steps), "schedule"),
            None => (params.steps, "run"),
        };
        if let (Some(steps), Some(warmup)) = (length, params.warmup_steps)
            && warmup > steps
        {
            let what = format!("the warm-up of {warmup} steps is longer than the {steps} steps of the {what}");
            problems.push(Problem::new(what).at(Path::root().key("warmup_steps")));
        }
        problems
    }

    /// Counts the parameters from the shape of the base alone.
    fn outlook(params: &Params, inputs: &BTreeMap<String, Vec<Outlook>>, _made: Option<&FilePath>) -> Outlook {
        let base = inputs.get("model").and_then(|all| all.first()).and_then(|base| base.config.as_ref());
        let Some(config) = base.and_then(|config| ModelConfig::from_value(config).ok()) else {
            return Outlook::default();
        };
        match params.adapter_for(&config).and_then(|adapter| parameter_count(&adapter, &config)) {
            Ok(count) => {
                Outlook { facts: BTreeMap::from([("trainable_parameters".to_owned(), count)]), ..Outlook::default() }
            }
            Err(problem) => Outlook { problem: Some(problem), ..Outlook::default() },
        }
    }

    fn environment(_params: &Params, machine: &Machine) -> BTreeMap<String, String> {
        machine.torch_environment()
    }

    /// What was measured of the precision of the base, where `dtype: auto` goes by that.
    fn decided(
        params: &Params,
        inputs: &BTreeMap<String, Vec<Artifact>>,
        machine: &Machine,
    ) -> BTreeMap<String, String> {
        super::precision::decided(params.dtype, inputs, machine, machine.threads(Self::share(params)))
    }

    /// Half, so that two arms train side by side.
    fn share(_params: &Params) -> Share {
        Share::Half
    }

    fn fixed(params: &Params, length: &str) -> Option<Problem> {
        match (length, params.steps) {
            ("epochs", Some(_)) => Some(Problem::new("`epochs` is not used where `steps` is given")),
            ("steps", None) => Some(Problem::new("the step has no `steps`, so `epochs` says how long it is")),
            _ => params.moves_with(length, params.warmup_steps),
        }
    }

    fn together(params: &Params, inputs: &BTreeMap<String, Vec<Artifact>>, machine: &Machine) -> Option<Together> {
        together::together(params, inputs, machine)
    }

    fn run_together(members: &mut [(&Params, &mut Context)], exact: bool, ended: &mut Ended<'_>) -> Result<()> {
        compute::run_together(members, exact, ended)
    }

    fn run(params: &Params, cx: &mut Context) -> Result<()> {
        compute::run(params, cx)
    }
}
