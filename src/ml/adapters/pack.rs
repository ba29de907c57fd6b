//! Several arms over one base at once: each sees only its own rows of what goes through the model.
//! It does not know what any of them computes, nor how they are trained.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use tch::Tensor;

use super::arm::{Arm, At};
use crate::ml::dropout::Dropout;

/// Rows of one arm among those that go through the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Which arm.
    pub arm: usize,
    /// Its rows of [B, T, ..].
    pub rows: i64,
    /// Ids of its longest row: what stands behind them was put there because of the others.
    pub width: i64,
    /// Its rows of [N, ..], where only positions with a target are left.
    pub targets: i64,
}

/// Arms that share what goes through the model.
pub struct Pack {
    arms: Vec<Arm>,
    /// Sites where at least one has an adapter.
    sites: BTreeSet<usize>,
    /// Whose rows are whose, in their order.
    parts: RefCell<Vec<Part>>,
    /// The masks of each arm in its current step.
    dropouts: RefCell<Vec<Option<Dropout>>>,
}

impl Pack {
    pub(super) fn new(arms: Vec<Arm>) -> Self {
        let sites = arms.iter().flat_map(Arm::seats).map(|seat| seat.site).collect();
        let dropouts = RefCell::new(arms.iter().map(|_| None).collect());
        Self { arms, sites, parts: RefCell::default(), dropouts }
    }

    /// The arms.
    pub fn arms(&self) -> &[Arm] {
        &self.arms
    }

    /// The arms, which are no pack any more.
    pub fn into_arms(self) -> Vec<Arm> {
        self.arms
    }

    /// Says whose rows come next.
    pub fn seat(&self, parts: Vec<Part>) {
        self.parts.replace(parts);
    }

    /// Draws an arm's masks from here on; `None` leaves it without dropout.
    pub fn draw(&self, arm: usize, dropout: Option<Dropout>) {
        self.dropouts.borrow_mut()[arm] = dropout;
    }

    /// See [`Arm::input`].
    pub(super) fn input(&self, site: usize, x: &Tensor) -> Option<Tensor> {
        if !self.sites.contains(&site) {
            return None;
        }
        let given = Cell::new(false);
        let all = self.each([x], |arm, [x], _| match arm.input(site, &x) {
            Some(input) => {
                given.set(true);
                input
            }
            None => x,
        });
        given.get().then(|| join(all))
    }

    /// See [`Arm::linear`].
    pub(super) fn linear(&self, site: usize, x: &Tensor, y: Tensor) -> Tensor {
        if !self.sites.contains(&site) {
            return y;
        }
        join(self.each([x, &y], |arm, [x, y], dropout| arm.linear(site, &x, y, dropout)))
    }

    /// See [`Arm::block`].
    pub(super) fn block(&self, site: usize, at: &At, out: Tensor) -> Tensor {
        if !self.sites.contains(&site) {
            return out;
        }
        join(self.each([at.residual, at.sublayer, &out], |arm, [residual, sublayer, out], dropout| {
            arm.block(site, &At { residual: &residual, sublayer: &sublayer }, out, dropout)
        }))
    }

    /// What each arm makes of its own rows of these tensors.
    fn each<const N: usize>(
        &self,
        tensors: [&Tensor; N],
        make: impl Fn(&Arm, [Tensor; N], Option<&Dropout>) -> Tensor,
    ) -> Vec<Tensor> {
        let (parts, dropouts) = (self.parts.borrow(), self.dropouts.borrow());
        // Split, not cut: the gradient of a cut is as large as the whole, that of a split is joined once.
        let mut split: Vec<_> = tensors.iter().map(|tensor| self.split(&parts, tensor).into_iter()).collect();
        let mut made = Vec::with_capacity(parts.len());
        for part in parts.iter() {
            let own: Vec<Tensor> = split.iter_mut().filter_map(Iterator::next).collect();
            let Ok(own) = <[Tensor; N]>::try_from(own) else { continue };
            let dropout = dropouts[part.arm].as_ref();
            if let Some(dropout) = dropout {
                dropout.within(part.width);
            }
            made.push(make(&self.arms[part.arm], own, dropout));
        }
        made
    }

    fn split(&self, parts: &[Part], tensor: &Tensor) -> Vec<Tensor> {
        if parts.len() == 1 {
            return vec![tensor.shallow_clone()];
        }
        let flat = tensor.dim() == 2;
        let sizes: Vec<i64> = parts.iter().map(|part| if flat { part.targets } else { part.rows }).collect();
        tensor.split_with_sizes(&sizes[..], 0)
    }
}

fn join(mut parts: Vec<Tensor>) -> Tensor {
    if parts.len() == 1
        && let Some(one) = parts.pop()
    {
        return one;
    }
    Tensor::cat(&parts, 0)
}
