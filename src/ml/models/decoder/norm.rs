//! Norms of a hidden state: root mean square, the same around 1, and the layer norm.
//! It does not know where in a block it stands.

use tch::{Device, Kind, Tensor};

use crate::ml::config::{self, NormKind};

/// A norm with its weights.
pub struct Norm {
    pub weight: Tensor, // [width]
    pub bias: Option<Tensor>,
    pub formula: config::Norm,
}

impl Norm {
    /// x [.., width] → the same shape and dtype.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let (kind, eps) = (x.kind(), self.formula.eps);
        match self.formula.kind {
            // One kernel each way instead of a dozen, which rounds once: after the weight, too.
            NormKind::Rms if x.device() != Device::Cpu => x.rms_norm(self.weight.size(), Some(&self.weight), Some(eps)),
            // The quotient in f32, rounded before it meets the weight; Gemma rounds after that.
            NormKind::Rms => root_mean_square(x, eps).to_kind(kind).g_mul_(&self.weight),
            NormKind::RmsPlusOne => (root_mean_square(x, eps) * (self.weight.to_kind(Kind::Float) + 1.0)).to_kind(kind),
            NormKind::Layer => x.layer_norm(self.weight.size(), Some(&self.weight), self.bias.as_ref(), eps, true),
        }
    }
}

/// x / rms(x) in f32.
fn root_mean_square(x: &Tensor, eps: f64) -> Tensor {
    let wide = x.to_kind(Kind::Float);
    let mean = wide.square().mean_dim(-1, true, Kind::Float);
    wide * (mean + eps).rsqrt()
}
