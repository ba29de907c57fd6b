//! AdapterHub's `BnConfig` of adapters 1.3.0: what it says, and which of its options are not supported.
//! It does not know tensors.

use serde_json::{Map, Value, json};

use crate::error::{Problem, Result};
use crate::ml::adapters::fields::{Fields, wrong};
use crate::ml::adapters::non_linearity::NonLinearity;
use crate::ml::adapters::params::{MlpConfig, MlpParams, Scaling};

/// The options that decide what a bottleneck computes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct BnConfig {
    /// After attention.
    pub(super) mh_adapter: bool,
    /// After the feed-forward block.
    pub(super) output_adapter: bool,
    /// Reads the residual, and stands beside the sub-layer.
    pub(super) is_parallel: bool,
    /// Reads the sum of sub-layer and residual, not the sub-layer alone.
    pub(super) original_ln_before: bool,
    /// The block's residual is added behind it.
    pub(super) original_ln_after: bool,
    /// Its own residual connection carries the sub-layer, not what it reads.
    pub(super) residual_before_ln: bool,
    /// Its own residual connection ends before `ln_after`.
    pub(super) adapter_residual_before_ln: bool,
    pub(super) ln_before: bool,
    pub(super) ln_after: bool,
    pub(super) non_linearity: NonLinearity,
    pub(super) scaling: Scaling,
    pub(super) dropout: f64,
    /// Share of rows of a batch whose bottleneck is dropped in training.
    pub(super) stochastic_depth: f64,
    /// How it was drawn; kept for the file.
    pub(super) init_weights: String,
}

/// Every field of `BnConfig` in adapters 1.3.0.
pub(super) const KNOWN: [&str; 34] = [
    "adapter_residual_before_ln",
    "architecture",
    "cross_adapter",
    "dropout",
    "factorized_phm_W",
    "factorized_phm_rule",
    "hypercomplex_nonlinearity",
    "init_weights",
    "init_weights_seed",
    "inv_adapter",
    "inv_adapter_reduction_factor",
    "is_parallel",
    "learn_phm",
    "leave_out",
    "ln_after",
    "ln_before",
    "mh_adapter",
    "non_linearity",
    "original_ln_after",
    "original_ln_before",
    "output_adapter",
    "phm_bias",
    "phm_c_init",
    "phm_dim",
    "phm_init_range",
    "phm_layer",
    "phm_rank",
    "reduction_factor",
    "residual_before_ln",
    "scaling",
    "shared_W_phm",
    "shared_phm_rule",
    "stochastic_depth",
    "use_gating",
];

impl BnConfig {
    /// What the parameters of a training say.
    pub(super) fn of(params: &MlpParams) -> Self {
        Self {
            mh_adapter: params.config == MlpConfig::DoubleSeqBn,
            output_adapter: true,
            is_parallel: params.config == MlpConfig::ParBn,
            original_ln_before: params.config == MlpConfig::SeqBn,
            original_ln_after: true,
            residual_before_ln: true,
            adapter_residual_before_ln: false,
            ln_before: params.ln_before,
            ln_after: params.ln_after,
            non_linearity: params.non_linearity(),
            scaling: params.scaling(),
            dropout: params.dropout,
            stochastic_depth: 0.0,
            init_weights: text(&json!(params.init_weights())),
        }
    }

    /// What a file says. Options that need what is not supported are refused by name.
    pub(super) fn read(config: &Fields) -> Result<Self> {
        // A cross adapter has no place in a decoder: it changes nothing.
        config.refuse(&[("use_gating", &[]), ("inv_adapter", &[]), ("phm_layer", &[])])?;
        if let Some(other) = config.get("residual_before_ln").filter(|value| !value.is_boolean()) {
            return Err(Problem::new(format!("the option `residual_before_ln: {other}` is not supported"))
                .expected("true or false: models without a norm behind the residual have no other"));
        }
        let need = |name: &str| {
            config
                .get(name)
                .ok_or_else(|| Problem::new(format!("`{name}` is missing")))
                .and_then(|_| config.flag(name, false))
        };
        Ok(Self {
            mh_adapter: need("mh_adapter")?,
            output_adapter: need("output_adapter")?,
            is_parallel: config.flag("is_parallel", false)?,
            original_ln_before: config.flag("original_ln_before", false)?,
            original_ln_after: config.flag("original_ln_after", true)?,
            residual_before_ln: config.flag("residual_before_ln", true)?,
            adapter_residual_before_ln: config.flag("adapter_residual_before_ln", false)?,
            ln_before: config.flag("ln_before", false)?,
            ln_after: config.flag("ln_after", false)?,
            non_linearity: non_linearity(config)?,
            scaling: scaling(config)?,
            dropout: config.share("dropout")?,
            stochastic_depth: config.share("stochastic_depth")?,
            init_weights: config.text("init_weights", "bert")?.to_owned(),
        })
    }

    /// The fields of the file, but for `leave_out` and `reduction_factor`.
    pub(super) fn fields(&self) -> Map<String, Value> {
        let Value::Object(fields) = json!({
            "adapter_residual_before_ln": self.adapter_residual_before_ln,
            "cross_adapter": false,
            "dropout": self.dropout,
            "factorized_phm_W": true,
            "factorized_phm_rule": false,
            "hypercomplex_nonlinearity": "glorot-uniform",
            "init_weights": self.init_weights,
            "init_weights_seed": null,
            "inv_adapter": null,
            "inv_adapter_reduction_factor": null,
            "is_parallel": self.is_parallel,
            "learn_phm": true,
            "ln_after": self.ln_after,
            "ln_before": self.ln_before,
            "mh_adapter": self.mh_adapter,
            "non_linearity": self.non_linearity,
            "original_ln_after": self.original_ln_after,
            "original_ln_before": self.original_ln_before,
            "output_adapter": self.output_adapter,
            "phm_bias": true,
            "phm_c_init": "normal",
            "phm_dim": 4,
            "phm_init_range": 0.0001,
            "phm_layer": false,
            "phm_rank": 1,
            "residual_before_ln": self.residual_before_ln,
            "scaling": self.scaling,
            "shared_W_phm": false,
            "shared_phm_rule": true,
            "stochastic_depth": self.stochastic_depth,
            "use_gating": false,
        }) else {
            return Map::new();
        };
        fields
    }

    /// What decides what is computed outside of training.
    pub(super) fn definition(&self) -> Value {
        let mut fields = self.fields();
        fields.retain(|name, _| DECIDING.contains(&name.as_str()));
        Value::Object(fields)
    }

    /// The deciding options that are not those of `seq_bn`, but for the non-linearity.
    pub(super) fn unlike_seq_bn(&self) -> Vec<(&'static str, Value)> {
        let (own, plain) = (self.fields(), plain().fields());
        let others = DECIDING.into_iter().filter(|name| *name != "non_linearity" && own[*name] != plain[*name]);
        others.map(|name| (name, own[name].clone())).collect()
    }
}

const DECIDING: [&str; 11] = [
    "adapter_residual_before_ln",
    "is_parallel",
    "ln_after",
    "ln_before",
    "mh_adapter",
    "non_linearity",
    "original_ln_after",
    "original_ln_before",
    "output_adapter",
    "residual_before_ln",
    "scaling",
];

/// `SeqBnConfig`.
fn plain() -> BnConfig {
    BnConfig {
        mh_adapter: false,
        output_adapter: true,
        is_parallel: false,
        original_ln_before: true,
        original_ln_after: true,
        residual_before_ln: true,
        adapter_residual_before_ln: false,
        ln_before: false,
        ln_after: false,
        non_linearity: NonLinearity::Relu,
        scaling: Scaling::Fixed(1.0),
        dropout: 0.0,
        stochastic_depth: 0.0,
        init_weights: "bert".to_owned(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn non_linearity(config: &Fields) -> Result<NonLinearity> {
    let value = config.get("non_linearity").ok_or_else(|| Problem::new("`non_linearity` is missing"))?;
    let known = value.as_str().and_then(NonLinearity::named);
    known.ok_or_else(|| wrong("non_linearity", value, "a function of transformers without parameters, such as `relu`"))
}

fn scaling(config: &Fields) -> Result<Scaling> {
    let Some(value) = config.get("scaling") else { return Ok(Scaling::Fixed(1.0)) };
    serde_json::from_value(value.clone()).map_err(|_| wrong("scaling", value, "a number, `learned` or `channel`"))
}

/// The reduction factor of a layer: one for all, or a mapping from layers (and `default`).
pub(super) fn factor(config: &Fields, layer: i64) -> Result<f64> {
    let value = config.get("reduction_factor").ok_or_else(|| Problem::new("`reduction_factor` is missing"))?;
    let value = match value {
        Value::Object(map) => map
            .get(&layer.to_string())
            .or_else(|| map.get("default"))
            .ok_or_else(|| Problem::new(format!("`reduction_factor` says nothing of layer {layer}")))?,
        one => one,
    };
    value
        .as_f64()
        .filter(|f| *f > 0.0 && f.is_finite())
        .ok_or_else(|| wrong("reduction_factor", value, "a number above 0"))
}

/// The reduction factor that gives a width: an integer where it divides, else a quotient.
pub(super) fn factor_of(width: i64, hidden: i64) -> Result<Value> {
    if hidden > 0 && width % hidden == 0 {
        return Ok(Value::from(width / hidden));
    }
    let quotient = width as f64 / hidden as f64;
    [quotient, quotient * (1.0 - f64::EPSILON), quotient * (1.0 - 4.0 * f64::EPSILON)]
        .into_iter()
        .find(|factor| bottleneck_width(width, *factor) == hidden)
        .map(Value::from)
        .ok_or_else(|| Problem::new(format!("a bottleneck of {hidden} cannot be written as a reduction of {width}")))
}

/// AdapterHub: `int(width // reduction_factor)`, at least 1.
pub(super) fn bottleneck_width(width: i64, factor: f64) -> i64 {
    // Python's `//` takes the remainder first: 64 // 0.1 is 639, though 64 / 0.1 is 640.
    let width = width as f64;
    let quotient = (width - width % factor) / factor;
    let floor = quotient.floor();
    // Both are exact in Python's own C code up to this correction.
    ((if quotient - floor > 0.5 { floor + 1.0 } else { floor }) as i64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_factor_gives_the_width_back() {
        for width in [64, 100, 128, 192, 4096] {
            for hidden in 1..=width {
                let factor = factor_of(width, hidden).unwrap();
                assert_eq!(bottleneck_width(width, factor.as_f64().unwrap()), hidden, "{width} / {hidden}");
            }
        }
    }

    /// By Python's `int(width // factor)`.
    #[test]
    fn the_width_is_pythons() {
        for (width, factor, hidden) in [
            (64, 0.1, 639),
            (64, 8.0, 8),
            (64, 7.5, 8),
            (16, 100.0, 1),
            (16, 0.1, 159),
            (4096, 0.3, 13653),
            (6, 0.2, 29),
        ] {
            assert_eq!(bottleneck_width(width, factor), hidden, "{width} // {factor}");
        }
    }
}
