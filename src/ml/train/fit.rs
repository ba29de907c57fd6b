//! The training loop, straight down: batches, loss, gradient, clip, update, and what it says on the way.
//! It does not know what is trained (`Learner`), on what (a closure gives micro-batches), or who listens (`Watch`).

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tch::{Kind, Tensor};

use super::adamw::AdamW;
use super::curve::{Curve, Point};
use super::loss::{Learner, Micro, backward};
use super::schedule::Schedule;
use super::state;
use crate::error::{Problem, Result};

/// At the latest after so many steps the losses are read back, all at once: on a GPU each reading waits for it.
const READ_EVERY: usize = 10;
/// Or after this time, so that slow steps are told too.
const TELL_EVERY: Duration = Duration::from_millis(300);

/// How to train.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// The highest learning rate.
    pub lr: f64,
    /// How it moves.
    pub schedule: Schedule,
    /// Steps over which it does.
    pub schedule_steps: u64,
    /// Steps over which it rises from 0.
    pub warmup: u64,
    /// Optimiser steps.
    pub steps: u64,
    /// The largest norm of the gradient of a step.
    pub clip: Option<f64>,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// The mean loss since the last time it was told.
    pub loss: f64,
    /// Ids through the model per second, since the last time.
    pub tokens_per_second: f64,
}

/// Who follows a run. Nothing it is told enters a result, but for what the tests take.
pub trait Watch {
    /// Called before each micro-batch; a problem ends the run with it.
    fn check(&mut self) -> Result<()>;
    /// Called now and then.
    fn progress(&mut self, _progress: &Progress) {}
    /// Called with the whole gradient of a step before it is clipped; steps count from 0.
    fn gradient(&mut self, _step: u64, _adamw: &AdamW) {}
    /// Called after the update of a step.
    fn updated(&mut self, _step: u64) {}
    /// The folder of a state to go on from, after so many of the run's steps at most.
    fn restore(&mut self, _steps: u64) -> Result<Option<PathBuf>> {
        Ok(None)
    }
    /// True if the state is to be saved now; with `finished`, after the last step.
    fn due(&mut self, _finished: bool) -> bool {
        false
    }
    /// Saves the state after so many steps: `write` writes it into a folder.
    fn save(&mut self, _steps: u64, _finished: bool, _write: Write) -> Result<()> {
        Ok(())
    }
}

/// Writes the state of a run into a folder.
pub type Write<'a> = &'a mut dyn FnMut(&Path) -> Result<()>;

/// A step whose figures are still on the device.
struct Pending {
    point: Point,
    loss: Tensor,
    norm: Tensor,
}

/// Trains what `adamw` holds. `batches` gives the micro-batches of a step; their gradients are added up, and the
/// loss of the step is the sum over all its target ids divided by their number. A run that goes on from the state of
/// another one of the same options, or of more or fewer steps, ends as if it had made all steps itself.
pub fn fit(
    options: &Fit,
    learner: &dyn Learner,
    adamw: &mut AdamW,
    batches: &mut dyn FnMut(u64) -> Result<Vec<Micro>>,
    watch: &mut dyn Watch,
) -> Result<Curve> {
    let mut curve = match watch.restore(options.steps)? {
        Some(folder) => state::read(&folder, adamw)?,
        None => Curve::default(),
    };
    let mut pending: Vec<Pending> = Vec::new();
    let mut told = Instant::now();
    let (begun, mut saved) = (curve.points.len() as u64, curve.points.len() as u64);
    for step in begun..options.steps {
        let micros = batches(step)?;
        let targets: u64 = micros.iter().map(Micro::targets).sum();
        if targets == 0 {
            return Err(Problem::new(format!("the batch of step {} has no id to predict", step + 1))
                .help("every row needs an answer of at least one id after its first id"));
        }

        // Σ over micro-batches of NLL / targets: the same as one batch that holds them all.
        let mut losses = Vec::with_capacity(micros.len());
        for micro in micros.iter().filter(|micro| micro.targets() > 0) {
            if let Err(problem) = watch.check() {
                // A step that has only begun has changed nothing yet.
                if problem.cancelled && step > saved {
                    curve.points.extend(read_back(&mut pending)?);
                    watch.save(step, false, &mut |folder| state::write(folder, adamw, &curve))?;
                }
                return Err(problem);
            }
            losses.push(backward(learner, micro, targets, adamw)?);
        }
        watch.gradient(step, adamw);

        let norm = adamw.clip(options.clip);
        let lr = options.lr * options.schedule.factor(step, options.warmup, options.schedule_steps);
        adamw.step(lr);
        watch.updated(step);

        let tokens = micros.iter().map(|micro| micro.tokens).sum();
        let point = Point { step: step + 1, loss: 0.0, lr, grad_norm: 0.0, tokens, target_tokens: targets };
        pending.push(Pending { point, loss: Tensor::stack(&losses, 0).sum(Kind::Float), norm });
        let last = step + 1 == options.steps;
        let save = watch.due(last);
        if pending.len() >= READ_EVERY || told.elapsed() >= TELL_EVERY || last || save {
            let points = read_back(&mut pending)?;
            let elapsed = told.elapsed().as_secs_f64().max(1e-9);
            told = Instant::now();
            watch.progress(&Progress {
                step: step + 1,
                steps: options.steps,
                loss: points.iter().map(|point| point.loss).sum::<f64>() / points.len() as f64,
                tokens_per_second: points.iter().map(|point| point.tokens).sum::<u64>() as f64 / elapsed,
            });
            curve.points.extend(points);
        }
        if save {
            watch.save(step + 1, last, &mut |folder| state::write(folder, adamw, &curve))?;
            saved = step + 1;
        }
    }
    Ok(curve)
}

/// Fetches the figures of all pending steps in one go; the first that is not a number ends the run.
fn read_back(pending: &mut Vec<Pending>) -> Result<Vec<Point>> {
    let scalars: Vec<&Tensor> = pending.iter().flat_map(|pending| [&pending.loss, &pending.norm]).collect();
    let values = Vec::<f64>::try_from(Tensor::stack(&scalars, 0).to_kind(Kind::Double))
        .map_err(|error| Problem::new(format!("cannot read the losses back: {error}")))?;
    let mut points = Vec::with_capacity(pending.len());
    for (pending, figures) in pending.drain(..).zip(values.chunks_exact(2)) {
        let point = Point { loss: figures[0], grad_norm: figures[1], ..pending.point };
        for (name, value) in [("loss", point.loss), ("norm of the gradient", point.grad_norm)] {
            if !value.is_finite() {
                let what = format!("the {name} is {value} at step {} (learning rate {:.2e})", point.step, point.lr);
                return Err(Problem::new(what)
                    .help("try a lower `lr`, a longer warm-up, `clip: 1.0`, or `dtype: f32` if it was bf16"));
            }
        }
        points.push(point);
    }
    Ok(points)
}
