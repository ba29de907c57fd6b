//! Decoders: one architecture per file, which says what its checkpoints' configurations and tensors mean, and the
//! list of them. It does not know how any of that is computed: `decoder` does it for all.

mod gemma;
mod gemma2;
mod gemma3;
mod gpt2;
mod gpt_neox;
pub mod llama;
mod mistral;
mod qwen2;
mod qwen3;
pub mod tensors;

#[cfg(feature = "torch")]
mod cache;
#[cfg(feature = "torch")]
mod decoder;
#[cfg(feature = "torch")]
mod load;
#[cfg(feature = "torch")]
mod model;
#[cfg(feature = "torch")]
pub mod start;
#[cfg(feature = "torch")]
mod uneven;

use std::fs;
use std::path::Path;

use serde_json::Value;

#[cfg(feature = "torch")]
pub use self::cache::KvCache;
#[cfg(feature = "torch")]
pub(in crate::ml) use self::decoder::activate;
#[cfg(feature = "torch")]
pub use self::load::{check_ids, check_length, fresh, hollow, load, load_as, load_to_read};
#[cfg(feature = "torch")]
pub use self::model::{Branches, Input, Model, Point, Site};
use super::config::fields::Fields;
use super::config::{ModelConfig, Positions};
use crate::error::{Problem, Result};

/// An architecture: one file each, and one entry of `MODELS`.
pub struct Architecture {
    /// `model_type` of its configurations.
    pub name: &'static str,
    /// transformers' class of it.
    pub class: &'static str,
    /// What a configuration means; fails on options that are not supported, by their names.
    pub read: fn(&Architecture, &Fields) -> Result<ModelConfig>,
}

/// Every architecture.
pub static MODELS: &[Architecture] = &[
    llama::ARCHITECTURE,
    mistral::ARCHITECTURE,
    qwen2::ARCHITECTURE,
    qwen3::ARCHITECTURE,
    gpt2::ARCHITECTURE,
    gpt_neox::ARCHITECTURE,
    gemma::ARCHITECTURE,
    gemma2::ARCHITECTURE,
    gemma3::ARCHITECTURE,
];

/// Options of some decoder or other that change what it computes. Who does not read one that a configuration sets
/// does not compute what it says.
const OPTIONS: &[&str] = &[
    "quantization_config",
    "add_cross_attention",
    "is_encoder_decoder",
    "cross_attention_hidden_size",
    "use_bidirectional_attention",
    "sliding_window",
    "layer_types",
    "no_rope_layers",
    "no_rope_layer_interval",
    "rope_scaling",
    "rope_parameters",
    "original_max_position_embeddings",
    "partial_rotary_factor",
    "rotary_pct",
    "rotary_dim",
    "alibi",
    "use_alibi",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "query_pre_attn_scalar",
    "attn_temperature_tuning",
    "qk_layernorm",
    "use_qk_norm",
    "qk_norm",
    "clip_qkv",
    "parallel_attn",
    "use_parallel_residual",
    "mlp_bias",
    "embedding_multiplier",
    "residual_multiplier",
    "attention_multiplier",
    "logits_scaling",
    "logit_scale",
    "scale_emb",
    "scale_depth",
    "dim_model_base",
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
];

impl ModelConfig {
    /// Reads `config.json` of a checkpoint folder. Fails on architectures and options that are not supported, by
    /// their names.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        let text = fs::read_to_string(&path).map_err(|e| Problem::io("read", &path, &e))?;
        let value: Value = serde_json::from_str(&text).map_err(|e| {
            Problem::new(format!("not JSON: {e}")).in_file(path.display().to_string(), Some(e.line() as u64))
        })?;
        Self::from_value(&value).map_err(|problem| problem.in_file(path.display().to_string(), None))
    }

    /// Reads the parsed `config.json`, in the styles of older Hub checkpoints and of transformers 4 and 5.
    pub fn from_value(value: &Value) -> Result<Self> {
        let Some(map) = value.as_object() else { return Err(Problem::new("a configuration is a JSON object")) };
        let fields = Fields::of(map);
        let model_type = fields.text("model_type")?.unwrap_or_default();
        let Some(architecture) = MODELS.iter().find(|model| model.name == model_type) else {
            let names: Vec<String> = MODELS.iter().map(|model| format!("`{}`", model.name)).collect();
            return Err(Problem::new(format!("the architecture `{model_type}` is not supported"))
                .expected(format!("`model_type` one of {}", names.join(", "))));
        };
        let config = (architecture.read)(architecture, &fields)?;
        fields.refuse_unread(OPTIONS)?;
        config.check()?;
        Ok(config)
    }

    /// What no family's formula allows.
    fn check(&self) -> Result<()> {
        let (heads, shared) = (self.num_attention_heads, self.num_key_value_heads);
        if heads % shared != 0 {
            let what = format!("{heads} attention heads cannot share {shared} key and value heads");
            return Err(Problem::new(what).expected("`num_key_value_heads` that divides `num_attention_heads`"));
        }
        if let Positions::Rotary { rope, .. } = &self.positions
            && rope.width() > self.head_dim
        {
            return Err(
                Problem::new(format!("`head_dim` is {}", self.head_dim)).expected("an even number, for rotary pairs")
            );
        }
        if self.num_hidden_layers > 4096 {
            return Err(Problem::new(format!("{} layers", self.num_hidden_layers)).expected("at most 4096"));
        }
        Ok(())
    }
}
