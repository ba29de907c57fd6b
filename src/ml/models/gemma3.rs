//! The text model of Gemma 3 (transformers' `modeling_gemma3.py`): a Gemma 2 with norms of each head's query and key,
//! and other rotary angles in blocks with a window. It does not know images, nor how anything is computed.

use super::Architecture;
use super::gemma2::{self, GEMMA2};
use super::llama::Like;
use crate::error::Result;
use crate::ml::config::fields::Fields;
use crate::ml::config::{ModelConfig, rope};

/// The entry of `MODELS`.
pub const ARCHITECTURE: Architecture = Architecture { name: "gemma3_text", class: "Gemma3ForCausalLM", read };

fn read(this: &Architecture, fields: &Fields) -> Result<ModelConfig> {
    let defaults = Like { max_position_embeddings: 131_072, theta: 1e6, rotary: rope::read_pair, ..GEMMA2 };
    let pattern = fields.size("sliding_window_pattern", Some(6))?;
    let mut config = gemma2::like(this, fields, &defaults, |layer| (layer + 1) % pattern != 0)?;
    config.attention.head_norm = true;
    config.logit_softcap = fields.switched_positive("final_logit_softcapping", None)?;
    Ok(config)
}
