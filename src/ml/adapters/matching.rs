//! The size of an adapter for a given number of parameters: LoRA's rank, or the width of a bottleneck.
//! It does not know tensors: counts follow from the configuration.

use super::count::parameter_count;
use super::params::AdapterParams;
use crate::error::{Path, Problem, Result};
use crate::ml::config::ModelConfig;

/// The largest rank or width that is tried.
const MOST: i64 = 65_536;

/// The adapter in the size whose number of parameters is nearest to that of `other` on a model of this shape; of two
/// equally near ones the smaller. Everything else of it stays, α among it.
pub fn matched(params: &AdapterParams, other: &AdapterParams, config: &ModelConfig) -> Result<AdapterParams> {
    let wanted = parameter_count(other, config)?;
    let sized = |size: i64| -> Result<AdapterParams> {
        let mut sized = params.clone();
        match (&mut sized.lora, &mut sized.ia3, &mut sized.mlp) {
            (Some(lora), None, None) if lora.rank_pattern.is_empty() => lora.rank = size,
            (None, None, Some(mlp)) => mlp.hidden_size = size,
            _ => return Err(unsized_problem()),
        }
        Ok(sized)
    };
    let count = |size: i64| parameter_count(&sized(size)?, config);
    // Counts grow with the size: the first that is enough, or the one before.
    let (mut low, mut high) = (1, MOST);
    while low < high {
        let middle = (low + high) / 2;
        if count(middle)? < wanted {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let before = (low - 1).max(1);
    let nearer = count(low)?.abs_diff(wanted) < count(before)?.abs_diff(wanted);
    sized(if nearer { low } else { before })
}

/// What is wrong with an adapter that has no one size; relative to the parameters of a step.
pub fn problem(params: &AdapterParams) -> Option<Problem> {
    let one = match (&params.lora, &params.ia3, &params.mlp) {
        (Some(lora), None, None) => lora.rank_pattern.is_empty(),
        (None, None, Some(_)) => true,
        _ => false,
    };
    (!one).then(unsized_problem)
}

fn unsized_problem() -> Problem {
    Problem::new("there is no one size to solve for")
        .at(Path::root().key("match_parameters"))
        .expected("an adapter with either `lora` (without `rank_pattern`) or `mlp`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(yaml: &str) -> AdapterParams {
        serde_yaml::from_str(yaml).expect("parameters")
    }

    fn llama() -> ModelConfig {
        let value = serde_json::json!({"model_type": "llama", "vocab_size": 32000, "hidden_size": 4096,
            "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32});
        ModelConfig::from_value(&value).expect("a shape")
    }

    #[test]
    fn the_reference_mlp_has_the_parameters_of_rank_eight() {
        let lora = params("lora: { rank: 4, alpha: 8, target_modules: [q_proj, v_proj] }");
        let mlp = params("mlp: { hidden_size: 128, layers: [0, 6, 12, 18] }");
        let found = matched(&lora, &mlp, &llama()).expect("a rank");
        assert_eq!(found.lora.as_ref().map(|lora| (lora.rank, lora.alpha)), Some((8, 8.0)));
        let back = matched(&mlp, &lora, &llama()).expect("a width");
        assert_eq!(back.mlp.as_ref().map(|mlp| mlp.hidden_size), Some(63));
        let same = matched(&mlp, &mlp, &llama()).expect("a width");
        assert_eq!(same, mlp);
    }

    #[test]
    fn two_adapters_or_vectors_have_no_one_size() {
        let one = params("lora: {}");
        for yaml in ["{ lora: {}, mlp: {} }", "ia3: {}", "lora: { rank_pattern: { q_proj: 2 } }"] {
            assert!(problem(&params(yaml)).is_some() && matched(&params(yaml), &one, &llama()).is_err(), "{yaml}");
        }
        assert!(problem(&one).is_none());
    }
}
