//! Trains several arms at once over one frozen base: its products are made on the rows of all, everything else on the
//! rows of each. It does not know kinds of adapters nor architectures, nor who wants the arms.
//!
//! Each arm keeps its own rows, loss, clipping, schedule, optimiser, curve and states, and has them as it would alone;
//! one that is over, or fails, leaves the others to themselves.

use std::mem;

use tch::Tensor;

use super::adamw::AdamW;
use super::arms::{Adapted, Recipe};
use super::batch::Plan;
use super::course::Course;
use super::curve::Curve;
use super::fit::Watch;
use super::loss::{Learner, at_rows};
use super::memory::Memory;
use super::micro::Micro;
use crate::error::{Problem, Result};
use crate::ml::adapters::{Arm, Part};
use crate::ml::dropout::Dropout;
use crate::ml::models::{Model, check_ids, check_length};
use crate::ml::slope::scalar;
use crate::ml::tally;
use crate::ml::tokens::Tokens;

/// What one arm of a pack is trained on, and how.
pub struct Member<'a> {
    /// Its rows.
    pub tokens: &'a Tokens,
    /// Which of them make a step.
    pub plan: &'a Plan,
    /// How it is trained.
    pub recipe: &'a Recipe,
    /// Who follows it.
    pub watch: &'a mut dyn Watch,
}

/// What the arms of a pack do together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Joining {
    /// Micro-batches of a round go through the model together if at most this share of their ids, 0 to 1, is padding
    /// that is only there for that: with 0, those that are equally wide.
    pub waste: f64,
    /// What adapters of one form add is computed for all at once.
    pub batched: bool,
}

/// The curve of a run, and how many ids it read itself: what it goes on from is not counted.
pub type Trained = (Curve, u64);

/// A member on its way.
struct Running<'m, 'a> {
    member: &'m mut Member<'a>,
    adamw: AdamW,
    course: Course<'a>,
    /// What its step is made of, and the losses so far.
    micros: Vec<Micro>,
    targets: u64,
    losses: Vec<Tensor>,
    /// Ids that it read so far.
    read: u64,
}

/// Trains the arms of a pack, each as [`super::arms::train_arm`] would train it, but for rounding: a product of few rows
/// is made by another kernel than one of many.
pub fn train_pack<'a>(
    model: &dyn Model,
    pack: &Arm,
    members: &mut [Member<'a>],
    joining: Joining,
) -> Result<Vec<Result<Trained>>> {
    let packed = pack.packed().ok_or_else(|| Problem::new("it is one arm, no pack"))?;
    if packed.arms().len() != members.len() {
        return Err(Problem::new(format!("{} arms for {} members", packed.arms().len(), members.len())));
    }
    packed.batch(joining.batched);
    let learner = Adapted::new(model, pack, None);
    let mut results: Vec<Option<Result<Trained>>> = members.iter().map(|_| None).collect();
    let mut running: Vec<Option<Running<'_, 'a>>> = Vec::new();
    for ((member, arm), result) in members.iter_mut().zip(packed.arms()).zip(&mut results) {
        running.push(match begin(model, arm, member) {
            Ok(begun) => Some(begun),
            Err(problem) => {
                *result = Some(Err(problem));
                None
            }
        });
    }
    loop {
        for (slot, result) in running.iter_mut().zip(&mut results) {
            let Some(mut run) = slot.take() else { continue };
            match run.course.next() {
                None => *result = Some(Ok((run.course.curve(), run.read))),
                Some(step) => match run.lay_out(step, model) {
                    Ok(()) => *slot = Some(run),
                    Err(problem) => *result = Some(Err(problem)),
                },
            }
        }
        let rounds = running.iter().flatten().map(|run| run.micros.len()).max();
        let Some(rounds) = rounds else { break };
        for round in 0..rounds {
            for (at, (slot, result)) in running.iter_mut().zip(&mut results).enumerate() {
                if let Some((run, step)) = slot.as_ref().and_then(|run| Some((run, run.course.next()?))) {
                    packed.draw(at, Some(Dropout::new(run.member.recipe.seed, step).of(round)));
                }
                let ended = slot.as_mut().and_then(|run| run.check(round).err());
                if let Some(problem) = ended {
                    (*slot, *result) = (None, Some(Err(problem)));
                }
            }
            for group in groups(&running, round, joining.waste) {
                together(&learner, packed, &mut running, round, &group);
            }
        }
        for (slot, result) in running.iter_mut().zip(&mut results) {
            let ended = slot.as_mut().and_then(|run| run.step().err());
            if let Some(problem) = ended {
                (*slot, *result) = (None, Some(Err(problem)));
            }
        }
    }
    let lost = || Err(Problem::new("the arm did not end"));
    Ok(results.into_iter().map(|result| result.unwrap_or_else(lost)).collect())
}

fn begin<'m, 'a>(model: &dyn Model, arm: &Arm, member: &'m mut Member<'a>) -> Result<Running<'m, 'a>> {
    if member.recipe.memory == Memory::Low {
        return Err(Problem::new("an arm that keeps no activations is trained alone"));
    }
    let tokens = member.tokens;
    check_ids(model, tokens.ids.iter().map(|&id| i64::from(id)))?;
    check_length(model, (0..tokens.rows()).map(|row| tokens.row(row).len()).max().unwrap_or(0))?;
    let mut adamw = AdamW::new(&arm.parameters(), member.recipe.adamw, |_, _| true)?;
    adamw.round_to(arm.seen_in(model));
    let course = Course::begin(&member.recipe.fit, &mut adamw, member.watch)?;
    Ok(Running { member, adamw, course, micros: Vec::new(), targets: 0, losses: Vec::new(), read: 0 })
}

impl Running<'_, '_> {
    fn lay_out(&mut self, step: u64, model: &dyn Model) -> Result<()> {
        let rows = &self.member.plan.steps[step as usize];
        let tokens = self.member.tokens;
        let micro = |rows: &Vec<usize>| Micro::of_answers(tokens, rows, model.kind(), model.device());
        self.micros = rows.iter().map(micro).collect();
        self.targets = self.course.targets(&self.micros)?;
        Ok(())
    }

    /// Its micro-batch of this round, if that has anything to learn.
    fn micro(&self, round: usize) -> Option<&Micro> {
        self.micros.get(round).filter(|micro| micro.targets() > 0)
    }

    fn check(&mut self, round: usize) -> Result<()> {
        if self.micro(round).is_none() {
            return Ok(());
        }
        self.course.check(&self.adamw, self.member.watch)
    }

    fn step(&mut self) -> Result<()> {
        let (micros, losses) = (mem::take(&mut self.micros), mem::take(&mut self.losses));
        self.read += micros.iter().map(|micro| micro.tokens).sum::<u64>();
        self.course.step(&mut self.adamw, &micros, &losses, self.member.watch)
    }
}

/// Whose micro-batches of this round go through the model together: of like width, so that little is padded.
fn groups(running: &[Option<Running>], round: usize, waste: f64) -> Vec<Vec<usize>> {
    let micro = |(at, run): (usize, &Option<Running>)| {
        let (rows, width) = run.as_ref()?.micro(round)?.ids.size2().ok()?;
        Some((width, at, rows))
    };
    let mut all: Vec<(i64, usize, i64)> = running.iter().enumerate().filter_map(micro).collect();
    all.sort_by_key(|&(width, at, _)| (std::cmp::Reverse(width), at));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let (mut widest, mut real, mut rows_so_far) = (0, 0, 0);
    for (width, at, rows) in all {
        let padded = (widest * (rows_so_far + rows)) as f64;
        let fits = padded - (real + width * rows) as f64 <= waste * padded;
        match groups.last_mut().filter(|_| fits) {
            Some(group) => group.push(at),
            None => {
                groups.push(vec![at]);
                (widest, real, rows_so_far) = (width, 0, 0);
            }
        }
        (real, rows_so_far) = (real + width * rows, rows_so_far + rows);
    }
    // In the order of the arms, whatever their widths.
    groups.iter_mut().for_each(|group| group.sort_unstable());
    groups
}

/// One pass forward and back for all of a group.
fn together(
    learner: &Adapted,
    packed: &crate::ml::adapters::Pack,
    running: &mut [Option<Running>],
    round: usize,
    group: &[usize],
) {
    let mut runs: Vec<(usize, &mut Running)> = Vec::new();
    for (at, run) in running.iter_mut().enumerate().filter(|(at, _)| group.contains(at)) {
        runs.extend(run.as_mut().map(|run| (at, run)));
    }
    let micros: Vec<&Micro> = runs.iter().filter_map(|(_, run)| run.micro(round)).collect();
    let part = |((arm, _), micro): (&(usize, &mut Running), &&Micro)| {
        let (rows, width) = micro.ids.size2().unwrap_or_default();
        Part { arm: *arm, rows, width, targets: micro.targets() as i64 }
    };
    let parts: Vec<Part> = runs.iter().zip(&micros).map(part).collect();
    let counts: Vec<i64> = parts.iter().map(|part| part.targets).collect();
    let joined = Micro::joined(&micros);
    tally::padding(joined.ids.numel().saturating_sub(joined.tokens as usize));
    packed.seat(parts);
    let rows = learner.hidden(&joined.ids, &joined.positions); // [N, H]
    let own_rows = rows.detach().split_with_sizes(&counts[..], 0);
    let mut slopes = Vec::new();
    for ((_, run), own) in runs.iter_mut().zip(&own_rows) {
        let Some(labels) = run.micro(round).map(|micro| micro.labels.shallow_clone()) else { continue };
        let (loss, slope) = at_rows(learner as &dyn Learner, own, &labels, run.targets);
        slopes.extend(slope);
        run.losses.push(loss);
    }
    // An arm's tensors get their gradient from its own rows alone.
    let way = scalar(&rows, &Tensor::cat(&slopes, 0));
    let inputs: Vec<&Tensor> = runs.iter().flat_map(|(_, run)| run.adamw.parameters()).collect();
    let gradients = Tensor::run_backward(&[&way], &inputs, false, false);
    let mut rest = gradients.as_slice();
    for (_, run) in runs {
        let (own, others) = rest.split_at(run.adamw.parameters().len());
        run.adamw.gradient().add(own);
        rest = others;
    }
}
