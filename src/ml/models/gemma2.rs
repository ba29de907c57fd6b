//! Gemma 2 (transformers' `modeling_gemma2.py`): a Gemma with norms behind each sub-layer, bent scores and logits, and
//! a window in every other block. It does not know how anything is computed.

use super::Architecture;
use super::gemma::{self, GEMMA};
use super::llama::{Like, NAMES};
use crate::error::Result;
use crate::ml::config::fields::Fields;
use crate::ml::config::{Activation, ModelConfig, Names};

/// The entry of `MODELS`.
pub const ARCHITECTURE: Architecture = Architecture { name: "gemma2", class: "Gemma2ForCausalLM", read };

/// Norms before and behind each sub-layer.
pub(super) const SANDWICH: Names = Names {
    attention_out_norm: Some("post_attention_layernorm"),
    feed_forward_norm: "pre_feedforward_layernorm",
    feed_forward_out_norm: Some("post_feedforward_layernorm"),
    ..NAMES
};

/// Defaults of `Gemma2Config`.
pub(super) const GEMMA2: Like =
    Like { key_value_heads: Some(4), activation: ("hidden_activation", Activation::GeluTanh), ..GEMMA };

fn read(this: &Architecture, fields: &Fields) -> Result<ModelConfig> {
    let mut config = like(this, fields, &GEMMA2, |layer| layer % 2 == 0)?;
    config.logit_softcap = fields.switched_positive("final_logit_softcapping", Some(30.0))?;
    config.attention.softcap = fields.switched_positive("attn_logit_softcapping", Some(50.0))?;
    Ok(config)
}

/// What Gemma 2 and 3 share; `slides` says which blocks have a window where `layer_types` does not.
pub(super) fn like(
    this: &Architecture,
    fields: &Fields,
    defaults: &Like,
    slides: impl Fn(i64) -> bool,
) -> Result<ModelConfig> {
    let mut config = gemma::like(this, fields, defaults)?;
    config.names = SANDWICH;
    config.attention.scale = Some(fields.positive("query_pre_attn_scalar", 256.0)?.powf(-0.5));
    let size = fields.switched_size("sliding_window", Some(4096))?;
    config.attention.window = fields.window(size, config.num_hidden_layers, slides)?;
    Ok(config)
}
