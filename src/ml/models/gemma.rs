//! Gemma 1 (transformers' `modeling_gemma.py`): a Llama with scaled embeddings, norms around 1 and a tied head; and
//! what Gemma 2 and 3 have in common with it. It does not know how anything is computed.

use super::Architecture;
use super::llama::{self, LLAMA, Like};
use crate::error::Result;
use crate::ml::config::fields::Fields;
use crate::ml::config::{Activation, ModelConfig, NormKind};

/// The entry of `MODELS`.
pub const ARCHITECTURE: Architecture = Architecture { name: "gemma", class: "GemmaForCausalLM", read };

/// Defaults of `GemmaConfig`.
pub(super) const GEMMA: Like = Like {
    key_value_heads: Some(16),
    head_dim: Some(256),
    max_position_embeddings: 8192,
    tied: true,
    ids: [Some(2), Some(1), Some(0)],
    activation: ("hidden_act", Activation::GeluTanh),
    norm: NormKind::RmsPlusOne,
    ..LLAMA
};

fn read(this: &Architecture, fields: &Fields) -> Result<ModelConfig> {
    let mut config = like(this, fields, &GEMMA)?;
    // The first checkpoints say `gelu` and mean its approximation by a tanh: transformers 5 reads them so.
    if config.activation == Activation::Gelu {
        config.activation = Activation::GeluTanh;
    }
    Ok(config)
}

/// The part that all Gemmas share; `defaults` says what differs.
pub(super) fn like(this: &Architecture, fields: &Fields, defaults: &Like) -> Result<ModelConfig> {
    let bias = fields.flag("attention_bias", false)?;
    let mut config = llama::like(this, fields, &Like { biases: [bias, bias, false], ..*defaults })?;
    config.embedding_scale = Some((config.hidden_size as f64).sqrt());
    Ok(config)
}
