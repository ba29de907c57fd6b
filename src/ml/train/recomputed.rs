//! A model seen through an arm, of whose activations only those between blocks are kept: what is in a block is computed
//! again on the way back (Chen et al. 2016, arXiv 1604.06174). It does not know losses, optimisers or kinds of adapters.

use std::cell::RefCell;

use tch::{Tensor, no_grad};

use super::arms::Adapted;
use super::gradient::Gradient;
use super::loss::{Learner, nothing_to_learn};
use crate::error::Result;
use crate::ml::models::Input;

/// See the module.
pub struct Recomputed<'a> {
    adapted: &'a Adapted<'a>,
    /// The lowest block with an adapter: below there is no gradient, and nothing is kept.
    lowest: usize,
    /// Of the micro-batch that is under way.
    tape: RefCell<Option<Tape>>,
}

struct Tape {
    ids: Tensor,
    positions: Tensor,
    /// What goes into each block from the lowest on, [B, T, H], and how many dropout masks were drawn before it.
    blocks: Vec<(Tensor, u128)>,
}

impl<'a> Recomputed<'a> {
    /// Fails if there is nothing to learn.
    pub fn new(adapted: &'a Adapted<'a>) -> Result<Self> {
        let lowest = adapted.arm.lowest_layer(adapted.model);
        let lowest = lowest.ok_or_else(nothing_to_learn)?;
        Ok(Self { adapted, lowest, tape: RefCell::default() })
    }

    fn layers(&self) -> usize {
        self.adapted.model.config().num_hidden_layers.try_into().unwrap_or(0)
    }

    /// What comes out of a block, or at its end out of the model: [N, H] at the positions.
    fn block(&self, layer: usize, x: &Tensor, ids: &Tensor, positions: &Tensor) -> Tensor {
        let dropout = self.adapted.dropout.borrow();
        let to = (layer + 1 < self.layers()).then_some(layer + 1);
        let input = Input {
            wanted: to.is_none().then_some(positions),
            dropout: dropout.as_ref(),
            from: Some((layer, x)),
            to,
            ..Input::of(ids)
        };
        self.adapted.model.hidden(&input, self.adapted.arm, None)
    }

    fn drawn(&self) -> u128 {
        self.adapted.dropout.borrow().as_ref().map_or(0, crate::ml::dropout::Dropout::drawn)
    }
}

impl Learner for Recomputed<'_> {
    fn hidden(&self, ids: &Tensor, positions: &Tensor) -> Tensor {
        no_grad(|| {
            let dropout = self.adapted.dropout.borrow();
            // Nothing is drawn there; it tells that this trains.
            let input = Input { to: Some(self.lowest), dropout: dropout.as_ref(), ..Input::of(ids) };
            let mut x = self.adapted.model.hidden(&input, self.adapted.arm, None);
            let mut blocks = Vec::new();
            for layer in self.lowest..self.layers() {
                let drawn = self.drawn();
                let next = self.block(layer, &x, ids, positions);
                blocks.push((std::mem::replace(&mut x, next), drawn));
            }
            let tape = Tape { ids: ids.shallow_clone(), positions: positions.shallow_clone(), blocks };
            self.tape.replace(Some(tape));
            x
        })
        .set_requires_grad(true)
    }

    fn logits(&self, rows: &Tensor) -> Tensor {
        self.adapted.logits(rows)
    }

    fn vocabulary(&self) -> i64 {
        self.adapted.vocabulary()
    }

    fn draw(&self, step: u64, micro: usize) {
        self.adapted.draw(step, micro);
    }

    fn frozen_head(&self) -> Option<Tensor> {
        self.adapted.frozen_head()
    }

    fn keeps_graph(&self) -> bool {
        false
    }

    fn take_down(&self, _rows: &Tensor, slope: &Tensor, gradient: &mut Gradient) {
        let Some(tape) = self.tape.take() else { return };
        let after = self.drawn();
        let mut slope = slope.shallow_clone();
        for (above, (x, drawn)) in tape.blocks.into_iter().enumerate().rev() {
            let layer = self.lowest + above;
            let x = x.set_requires_grad(above > 0);
            if let Some(dropout) = self.adapted.dropout.borrow().as_ref() {
                dropout.rewind(drawn);
            }
            let out = self.block(layer, &x, &tape.ids, &tape.positions);
            let below = gradient.backward(&(out * slope).sum(tch::Kind::Float), (above > 0).then_some(&x));
            let Some(below) = below else { break };
            slope = below;
        }
        if let Some(dropout) = self.adapted.dropout.borrow().as_ref() {
            dropout.rewind(after);
        }
    }
}
