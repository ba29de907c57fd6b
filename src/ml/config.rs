//! What `config.json` of a Hugging Face checkpoint says about a Llama-style decoder, read strictly.
//! It does not know tensors: shapes and counts follow from it without libtorch.

use std::fs;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Problem, Result};

/// Numbers larger than this in a configuration are a mistake, whatever they mean.
const LARGEST: i64 = 1 << 24;

/// The shape of a decoder. Field names are those of transformers' `LlamaConfig`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// The architecture, such as `llama`.
    pub model_type: String,
    /// Rows of the embedding.
    pub vocab_size: i64,
    /// Width of the residual stream, H.
    pub hidden_size: i64,
    /// Width inside the feed-forward block.
    pub intermediate_size: i64,
    /// Number of blocks.
    pub num_hidden_layers: i64,
    /// Query heads.
    pub num_attention_heads: i64,
    /// Key and value heads; divides the query heads.
    pub num_key_value_heads: i64,
    /// Width of a head.
    pub head_dim: i64,
    /// ε of every RMSNorm.
    pub rms_norm_eps: f64,
    /// Rotary embedding.
    pub rope: Rope,
    /// True if the head is the embedding.
    pub tie_word_embeddings: bool,
    /// True if q, k, v and o projections have biases.
    pub attention_bias: bool,
    /// True if gate, up and down projections have biases.
    pub mlp_bias: bool,
    /// First id of a text.
    pub bos_token_id: Option<i64>,
    /// Ids that end a text.
    pub eos_token_ids: Vec<i64>,
    /// Id that fills a batch.
    pub pad_token_id: Option<i64>,
    /// The longest sequence it was made for.
    pub max_position_embeddings: i64,
}

/// Rotary embedding: base and scaling of its frequencies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rope {
    /// The base θ.
    pub theta: f64,
    /// How frequencies are changed for longer texts.
    pub scaling: RopeScaling,
}

/// How the first weights are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// As transformers does: N(0, 0.02) for matrices, zero biases, one for norms.
    Normal,
    /// The same, but that the first two blocks are an induction head (Elhage et al. 2021; Olsson et al. 2022,
    /// arXiv 2209.11895): what followed this id before is likely to follow it again. A narrow model that starts so
    /// can copy words from its text after minutes of training; from `normal` it was not seen to within four million
    /// ids.
    Induction,
}

/// The kinds of `rope_scaling` (`rope_parameters` since transformers 5) that are supported.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum RopeScaling {
    /// None.
    Default,
    /// Every frequency divided by a factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided by the factor, high ones kept, those between blended.
    Llama3 {
        /// The factor.
        factor: f64,
        /// `low_freq_factor`.
        low: f64,
        /// `high_freq_factor`.
        high: f64,
        /// `original_max_position_embeddings`.
        original: f64,
    },
}

impl Rope {
    /// The inverse frequencies of a head of width `dim`: `dim / 2` numbers, as transformers'
    /// `modeling_rope_utils` computes them.
    pub fn inverse_frequencies(&self, dim: i64) -> Vec<f64> {
        let plain = (0..dim / 2).map(|i| self.theta.powf(-(2 * i) as f64 / dim as f64));
        match self.scaling {
            RopeScaling::Default => plain.collect(),
            RopeScaling::Linear { factor } => plain.map(|f| f / factor).collect(),
            RopeScaling::Llama3 { factor, low, high, original } => plain
                .map(|f| {
                    let wavelength = 2.0 * std::f64::consts::PI / f;
                    if wavelength > original / low {
                        f / factor
                    } else if wavelength < original / high {
                        f
                    } else {
                        let smooth = (original / wavelength - low) / (high - low);
                        (1.0 - smooth) * f / factor + smooth * f
                    }
                })
                .collect(),
        }
    }
}

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
        let Some(fields) = value.as_object() else { return Err(Problem::new("a configuration is a JSON object")) };
        let config = Fields(fields);
        let model_type = config.text("model_type")?.unwrap_or_default();
        if model_type != "llama" {
            return Err(Problem::new(format!("the architecture `{model_type}` is not supported"))
                .expected("`model_type` `llama`"));
        }
        config.only("hidden_act", &Value::from("silu"))?;
        config.only("pretraining_tp", &Value::from(1))?;
        for refused in ["quantization_config", "sliding_window", "partial_rotary_factor", "attn_logit_softcapping"] {
            if config.0.get(refused).is_some_and(|v| !v.is_null()) {
                return Err(Problem::new(format!("the option `{refused}` is not supported")));
            }
        }
        let hidden_size = config.size("hidden_size", None)?;
        let heads = config.size("num_attention_heads", None)?;
        let key_value_heads = config.size("num_key_value_heads", Some(heads))?;
        let head_dim = config.size("head_dim", Some(hidden_size / heads))?;
        if heads % key_value_heads != 0 {
            let what = format!("{heads} attention heads cannot share {key_value_heads} key and value heads");
            return Err(Problem::new(what).expected("`num_key_value_heads` that divides `num_attention_heads`"));
        }
        if head_dim % 2 != 0 {
            return Err(Problem::new(format!("`head_dim` is {head_dim}")).expected("an even number, for rotary pairs"));
        }
        let max_position_embeddings = config.size("max_position_embeddings", Some(2048))?;
        let made = Self {
            model_type,
            vocab_size: config.size("vocab_size", None)?,
            hidden_size,
            intermediate_size: config.size("intermediate_size", None)?,
            num_hidden_layers: config.size("num_hidden_layers", None)?,
            num_attention_heads: heads,
            num_key_value_heads: key_value_heads,
            head_dim,
            rms_norm_eps: config.positive("rms_norm_eps", 1e-6)?,
            rope: config.rope(max_position_embeddings)?,
            tie_word_embeddings: config.flag("tie_word_embeddings")?,
            attention_bias: config.flag("attention_bias")?,
            mlp_bias: config.flag("mlp_bias")?,
            bos_token_id: config.ids("bos_token_id")?.first().copied(),
            eos_token_ids: config.ids("eos_token_id")?,
            pad_token_id: config.ids("pad_token_id")?.first().copied(),
            max_position_embeddings,
        };
        if made.num_hidden_layers > 4096 {
            return Err(Problem::new(format!("{} layers", made.num_hidden_layers)).expected("at most 4096"));
        }
        Ok(made)
    }

    /// Name, width in and width out of a block's projections, in the order of the forward pass.
    pub fn projections(&self) -> [(&'static str, i64, i64); 7] {
        let (h, f) = (self.hidden_size, self.intermediate_size);
        let q = self.num_attention_heads * self.head_dim;
        let kv = self.num_key_value_heads * self.head_dim;
        [
            ("self_attn.q_proj", h, q),
            ("self_attn.k_proj", h, kv),
            ("self_attn.v_proj", h, kv),
            ("self_attn.o_proj", q, h),
            ("mlp.gate_proj", h, f),
            ("mlp.up_proj", h, f),
            ("mlp.down_proj", f, h),
        ]
    }

    /// `config.json` as transformers 4 writes it.
    pub fn to_value(&self) -> Value {
        let eos = match self.eos_token_ids.as_slice() {
            [] => Value::Null,
            [one] => Value::from(*one),
            many => Value::from(many.to_vec()),
        };
        let scaling = match self.rope.scaling {
            RopeScaling::Default => Value::Null,
            RopeScaling::Linear { factor } => serde_json::json!({"factor": factor, "rope_type": "linear"}),
            RopeScaling::Llama3 { factor, low, high, original } => serde_json::json!({
                "factor": factor, "high_freq_factor": high, "low_freq_factor": low,
                "original_max_position_embeddings": original as i64, "rope_type": "llama3"}),
        };
        serde_json::json!({
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": self.attention_bias,
            "attention_dropout": 0.0,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": eos,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "mlp_bias": self.mlp_bias,
            "model_type": self.model_type,
            "num_attention_heads": self.num_attention_heads,
            "num_hidden_layers": self.num_hidden_layers,
            "num_key_value_heads": self.num_key_value_heads,
            "pad_token_id": self.pad_token_id,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_scaling": scaling,
            "rope_theta": self.rope.theta,
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": "float32",
            "use_cache": true,
            "vocab_size": self.vocab_size,
        })
    }
}

/// The fields of a JSON object, read with words about what was wrong.
struct Fields<'a>(&'a Map<String, Value>);

impl Fields<'_> {
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn text(&self, name: &str) -> Result<Option<String>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(wrong(name, other, "text")),
        }
    }

    fn only(&self, name: &str, supported: &Value) -> Result<()> {
        match self.get(name) {
            Some(value) if value != supported => {
                Err(Problem::new(format!("`{name}: {value}` is not supported")).expected(format!("`{supported}`")))
            }
            _ => Ok(()),
        }
    }

    fn size(&self, name: &str, default: Option<i64>) -> Result<i64> {
        let size = match (self.get(name), default) {
            (None, Some(default)) => default,
            (None, None) => return Err(Problem::new(format!("`{name}` is missing"))),
            (Some(value), _) => value.as_i64().ok_or_else(|| wrong(name, value, "a whole number"))?,
        };
        if (1..=LARGEST).contains(&size) {
            Ok(size)
        } else {
            Err(Problem::new(format!("`{name}` is {size}")).expected(format!("1 to {LARGEST}")))
        }
    }

    fn number(&self, name: &str) -> Result<Option<f64>> {
        self.get(name).map(|value| value.as_f64().ok_or_else(|| wrong(name, value, "a number"))).transpose()
    }

    fn positive(&self, name: &str, default: f64) -> Result<f64> {
        let number = self.number(name)?.unwrap_or(default);
        if number > 0.0 && number.is_finite() {
            Ok(number)
        } else {
            Err(Problem::new(format!("`{name}` is {number}")).expected("a positive number"))
        }
    }

    fn flag(&self, name: &str) -> Result<bool> {
        self.get(name).map_or(Ok(false), |value| value.as_bool().ok_or_else(|| wrong(name, value, "true or false")))
    }

    /// One id, a list of ids, or none.
    fn ids(&self, name: &str) -> Result<Vec<i64>> {
        let id = |value: &Value| {
            value.as_i64().filter(|id| (0..=LARGEST).contains(id)).ok_or_else(|| wrong(name, value, "a token id"))
        };
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => list.iter().map(id).collect(),
            Some(value) => Ok(vec![id(value)?]),
        }
    }

    /// `rope_theta` with `rope_scaling`, or transformers 5's `rope_parameters` with both.
    fn rope(&self, max_position_embeddings: i64) -> Result<Rope> {
        let table = match (self.get("rope_parameters"), self.get("rope_scaling")) {
            (Some(table), _) | (None, Some(table)) => {
                table.as_object().cloned().ok_or_else(|| wrong("rope_scaling", table, "an object"))?
            }
            (None, None) => Map::new(),
        };
        let known = ["rope_theta", "rope_type", "type", "factor", "low_freq_factor", "high_freq_factor"];
        for (key, value) in table.iter().filter(|(key, value)| !value.is_null() && !known.contains(&key.as_str())) {
            if key != "original_max_position_embeddings"
                && (key != "partial_rotary_factor" || value.as_f64() != Some(1.0))
            {
                return Err(Problem::new(format!("the rotary option `{key}: {value}` is not supported")));
            }
        }
        let table = Fields(&table);
        let theta = match table.number("rope_theta")? {
            Some(_) => table.positive("rope_theta", 1e4)?,
            None => self.positive("rope_theta", 1e4)?,
        };
        let kind = match table.text("rope_type")? {
            Some(kind) => kind,
            None => table.text("type")?.unwrap_or_else(|| "default".to_owned()),
        };
        let need = |name: &str| {
            if table.get(name).is_none() {
                return Err(Problem::new(format!("rotary scaling `{kind}` needs `{name}`")));
            }
            table.positive(name, 1.0)
        };
        let scaling = match kind.as_str() {
            "default" => RopeScaling::Default,
            "linear" => RopeScaling::Linear { factor: need("factor")? },
            "llama3" => {
                let (low, high) = (need("low_freq_factor")?, need("high_freq_factor")?);
                if low >= high {
                    return Err(Problem::new(format!("`low_freq_factor` is {low}, `high_freq_factor` is {high}"))
                        .expected("the high one above the low one"));
                }
                let original = table.positive("original_max_position_embeddings", max_position_embeddings as f64)?;
                RopeScaling::Llama3 { factor: need("factor")?, low, high, original }
            }
            other => {
                return Err(Problem::new(format!("rotary scaling `{other}` is not supported"))
                    .expected("`default`, `linear` or `llama3`"));
            }
        };
        Ok(Rope { theta, scaling })
    }
}

fn wrong(name: &str, value: &Value, expected: &str) -> Problem {
    Problem::new(format!("`{name}` is `{value}`")).expected(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Value {
        serde_json::json!({"model_type": "llama", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24,
            "num_hidden_layers": 2, "num_attention_heads": 4})
    }

    #[test]
    fn defaults_are_those_of_transformers() {
        let config = ModelConfig::from_value(&small()).unwrap();
        assert_eq!((config.num_key_value_heads, config.head_dim, config.max_position_embeddings), (4, 4, 2048));
        assert_eq!((config.rms_norm_eps, config.rope.theta, config.tie_word_embeddings), (1e-6, 1e4, false));
    }

    #[test]
    fn what_it_writes_it_reads() {
        let config = ModelConfig::from_value(&small()).unwrap();
        assert_eq!(ModelConfig::from_value(&config.to_value()).unwrap(), config);
    }

    #[test]
    fn refuses_by_name() {
        for (field, value, name) in [
            ("model_type", Value::from("mamba"), "mamba"),
            ("hidden_act", Value::from("gelu"), "hidden_act"),
            ("quantization_config", serde_json::json!({"bits": 4}), "quantization_config"),
            ("rope_scaling", serde_json::json!({"rope_type": "yarn", "factor": 2.0}), "yarn"),
            ("rope_parameters", serde_json::json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor"),
            ("num_key_value_heads", Value::from(3), "3 key"),
            ("hidden_size", Value::from(-1), "hidden_size"),
            ("vocab_size", Value::from(1_i64 << 40), "vocab_size"),
            ("num_attention_heads", Value::from("four"), "num_attention_heads"),
        ] {
            let mut config = small();
            config[field] = value;
            let problem = ModelConfig::from_value(&config).unwrap_err().to_string();
            assert!(problem.contains(name), "{problem}");
        }
    }
}
