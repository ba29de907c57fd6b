//! Causal attention by blocks of queries, each with the keys up to its end, where that is faster on a processor.
//! It does not know caches, what a mask says, or adapters.
//!
//! Where something trains in bf16, by products: libtorch's own kernel makes one for each head of each row, and what is
//! around it costs more. The way there and back of 4 rows of 40, 128, 256 and 512 ids (4 heads of 64; 32 of 40 ids) takes it
//! 3.8, 2.9, 1.5 and 1.6 times as long. Beyond that the probabilities, which are kept, would be too large.
//!
//! Where nothing trains, by that kernel, which passes by keys only 512 at a time: rows of 80, 144, 208, 512 and 2048 ids take
//! it 1.17, 1.22, 1.31, 1.55 and 1.68 times as long in one piece, in bf16 1.26, 1.46, 1.40, 1.54 and 1.64 times (one thread).

use tch::{Device, Kind, Tensor};

/// Queries of a block.
const QUERIES: i64 = 128;
/// Rows of more ids are left to the kernel.
const LONGEST: i64 = 512;
/// Rows of fewer ids are one block.
const SHORTEST: i64 = 48;
/// Queries of a block where nothing trains, in rows of fewer ids than `LONG` and in others.
const FEW: i64 = 32;
const MANY: i64 = 64;
const LONG: i64 = 512;

/// True if [`attend`] is faster for queries [B, heads, T, D], on the way there and back.
pub(super) fn attend_pays(q: &Tensor) -> bool {
    q.device() == Device::Cpu && q.kind() == Kind::BFloat16 && q.size()[2] <= LONGEST
}

/// True if [`read`] is faster for queries [B, heads, T, D], where nothing trains.
pub(super) fn read_pays(q: &Tensor) -> bool {
    q.device() == Device::Cpu && q.size()[2] >= SHORTEST
}

/// Queries [B, heads, T, D] that stand at the last T of S keys and values [B, heads, S, D] → [B, heads, T, D], and how many
/// pairs of a query and a key were looked at in each row. The mask is added, [B or 1, 1, T, S]; without one, S is T.
pub(super) fn read(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    mask: Option<&Tensor>,
    scale: Option<f64>,
    shared: bool,
) -> (Tensor, i64) {
    let (_, _, t, _) = q.size4().unwrap_or_default();
    let before = k.size()[2] - t;
    let step = if t < LONG { FEW } else { MANY };
    let mut pairs = 0;
    let block = |from: i64| {
        let count = step.min(t - from);
        let keys = before + from + count;
        pairs += count * keys;
        let own = match mask {
            Some(mask) => mask.narrow(2, from, count).narrow(3, 0, keys),
            None => Tensor::full([count, keys], f64::NEG_INFINITY, (q.kind(), q.device())).triu(from + 1),
        };
        let [q, k, v] = [q.narrow(2, from, count), k.narrow(2, 0, keys), v.narrow(2, 0, keys)];
        // As the kernel writes it, so that heads are joined without a copy.
        Tensor::scaled_dot_product_attention(&q, &k, &v, Some(&own), 0.0, false, scale, shared).transpose(1, 2)
    };
    let blocks: Vec<Tensor> = (0..t).step_by(step as usize).map(block).collect();
    (Tensor::cat(&blocks, 1).transpose(1, 2), pairs)
}

/// Queries, keys and values [B, heads, T, D] → [B, heads, T, D]. Scores are rounded to the dtype, as transformers' `eager`
/// attention has them.
pub(super) fn attend(q: &Tensor, k: &Tensor, v: &Tensor, scale: f64) -> Tensor {
    let (b, heads, t, width) = q.size4().unwrap_or_default();
    let flat = |x: &Tensor| x.reshape([b * heads, t, width]);
    let (q, k, v) = (flat(q), flat(k).transpose(1, 2), flat(v));
    let block = |from: i64| {
        let (count, keys) = (QUERIES.min(t - from), (from + QUERIES).min(t));
        let unseen = Tensor::full([count, keys], f64::NEG_INFINITY, (q.kind(), q.device())).triu(from + 1);
        let scores = unseen.baddbmm(&q.narrow(1, from, count), &k.narrow(2, 0, keys), 1.0, scale);
        scores.softmax(-1, None).bmm(&v.narrow(1, 0, keys))
    };
    let blocks: Vec<Tensor> = (0..t).step_by(QUERIES as usize).map(block).collect();
    let joined = if let [one] = blocks.as_slice() { one.shallow_clone() } else { Tensor::cat(&blocks, 1) };
    joined.view([b, heads, t, width])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_read_what_the_kernel_reads_in_one_piece() {
        for (t, before) in [(48, 0), (50, 0), (100, 32), (144, 64), (530, 0), (600, 16)] {
            let random =
                |length: i64, kind| Tensor::randn([2, 3, length, 16], (Kind::Float, Device::Cpu)).to_kind(kind);
            for (kind, near) in [(Kind::Float, 1e-5), (Kind::BFloat16, 2e-2)] {
                let (q, k, v) = (random(t, kind), random(t + before, kind), random(t + before, kind));
                // The first places of the second row are padding.
                let seen = Tensor::ones([2, 1, t, t + before], (Kind::Bool, Device::Cpu)).tril(before);
                let _ = seen.get(1).narrow(2, 0, 5).narrow(1, 6, t - 6).fill_(0);
                let mask =
                    Tensor::zeros(seen.size(), (kind, Device::Cpu)).masked_fill(&seen.logical_not(), f64::NEG_INFINITY);
                let masks = if before == 0 { vec![Some(&mask), None] } else { vec![Some(&mask)] };
                for mask in masks {
                    let whole = Tensor::scaled_dot_product_attention(&q, &k, &v, mask, 0.0, mask.is_none(), 0.3, false);
                    let (blocks, pairs) = read(&q, &k, &v, mask, Some(0.3), false);
                    let apart = (blocks - whole).to_kind(Kind::Float).abs().max().double_value(&[]);
                    assert!(apart <= near, "{t} behind {before}, {kind:?}: {apart}");
                    assert!(pairs < t * (t + before) && pairs >= t * (t + 1) / 2 + t * before, "{pairs}");
                }
            }
        }
    }

    #[test]
    fn blocks_give_what_the_kernel_gives_on_both_ways() {
        for (rows, heads, t) in [(2, 3, 1), (2, 1, 40), (1, 2, 128), (2, 2, 129), (1, 2, 300)] {
            let random = |kind| Tensor::randn([rows, heads, t, 16], (Kind::Float, Device::Cpu)).to_kind(kind);
            for (kind, near) in [(Kind::Float, 1e-5), (Kind::BFloat16, 3e-2)] {
                let inputs = [(); 3].map(|()| random(kind).set_requires_grad(true));
                let [q, k, v] = &inputs;
                let slope = random(kind);
                let ways = [
                    attend(q, k, v, 0.3),
                    Tensor::scaled_dot_product_attention(q, k, v, None::<&Tensor>, 0.0, true, 0.3, false),
                ];
                let [ours, kernels] = ways.map(|out| {
                    let gradients = Tensor::run_backward(&[(&out * &slope).sum(Kind::Float)], &inputs, false, false);
                    std::iter::once(out.detach()).chain(gradients).collect::<Vec<_>>()
                });
                for (ours, kernels) in ours.iter().zip(&kernels) {
                    let apart = (ours - kernels).to_kind(Kind::Float).abs().max().double_value(&[]);
                    let largest = kernels.to_kind(Kind::Float).abs().max().double_value(&[]);
                    assert!(apart <= near * largest.max(1.0), "{rows} {heads} {t} {kind:?}: {apart} of {largest}");
                }
            }
        }
    }
}
