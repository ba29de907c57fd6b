//! Attention of one block: projections, rotary angles, the cache of keys and values, scores.
//! It does not know what its projections are called, nor which adapters are at them.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::asked::Asked;
use super::norm::Norm;
use super::sight::Sight;
use super::{Pass, blocks};
use crate::ml::config::Role;
use crate::ml::linear::Linear;
use crate::ml::models::KvCache;
use crate::ml::tally;

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
    /// x [B, T, H] → [B, T, H], or [N, H] of the positions that are wanted.
    pub fn forward(&self, x: &Tensor, pass: &Pass, cache: Option<&mut KvCache>) -> Tensor {
        let (b, t, _) = x.size3().unwrap_or_default();
        let asked = pass.asked.as_ref();
        let [q, k, v] = self.project(x, pass);
        let (q, k) = match &self.head_norms {
            Some((of_queries, of_keys)) => (of_queries.forward(&q), of_keys.forward(&k)),
            None => (q, k),
        };
        let (q, k) = match pass.rotary(self.slides) {
            Some(rotary) => {
                let q = asked.map_or_else(|| rotary.rotate(&q), |asked| asked.rotary(rotary).rotate(&q));
                (q, rotary.rotate(&k))
            }
            None => (q, k),
        };
        if let Some(asked) = asked {
            return self.linear(Role::Output, &self.answer(asked, &q, [k, v], pass, cache), pass);
        }
        let joined = match cache {
            None => {
                let [q, k, v] = [q, k, v].map(|x| x.transpose(1, 2)); // [B, heads, T, D]
                let (k, v) = pass.behind(k, v);
                let out = {
                    // What trains does so in each of its passes, also where one of them keeps nothing for the way back.
                    let trains = pass.dropout.is_some() || [&q, &k, &v].iter().any(|x| x.requires_grad());
                    self.attend(&q, k, v, pass.sight(self.slides, 0), b * t, trains)
                };
                out.transpose(1, 2).reshape([b, t, self.heads * self.head_dim])
            }
            Some(cache) => self.attend_to_kept(&q, &k, &v, pass, cache),
        };
        self.linear(Role::Output, &pass.picked(joined), pass)
    }

    /// The same where only some positions go on: their queries [N, 1, heads, D] over the keys and values of all,
    /// [B, T, heads, D] → [N, heads · D].
    fn answer(
        &self,
        asked: &Asked,
        q: &Tensor,
        [k, v]: [Tensor; 2],
        pass: &Pass,
        cache: Option<&mut KvCache>,
    ) -> Tensor {
        let t = k.size()[1];
        let (k, v) = match cache.and_then(|cache| cache.parts.first_mut()) {
            None => pass.behind(k.transpose(1, 2), v.transpose(1, 2)),
            Some(part) => {
                part.put(pass.layer, &k.flatten(0, 1), &v.flatten(0, 1));
                part.kept(pass.layer, &part.runs(t)[0])
            }
        };
        let q = asked.by_rows(q);
        let sight = asked.sight(pass.sight(self.slides, 0), t, k.size()[2], q.kind());
        asked.by_positions(&self.attend(&q, k, v, &sight, asked.count(), false))
    }

    /// The same over what was read before, [B, T, heads, D] → [B, T, heads · D], part by part: rows of unlike length meet
    /// in projections alone.
    fn attend_to_kept(&self, q: &Tensor, k: &Tensor, v: &Tensor, pass: &Pass, cache: &mut KvCache) -> Tensor {
        let (b, t, heads, width) = q.size4().unwrap_or_default();
        let [q, k, v] = [q, k, v].map(|x| x.flatten(0, 1)); // [ids, heads, D]
        let KvCache { parts, order, .. } = cache;
        let q = order.as_ref().map_or_else(|| q.shallow_clone(), |order| order.queries(&q)); // [queries, heads, D]
        let (mut first, mut before, mut outs) = (0, 0, Vec::with_capacity(pass.sight.len()));
        for part in parts {
            let ids = part.in_batch() * t;
            part.put(pass.layer, &k.narrow(0, first * t, ids), &v.narrow(0, first * t, ids));
            for run in part.runs(t) {
                let (k, v) = part.kept(pass.layer, &run);
                let sight = pass.sight(self.slides, outs.len());
                outs.push(run.joined(&self.attend(&run.queries(&q, before), k, v, sight, run.ids, false)));
                before += run.count();
            }
            first += part.in_batch();
        }
        let joined = match order {
            Some(order) => order.ids(&joined(outs)),
            None => {
                if first < b {
                    outs.push(Tensor::zeros([(b - first) * t, heads * width], (q.kind(), q.device())));
                }
                joined(outs)
            }
        };
        joined.view([b, t, heads * width])
    }

    /// Queries [B, heads, T, D] over keys and values [B, shared heads, S, D] → [B, heads, T, D]; so many of B · T are ids.
    fn attend(&self, q: &Tensor, mut k: Tensor, mut v: Tensor, sight: &Sight, ids: i64, trains: bool) -> Tensor {
        if let Some(last) = sight.last {
            let from = k.size()[2] - last;
            (k, v) = (k.narrow(2, from, last), v.narrow(2, from, last));
        }
        let groups = self.heads / self.key_value_heads;
        if sight.causal && trains && blocks::attend_pays(q) {
            let scale = self.scale.unwrap_or((self.head_dim as f64).powf(-0.5));
            let out = blocks::attend(q, &repeat(&k, groups), &repeat(&v, groups), scale);
            tally::attention(q, ids, k.size()[2], true, out.requires_grad());
            return out;
        }
        // The CPU's kernel reads shared heads where they lie, with the same bits as of repeated ones; but it adds up
        // their gradients in another order.
        let shared = groups > 1
            && self.softcap.is_none()
            && k.device() == Device::Cpu
            && !(k.requires_grad() || v.requires_grad());
        let (k, v) = if shared { (k, v) } else { (repeat(&k, groups), repeat(&v, groups)) };
        if sight.in_order && !trains && self.softcap.is_none() && blocks::read_pays(q) {
            let (out, pairs) = blocks::read(q, &k, &v, sight.mask.as_ref(), self.scale, shared);
            tally::attention(q, ids, if sight.causal { k.size()[2] } else { pairs / q.size()[2] }, sight.causal, false);
            return out;
        }
        let out = match self.softcap {
            None => {
                let (mask, causal) = (sight.mask.as_ref(), sight.causal);
                Tensor::scaled_dot_product_attention(q, &k, &v, mask, 0.0, causal, self.scale, shared)
            }
            Some(cap) => self.bent(q, &k, &v, sight, cap),
        };
        tally::attention(q, ids, k.size()[2], sight.causal, out.requires_grad());
        out
    }

    fn linear(&self, role: Role, x: &Tensor, pass: &Pass) -> Tensor {
        self.projections[&role].forward(x, pass.arm, pass.dropout)
    }

    /// Queries, keys and values, [B, T, heads, D]; where only some positions go on, their queries [N, 1, heads, D].
    fn project(&self, x: &Tensor, pass: &Pass) -> [Tensor; 3] {
        let split = |y: &Tensor, heads: i64, width: i64| {
            let (b, t, _) = y.size3().unwrap_or_default();
            y.view([b, t, heads, width])
        };
        // Where queries are made together with keys and values, they are made of all.
        let asking = |mut parts: Vec<Tensor>| {
            if let Some(asked) = &pass.asked {
                let q = parts[0].flatten(2, 3);
                let (heads, width) = (self.heads, self.head_dim);
                parts[0] = asked.pick(&q).view([-1, 1, heads, width]);
            }
            parts
        };
        let parts = if self.projections.contains_key(&Role::Interleaved) {
            let all = self.linear(Role::Interleaved, x, pass);
            asking(split(&all, self.heads, 3 * self.head_dim).chunk(3, -1))
        } else if self.projections.contains_key(&Role::Stacked) {
            let all = self.linear(Role::Stacked, x, pass).chunk(3, -1);
            asking(all.iter().map(|part| split(part, self.heads, self.head_dim)).collect())
        } else {
            let asking = pass.asked.as_ref().map_or_else(|| x.shallow_clone(), |asked| asked.pick(x));
            let roles = [
                (Role::Query, &asking, self.heads),
                (Role::Key, x, self.key_value_heads),
                (Role::Value, x, self.key_value_heads),
            ];
            roles.map(|(role, x, heads)| split(&self.linear(role, x, pass), heads, self.head_dim)).into()
        };
        parts.try_into().expect("three parts")
    }

    /// Attention with bent scores, which no kernel of libtorch has: softmax in f32 over c · tanh(q·k scale / c).
    fn bent(&self, q: &Tensor, k: &Tensor, v: &Tensor, sight: &Sight, cap: f64) -> Tensor {
        let scale = self.scale.unwrap_or((self.head_dim as f64).powf(-0.5));
        let scores = (q.matmul(&k.transpose(2, 3)) * (scale / cap)).tanh() * cap;
        let scores = match &sight.mask {
            Some(mask) => scores + mask,
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

/// All of them along their first dimension.
fn joined(mut parts: Vec<Tensor>) -> Tensor {
    if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(&parts, 0) }
}
