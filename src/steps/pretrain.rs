//! The step kind `pretrain`: trains a small Llama from random weights on running text and on prompts.
//! It does not know how a step of training works (`ml::train`).

#[cfg(feature = "torch")]
mod compute;
mod text;

use std::collections::BTreeMap;
use std::path::Path as FilePath;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::optimiser::optimised;
#[cfg(not(feature = "torch"))]
use super::without_torch as compute;
use crate::error::{Path, Problem, Result};
use crate::ml::config::Start;
use crate::step::{Arity, Context, Input, Kind, Machine, Outlook, Output, Share};

/// See the module.
pub struct Pretrain;

/// The shape of the base, in the words of its `config.json`. The vocabulary is the tokenizer's.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Width of the residual stream.
    #[serde(default = "defaults::hidden_size")]
    #[schemars(range(min = 2, max = 65_536))]
    pub hidden_size: i64,
    /// Width inside the feed-forward block.
    #[serde(default = "defaults::intermediate_size")]
    #[schemars(range(min = 1, max = 262_144))]
    pub intermediate_size: i64,
    /// Number of blocks.
    #[serde(default = "defaults::num_hidden_layers")]
    #[schemars(range(min = 1, max = 1024))]
    pub num_hidden_layers: i64,
    /// Query heads.
    #[serde(default = "defaults::num_attention_heads")]
    #[schemars(range(min = 1, max = 1024))]
    pub num_attention_heads: i64,
    /// Key and value heads; as many as query heads where it is left out.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1024))]
    pub num_key_value_heads: Option<i64>,
    /// The longest sequence that the base is made for.
    #[serde(default = "defaults::max_position_embeddings")]
    #[schemars(range(min = 2, max = 1_048_576))]
    pub max_position_embeddings: i64,
    /// Base of the rotary frequencies.
    #[serde(default = "defaults::rope_theta")]
    #[schemars(range(min = 1.0, max = 1e9))]
    pub rope_theta: f64,
    /// ε of every RMSNorm.
    #[serde(default = "defaults::rms_norm_eps")]
    #[schemars(range(min = 1e-12, max = 0.1))]
    pub rms_norm_eps: f64,
    /// True if the projections of attention have biases. With them a head learns soon to look at a place rather than
    /// at a word, which copying starts from.
    #[serde(default)]
    pub attention_bias: bool,
    /// True if the head is the embedding.
    #[serde(default = "defaults::tie_word_embeddings")]
    pub tie_word_embeddings: bool,
}

/// Which ids of a prompt row have loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PromptLoss {
    /// All of them, as in running text.
    All,
    /// The answer alone.
    Answer,
}

optimised! {
/// The base and how it is trained.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The shape of the base.
    #[serde(default = "defaults::model")]
    pub model: Shape,
    /// How the first weights are drawn: `normal`, or `induction`, from which a narrow base learns to copy in minutes.
    #[serde(default = "defaults::start")]
    pub start: Start,
    /// Optimiser steps.
    #[serde(default = "defaults::steps")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub steps: u64,
    /// Ids of a step, padding counted.
    #[serde(default = "defaults::batch_tokens")]
    #[schemars(range(min = 2, max = 16_777_216))]
    pub batch_tokens: u32,
    /// Ids of a block of running text.
    #[serde(default = "defaults::sequence_length")]
    #[schemars(range(min = 2, max = 1_048_576))]
    pub sequence_length: u32,
    /// Share of the steps that take prompts instead of running text; not used without the input `prompts`.
    #[serde(default = "defaults::prompt_share")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub prompt_share: f64,
    /// Which ids of a prompt have loss: `all`, or those of the `answer`.
    #[serde(default = "defaults::prompt_loss")]
    pub prompt_loss: PromptLoss,
    /// Seed of the first weights and of the order of the batches.
    #[serde(default = "defaults::seed")]
    pub seed: u64,
}
}

mod defaults {
    use super::{PromptLoss, Shape, Start};

    pub fn model() -> Shape {
        Shape {
            hidden_size: hidden_size(),
            intermediate_size: intermediate_size(),
            num_hidden_layers: num_hidden_layers(),
            num_attention_heads: num_attention_heads(),
            num_key_value_heads: None,
            max_position_embeddings: max_position_embeddings(),
            rope_theta: rope_theta(),
            rms_norm_eps: rms_norm_eps(),
            attention_bias: false,
            tie_word_embeddings: tie_word_embeddings(),
        }
    }
    pub fn hidden_size() -> i64 {
        160
    }
    pub fn intermediate_size() -> i64 {
        432
    }
    pub fn num_hidden_layers() -> i64 {
        4
    }
    pub fn num_attention_heads() -> i64 {
        5
    }
    pub fn max_position_embeddings() -> i64 {
        1024
    }
    pub fn rope_theta() -> f64 {
        10_000.0
    }
    pub fn rms_norm_eps() -> f64 {
        1e-5
    }
    pub fn tie_word_embeddings() -> bool {
        true
    }
    pub fn start() -> Start {
        Start::Normal
    }
    pub fn steps() -> u64 {
        600
    }
    pub fn batch_tokens() -> u32 {
        2048
    }
    pub fn sequence_length() -> u32 {
        128
    }
    pub fn prompt_share() -> f64 {
        0.5
    }
    pub fn prompt_loss() -> PromptLoss {
        PromptLoss::All
    }
    pub fn lr() -> f64 {
        3e-3
    }
    pub fn betas() -> [f64; 2] {
        [0.9, 0.95]
    }
    pub fn weight_decay() -> f64 {
        0.1
    }
    pub fn seed() -> u64 {
        42
    }
}

impl Kind for Pretrain {
    const NAME: &'static str = "pretrain";
    /// 1: AdamW on all weights in f32, blocks of text and rows of prompts by turns.
    /// 2: the inputs of `prompts` take turns too.
    /// 3: the model has all files of its tokenizer, not tokenizer.json alone.
    /// 4: products of f32 with all of the processor's instructions.
    /// 5: the last block and the final norm at positions with a target alone; rotary angles in fewer operations.
    const VERSION: u32 = 5;
    const SUMMARY: &'static str = "Trains a small Llama from random weights on running text and on prompts";
    const EXAMPLE: &'static str =
        "base:\n  uses: pretrain\n  in: { tokenizer: tokenizer, text: corpus.text }\n  with: { steps: 600 }\n";
    const INPUTS: &'static [Input] = &[
        Input { name: "tokenizer", arity: Arity::One, named: false, doc: "A folder with a tokenizer" },
        Input {
            name: "text",
            arity: Arity::Many,
            named: false,
            doc: "Plain text files, or folders of .txt files: one paragraph a line",
        },
        Input {
            name: "prompts",
            arity: Arity::Any,
            named: false,
            doc: "Rows made by `tokenize` with this tokenizer; several inputs take turns",
        },
    ];
    const OUTPUTS: &'static [Output] = &[
        Output { name: "model", file: "model", doc: "The base: a folder in Hugging Face's layout" },
        Output { name: "curve", file: "curve.csv", doc: "Loss, learning rate and gradient norm of every step" },
        Output { name: "summary", file: "summary.json", doc: "Sizes, first and last loss" },
    ];
    type Params = Params;
    const TORCH: bool = true;
    const LENGTHS: &'static [&'static str] = &["steps"];

    fn check(params: &Params) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut refuse = |keys: &[&str], what: String| {
            let path = keys.iter().fold(Path::root(), |path, key| path.key(*key));
            problems.push(Problem::new(what).at(path));
        };
        let (hidden, heads) = (params.model.hidden_size, params.model.num_attention_heads);
        if hidden % (2 * heads) != 0 {
            let what = format!("`hidden_size` {hidden} cannot be parted into {heads} heads of an even width");
            refuse(&["model", "hidden_size"], what);
        }
        if let Some(groups) = params.model.num_key_value_heads
            && heads % groups != 0
        {
            let what = format!("{heads} attention heads cannot share {groups} key and value heads");
            refuse(&["model", "num_key_value_heads"], what);
        }
        let shared = params.model.num_key_value_heads.is_some_and(|groups| groups != heads);
        if params.start == Start::Induction
            && (shared || !params.model.attention_bias || params.model.num_hidden_layers < 2)
        {
            let what = "an induction head needs `attention_bias: true`, two layers, and a key head for each query head";
            refuse(&["start"], what.to_owned());
        }
        if i64::from(params.sequence_length) > params.model.max_position_embeddings {
            let limit = params.model.max_position_embeddings;
            refuse(&["sequence_length"], format!("it is longer than `max_position_embeddings` {limit}"));
        }
        if params.batch_tokens < params.sequence_length {
            let what = format!("not even one block of {} ids fits into a step", params.sequence_length);
            refuse(&["batch_tokens"], what);
        }
        problems
    }

    /// The shape that is asked for. How many ids there will be is not known before the tokenizer is; one stands for
    /// them, because no adapter has parameters that depend on it.
    fn outlook(params: &Params, _inputs: &BTreeMap<String, Vec<Outlook>>, made: Option<&FilePath>) -> Outlook {
        let mut config = serde_json::json!(params.model);
        config["model_type"] = "llama".into();
        config["vocab_size"] = 1.into();
        Outlook { config: made.and_then(super::config_of).or(Some(config)), ..Outlook::default() }
    }

    fn environment(_params: &Params, machine: &Machine) -> BTreeMap<String, String> {
        machine.torch_environment()
    }

    fn share(_params: &Params) -> Share {
        Share::All
    }

    fn fixed(params: &Params, length: &str) -> Option<Problem> {
        params.moves_with(length, None)
    }

    fn run(params: &Params, cx: &mut Context) -> Result<()> {
        compute::run(params, cx)
    }
}
