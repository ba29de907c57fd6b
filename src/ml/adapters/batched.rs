//! What several arms add at one site, by products over all of them at once, padded to the largest rank or hidden size.
//! It does not know kinds of adapters: one says of itself that it is of this form.

use tch::{Kind, Tensor};

use super::NonLinearity;
use super::arm::dropped;
use crate::ml::dropout::Dropout;

/// An adapter that adds U f(D x + d) + u, times a number, to what comes out of a site. A projection's x is what goes
/// into it; at a block's site it is the sum itself.
pub struct Inner<'a> {
    /// D [r, inputs] and d `[r]`.
    pub down: (&'a Tensor, Option<&'a Tensor>),
    /// U [outputs, r] and u `[outputs]`.
    pub up: (&'a Tensor, Option<&'a Tensor>),
    /// f; `None` for none.
    pub non_linearity: Option<NonLinearity>,
    /// The number; before U if there is no f.
    pub scale: f64,
    /// Share of x that is dropped in training if there is no f, else of what is added.
    pub dropout: f64,
}

/// Whose rows are whose in x [K · n, ..]: each has as many.
pub(super) type Masks<'a> = Vec<Option<&'a Dropout>>;

/// True if products over all of them at once are those of each.
pub(super) fn alike(all: &[Inner]) -> bool {
    let form = |inner: &Inner| {
        let (down, up) = (inner.down.0.size(), inner.up.0.size());
        (down[1], up[0], inner.down.1.is_some(), inner.up.1.is_some(), inner.non_linearity)
    };
    all.windows(2).all(|pair| form(&pair[0]) == form(&pair[1]))
}

/// What each adds to its own rows of x [K · n, .., inputs], as f32 [K · n, .., outputs].
pub(super) fn added(all: &[Inner], x: &Tensor, masks: &Masks) -> Tensor {
    let arms = all.len() as i64;
    let most = all.iter().map(|inner| inner.down.0.size()[0]).max().unwrap_or(0);
    let wide = |tensor: &Tensor, at: usize| {
        let lacks = most - tensor.size()[at];
        let mut pad = vec![0; 2 * tensor.dim()];
        // From the last dimension on, before and behind.
        pad[2 * (tensor.dim() - 1 - at) + 1] = lacks;
        if lacks == 0 { tensor.shallow_clone() } else { tensor.constant_pad_nd(pad) }
    };
    let stack = |tensors: Vec<Tensor>| Tensor::stack(&tensors, 0);
    let linear = all.iter().all(|inner| inner.non_linearity.is_none());

    let x = x.to_kind(Kind::Float);
    let x = if linear { masked(all, &x, masks) } else { x };
    let mut shape = x.size();
    let inputs = shape.pop().unwrap_or_default();
    let down = stack(all.iter().map(|inner| wide(inner.down.0, 0)).collect()); // [K, R, inputs]
    let mut inner = x.reshape([arms, -1, inputs]).bmm(&down.transpose(1, 2)); // [K, n, R]
    if all.iter().all(|inner| inner.down.1.is_some()) {
        let bias = all.iter().filter_map(|inner| Some(wide(inner.down.1?, 0))).collect();
        inner += stack(bias).unsqueeze(1);
    }
    let inner = match all.iter().find_map(|inner| inner.non_linearity) {
        Some(f) => f.apply(&inner),
        None => scaled(all, inner),
    };
    let up = stack(all.iter().map(|inner| wide(inner.up.0, 1)).collect()); // [K, outputs, R]
    let mut out = inner.bmm(&up.transpose(1, 2)); // [K, n, outputs]
    if all.iter().all(|inner| inner.up.1.is_some()) {
        out += stack(all.iter().filter_map(|inner| Some(inner.up.1?.shallow_clone())).collect()).unsqueeze(1);
    }
    let out = if linear { out } else { scaled(all, out) };
    shape.push(out.size()[2]);
    let out = out.reshape(shape);
    if linear { out } else { masked(all, &out, masks) }
}

/// Each arm's [n, ..] of [K, n, ..] times its number.
fn scaled(all: &[Inner], tensor: Tensor) -> Tensor {
    let scales: Vec<f32> = all.iter().map(|inner| inner.scale as f32).collect();
    match scales.as_slice() {
        [first, rest @ ..] if rest.iter().all(|scale| scale == first) => {
            if *first == 1.0 {
                tensor
            } else {
                tensor * f64::from(*first)
            }
        }
        _ => &tensor * Tensor::from_slice(&scales).to_device(tensor.device()).view([-1, 1, 1]),
    }
}

/// What the masks of each arm leave of its rows.
fn masked(all: &[Inner], x: &Tensor, masks: &Masks) -> Tensor {
    if all.iter().zip(masks).all(|(inner, mask)| inner.dropout == 0.0 || mask.is_none()) {
        return x.shallow_clone();
    }
    let parts = x.chunk(all.len() as i64, 0);
    let left = parts.iter().zip(all).zip(masks).map(|((part, inner), mask)| dropped(part, inner.dropout, *mask));
    Tensor::cat(&left.collect::<Vec<_>>(), 0)
}
