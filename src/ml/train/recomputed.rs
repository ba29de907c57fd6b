//! A model seen through an arm, of whose activations only those between blocks are kept: what is in a block is computed
//! again on the way back (Chen et al. 2016, arXiv 1604.06174), but for the last block, with which that way begins. It does
//! not know losses, optimisers or kinds of adapters.

use std::cell::RefCell;

use tch::{Tensor, no_grad};

use super::arms::Adapted;
use super::gradient::Gradient;
use super::loss::{Learner, nothing_to_learn};
use crate::error::Result;
use crate::ml::models::Input;
use crate::ml::slope::scalar;

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
    /// What goes into each block from the lowest to the last but one, [B, T, H], and how many dropout masks were drawn
    /// before it.
    blocks: Vec<(Tensor, u128)>,
    /// What goes into the last.
    last: Tensor,
}

impl<'a> Recomputed<'a> {
    /// Fails if there is nothing to learn.
    pub fn new(adapted: &'a Adapted<'a>) -> Result<Self> {
        let lowest = adapted.arm.lowest_layer(adapted.model);
        let lowest = lowest.ok_or_else(nothing_to_learn)?;
        Ok(Self { adapted, lowest, tape: RefCell::default() })
    }

    fn last(&self) -> usize {
        usize::try_from(self.adapted.model.config().num_hidden_layers - 1).unwrap_or(0)
    }

    /// What comes out of a block that is not the last, [B, T, H]; with the gradient there a scalar that leads down from it.
    fn block(&self, layer: usize, x: &Tensor, ids: &Tensor, slope: Option<&Tensor>) -> Tensor {
        let dropout = self.adapted.dropout.borrow();
        let (from, to) = (Some((layer, x)), Some(layer + 1));
        let input = Input { dropout: dropout.as_ref(), from, to, slope, ..Input::of(ids) };
        self.adapted.model.hidden(&input, self.adapted.arm, None)
    }

    /// What comes out of the model at the positions, [N, H].
    fn top(&self, x: &Tensor, ids: &Tensor, positions: &Tensor) -> Tensor {
        let dropout = self.adapted.dropout.borrow();
        let (from, wanted) = (Some((self.last(), x)), Some(positions));
        let input = Input { dropout: dropout.as_ref(), from, wanted, ..Input::of(ids) };
        self.adapted.model.hidden(&input, self.adapted.arm, None)
    }

    fn drawn(&self) -> u128 {
        self.adapted.dropout.borrow().as_ref().map_or(0, crate::ml::dropout::Dropout::drawn)
    }
}

impl Learner for Recomputed<'_> {
    fn hidden(&self, ids: &Tensor, positions: &Tensor) -> Tensor {
        let (x, blocks) = no_grad(|| {
            let dropout = self.adapted.dropout.borrow();
            // Nothing is drawn there; it tells that this trains.
            let input = Input { to: Some(self.lowest), dropout: dropout.as_ref(), ..Input::of(ids) };
            let mut x = self.adapted.model.hidden(&input, self.adapted.arm, None);
            let mut blocks = Vec::new();
            for layer in self.lowest..self.last() {
                let drawn = self.drawn();
                let next = self.block(layer, &x, ids, None);
                blocks.push((std::mem::replace(&mut x, next), drawn));
            }
            (x, blocks)
        });
        let last = x.set_requires_grad(!blocks.is_empty());
        let rows = self.top(&last, ids, positions);
        self.tape.replace(Some(Tape { ids: ids.shallow_clone(), blocks, last }));
        rows
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

    fn take_down(&self, rows: &Tensor, slope: &Tensor, gradient: &mut Gradient) {
        let Some(Tape { ids, blocks, last }) = self.tape.take() else { return };
        let after = self.drawn();
        let mut below = gradient.backward(&scalar(rows, slope), last.requires_grad().then_some(&last));
        for (above, (x, drawn)) in blocks.into_iter().enumerate().rev() {
            let Some(slope) = below else { break };
            let x = x.set_requires_grad(above > 0);
            if let Some(dropout) = self.adapted.dropout.borrow().as_ref() {
                dropout.rewind(drawn);
            }
            let way = self.block(self.lowest + above, &x, &ids, Some(&slope));
            below = gradient.backward(&way, (above > 0).then_some(&x));
        }
        if let Some(dropout) = self.adapted.dropout.borrow().as_ref() {
            dropout.rewind(after);
        }
    }
}
