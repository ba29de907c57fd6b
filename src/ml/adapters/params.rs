//! What one says about an adapter to be trained, and how many parameters it will have.
//! It does not know tensors: shapes follow from the model's configuration.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Path, Problem, Result};
use crate::ml::config::ModelConfig;

/// Which adapter to train: LoRA, MLP, or both together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdapterParams {
    /// Low-rank updates of projections (Hu et al. 2021), as PEFT's LoRA.
    #[serde(default)]
    pub lora: Option<LoraParams>,
    /// A bottleneck after the feed-forward block (Pfeiffer et al. 2020), as AdapterHub's `seq_bn`.
    #[serde(default)]
    pub mlp: Option<MlpParams>,
}

/// W x becomes W x + (alpha / rank) · B A x.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoraParams {
    /// The rank r of the update.
    #[serde(default = "default_rank")]
    #[schemars(range(min = 1, max = 4096))]
    pub rank: i64,
    /// The update is scaled by alpha / rank.
    #[serde(default = "default_alpha")]
    #[schemars(range(min = 0.001, max = 65536))]
    pub alpha: f64,
    /// Share of the input of A that is dropped in training.
    #[serde(default)]
    #[schemars(range(min = 0, max = 0.99))]
    pub dropout: f64,
    /// Projections that get an update, by the last part of their names.
    #[serde(default = "default_targets")]
    #[schemars(length(min = 1))]
    pub target_modules: Vec<String>,
    /// Layers that get an update, counted from 0; all of them if absent.
    #[serde(default)]
    pub layers: Option<Vec<i64>>,
}

/// h becomes h + U f(D h + b) + c, where h is the output of a block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MlpParams {
    /// Width of the bottleneck.
    #[serde(default = "default_hidden_size")]
    #[schemars(range(min = 1, max = 65536))]
    pub hidden_size: i64,
    /// Layers that get a bottleneck, counted from 0; all of them if absent.
    #[serde(default)]
    pub layers: Option<Vec<i64>>,
    /// Share of the bottleneck's output that is dropped in training.
    #[serde(default)]
    #[schemars(range(min = 0, max = 0.99))]
    pub dropout: f64,
    /// f.
    #[serde(default)]
    pub non_linearity: NonLinearity,
}

/// The function inside a bottleneck, by AdapterHub's names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NonLinearity {
    /// max(0, x).
    #[default]
    Relu,
    /// x Φ(x), exact.
    Gelu,
    /// x σ(x), also called SiLU.
    Swish,
    /// tanh x.
    Tanh,
}

fn default_rank() -> i64 {
    8
}
fn default_alpha() -> f64 {
    16.0
}
fn default_targets() -> Vec<String> {
    vec!["q_proj".to_owned(), "v_proj".to_owned()]
}
fn default_hidden_size() -> i64 {
    64
}

impl AdapterParams {
    /// Mistakes that can be seen without a model.
    pub fn check(&self, at: &Path) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.lora.is_none() && self.mlp.is_none() {
            problems.push(Problem::new("no adapter is named").at(at.clone()).expected("`lora`, `mlp` or both"));
        }
        let layers = [
            ("lora", self.lora.as_ref().and_then(|lora| lora.layers.as_ref())),
            ("mlp", self.mlp.as_ref().and_then(|mlp| mlp.layers.as_ref())),
        ];
        for (name, layers) in layers {
            let Some(layers) = layers else { continue };
            let path = at.key(name).key("layers");
            if layers.is_empty() {
                problems.push(
                    Problem::new("the list of layers is empty").at(path.clone()).help("leave it out for all layers"),
                );
            }
            for (i, layer) in layers.iter().enumerate() {
                if *layer < 0 || layers[..i].contains(layer) {
                    let what = format!("layer {layer} is {}", if *layer < 0 { "negative" } else { "named twice" });
                    problems.push(Problem::new(what).at(path.index(i)));
                }
            }
        }
        problems
    }
}

/// The layers of a list, or all; fails if the model has no such layer.
pub fn layers(wanted: Option<&[i64]>, config: &ModelConfig) -> Result<Vec<i64>> {
    let Some(wanted) = wanted else { return Ok((0..config.num_hidden_layers).collect()) };
    if let Some(layer) = wanted.iter().find(|&&layer| layer < 0 || layer >= config.num_hidden_layers) {
        let what = format!("the adapter wants layer {layer}, but the model has {}", config.num_hidden_layers);
        return Err(Problem::new(what).expected(format!("layers 0 to {}", config.num_hidden_layers - 1)));
    }
    Ok(wanted.to_vec())
}

/// True if `target` names the module: all of its name, or the last parts of it (PEFT's rule for lists).
pub fn targets(target: &str, module: &str) -> bool {
    module.strip_suffix(target).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// How many trainable parameters these adapters have on a model of this shape.
pub fn parameter_count(params: &AdapterParams, config: &ModelConfig) -> Result<u64> {
    let mut count = 0;
    if let Some(lora) = &params.lora {
        let layers = layers(lora.layers.as_deref(), config)?.len() as i64;
        let projections = config.projections();
        if let Some(unknown) =
            lora.target_modules.iter().find(|t| !projections.iter().any(|(module, _, _)| targets(t, module)))
        {
            return Err(Problem::new(format!("the model has no projection `{unknown}`")));
        }
        for (module, inputs, outputs) in projections {
            if lora.target_modules.iter().any(|target| targets(target, module)) {
                count += layers * lora.rank * (inputs + outputs);
            }
        }
    }
    if let Some(mlp) = &params.mlp {
        let layers = layers(mlp.layers.as_deref(), config)?.len() as i64;
        let h = config.hidden_size;
        count += layers * (2 * h * mlp.hidden_size + mlp.hidden_size + h);
    }
    Ok(count as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_experiment_has_its_published_counts() {
        let llama_2_7b = ModelConfig::from_value(&serde_json::json!({
            "model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32}))
        .unwrap();
        let read = |yaml: &str| serde_yaml::from_str::<AdapterParams>(yaml).unwrap();
        let lora = read("lora: { rank: 4, alpha: 8, dropout: 0.05, target_modules: [q_proj, v_proj] }");
        let mlp = read("mlp: { hidden_size: 128, layers: [0, 6, 12, 18], dropout: 0.1 }");
        assert_eq!(parameter_count(&lora, &llama_2_7b).unwrap(), 2_097_152);
        assert_eq!(parameter_count(&mlp, &llama_2_7b).unwrap(), 4_211_200);
        let both = AdapterParams { lora: lora.lora, mlp: mlp.mlp };
        assert_eq!(parameter_count(&both, &llama_2_7b).unwrap(), 6_308_352);
        let far = read("mlp: { layers: [32] }");
        assert!(parameter_count(&far, &llama_2_7b).unwrap_err().to_string().contains("layer 32"));
        let unknown = read("lora: { target_modules: [q_prj] }");
        assert!(parameter_count(&unknown, &llama_2_7b).unwrap_err().to_string().contains("q_prj"));
    }

    #[test]
    fn a_target_is_a_whole_last_part() {
        assert!(targets("q_proj", "model.layers.0.self_attn.q_proj"));
        assert!(targets("self_attn.q_proj", "model.layers.0.self_attn.q_proj"));
        assert!(!targets("proj", "model.layers.0.self_attn.q_proj"));
    }
}
