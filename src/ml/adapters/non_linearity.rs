//! The functions inside a bottleneck, by the names of AdapterHub, which are those of transformers 4.57's `ACT2FN`.
//! It does not know bottlenecks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ml::config::Activation;

/// The function inside a bottleneck, by AdapterHub's names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
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
    /// GELU by tanh, as GPT-2 has it.
    GeluNew,
    /// x σ(1.702 x).
    QuickGelu,
    /// GELU, kept within ±10.
    #[serde(rename = "gelu_10")]
    Gelu10,
    /// x, or 0.01 x where it is negative.
    LeakyRelu,
    /// x.
    Linear,
    /// x tanh(ln(1 + eˣ)).
    Mish,
    /// max(0, x)².
    Relu2,
    /// min(max(0, x), 6).
    Relu6,
    /// σ(x).
    Sigmoid,
    /// The Laplace function of MEGA with μ 0.707107 and σ 0.282095.
    Laplace,
}

impl NonLinearity {
    const ALL: [Self; 14] = [
        Self::Relu,
        Self::Gelu,
        Self::Swish,
        Self::Tanh,
        Self::GeluNew,
        Self::QuickGelu,
        Self::Gelu10,
        Self::LeakyRelu,
        Self::Linear,
        Self::Mish,
        Self::Relu2,
        Self::Relu6,
        Self::Sigmoid,
        Self::Laplace,
    ];

    /// By any of the names that AdapterHub reads; those with parameters of their own are not among them.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.to_lowercase();
        let name = if name == "leakyrelu" { "leaky_relu" } else { &name };
        let (_, meant) = Activation::NAMES.iter().find(|(known, _)| *known == name)?;
        Self::ALL.into_iter().find(|own| own.activation() == *meant)
    }

    /// f(x).
    #[cfg(feature = "torch")]
    pub fn apply(self, x: &tch::Tensor) -> tch::Tensor {
        crate::ml::models::activate(self.activation(), x)
    }

    /// The same among the functions of models.
    fn activation(self) -> Activation {
        match self {
            Self::Relu => Activation::Relu,
            Self::Gelu => Activation::Gelu,
            Self::Swish => Activation::Silu,
            Self::Tanh => Activation::Tanh,
            Self::GeluNew => Activation::GeluTanh,
            Self::QuickGelu => Activation::QuickGelu,
            Self::Gelu10 => Activation::ClippedGelu,
            Self::LeakyRelu => Activation::LeakyRelu,
            Self::Linear => Activation::Linear,
            Self::Mish => Activation::Mish,
            Self::Relu2 => Activation::SquaredRelu,
            Self::Relu6 => Activation::Relu6,
            Self::Sigmoid => Activation::Sigmoid,
            Self::Laplace => Activation::Laplace,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_adapterhubs() {
        for (name, same) in [
            ("ReLU", NonLinearity::Relu),
            ("silu", NonLinearity::Swish),
            ("leakyrelu", NonLinearity::LeakyRelu),
            ("gelu_10", NonLinearity::Gelu10),
            ("gelu_new", NonLinearity::GeluNew),
            ("relu2", NonLinearity::Relu2),
        ] {
            assert_eq!(NonLinearity::named(name), Some(same));
        }
        assert_eq!(NonLinearity::named("prelu"), None);
        for (name, _) in Activation::NAMES {
            assert!(NonLinearity::named(name).is_some(), "{name}");
        }
    }
}
