//! What a decoder computes, in words that all architectures share: read from a checkpoint's `config.json`.
//! It does not know tensors: shapes and counts follow from it without libtorch. What a family calls its fields, its
//! file in `models` knows.

pub mod fields;
pub mod rope;
mod start;

use serde_json::Value;

use self::rope::Rope;
pub use self::start::Start;

/// A decoder. Sizes have the names of transformers' `LlamaConfig`.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The architecture, such as `llama`.
    pub model_type: &'static str,
    /// transformers' class of it, such as `LlamaForCausalLM`.
    pub class: &'static str,
    /// Rows of the embedding.
    pub vocab_size: i64,
    /// Width of the residual stream, H.
    pub hidden_size: i64,
    /// Width inside the feed-forward block.
    pub intermediate_size: i64,
    /// Number of blocks.
    pub num_hidden_layers: i64,
    /// Query heads.
    pub num_attention_heads: i64,
    /// Key and value heads; divides the query heads.
    pub num_key_value_heads: i64,
    /// Width of a head.
    pub head_dim: i64,
    /// The longest sequence it was made for.
    pub max_position_embeddings: i64,
    /// True if the head is the embedding.
    pub tie_word_embeddings: bool,
    /// First id of a text.
    pub bos_token_id: Option<i64>,
    /// Ids that end a text.
    pub eos_token_ids: Vec<i64>,
    /// Id that fills a batch.
    pub pad_token_id: Option<i64>,
    /// How a token's place gets into the computation.
    pub positions: Positions,
    /// Embeddings are multiplied by this.
    pub embedding_scale: Option<f64>,
    /// Its norms.
    pub norm: Norm,
    /// How queries meet keys.
    pub attention: Attention,
    /// The function inside the feed-forward block.
    pub activation: Activation,
    /// True if both halves of a block read the same residual stream, instead of one after the other.
    pub parallel_residual: bool,
    /// Logits are bent to c · tanh(x / c).
    pub logit_softcap: Option<f64>,
    /// The projections of a block, in the order of the forward pass.
    pub block: Vec<Projection>,
    /// True if weights of projections are stored as [inputs, outputs] (transformers' `Conv1D`; the word is PEFT's).
    pub fan_in_fan_out: bool,
    /// What the checkpoint calls its modules.
    pub names: Names,
    /// Dropout of the base itself, by the names of its options, where it is not 0. It belongs to a training of all
    /// weights: here the base is frozen, and it is never applied.
    pub dropout: Vec<(&'static str, f64)>,
    /// The parsed `config.json`.
    pub source: Value,
}

/// How a token's place gets into the computation.
#[derive(Debug, Clone, PartialEq)]
pub enum Positions {
    /// An embedding of each place is added to that of the token.
    Learned,
    /// Queries and keys are turned by angles that grow with the place.
    Rotary {
        /// In blocks that see everything; in all blocks if there is no other.
        rope: Rope,
        /// In blocks with a sliding window.
        sliding: Option<Rope>,
    },
}

/// Every norm of a decoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Norm {
    /// The formula.
    pub kind: NormKind,
    /// ε.
    pub eps: f64,
}

/// The formula of a norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// x / rms(x) · w.
    Rms,
    /// x / rms(x) · (1 + w).
    RmsPlusOne,
    /// (x - mean(x)) / std(x) · w + b.
    Layer,
}

/// How queries meet keys.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attention {
    /// Scores are multiplied by this; by 1 / √`head_dim` if it is none.
    pub scale: Option<f64>,
    /// True if the scores of block i are also divided by i + 1.
    pub scale_by_layer: bool,
    /// Scores are bent to c · tanh(x / c).
    pub softcap: Option<f64>,
    /// True if each head's query and key go through a norm before they are turned.
    pub head_norm: bool,
    /// How far back some blocks see.
    pub window: Option<Window>,
}

/// A sliding window of attention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Positions that a query sees, its own included.
    pub size: i64,
    /// Which blocks have it.
    pub layers: Vec<bool>,
}

/// The function inside the feed-forward block, by transformers' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `silu`, `swish`.
    Silu,
    /// `gelu`, `gelu_python`: x Φ(x).
    Gelu,
    /// `gelu_new`, `gelu_fast`, `gelu_accurate`, `gelu_pytorch_tanh`, `gelu_python_tanh`: Φ by a tanh.
    GeluTanh,
    /// `quick_gelu`: x σ(1.702 x).
    QuickGelu,
    /// `gelu_10`: x Φ(x), cut at ±10.
    ClippedGelu,
    /// `relu`.
    Relu,
    /// `relu2`: its square.
    SquaredRelu,
    /// `relu6`: cut at 6.
    Relu6,
    /// `leaky_relu`: 0.01 x below 0.
    LeakyRelu,
    /// `tanh`.
    Tanh,
    /// `sigmoid`.
    Sigmoid,
    /// `mish`: x tanh(ln(1 + eˣ)).
    Mish,
    /// `laplace`: Φ((x - 0.707107) / 0.282095).
    Laplace,
    /// `linear`: x.
    Linear,
}

impl Activation {
    /// Names of transformers' `ACT2FN` (4.57 and 5.23) and what they mean; those with parameters of their own
    /// (`prelu`, `xielu`) are missing.
    pub const NAMES: &[(&str, Self)] = &[
        ("silu", Self::Silu),
        ("swish", Self::Silu),
        ("gelu", Self::Gelu),
        ("gelu_python", Self::Gelu),
        ("gelu_new", Self::GeluTanh),
        ("gelu_fast", Self::GeluTanh),
        ("gelu_accurate", Self::GeluTanh),
        ("gelu_pytorch_tanh", Self::GeluTanh),
        ("gelu_python_tanh", Self::GeluTanh),
        ("quick_gelu", Self::QuickGelu),
        ("gelu_10", Self::ClippedGelu),
        ("relu", Self::Relu),
        ("relu2", Self::SquaredRelu),
        ("relu6", Self::Relu6),
        ("leaky_relu", Self::LeakyRelu),
        ("tanh", Self::Tanh),
        ("sigmoid", Self::Sigmoid),
        ("mish", Self::Mish),
        ("laplace", Self::Laplace),
        ("linear", Self::Linear),
    ];
}

/// A projection of every block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Projection {
    /// What it is for.
    pub role: Role,
    /// Its name inside a block, such as `self_attn.q_proj`.
    pub module: &'static str,
    /// Width in.
    pub inputs: i64,
    /// Width out.
    pub outputs: i64,
    /// True if it has a bias.
    pub bias: bool,
}

/// What a projection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Queries of all heads.
    Query,
    /// Keys.
    Key,
    /// Values.
    Value,
    /// All three, one after the other: [queries | keys | values].
    Stacked,
    /// All three, head by head: [query, key, value of head 0 | of head 1 | …].
    Interleaved,
    /// From the heads back to the residual stream.
    Output,
    /// What the inside of the feed-forward block is multiplied by, through the activation. Without a gate the
    /// activation is applied to `Up`.
    Gate,
    /// Into the feed-forward block.
    Up,
    /// Out of it.
    Down,
}

/// What a checkpoint calls its modules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names {
    /// Module that holds everything but the head: the first part of its tensors' names, missing where a checkpoint
    /// was saved without a head.
    pub base: &'static str,
    /// Embedding of tokens.
    pub embedding: &'static str,
    /// Embedding of places, if they are learned.
    pub positions: &'static str,
    /// Blocks, followed by their number.
    pub blocks: &'static str,
    /// The norm after the last block.
    pub final_norm: &'static str,
    /// The language-model head.
    pub head: &'static str,
    /// Inside a block: attention.
    pub attention: &'static str,
    /// Inside a block: feed-forward.
    pub feed_forward: &'static str,
    /// Inside a block: what attention reads goes through this norm.
    pub attention_norm: &'static str,
    /// Inside a block: what attention says goes through this norm.
    pub attention_out_norm: Option<&'static str>,
    /// Inside a block: what feed-forward reads goes through this norm.
    pub feed_forward_norm: &'static str,
    /// Inside a block: what feed-forward says goes through this norm.
    pub feed_forward_out_norm: Option<&'static str>,
    /// Ends of the names of tensors that old checkpoints carry although they follow from the configuration.
    pub constants: &'static [&'static str],
}

impl ModelConfig {
    /// The `config.json` that it was read from.
    pub fn to_value(&self) -> Value {
        self.source.clone()
    }

    /// All that the speed of a model depends on, in a line: models of one shape are as fast as each other.
    pub fn shape(&self) -> String {
        let Self { model_type, hidden_size, intermediate_size, num_hidden_layers, vocab_size, .. } = self;
        let (heads, shared, width) = (self.num_attention_heads, self.num_key_value_heads, self.head_dim);
        format!(
            "{model_type}: {num_hidden_layers} blocks, {hidden_size} wide, {intermediate_size} inside, \
             {heads}/{shared} heads of {width}, {vocab_size} ids"
        )
    }

    /// Name, width in and width out of a block's projections, in the order of the forward pass.
    pub fn projections(&self) -> Vec<(&'static str, i64, i64)> {
        self.block.iter().map(|p| (p.module, p.inputs, p.outputs)).collect()
    }

    /// The checkpoint's name of a module inside a block.
    pub fn module(&self, layer: i64, module: &str) -> String {
        format!("{}.{layer}.{module}", self.names.blocks)
    }

    /// How many ids a text may have, and the option that says so; `None` if longer ones work too.
    pub fn longest(&self) -> Option<(i64, &'static str)> {
        match &self.positions {
            Positions::Learned => Some((self.max_position_embeddings, "max_position_embeddings")),
            Positions::Rotary { rope, sliding } => [Some(rope), sliding.as_ref()]
                .into_iter()
                .flatten()
                .any(Rope::depends_on_length)
                .then_some((self.max_position_embeddings, "rope_type: dynamic")),
        }
    }

    /// True if this block has a sliding window.
    pub fn slides(&self, layer: i64) -> bool {
        let window = self.attention.window.as_ref();
        window.is_some_and(|window| window.layers.get(layer as usize).copied().unwrap_or(false))
    }
}
