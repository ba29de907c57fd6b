//! How many trainable parameters adapters will have on a model of a given shape.
//! It does not know tensors: counts follow from the configuration.

use super::params::{AdapterParams, Ia3Params, LoraParams, MlpConfig, MlpParams, Scaling, layers};
use super::targets::Selector;
use crate::error::{Problem, Result};
use crate::ml::config::ModelConfig;

/// How many trainable parameters these adapters have on a model of this shape.
pub fn parameter_count(params: &AdapterParams, config: &ModelConfig) -> Result<u64> {
    let lora = params.lora.as_ref().map_or(Ok(0), |lora| of_lora(lora, config))?;
    let ia3 = params.ia3.as_ref().map_or(Ok(0), |ia3| of_ia3(ia3, config))?;
    let mlp = params.mlp.as_ref().map_or(Ok(0), |mlp| of_mlp(mlp, config))?;
    Ok((lora + ia3 + mlp) as u64)
}

/// The chosen projections: whole name, width in, width out.
fn chosen(selector: &Selector, wanted: Option<&[i64]>, config: &ModelConfig) -> Result<Vec<(String, i64, i64)>> {
    layers(wanted, config)?;
    let all: Vec<(String, i64, i64, i64)> = (0..config.num_hidden_layers)
        .flat_map(|layer| config.projections().into_iter().map(move |(m, i, o)| (config.module(layer, m), layer, i, o)))
        .collect();
    if let Some(unknown) = selector.idle(all.iter().map(|(name, ..)| name.as_str())).first() {
        return Err(Problem::new(format!("the model has no projection `{unknown}`")));
    }
    Ok(all.into_iter().filter(|(name, layer, ..)| selector.takes(name, *layer)).map(|(n, _, i, o)| (n, i, o)).collect())
}

fn of_lora(lora: &LoraParams, config: &ModelConfig) -> Result<i64> {
    let mut count = 0;
    for (name, inputs, outputs) in chosen(&lora.selector()?, lora.layers.as_deref(), config)? {
        let (rank, _) = lora.size(&name)?;
        count += rank * (inputs + outputs) + if lora.use_dora { outputs } else { 0 };
    }
    Ok(count)
}

fn of_ia3(ia3: &Ia3Params, config: &ModelConfig) -> Result<i64> {
    let chosen = chosen(&ia3.selector()?, ia3.layers.as_deref(), config)?;
    Ok(chosen.iter().map(|(name, inputs, outputs)| if ia3.on_input(name) { *inputs } else { *outputs }).sum())
}

fn of_mlp(mlp: &MlpParams, config: &ModelConfig) -> Result<i64> {
    let blocks = layers(mlp.layers.as_deref(), config)?.len() as i64;
    let h = config.hidden_size;
    let places = if mlp.config == MlpConfig::DoubleSeqBn { 2 } else { 1 };
    let norms = 2 * h * (i64::from(mlp.ln_before) + i64::from(mlp.ln_after));
    let scaling = match mlp.scaling() {
        Scaling::Fixed(_) => 0,
        Scaling::Learned => 1,
        Scaling::Channel => h,
    };
    Ok(blocks * places * (2 * h * mlp.hidden_size + mlp.hidden_size + h + norms + scaling))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn llama_2_7b() -> ModelConfig {
        ModelConfig::from_value(&serde_json::json!({
            "model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32}))
        .unwrap()
    }

    fn read(yaml: &str) -> AdapterParams {
        serde_yaml::from_str(yaml).unwrap()
    }

    #[test]
    fn the_reference_experiment_has_its_published_counts() {
        let lora = read("lora: { rank: 4, alpha: 8, dropout: 0.05, target_modules: [q_proj, v_proj] }");
        let mlp = read("mlp: { hidden_size: 128, layers: [0, 6, 12, 18], dropout: 0.1 }");
        assert_eq!(parameter_count(&lora, &llama_2_7b()).unwrap(), 2_097_152);
        assert_eq!(parameter_count(&mlp, &llama_2_7b()).unwrap(), 4_211_200);
        let both = AdapterParams { lora: lora.lora, mlp: mlp.mlp, ia3: None };
        assert_eq!(parameter_count(&both, &llama_2_7b()).unwrap(), 6_308_352);
        let far = read("mlp: { layers: [32] }");
        assert!(parameter_count(&far, &llama_2_7b()).unwrap_err().to_string().contains("layer 32"));
        let unknown = read("lora: { target_modules: [q_prj] }");
        assert!(parameter_count(&unknown, &llama_2_7b()).unwrap_err().to_string().contains("q_prj"));
    }

    /// By hand from the shapes.
    #[test]
    fn every_option_counts() {
        for (yaml, count) in [
            ("lora: { rank: 4, use_dora: true }", 2_097_152 + 32 * 2 * 4096),
            ("lora: { rank: 4, target_modules: all-linear }", 32 * 4 * (4 * 8192 + 3 * (4096 + 11008))),
            (
                "lora: { rank: 4, target_modules: '.*q_proj', rank_pattern: { layers.0.self_attn.q_proj: 8 } }",
                8192 * 132,
            ),
            ("ia3: {}", 32 * (4096 + 4096 + 11008)),
            ("ia3: { feedforward_modules: [], layers: [1] }", 3 * 4096),
            ("mlp: { config: double_seq_bn, hidden_size: 2, layers: [3] }", 2 * (4 * 4096 + 2 + 4096)),
            ("mlp: { hidden_size: 2, layers: [3], ln_before: true, ln_after: true, scaling: channel }", 10 * 4096 + 2),
            ("mlp: { hidden_size: 2, layers: [3], scaling: learned }", 5 * 4096 + 3),
        ] {
            assert_eq!(parameter_count(&read(yaml), &llama_2_7b()).unwrap(), count, "{yaml}");
        }
    }
}
