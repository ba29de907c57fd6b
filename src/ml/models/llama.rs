//! Llama 1 to 3 (transformers' `modeling_llama.py`), and what its many descendants have in common with it.
//! It does not know what they do differently, nor how anything is computed.

use serde_json::Value;

use super::Architecture;
use crate::error::Result;
use crate::ml::config::fields::Fields;
use crate::ml::config::rope;
use crate::ml::config::{
    Activation, Attention, ModelConfig, Names, Norm, NormKind, Positions, Projection, Role, Window,
};

/// The entry of `MODELS`.
pub const ARCHITECTURE: Architecture = Architecture { name: "llama", class: "LlamaForCausalLM", read };

/// Names of Llama and its descendants.
pub(super) const NAMES: Names = Names {
    base: "model",
    embedding: "model.embed_tokens",
    positions: "",
    blocks: "model.layers",
    final_norm: "model.norm",
    head: "lm_head",
    attention: "self_attn",
    feed_forward: "mlp",
    attention_norm: "input_layernorm",
    attention_out_norm: None,
    feed_forward_norm: "post_attention_layernorm",
    feed_forward_out_norm: None,
    constants: &["rotary_emb.inv_freq"],
};

/// What a configuration leaves out, and what a family has no option for.
pub(super) struct Like {
    /// As many as query heads if none.
    pub key_value_heads: Option<i64>,
    /// The width divided by the query heads if none.
    pub head_dim: Option<i64>,
    pub max_position_embeddings: i64,
    pub theta: f64,
    /// How its rotary embedding is read.
    pub rotary: fn(&Fields, &rope::Defaults) -> Result<Positions>,
    pub tied: bool,
    /// First id, last id and padding.
    pub ids: [Option<i64>; 3],
    /// The option that names the activation, and its default.
    pub activation: (&'static str, Activation),
    pub norm: NormKind,
    /// Biases of queries, keys and values; of attention's output; of feed-forward.
    pub biases: [bool; 3],
}

/// Defaults of `LlamaConfig`.
pub(super) const LLAMA: Like = Like {
    key_value_heads: None,
    head_dim: None,
    max_position_embeddings: 2048,
    theta: 1e4,
    rotary: rope::read,
    tied: false,
    ids: [Some(1), Some(2), None],
    activation: ("hidden_act", Activation::Silu),
    norm: NormKind::Rms,
    biases: [false; 3],
};

fn read(this: &Architecture, fields: &Fields) -> Result<ModelConfig> {
    // Slices of a projection on several devices, with another rounding.
    fields.only("pretraining_tp", &Value::from(1))?;
    let (attention, mlp) = (fields.flag("attention_bias", false)?, fields.flag("mlp_bias", false)?);
    like(this, fields, &Like { biases: [attention, attention, mlp], ..LLAMA })
}

/// Root-mean-square norms, rotary embedding, grouped-query attention, a gated feed-forward block.
pub(super) fn like(this: &Architecture, fields: &Fields, like: &Like) -> Result<ModelConfig> {
    let hidden_size = fields.size("hidden_size", None)?;
    let intermediate_size = fields.size("intermediate_size", None)?;
    let heads = fields.size("num_attention_heads", None)?;
    let shared = fields.switched_size("num_key_value_heads", like.key_value_heads)?.unwrap_or(heads);
    let head_dim = fields.switched_size("head_dim", like.head_dim)?.unwrap_or(hidden_size / heads);
    let max_position_embeddings = fields.size("max_position_embeddings", Some(like.max_position_embeddings))?;
    let positions = (like.rotary)(fields, &rope::Defaults { theta: like.theta, head_dim, max_position_embeddings })?;
    let (h, q, kv, f) = (hidden_size, heads * head_dim, shared * head_dim, intermediate_size);
    let [qkv, output, mlp] = like.biases;
    let project = |role, module, inputs, outputs, bias| Projection { role, module, inputs, outputs, bias };
    let [bos, eos, pad] = like.ids;
    Ok(ModelConfig {
        model_type: this.name,
        class: this.class,
        vocab_size: fields.size("vocab_size", None)?,
        hidden_size,
        intermediate_size,
        num_hidden_layers: fields.size("num_hidden_layers", None)?,
        num_attention_heads: heads,
        num_key_value_heads: shared,
        head_dim,
        max_position_embeddings,
        tie_word_embeddings: fields.flag("tie_word_embeddings", like.tied)?,
        bos_token_id: fields.ids("bos_token_id", bos)?.first().copied(),
        eos_token_ids: fields.ids("eos_token_id", eos)?,
        pad_token_id: fields.ids("pad_token_id", pad)?.first().copied(),
        positions,
        embedding_scale: None,
        norm: Norm { kind: like.norm, eps: fields.positive("rms_norm_eps", 1e-6)? },
        attention: Attention::default(),
        activation: fields.activation(like.activation.0, like.activation.1)?,
        parallel_residual: false,
        logit_softcap: None,
        block: vec![
            project(Role::Query, "self_attn.q_proj", h, q, qkv),
            project(Role::Key, "self_attn.k_proj", h, kv, qkv),
            project(Role::Value, "self_attn.v_proj", h, kv, qkv),
            project(Role::Output, "self_attn.o_proj", q, h, output),
            project(Role::Gate, "mlp.gate_proj", h, f, mlp),
            project(Role::Up, "mlp.up_proj", h, f, mlp),
            project(Role::Down, "mlp.down_proj", f, h, mlp),
        ],
        fan_in_fan_out: false,
        names: NAMES,
        dropout: fields.dropout(&["attention_dropout"])?,
        source: fields.source(),
    })
}

/// `use_sliding_window` with `sliding_window` and `max_window_layers`, or `layer_types`: Qwen's words.
pub(super) fn qwen_window(fields: &Fields, blocks: i64) -> Result<Option<Window>> {
    let used = fields.flag("use_sliding_window", false)?;
    let size = fields.switched_size("sliding_window", Some(4096))?.filter(|_| used);
    let full = fields.number("max_window_layers")?.unwrap_or(28.0);
    fields.window(size, blocks, |layer| size.is_some() && layer as f64 >= full)
}
