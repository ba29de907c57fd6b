//! Qwen3 (transformers' `modeling_qwen3.py`): a Llama that normalises each head's query and key before it turns them.
//! It does not know how anything is computed.

use super::Architecture;
use super::llama::{self, LLAMA, Like};
use crate::error::Result;
use crate::ml::config::ModelConfig;
use crate::ml::config::fields::Fields;

/// The entry of `MODELS`.
pub const ARCHITECTURE: Architecture = Architecture { name: "qwen3", class: "Qwen3ForCausalLM", read };

fn read(this: &Architecture, fields: &Fields) -> Result<ModelConfig> {
    let bias = fields.flag("attention_bias", false)?;
    let defaults = Like {
        key_value_heads: Some(32),
        head_dim: Some(128),
        max_position_embeddings: 32_768,
        ids: [None; 3],
        biases: [bias, bias, false],
        ..LLAMA
    };
    let mut config = llama::like(this, fields, &defaults)?;
    config.attention.head_norm = true;
    config.attention.window = llama::qwen_window(fields, config.num_hidden_layers)?;
    Ok(config)
}
