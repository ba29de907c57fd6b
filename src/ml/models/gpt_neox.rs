//! GPT-NeoX (transformers' `modeling_gpt_neox.py`; Pythia too): rotary embedding of a share of each head, layer norms,
//! one projection for queries, keys and values, halves of a block side by side. It does not know how it is computed.

use super::Architecture;
use crate::error::{Problem, Result};
use crate::ml::config::fields::Fields;
use crate::ml::config::{Activation, Attention, ModelConfig, Names, Norm, NormKind, Projection, Role, rope};

/// The entry of `MODELS`.
pub const ARCHITECTURE: Architecture = Architecture { name: "gpt_neox", class: "GPTNeoXForCausalLM", read };

const NAMES: Names = Names {
    base: "gpt_neox",
    embedding: "gpt_neox.embed_in",
    positions: "",
    blocks: "gpt_neox.layers",
    final_norm: "gpt_neox.final_layer_norm",
    head: "embed_out",
    attention: "attention",
    feed_forward: "mlp",
    attention_norm: "input_layernorm",
    attention_out_norm: None,
    feed_forward_norm: "post_attention_layernorm",
    feed_forward_out_norm: None,
    constants: &[".attention.bias", ".attention.masked_bias", "rotary_emb.inv_freq"],
};

fn read(this: &Architecture, fields: &Fields) -> Result<ModelConfig> {
    let hidden_size = fields.size("hidden_size", None)?;
    let heads = fields.size("num_attention_heads", None)?;
    if hidden_size % heads != 0 {
        let what = format!("`hidden_size` {hidden_size} cannot be parted into {heads} heads");
        return Err(Problem::new(what).expected("`num_attention_heads` that divides `hidden_size`"));
    }
    let intermediate_size = fields.size("intermediate_size", None)?;
    let max_position_embeddings = fields.size("max_position_embeddings", Some(2048))?;
    let head_dim = hidden_size / heads;
    let bias = fields.flag("attention_bias", true)?;
    let (h, f) = (hidden_size, intermediate_size);
    let project = |role, module, inputs, outputs, bias| Projection { role, module, inputs, outputs, bias };
    Ok(ModelConfig {
        model_type: this.name,
        class: this.class,
        vocab_size: fields.size("vocab_size", None)?,
        hidden_size,
        intermediate_size,
        num_hidden_layers: fields.size("num_hidden_layers", None)?,
        num_attention_heads: heads,
        num_key_value_heads: heads,
        head_dim,
        max_position_embeddings,
        tie_word_embeddings: fields.flag("tie_word_embeddings", false)?,
        bos_token_id: fields.ids("bos_token_id", Some(0))?.first().copied(),
        eos_token_ids: fields.ids("eos_token_id", Some(2))?,
        pad_token_id: fields.ids("pad_token_id", None)?.first().copied(),
        positions: rope::read_partial(fields, &rope::Defaults { theta: 1e4, head_dim, max_position_embeddings }, 0.25)?,
        embedding_scale: None,
        norm: Norm { kind: NormKind::Layer, eps: fields.positive("layer_norm_eps", 1e-5)? },
        attention: Attention::default(),
        activation: fields.activation("hidden_act", Activation::Gelu)?,
        parallel_residual: fields.flag("use_parallel_residual", true)?,
        logit_softcap: None,
        block: vec![
            project(Role::Interleaved, "attention.query_key_value", h, 3 * h, bias),
            project(Role::Output, "attention.dense", h, h, bias),
            project(Role::Up, "mlp.dense_h_to_4h", h, f, true),
            project(Role::Down, "mlp.dense_4h_to_h", f, h, true),
        ],
        fan_in_fan_out: false,
        names: NAMES,
        dropout: fields.dropout(&["attention_dropout", "hidden_dropout"])?,
        source: fields.source(),
    })
}
