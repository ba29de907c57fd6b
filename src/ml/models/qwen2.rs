//! Qwen2 and 2.5 (transformers' `modeling_qwen2.py`): a Llama whose queries, keys and values have biases.
//! It does not know how anything is computed.

use super::Architecture;
use super::llama::{self, LLAMA, Like};
use crate::error::Result;
use crate::ml::config::ModelConfig;
use crate::ml::config::fields::Fields;

/// The entry of `MODELS`.
pub const ARCHITECTURE: Architecture = Architecture { name: "qwen2", class: "Qwen2ForCausalLM", read };

fn read(this: &Architecture, fields: &Fields) -> Result<ModelConfig> {
    let defaults = Like {
        key_value_heads: Some(32),
        max_position_embeddings: 32_768,
        ids: [None; 3],
        biases: [true, false, false],
        ..LLAMA
    };
    let mut config = llama::like(this, fields, &defaults)?;
    config.attention.window = llama::qwen_window(fields, config.num_hidden_layers)?;
    Ok(config)
}
