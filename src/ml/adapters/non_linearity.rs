//! The functions inside a bottleneck, by the names of AdapterHub, which are those of transformers 4.57's `ACT2FN`.
//! It does not know bottlenecks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// The same, computed in one step.
    GeluPytorchTanh,
    /// The same with the constant rounded to 0.7978845608.
    GeluFast,
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
    /// By any of the names that AdapterHub reads; those with parameters of their own are not among them.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.to_lowercase();
        let same = match name.as_str() {
            "silu" => "swish",
            "leakyrelu" => "leaky_relu",
            "gelu_python" => "gelu",
            "gelu_accurate" | "gelu_python_tanh" => "gelu_new",
            other => other,
        };
        serde_json::from_value(serde_json::Value::from(same)).ok()
    }

    /// f(x).
    #[cfg(feature = "torch")]
    pub fn apply(self, x: &tch::Tensor) -> tch::Tensor {
        match self {
            Self::Relu => x.relu(),
            Self::Gelu => x.gelu("none"),
            Self::Swish => x.silu(),
            Self::Tanh => x.tanh(),
            Self::GeluNew => {
                let inner = (x + x.pow_tensor_scalar(3.0) * 0.044715) * (2.0 / std::f64::consts::PI).sqrt();
                x * 0.5 * (inner.tanh() + 1.0)
            }
            Self::GeluPytorchTanh => x.gelu("tanh"),
            Self::GeluFast => {
                let inner = x * 0.797_884_560_8 * (x * x * 0.044715 + 1.0);
                x * 0.5 * (inner.tanh() + 1.0)
            }
            Self::QuickGelu => x * (x * 1.702).sigmoid(),
            Self::Gelu10 => x.gelu("none").clamp(-10.0, 10.0),
            Self::LeakyRelu => x.leaky_relu(),
            Self::Linear => x.shallow_clone(),
            Self::Mish => x.mish(),
            Self::Relu2 => x.relu().square(),
            Self::Relu6 => x.relu6(),
            Self::Sigmoid => x.sigmoid(),
            Self::Laplace => (((x - 0.707107) / (0.282095 * 2.0_f64.sqrt())).erf() + 1.0) * 0.5,
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
    }
}
