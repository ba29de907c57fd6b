//! The loss of a micro-batch and its gradient: only positions with a target go through the language-model head.
//! It does not know optimiser steps nor where rows come from.

use tch::{Device, Kind, Reduction, Tensor};

use super::gradient::Gradient;
use super::micro::Micro;
use crate::error::{Problem, Result};
use crate::ml::slope::scalar;
use crate::ml::tally;

/// Logits that are held at once, 64 MiB of f32; a micro-batch with more targets goes through the head in pieces.
const LOGITS_AT_ONCE: i64 = 1 << 24;
/// The same on a processor under a frozen head, 4 MiB: what is made of them is read again before it leaves the cache.
const LOGITS_IN_CACHE: i64 = 1 << 20;

/// What is trained, as the loss sees it.
pub trait Learner {
    /// Ids `[B, T]`, padded on the right, to hidden states after the final norm at these positions in B · T, `[N, H]`.
    ///
    /// No mask: with causal attention a padded position is seen by padded positions only, and those have no loss.
    fn hidden(&self, ids: &Tensor, positions: &Tensor) -> Tensor;
    /// Hidden states `[N, H]` to f32 logits `[N, V]`.
    fn logits(&self, rows: &Tensor) -> Tensor;
    /// `V`.
    fn vocabulary(&self) -> i64;
    /// What comes next is a micro-batch of a step, both counted from 0: masks of dropout are those of it.
    fn draw(&self, _step: u64, _micro: usize) {}
    /// The head `[V, H]`, if logits are nothing but hidden states times it and nobody trains it.
    fn frozen_head(&self) -> Option<Tensor> {
        None
    }
    /// True if what [`Learner::hidden`] gives leads down to the trainable tensors by itself; otherwise
    /// [`Learner::take_down`] has to be asked, once, before the next micro-batch.
    fn keeps_graph(&self) -> bool {
        true
    }
    /// Takes the gradient at the hidden states, `[N, H]`, further down and adds it to that of the step.
    fn take_down(&self, rows: &Tensor, slope: &Tensor, gradient: &mut Gradient) {
        gradient.backward(&scalar(rows, slope), None);
    }
}

/// Adds the gradient of `Σ NLL / total` to that of the step, and gives this loss as a scalar that is not read back.
pub fn backward(learner: &dyn Learner, micro: &Micro, total: u64, gradient: &mut Gradient) -> Result<Tensor> {
    tally::padding(micro.ids.numel().saturating_sub(micro.tokens as usize));
    let head = learner.frozen_head();
    let at_once = at_once(learner, head.as_ref());
    match head {
        Some(head) => backward_below(learner, &head, micro, total, gradient, at_once),
        None => backward_in_pieces(learner, micro, total, gradient, at_once),
    }
}

/// So many rows go through the head at a time.
fn at_once(learner: &dyn Learner, head: Option<&Tensor>) -> i64 {
    let cached = head.is_some_and(|head| head.device() == Device::Cpu);
    let logits = if cached { LOGITS_IN_CACHE } else { LOGITS_AT_ONCE };
    (logits / learner.vocabulary().max(1)).max(1)
}

/// The same under a frozen head: loss and gradient of a piece come from one softmax, and no logits are kept.
fn backward_below(
    learner: &dyn Learner,
    head: &Tensor,
    micro: &Micro,
    total: u64,
    gradient: &mut Gradient,
    at_once: i64,
) -> Result<Tensor> {
    let rows = learner.hidden(&micro.ids, &micro.positions); // [N, H]
    if !rows.requires_grad() {
        return Err(nothing_to_learn());
    }
    let (loss, at_rows) = below(learner, head, &rows, &micro.labels, total, at_once);
    learner.take_down(&rows, &Tensor::cat(&at_rows, 0), gradient);
    Ok(loss)
}

/// `Σ NLL / total` of hidden states `[N, H]` under a frozen head, and its gradient at them, in pieces.
fn below(
    learner: &dyn Learner,
    head: &Tensor,
    rows: &Tensor,
    labels: &Tensor,
    total: u64,
    at_once: i64,
) -> (Tensor, Vec<Tensor>) {
    let count = rows.size()[0];
    let (mut losses, mut at_rows) = (Vec::new(), Vec::new());
    tch::no_grad(|| {
        for from in (0..count).step_by(at_once as usize) {
            let length = at_once.min(count - from);
            let labels = labels.narrow(0, from, length).unsqueeze(1);
            let mut log_p = learner.logits(&rows.narrow(0, from, length)).log_softmax(-1, Kind::Float); // [n, V]
            losses.push(log_p.gather(1, &labels, false).sum(Kind::Float));
            // ∂ NLL / ∂ logits = p - 1 at the label.
            let minus = Tensor::full([length, 1], -1.0, (Kind::Float, log_p.device()));
            let slope = log_p.exp_().scatter_add_(1, &labels, &minus).to_kind(head.kind());
            at_rows.push(tally::gradient(&slope, head).to_kind(Kind::Float) * (1.0 / total as f64)); // [n, H]
        }
    });
    (Tensor::stack(&losses, 0).sum(Kind::Float) * (-1.0 / total as f64), at_rows)
}

/// The loss of one run whose hidden states `[N, H]` came through a frozen model beside those of others, and its
/// gradient at them, in pieces: what [`backward`] makes of them when the run is alone.
pub(super) fn at_rows(learner: &dyn Learner, rows: &Tensor, labels: &Tensor, total: u64) -> (Tensor, Vec<Tensor>) {
    let head = learner.frozen_head();
    let at_once = at_once(learner, head.as_ref());
    if let Some(head) = head {
        return below(learner, &head, rows, labels, total, at_once);
    }
    let slope = |loss: &Tensor, piece: &Tensor| Tensor::run_backward(&[loss], &[piece], false, false).pop();
    in_pieces(learner, rows, labels, total, at_once, slope)
}

/// `Σ NLL / total` of hidden states `[N, H]`, and its gradient at them, with at most `at_once` of them in the head at a
/// time: `slope` gives the gradient of a piece's loss at the piece.
fn in_pieces(
    learner: &dyn Learner,
    rows: &Tensor,
    labels: &Tensor,
    total: u64,
    at_once: i64,
    mut slope: impl FnMut(&Tensor, &Tensor) -> Option<Tensor>,
) -> (Tensor, Vec<Tensor>) {
    let (mut losses, mut at_rows) = (Vec::new(), Vec::new());
    let count = rows.size()[0];
    for from in (0..count).step_by(at_once as usize) {
        let length = at_once.min(count - from);
        let piece = rows.narrow(0, from, length).detach().set_requires_grad(true);
        let loss = nll(learner, &piece, &labels.narrow(0, from, length)) / total as f64;
        at_rows.extend(slope(&loss, &piece));
        losses.push(loss.detach());
    }
    (Tensor::stack(&losses, 0).sum(Kind::Float), at_rows)
}

/// The same with at most `at_once` positions in the head at a time.
fn backward_in_pieces(
    learner: &dyn Learner,
    micro: &Micro,
    total: u64,
    gradient: &mut Gradient,
    at_once: i64,
) -> Result<Tensor> {
    let rows = learner.hidden(&micro.ids, &micro.positions); // [N, H]
    let count = rows.size()[0];
    if count <= at_once && learner.keeps_graph() {
        let loss = nll(learner, &rows, &micro.labels) / total as f64;
        if !loss.requires_grad() {
            return Err(nothing_to_learn());
        }
        gradient.backward(&loss, None);
        return Ok(loss.detach());
    }
    if !rows.requires_grad() {
        return Err(nothing_to_learn());
    }
    // The head in pieces: each gives its gradient at the hidden states, and one pass takes all of them further down.
    let slope = |loss: &Tensor, piece: &Tensor| gradient.backward(loss, Some(piece));
    let (loss, at_rows) = in_pieces(learner, &rows, &micro.labels, total, at_once, slope);
    learner.take_down(&rows, &Tensor::cat(&at_rows, 0), gradient);
    Ok(loss)
}

/// The summed negative log-likelihood of the labels `[N]` at the hidden states `[N, H]`.
fn nll(learner: &dyn Learner, rows: &Tensor, labels: &Tensor) -> Tensor {
    learner.logits(rows).cross_entropy_loss::<Tensor>(labels, None, Reduction::Sum, -100, 0.0)
}

pub(super) fn nothing_to_learn() -> Problem {
    Problem::new("the loss does not depend on any trainable tensor")
        .help("check that the adapter has sites in this model (`target_modules`, `layers`)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ml::train::adamw::{AdamW, AdamWOptions};

    /// Embedding [5, 3], then a head [5, 3]: enough to tell positions apart.
    struct Toy {
        named: Vec<(String, Tensor)>,
    }

    impl Toy {
        fn new() -> Self {
            let values =
                |shift: f64| (Tensor::arange(15, (Kind::Float, Device::Cpu)) * 0.7 + shift).sin().view_([5, 3]);
            Self { named: vec![("embed".to_owned(), values(0.0)), ("head".to_owned(), values(1.0))] }
        }

        fn adamw(&self) -> AdamW {
            let options = AdamWOptions { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0 };
            AdamW::new(&self.named, options, |_, _| true).unwrap()
        }
    }

    impl Learner for Toy {
        fn hidden(&self, ids: &Tensor, positions: &Tensor) -> Tensor {
            let all = Tensor::embedding(&self.named[0].1, ids, -1, false, false).cumsum(1, Kind::Float);
            all.flatten(0, 1).index_select(0, positions)
        }
        fn logits(&self, rows: &Tensor) -> Tensor {
            rows.matmul(&self.named[1].1.tr())
        }
        fn vocabulary(&self) -> i64 {
            5
        }
    }

    fn labelled() -> (Tensor, Tensor) {
        let ids = Tensor::from_slice(&[1i64, 2, 3, 4, 0, 1, 3, 3, 2, 0, 0, 0]).view_([2, 6]);
        let labels = Tensor::from_slice(&[-100i64, -100, 3, 4, 0, 1, 3, 3, -100, -100, -100, -100]).view_([2, 6]);
        (ids, labels)
    }

    #[test]
    fn selected_rows_give_the_loss_and_gradient_of_full_logits() {
        let (ids, labels) = labelled();
        let toy = Toy::new();
        let mut adamw = toy.adamw();
        let micro = Micro::from_labels(&ids, &labels, 9);
        assert_eq!(micro.targets(), 5);
        let loss = backward(&toy, &micro, micro.targets(), adamw.gradient()).unwrap();

        let all = Tensor::arange(12, (Kind::Int64, Device::Cpu));
        let logits = toy.logits(&toy.hidden(&ids, &all)).view([2, 6, 5]).narrow(1, 0, 5).reshape([10, 5]);
        let next = labels.narrow(1, 1, 5).reshape([10]);
        let full = logits.cross_entropy_loss::<Tensor>(&next, None, Reduction::Mean, -100, 0.0);
        assert!((loss.double_value(&[]) - full.double_value(&[])).abs() < 1e-6);
        let expected = Tensor::run_backward(&[full], &[&toy.named[0].1, &toy.named[1].1], false, false);
        let ours = adamw.gradients();
        for ((name, _), expected) in toy.named.iter().zip(expected) {
            assert!(ours[name].allclose(&expected, 1e-5, 1e-6, false), "{name}");
        }
    }

    #[test]
    fn the_head_in_pieces_gives_the_same() {
        let (ids, labels) = labelled();
        let toy = Toy::new();
        let micro = Micro::from_labels(&ids, &labels, 9);
        let with = |at_once| {
            let mut adamw = toy.adamw();
            let loss = backward_in_pieces(&toy, &micro, 5, adamw.gradient(), at_once).unwrap().double_value(&[]);
            (loss, adamw.gradients())
        };
        let (whole_loss, whole) = with(5);
        for at_once in [1, 2, 4] {
            let (loss, gradients) = with(at_once);
            assert!((loss - whole_loss).abs() < 1e-6);
            for (name, gradient) in &gradients {
                assert!(gradient.allclose(&whole[name], 1e-5, 1e-6, false), "{name} in pieces of {at_once}");
            }
        }
    }

    #[test]
    fn under_a_frozen_head_loss_and_gradient_are_the_same() {
        let (ids, labels) = labelled();
        let mut toy = Toy::new();
        let micro = Micro::from_labels(&ids, &labels, 9);
        let head = toy.named[1].1.shallow_clone();
        let with = |toy: &Toy, below: Option<i64>| {
            let options = AdamWOptions { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0 };
            let mut adamw = AdamW::new(&toy.named[..1], options, |_, _| true).unwrap();
            let loss = match below {
                Some(at_once) => backward_below(toy, &head, &micro, 5, adamw.gradient(), at_once),
                None => backward_in_pieces(toy, &micro, 5, adamw.gradient(), 5),
            };
            (loss.unwrap().double_value(&[]), adamw.gradients().remove("embed").unwrap())
        };
        let (loss, gradient) = with(&toy, None);
        for at_once in [1, 2, 5] {
            let (other, below) = with(&toy, Some(at_once));
            assert!((loss - other).abs() < 1e-6, "{loss} {other}");
            assert!(gradient.allclose(&below, 1e-5, 1e-7, false), "in pieces of {at_once}");
        }
        toy.named[0].1 = toy.named[0].1.detach();
        let mut adamw = Toy::new().adamw();
        assert!(backward_below(&toy, &head, &micro, 5, adamw.gradient(), 5).is_err());
    }
}
