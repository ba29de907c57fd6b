//! What several arms add at one site, by products over all of them at once, padded to the largest rank or hidden size.
//! It does not know kinds of adapters: one says of itself that it is of this form.

use std::cell::RefCell;
use std::collections::BTreeMap;

use tch::Tensor;

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

/// Numbers of arms by their bits, as f32 [K, 1, 1] on the device: what is small goes there once.
pub(super) type Scales = RefCell<BTreeMap<Vec<u32>, Tensor>>;

/// True if products over all of them at once are those of each.
pub(super) fn alike(all: &[Inner]) -> bool {
    let form = |inner: &Inner| {
        let (down, up) = (inner.down.0.size(), inner.up.0.size());
        (down[1], up[0], inner.down.1.is_some(), inner.up.1.is_some(), inner.non_linearity)
    };
    all.windows(2).all(|pair| form(&pair[0]) == form(&pair[1]))
}

/// What each adds to its own rows of x [K · n, .., inputs], as [K · n, .., outputs] in the dtype of x.
pub(super) fn added(all: &[Inner], x: &Tensor, masks: &Masks, scales: &Scales) -> Tensor {
    let arms = all.len() as i64;
    let most = all.iter().map(|inner| inner.down.0.size()[0]).max().unwrap_or(0);
    let linear = all.iter().all(|inner| inner.non_linearity.is_none());
    let kind = x.kind();

    let x = if linear { masked(all, x, masks) } else { x.shallow_clone() };
    let mut shape = x.size();
    let inputs = shape.pop().unwrap_or_default();
    let down = side_by_side(&all.iter().map(|inner| inner.down.0).collect::<Vec<_>>(), 0, most);
    let down = down.to_kind(kind).view([arms, most, inputs]).transpose(1, 2); // [K, inputs, R]
    let mut inner = x.reshape([arms, -1, inputs]).bmm(&down); // [K, n, R]
    let biases: Vec<&Tensor> = all.iter().filter_map(|inner| inner.down.1).collect();
    if !biases.is_empty() {
        inner += side_by_side(&biases, 0, most).to_kind(kind).view([arms, 1, most]);
    }
    let inner = match all.iter().find_map(|inner| inner.non_linearity) {
        Some(f) => f.apply(&inner),
        None => scaled(all, inner, scales),
    };
    let up = side_by_side(&all.iter().map(|inner| inner.up.0).collect::<Vec<_>>(), 1, most);
    let up = up.to_kind(kind).view([-1, arms, most]).permute([1, 2, 0]); // [K, R, outputs]
    let mut out = inner.bmm(&up); // [K, n, outputs]
    let biases: Vec<Tensor> = all.iter().filter_map(|inner| Some(inner.up.1?.shallow_clone())).collect();
    if !biases.is_empty() {
        out += Tensor::stack(&biases, 0).to_kind(kind).unsqueeze(1);
    }
    let out = if linear { out } else { scaled(all, out, scales) };
    shape.push(out.size()[2]);
    let out = out.reshape(shape);
    if linear { out } else { masked(all, &out, masks) }
}

/// All in one along `dim`, with zeros behind those that are smaller than `most` there.
fn side_by_side(all: &[&Tensor], dim: i64, most: i64) -> Tensor {
    let lacks = |tensor: &Tensor| most - tensor.size()[dim as usize];
    let zeros = all.iter().map(|tensor| lacks(tensor)).max().filter(|&lacks| lacks > 0).map(|lacks| {
        let mut size = all[0].size();
        size[dim as usize] = lacks;
        Tensor::zeros(size, (all[0].kind(), all[0].device()))
    });
    let mut pieces = Vec::with_capacity(2 * all.len());
    for tensor in all {
        pieces.push(tensor.shallow_clone());
        let rest = zeros.as_ref().map(|zeros| zeros.narrow(dim, 0, lacks(tensor)));
        pieces.extend(rest.filter(|rest| rest.numel() > 0));
    }
    Tensor::cat(&pieces, dim)
}

/// Each arm's [n, ..] of [K, n, ..] times its number.
fn scaled(all: &[Inner], tensor: Tensor, scales: &Scales) -> Tensor {
    let (first, kind) = (all[0].scale, tensor.kind());
    if all.iter().all(|inner| inner.scale == first) {
        return if first == 1.0 { tensor } else { tensor * first };
    }
    let numbers: Vec<f32> = all.iter().map(|inner| inner.scale as f32).collect();
    let bits = numbers.iter().map(|number| number.to_bits()).collect();
    let mut scales = scales.borrow_mut();
    let scales =
        scales.entry(bits).or_insert_with(|| Tensor::from_slice(&numbers).to_device(tensor.device()).view([-1, 1, 1]));
    (tensor * &*scales).to_kind(kind)
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
