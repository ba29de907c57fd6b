//! What the models of a thread have computed: ids, padding, floating-point operations, and products of which shapes.
//! It does not know who asks, nor how long anything took; nothing that is computed depends on it.
//!
//! Operations are those of the products with a model's own weights, 2 a weight and id, as many again for the gradient at
//! what goes in and as many for that of the weights, each where autograd makes it; and of attention, 4 a pair of query
//! and key and unit of a head's width, 8 more on the way back. Under a causal flag a pair is one that is seen, under a
//! mask one that is looked at. What is computed twice counts twice; padding, an adapter's own products, norms and sums
//! do not count.

use std::cell::RefCell;
use std::collections::BTreeMap;

use tch::{Kind, Tensor};

/// What was computed since it was last asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Ids that went through a model; one that is read once for several answers counts once.
    pub ids: u64,
    /// Ids beside them that only fill up a batch, or were guessed wrong.
    pub padding: u64,
    /// Floating-point operations.
    pub flop: u64,
}

/// Products x [rows, inputs] · W [outputs, inputs]ᵀ of one shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Product {
    /// How many rows they have on average.
    pub rows: i64,
    /// Width in.
    pub inputs: i64,
    /// Width out.
    pub outputs: i64,
    /// Their dtype.
    pub kind: Kind,
    /// Operations of all of them, those of gradients with them.
    pub flop: u64,
}

impl Product {
    /// `f32`, `bf16`, or what libtorch calls it.
    pub fn dtype(&self) -> &'static str {
        match self.kind {
            Kind::Float => "f32",
            Kind::BFloat16 => "bf16",
            Kind::Half => "f16",
            Kind::Double => "f64",
            _ => "another dtype",
        }
    }
}

#[derive(Default)]
struct Shape {
    calls: u64,
    rows: u64,
    flop: u64,
}

/// All that a thread has computed.
#[derive(Default)]
pub(super) struct Tally {
    work: Work,
    /// Padding of the pass to come.
    next: u64,
    /// Ids of the pass that is under way, and how many of them are padding.
    pass: (u64, u64),
    /// Operations before it.
    before: u64,
    /// By width in, width out, and dtype in libtorch's own number.
    shapes: BTreeMap<(i64, i64, i32), (Kind, Shape)>,
}

impl Tally {
    /// How many of so many rows are not padding: all, unless they are the rows of the pass.
    fn real(&self, rows: u64) -> u64 {
        if rows == self.pass.0 { rows - self.pass.1 } else { rows }
    }

    fn product(&mut self, rows: u64, weight: &Tensor, times: u64) {
        let (outputs, inputs) = weight.size2().unwrap_or_default();
        let flop = 2 * times * self.real(rows) * inputs.unsigned_abs() * outputs.unsigned_abs();
        self.work.flop += flop;
        let kind = weight.kind();
        let (_, shape) = self.shapes.entry((inputs, outputs, kind as i32)).or_insert_with(|| (kind, Shape::default()));
        shape.calls += 1;
        shape.rows += rows;
        shape.flop += flop;
    }
}

thread_local! {
    /// By thread, because a step computes on one, and steps run beside each other.
    static TALLY: RefCell<Tally> = RefCell::default();
}

fn with<T>(change: impl FnOnce(&mut Tally) -> T) -> T {
    TALLY.with_borrow_mut(change)
}

/// What this thread has computed since it was last asked.
pub fn take() -> Work {
    with(|tally| std::mem::take(&mut tally.work))
}

/// The products that this thread has made so far, those with the most operations first.
pub fn products() -> Vec<Product> {
    let of = |(&(inputs, outputs, _), (kind, shape)): (&(i64, i64, i32), &(Kind, Shape))| Product {
        rows: i64::try_from(shape.rows.div_ceil(shape.calls.max(1))).unwrap_or(i64::MAX),
        inputs,
        outputs,
        kind: *kind,
        flop: shape.flop,
    };
    let mut all: Vec<Product> = with(|tally| tally.shapes.iter().map(of).collect());
    all.sort_by_key(|product| std::cmp::Reverse(product.flop));
    all
}

/// What this thread has computed, for [`join`] on the thread that it computed for.
pub(super) fn leave() -> Tally {
    with(std::mem::take)
}

/// Another thread computed this for the caller.
pub(super) fn join(other: Tally) {
    with(|tally| {
        tally.work.ids += other.work.ids;
        tally.work.padding += other.work.padding;
        tally.work.flop += other.work.flop;
        for (key, (kind, shape)) in other.shapes {
            let (_, own) = tally.shapes.entry(key).or_insert_with(|| (kind, Shape::default()));
            own.calls += shape.calls;
            own.rows += shape.rows;
            own.flop += shape.flop;
        }
    });
}

/// Says how many ids of the next pass are padding.
pub(super) fn padding(ids: usize) {
    with(|tally| tally.next = ids as u64);
}

/// A pass begins; one that goes on where another ended has its ids.
pub(super) fn pass(ids: &Tensor, goes_on: bool) {
    with(|tally| {
        let (ids, padding) = (ids.numel() as u64, std::mem::take(&mut tally.next));
        if !goes_on {
            let padding = padding.min(ids);
            (tally.pass, tally.before) = ((ids, padding), tally.work.flop);
            tally.work.ids += ids - padding;
            tally.work.padding += padding;
        }
    });
}

/// So many ids of the pass that is over came out wrong: they were padding.
pub(super) fn in_vain(ids: usize) {
    with(|tally| {
        let real = tally.pass.0 - tally.pass.1;
        let ids = (ids as u64).min(real);
        let flop = tally.work.flop.saturating_sub(tally.before);
        tally.work.flop -= (u128::from(flop) * u128::from(ids) / u128::from(real.max(1))) as u64;
        tally.work.ids -= ids;
        tally.work.padding += ids;
        tally.pass.1 += ids;
    });
}

/// x [.., inputs] times a weight [outputs, inputs] of a model, and its bias.
pub(super) fn product(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let y = x.linear(weight, bias);
    let back = if y.requires_grad() { u64::from(x.requires_grad()) + u64::from(weight.requires_grad()) } else { 0 };
    let width = weight.size().last().copied().unwrap_or(1).unsigned_abs().max(1);
    with(|tally| tally.product(x.numel() as u64 / width, weight, 1 + back));
    y
}

/// The gradient at what goes into a product with a weight [outputs, inputs] of a model, made by hand of that at what comes
/// out: [.., outputs] → [.., inputs].
pub(super) fn gradient(slope: &Tensor, weight: &Tensor) -> Tensor {
    let width = weight.size()[0].unsigned_abs().max(1);
    with(|tally| tally.product(slope.numel() as u64 / width, weight, 1));
    slope.matmul(weight)
}

/// Attention of queries [B, heads, T, D], of which so many are ids, over so many keys.
pub(super) fn attention(q: &Tensor, ids: i64, keys: i64, causal: bool, back: bool) {
    let (_, heads, t, width) = q.size4().unwrap_or_default();
    let [ids, heads, t, width, keys] = [ids, heads, t, width, keys].map(i64::unsigned_abs);
    let twice = if causal { t + 1 } else { 2 * keys };
    let flop = ids * heads * twice * width * if back { 6 } else { 2 };
    with(|tally| {
        let real = tally.real(ids);
        tally.work.flop += (u128::from(flop) * u128::from(real) / u128::from(ids.max(1))) as u64;
    });
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    fn random(size: &[i64]) -> Tensor {
        Tensor::randn(size, (Kind::Float, Device::Cpu))
    }

    #[test]
    fn products_count_as_often_as_they_are_made() {
        let _ = take();
        let (x, w) = (random(&[2, 3, 5]), random(&[7, 5]));
        let one = 2 * 6 * 5 * 7;
        let _ = product(&x, &w, None);
        assert_eq!(take(), Work { flop: one, ..Work::default() });
        let x = x.set_requires_grad(true);
        let _ = product(&x, &w, None);
        assert_eq!(take().flop, 2 * one, "the gradient at what goes in");
        let _ = tch::no_grad(|| product(&x, &w, None));
        assert_eq!(take().flop, one, "nobody goes back");
        let w = w.set_requires_grad(true);
        let _ = product(&x, &w, None);
        assert_eq!(take().flop, 3 * one, "and that of the weights");
        let _ = gradient(&random(&[2, 3, 7]), &w);
        assert_eq!(take().flop, one);
        let all = products();
        let shape = Product { rows: 6, inputs: 5, outputs: 7, kind: Kind::Float, flop: 8 * one };
        assert_eq!(all, [shape]);
    }

    #[test]
    fn padding_is_told_and_not_counted() {
        let _ = take();
        let ids = Tensor::zeros([2, 4], (Kind::Int64, Device::Cpu));
        padding(3);
        pass(&ids, false);
        let _ = product(&random(&[2, 4, 5]), &random(&[7, 5]), None);
        let _ = product(&random(&[4, 5]), &random(&[7, 5]), None);
        attention(&random(&[2, 3, 4, 6]), 8, 4, true, false);
        pass(&ids, true);
        let products = 2 * 5 * 7 * (5 + 4);
        assert_eq!(take(), Work { ids: 5, padding: 3, flop: products + 2 * 3 * 10 * 6 * 4 * 5 / 8 });
        pass(&ids, false);
        attention(&random(&[2, 3, 4, 6]), 8, 9, false, true);
        assert_eq!(take(), Work { ids: 8, padding: 0, flop: 2 * 3 * 36 * 6 * 12 });
        padding(2);
        pass(&ids, false);
        attention(&random(&[2, 3, 4, 6]), 5, 9, false, false);
        let _ = product(&random(&[2, 4, 5]), &random(&[7, 5]), None);
        in_vain(3);
        let attended = 3 * 5 * 9 * 6 * 4;
        assert_eq!(take(), Work { ids: 3, padding: 5, flop: (attended + 6 * 2 * 5 * 7) / 2 });
    }
}
