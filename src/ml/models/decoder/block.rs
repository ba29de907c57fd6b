//! A block: attention and feed-forward, each added to the residual stream, one after the other or side by side.
//! It does not know what its modules are called, nor which adapters are at its sites.

use std::collections::BTreeMap;

use tch::Tensor;

use super::Pass;
use super::attention::Attention;
use super::norm::Norm;
use crate::ml::adapters::{Arm, At, Effect};
use crate::ml::config::{Activation, Role};
use crate::ml::linear::Linear;
use crate::ml::models::KvCache;
use crate::ml::slope::scalar;

/// A block.
pub struct Block {
    pub attention: Half<Attention>,
    pub feed_forward: Half<FeedForward>,
    /// True if both read the same residual stream.
    pub parallel: bool,
}

/// One of a block's sub-layers with what is around it.
pub struct Half<L> {
    /// What it reads goes through this.
    pub norm: Norm,
    pub layer: L,
    /// What it says goes through this.
    pub out_norm: Option<Norm>,
    /// The site of its residual sum.
    pub site: usize,
}

impl<L> Half<L> {
    /// `residual` plus what the sub-layer makes of `read`, and what the arm makes of the sum.
    fn add(&self, residual: &Tensor, read: &Tensor, pass: &Pass, layer: impl FnOnce(&L, &Tensor) -> Tensor) -> Tensor {
        let said = layer(&self.layer, &self.norm.forward(read));
        let sublayer = match &self.out_norm {
            Some(norm) => norm.forward(&said),
            None => said,
        };
        let at = At { residual, sublayer: &sublayer };
        pass.arm.block(self.site, &at, residual + &sublayer, pass.dropout)
    }
}

impl Block {
    /// x [B, T, H] → [B, T, H], or [N, H] of the positions that are wanted: the others give keys and values alone.
    pub fn forward(&self, x: &Tensor, pass: &Pass, cache: Option<&mut KvCache>) -> Tensor {
        let residual = pass.picked(x.shallow_clone());
        let sum = self.attention.add(&residual, x, pass, |attention, read| attention.forward(read, pass, cache));
        let read = if self.parallel { &residual } else { &sum };
        if let Some(slope) = pass.slope.filter(|_| self.ends_in_a_sum(pass.arm)) {
            let Half { norm, layer, .. } = &self.feed_forward;
            let inner = layer.inner(&norm.forward(read), pass);
            return layer.down.against(slope, &sum, &inner, pass.arm, pass.dropout);
        }
        let out = self.feed_forward.add(&sum, read, pass, |feed_forward, read| feed_forward.forward(read, pass));
        match pass.slope {
            Some(slope) => scalar(&out, slope),
            None => out,
        }
    }

    /// True if no gradient depends on what its last product says.
    fn ends_in_a_sum(&self, arm: &Arm) -> bool {
        let Half { layer, out_norm, site, .. } = &self.feed_forward;
        out_norm.is_none() && arm.effect(*site) == Effect::None && layer.down.is_added_to(arm)
    }
}

/// down(f(gate(x)) · up(x)), or without a gate down(f(up(x))).
pub struct FeedForward {
    pub gate: Option<Linear>,
    pub up: Linear,
    pub down: Linear,
    pub activation: Activation,
}

impl FeedForward {
    pub fn new(mut projections: BTreeMap<Role, Linear>, activation: Activation) -> Option<Self> {
        let mut take = |role| projections.remove(&role);
        Some(Self { gate: take(Role::Gate), up: take(Role::Up)?, down: take(Role::Down)?, activation })
    }

    /// [.., H] → [.., H].
    fn forward(&self, x: &Tensor, pass: &Pass) -> Tensor {
        self.down.forward(&self.inner(x, pass), pass.arm, pass.dropout)
    }

    /// What goes into the last product, [.., H] → [.., inner].
    fn inner(&self, x: &Tensor, pass: &Pass) -> Tensor {
        let through = |linear: &Linear, x: &Tensor| linear.forward(x, pass.arm, pass.dropout);
        match &self.gate {
            Some(gate) => {
                let mut gate = self.activated(through(gate, x));
                let up = through(&self.up, x);
                // In place where no gradient needs the factors.
                if gate.requires_grad() || up.requires_grad() { gate * up } else { gate.g_mul_(&up) }
            }
            None => self.activated(through(&self.up, x)),
        }
    }

    /// f(x); in place where no gradient needs x.
    fn activated(&self, mut x: Tensor) -> Tensor {
        if self.activation == Activation::Silu && !x.requires_grad() {
            x.silu_()
        } else {
            activate(self.activation, &x)
        }
    }
}

/// μ = √½ and σ = √(1 / 4π) of `laplace` (Ma et al. 2022, arXiv 2209.10655); transformers rounds them to six digits.
const LAPLACE: (f64, f64) = (std::f64::consts::FRAC_1_SQRT_2, 0.282_094_79);

/// f(x).
pub fn activate(activation: Activation, x: &Tensor) -> Tensor {
    match activation {
        Activation::Silu => x.silu(),
        Activation::Gelu => x.gelu("none"),
        Activation::GeluTanh => x.gelu("tanh"),
        Activation::QuickGelu => x * (x * 1.702).sigmoid(),
        Activation::ClippedGelu => x.gelu("none").clamp(-10.0, 10.0),
        Activation::Relu => x.relu(),
        Activation::SquaredRelu => x.relu().square(),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::LeakyRelu => x.leaky_relu(),
        Activation::Tanh => x.tanh(),
        Activation::Sigmoid => x.sigmoid(),
        Activation::Mish => x.mish(),
        Activation::Laplace => (((x - LAPLACE.0) / (LAPLACE.1 * std::f64::consts::SQRT_2)).erf() + 1.0) * 0.5,
        Activation::Linear => x.shallow_clone(),
    }
}
