//! GPT-2 (transformers' `modeling_gpt2.py`; ruGPT-3 and ruGPT-3.5 too): learned positions, layer norms, one projection
//! for queries, keys and values, and weights stored as [inputs, outputs]. It does not know how anything is computed.

use super::Architecture;
use crate::error::{Problem, Result};
use crate::ml::config::fields::Fields;
use crate::ml::config::{Activation, Attention, ModelConfig, Names, Norm, NormKind, Positions, Projection, Role};

/// The entry of `MODELS`.
pub const ARCHITECTURE: Architecture = Architecture { name: "gpt2", class: "GPT2LMHeadModel", read };

const NAMES: Names = Names {
    base: "transformer",
    embedding: "transformer.wte",
    positions: "transformer.wpe",
    blocks: "transformer.h",
    final_norm: "transformer.ln_f",
    head: "lm_head",
    attention: "attn",
    feed_forward: "mlp",
    attention_norm: "ln_1",
    attention_out_norm: None,
    feed_forward_norm: "ln_2",
    feed_forward_out_norm: None,
    constants: &[".attn.bias", ".attn.masked_bias"],
};

fn read(this: &Architecture, fields: &Fields) -> Result<ModelConfig> {
    let hidden_size = fields.size("n_embd", None)?;
    let heads = fields.size("n_head", None)?;
    if hidden_size % heads != 0 {
        let what = format!("`n_embd` {hidden_size} cannot be parted into {heads} heads");
        return Err(Problem::new(what).expected("`n_head` that divides `n_embd`"));
    }
    let positions = fields.size("n_positions", Some(1024))?;
    let intermediate_size = fields.size("n_inner", Some(4 * hidden_size))?;
    let (h, f) = (hidden_size, intermediate_size);
    let project = |role, module, inputs, outputs| Projection { role, module, inputs, outputs, bias: true };
    // It says how half-precision scores are rounded; here they are added up in f32 in any case.
    fields.flag("reorder_and_upcast_attn", false)?;
    Ok(ModelConfig {
        model_type: this.name,
        class: this.class,
        vocab_size: fields.size("vocab_size", None)?,
        hidden_size,
        intermediate_size,
        num_hidden_layers: fields.size("n_layer", None)?,
        num_attention_heads: heads,
        num_key_value_heads: heads,
        head_dim: hidden_size / heads,
        max_position_embeddings: positions,
        tie_word_embeddings: fields.flag("tie_word_embeddings", true)?,
        bos_token_id: fields.ids("bos_token_id", Some(50_256))?.first().copied(),
        eos_token_ids: fields.ids("eos_token_id", Some(50_256))?,
        pad_token_id: fields.ids("pad_token_id", None)?.first().copied(),
        positions: Positions::Learned,
        embedding_scale: None,
        norm: Norm { kind: NormKind::Layer, eps: fields.positive("layer_norm_epsilon", 1e-5)? },
        attention: Attention {
            scale: (!fields.flag("scale_attn_weights", true)?).then_some(1.0),
            scale_by_layer: fields.flag("scale_attn_by_inverse_layer_idx", false)?,
            ..Attention::default()
        },
        activation: fields.activation("activation_function", Activation::GeluTanh)?,
        parallel_residual: false,
        logit_softcap: None,
        block: vec![
            project(Role::Stacked, "attn.c_attn", h, 3 * h),
            project(Role::Output, "attn.c_proj", h, h),
            project(Role::Up, "mlp.c_fc", h, f),
            project(Role::Down, "mlp.c_proj", f, h),
        ],
        fan_in_fan_out: true,
        names: NAMES,
        dropout: fields.dropout(&["attn_pdrop", "embd_pdrop", "resid_pdrop"])?,
        source: fields.source(),
    })
}
