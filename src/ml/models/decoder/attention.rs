//! Attention of one block: projections, rotary angles, the cache of keys and values, scores.
//! It does not know what its projections are called, nor which adapters are at them.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::Pass;
use super::norm::Norm;
use super::sight::Sight;
use crate::ml::config::Role;
use crate::ml::linear::Linear;

/// Attention of one block.
pub struct Attention {
    pub projections: BTreeMap<Role, Linear>,
    /// Norms of each head's query and key.
    pub head_norms: Option<(Norm, Norm)>,
    pub heads: i64,
    pub key_value_heads: i64,
    pub head_dim: i64,
    /// Scores are multiplied by this; by 1 / √D if it is none.
    pub scale: Option<f64>,
    /// Scores are bent to c · tanh(x / c).
    pub softcap: Option<f64>,
    /// True if the block has a sliding window.
    pub slides: bool,
}

impl Attention {
    /// x [B, T, H] → [B, T, H].
    pub fn forward(&self, x: &Tensor, pass: &Pass, cache: Option<&mut (Tensor, Tensor)>) -> Tensor {
        let (b, t, _) = x.size3().unwrap_or_default();
        let [q, k, v] = self.project(x, pass);
        let (q, k) = match &self.head_norms {
            Some((of_queries, of_keys)) => (of_queries.forward(&q), of_keys.forward(&k)),
            None => (q, k),
        };
        let (q, mut k) = match pass.rotary(self.slides) {
            Some(rotary) => (rotary.rotate(&q), rotary.rotate(&k)),
            None => (q, k),
        };
        let mut v = v;
        if let Some((keys, values)) = cache {
            if keys.size()[2] > 0 {
                k = Tensor::cat(&[&*keys, &k], 2);
                v = Tensor::cat(&[&*values, &v], 2);
            }
            (*keys, *values) = (k.shallow_clone(), v.shallow_clone());
        }
        let sight = pass.sight(self.slides);
        if let Some(last) = sight.last {
            let from = k.size()[2] - last;
            (k, v) = (k.narrow(2, from, last), v.narrow(2, from, last));
        }
        let groups = self.heads / self.key_value_heads;
        let (k, v) = (repeat(&k, groups), repeat(&v, groups));
        let out = match self.softcap {
            None => {
                let (mask, causal) = (sight.mask.as_ref(), sight.causal);
                Tensor::scaled_dot_product_attention(&q, &k, &v, mask, 0.0, causal, self.scale, false)
            }
            Some(cap) => self.bent(&q, &k, &v, sight, cap),
        };
        let joined = out.transpose(1, 2).reshape([b, t, self.heads * self.head_dim]);
        self.linear(Role::Output, &joined, pass)
    }

    fn linear(&self, role: Role, x: &Tensor, pass: &Pass) -> Tensor {
        self.projections[&role].forward(x, pass.arm, pass.dropout)
    }

    /// Queries, keys and values, [B, heads, T, D].
    fn project(&self, x: &Tensor, pass: &Pass) -> [Tensor; 3] {
        let (b, t, _) = x.size3().unwrap_or_default();
        let split = |y: &Tensor, heads: i64, width: i64| y.view([b, t, heads, width]).transpose(1, 2);
        let parts = if self.projections.contains_key(&Role::Interleaved) {
            let all = self.linear(Role::Interleaved, x, pass);
            split(&all, self.heads, 3 * self.head_dim).chunk(3, -1)
        } else if self.projections.contains_key(&Role::Stacked) {
            let all = self.linear(Role::Stacked, x, pass).chunk(3, -1);
            all.iter().map(|part| split(part, self.heads, self.head_dim)).collect()
        } else {
            let roles =
                [(Role::Query, self.heads), (Role::Key, self.key_value_heads), (Role::Value, self.key_value_heads)];
            roles.map(|(role, heads)| split(&self.linear(role, x, pass), heads, self.head_dim)).into()
        };
        parts.try_into().expect("three parts")
    }

    /// Attention with bent scores, which no kernel of libtorch has: softmax in f32 over c · tanh(q·k scale / c).
    fn bent(&self, q: &Tensor, k: &Tensor, v: &Tensor, sight: &Sight, cap: f64) -> Tensor {
        let scale = self.scale.unwrap_or((self.head_dim as f64).powf(-0.5));
        let scores = (q.matmul(&k.transpose(2, 3)) * (scale / cap)).tanh() * cap;
        let scores = match &sight.mask {
            Some(mask) => scores.masked_fill(&mask.logical_not(), f64::NEG_INFINITY),
            None => scores,
        };
        scores.softmax(-1, Kind::Float).to_kind(q.kind()).matmul(v)
    }
}

/// [B, heads, S, D] → [B, heads · groups, S, D], each head repeated.
fn repeat(x: &Tensor, groups: i64) -> Tensor {
    if groups == 1 {
        return x.shallow_clone();
    }
    let (b, heads, s, d) = x.size4().unwrap_or_default();
    x.unsqueeze(2).expand([b, heads, groups, s, d], false).reshape([b, heads * groups, s, d])
}
