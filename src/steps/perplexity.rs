//! `perplexity`: how well a model, bare or with an adapter, still foresees running text: what adapters make it forget.
//! It does not know tasks: text is only read, and the loss of each block kept.

#[cfg(feature = "torch")]
mod compute;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::evaluate::{alone, together};
#[cfg(not(feature = "torch"))]
use super::without_torch as compute;
use crate::error::Result;
use crate::ml::device::Dtype;
use crate::step::{Arity, Artifact, Context, Ended, Input, Kind, Machine, Output, Share, Together};

/// The step kind.
pub struct Perplexity;

/// What to read, and how.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The ids of a block: what stands before it is not seen, and its first id is not foreseen.
    #[serde(default = "block")]
    #[schemars(range(min = 2, max = 32_768))]
    pub block: u32,
    /// Only the first so many documents: files of a folder, or lines of a file.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub limit: Option<u64>,
    /// Only the first so many ids of each document.
    #[serde(default)]
    #[schemars(range(min = 2))]
    pub per_document: Option<u64>,
    /// The most ids, padding included, that go through the model at once. More is faster and takes more memory.
    #[serde(default = "batch_tokens")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub batch_tokens: u32,
    /// The precision of the base: `auto`, `f32` or `bf16`.
    #[serde(default)]
    pub dtype: Dtype,
}

fn block() -> u32 {
    256
}
fn batch_tokens() -> u32 {
    4096
}

const FOLDER: &str = "result";

impl Kind for Perplexity {
    const NAME: &'static str = "perplexity";
    /// 1: the loss of blocks, in nats per id.
    /// 2: records say by its content what was read.
    /// 3: products of f32 with all of the processor's instructions.
    /// 4: the last block and the final norm at positions with a target alone; rotary angles in fewer operations.
    /// 5: two batches beside each other, each of half as many ids.
    /// 6: products of 16 rows at least, attention by blocks of queries.
    const VERSION: u32 = 6;
    const SUMMARY: &'static str = "Measures the loss of a model, bare or with an adapter, on running text";
    const EXAMPLE: &'static str = "lora_text:\n  uses: perplexity\n  in: { model: base, adapter: lora, text: held_text }\n  with: { block: 256 }\n";
    const INPUTS: &'static [Input] = &[
        Input {
            name: "model",
            arity: Arity::One,
            named: false,
            doc: "The base: a folder in Hugging Face's layout with its tokenizer",
        },
        Input {
            name: "text",
            arity: Arity::One,
            named: false,
            doc: "Text that nothing was trained on: a file, whose lines are documents, or a folder of files, which are documents",
        },
        Input {
            name: "adapter",
            arity: Arity::Optional,
            named: true,
            doc: "The adapter of this arm; without it the base alone is measured",
        },
    ];
    const OUTPUTS: &'static [Output] = &[Output {
        name: "result",
        file: FOLDER,
        doc: "A folder with metrics.json, records.csv and, of an adapter, certificate.json, as `evaluate` writes them",
    }];
    type Params = Params;
    const TORCH: bool = true;

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

    fn share(_params: &Params) -> Share {
        Share::Half
    }

    fn together(params: &Params, inputs: &BTreeMap<String, Vec<Artifact>>, _machine: &Machine) -> Option<Together> {
        Some(together::together(&Self::keyed(params), inputs, &["model", "text"], true))
    }

    fn run_together(members: &mut [(&Params, &mut Context)], _exact: bool, ended: &mut Ended<'_>) -> Result<()> {
        compute::read(members, ended)
    }

    fn run(params: &Params, cx: &mut Context) -> Result<()> {
        alone(params, cx, compute::read)
    }
}
