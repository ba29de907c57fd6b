//! Turns queries and keys by the angles of their places, in the rotate-half form.
//! It does not know frequencies' formulas (`config::rope`) nor heads.

use std::cell::RefCell;
use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use crate::ml::config::rope::Rope;

/// cos and sin of the first places, kept from pass to pass.
pub struct Table {
    inverse_frequencies: Tensor, // [width / 2]
    factor: f64,
    width: i64,
    /// [S, width]; grows. The first half of sin is negated.
    table: RefCell<(Tensor, Tensor)>,
}

impl Table {
    pub fn new(rope: &Rope, device: Device) -> Self {
        let inverse: Vec<f32> = rope.inverse_frequencies().iter().map(|&f| f as f32).collect();
        let empty = || Tensor::zeros([0, rope.width()], (Kind::Float, device));
        Self {
            inverse_frequencies: Tensor::from_slice(&inverse).to_device(device),
            factor: rope.attention_factor(),
            width: rope.width(),
            table: RefCell::new((empty(), empty())),
        }
    }

    /// The angles at `positions`, i64 [B, T], or [T] for all rows; none is above `highest`.
    pub fn at(&self, positions: &Tensor, highest: i64, kind: Kind) -> Rotary {
        let mut table = self.table.borrow_mut();
        if table.0.size()[0] <= highest {
            let length = (highest / 256 + 1) * 256;
            let steps = Tensor::arange(length, (Kind::Float, positions.device()));
            let angles = steps.unsqueeze(1) * self.inverse_frequencies.unsqueeze(0);
            let scaled = |x: Tensor| if self.factor == 1.0 { x } else { x * self.factor };
            let (cos, sin) = (scaled(angles.cos()), scaled(angles.sin()));
            *table = (Tensor::cat(&[&cos, &cos], 1), Tensor::cat(&[&sin.neg(), &sin], 1));
        }
        let mut shape = positions.size();
        let pick = |from: &Tensor| from.index_select(0, &positions.reshape([-1])).to_kind(kind);
        if shape.len() == 1 {
            shape.insert(0, 1);
        }
        let shape = [shape[0], shape[1], 1, self.width];
        let swap = (positions.device() != Device::Cpu).then(|| swap(self.width, kind, positions.device()));
        let spread = RefCell::default();
        Rotary { cos: pick(&table.0).view(shape), sin: pick(&table.1).view(shape), width: self.width, swap, spread }
    }
}

/// x times it are both halves of x in the other order, [width, width].
fn swap(width: i64, kind: Kind, device: Device) -> Tensor {
    Tensor::eye(width, (kind, device)).roll([width / 2], [1])
}

/// cos and sin of the positions of a pass, [B or 1, T, 1, width] in the model's dtype; the first half of sin is negated.
pub struct Rotary {
    cos: Tensor,
    sin: Tensor,
    width: i64,
    /// On a GPU, where a product with it is four times as fast as `roll`, and as exact.
    swap: Option<Tensor>,
    /// The same as cos and sin for all rows and heads, by their number: there, what is not as large as x is not read
    /// in one piece, and takes longer than more that is.
    spread: RefCell<BTreeMap<(i64, i64), (Tensor, Tensor)>>,
}

impl Rotary {
    /// The angles of these positions in B · T, i64 [N], for [N, 1, heads, D].
    pub fn picked(&self, positions: &Tensor, rows: i64) -> Self {
        let (_, width, _, _) = self.cos.size4().unwrap_or_default();
        let pick = |angles: &Tensor| {
            angles
                .expand([rows, width, 1, self.width], false)
                .reshape([-1, 1, 1, self.width])
                .index_select(0, positions)
        };
        let swap = self.swap.as_ref().map(Tensor::shallow_clone);
        Self { cos: pick(&self.cos), sin: pick(&self.sin), width: self.width, swap, spread: RefCell::default() }
    }

    /// x · cos + rotate_half(x) · sin, [B, T, heads, D] → the same; what is beyond `width` stays.
    pub fn rotate(&self, x: &Tensor) -> Tensor {
        let beyond = x.size()[3] - self.width;
        if beyond == 0 {
            return self.turn(x);
        }
        let (turned, rest) = (x.narrow(-1, 0, self.width), x.narrow(-1, self.width, beyond));
        Tensor::cat(&[&self.turn(&turned), &rest], -1)
    }

    /// rotate_half(x) is (-x₂, x₁): both halves in the other order, where sin has the sign.
    fn turn(&self, x: &Tensor) -> Tensor {
        let Some(swap) = &self.swap else {
            return (x * &self.cos).addcmul_(&x.roll([self.width / 2], [-1]), &self.sin);
        };
        let (rows, _, heads, _) = x.size4().unwrap_or_default();
        let mut spread = self.spread.borrow_mut();
        let (cos, sin) = spread.entry((rows, heads)).or_insert_with(|| {
            let all = |one: &Tensor| one.expand([rows, -1, heads, -1], false).contiguous();
            (all(&self.cos), all(&self.sin))
        });
        (x * &*cos).addcmul_(&x.matmul(swap), &*sin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_product_that_swaps_halves_is_exact() {
        for kind in [Kind::Float, Kind::BFloat16] {
            let x = (Tensor::arange(2 * 3 * 4 * 6, (Kind::Float, Device::Cpu)) * 0.37)
                .sin()
                .view([2, 3, 4, 6])
                .to_kind(kind);
            let rotary = |swap| {
                let angles = Tensor::arange(18, (Kind::Float, Device::Cpu)).view([1, 3, 1, 6]);
                let (cos, sin) = (angles.cos().to_kind(kind), angles.sin().to_kind(kind));
                Rotary { cos, sin, width: 6, swap, spread: RefCell::default() }
            };
            let (rolled, swapped) = (rotary(None), rotary(Some(swap(6, kind, Device::Cpu))));
            assert!(rolled.rotate(&x).equal(&swapped.rotate(&x)), "{kind:?}");
        }
    }
}
