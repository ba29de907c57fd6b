//! Mistral (transformers' `modeling_mistral.py`): a Llama with a sliding window in every block.
//! It does not know how anything is computed.

use super::Architecture;
use super::llama::{self, LLAMA, Like};
use crate::error::Result;
use crate::ml::config::fields::Fields;
use crate::ml::config::{ModelConfig, Window};

/// The entry of `MODELS`.
pub const ARCHITECTURE: Architecture = Architecture { name: "mistral", class: "MistralForCausalLM", read };

fn read(this: &Architecture, fields: &Fields) -> Result<ModelConfig> {
    let defaults = Like { key_value_heads: Some(8), max_position_embeddings: 131_072, ..LLAMA };
    let mut config = llama::like(this, fields, &defaults)?;
    let size = fields.switched_size("sliding_window", Some(4096))?;
    config.attention.window = size.map(|size| Window { size, layers: vec![true; config.num_hidden_layers as usize] });
    Ok(config)
}
