//! One run between its steps: its curve, the figures that are still on the device, and when its state is saved.
//! It does not know models, nor whether other runs share them.

use std::time::{Duration, Instant};

use tch::{Kind, Tensor};

use super::adamw::AdamW;
use super::curve::{Curve, Point};
use super::fit::{Fit, Progress, Watch};
use super::micro::Micro;
use super::state;
use crate::error::{Problem, Result};

/// At the latest after so many steps the losses are read back, all at once: on a GPU each reading waits for it.
const READ_EVERY: usize = 10;
/// Or after this time, so that slow steps are told too.
const TELL_EVERY: Duration = Duration::from_millis(300);

/// A step whose figures are still on the device.
struct Pending {
    point: Point,
    loss: Tensor,
    norm: Tensor,
}

/// A run on its way.
pub(super) struct Course<'a> {
    options: &'a Fit,
    curve: Curve,
    pending: Vec<Pending>,
    told: Instant,
    /// Steps done, and after how many of them the last state was saved.
    done: u64,
    saved: u64,
}

impl<'a> Course<'a> {
    /// From the beginning, or from the state that `watch` has.
    pub fn begin(options: &'a Fit, adamw: &mut AdamW, watch: &mut dyn Watch) -> Result<Self> {
        let curve = match watch.restore(options.steps)? {
            Some(folder) => state::read(&folder, adamw)?,
            None => Curve::default(),
        };
        let done = curve.points.len() as u64;
        Ok(Self { options, curve, pending: Vec::new(), told: Instant::now(), done, saved: done })
    }

    /// The next step; `None` once the run is over.
    pub fn next(&self) -> Option<u64> {
        (self.done < self.options.steps).then_some(self.done)
    }

    /// How many ids of the next step have loss.
    pub fn targets(&self, micros: &[Micro]) -> Result<u64> {
        let targets: u64 = micros.iter().map(Micro::targets).sum();
        if targets == 0 {
            return Err(Problem::new(format!("the batch of step {} has no id to predict", self.done + 1))
                .help("every row needs an answer of at least one id after its first id"));
        }
        Ok(targets)
    }

    /// Fails if the run is to end before its next micro-batch; then it leaves a state.
    pub fn check(&mut self, adamw: &AdamW, watch: &mut dyn Watch) -> Result<()> {
        let Err(problem) = watch.check() else { return Ok(()) };
        // A step that has only begun has changed nothing yet.
        if problem.cancelled && self.done > self.saved {
            self.curve.points.extend(read_back(&mut self.pending)?);
            watch.save(self.done, false, &mut |folder| state::write(folder, adamw, &self.curve))?;
        }
        Err(problem)
    }

    /// Makes the next step with the gradient that `adamw` holds; `losses` are those of its micro-batches.
    pub fn step(
        &mut self,
        adamw: &mut AdamW,
        micros: &[Micro],
        losses: &[Tensor],
        watch: &mut dyn Watch,
    ) -> Result<()> {
        let Fit { lr, schedule, schedule_steps, warmup, steps, clip } = *self.options;
        let step = self.done;
        watch.gradient(step, adamw);
        let norm = adamw.clip(clip);
        let lr = lr * schedule.factor(step, warmup, schedule_steps);
        adamw.step(lr);
        self.done += 1;
        watch.updated(step);

        let tokens = micros.iter().map(|micro| micro.tokens).sum();
        let target_tokens = micros.iter().map(Micro::targets).sum();
        let point = Point { step: self.done, loss: 0.0, lr, grad_norm: 0.0, tokens, target_tokens };
        self.pending.push(Pending { point, loss: Tensor::stack(losses, 0).sum(Kind::Float), norm });
        let last = self.done == steps;
        let save = watch.due(last);
        if self.pending.len() >= READ_EVERY || self.told.elapsed() >= TELL_EVERY || last || save {
            let points = read_back(&mut self.pending)?;
            let elapsed = self.told.elapsed().as_secs_f64().max(1e-9);
            self.told = Instant::now();
            watch.progress(&Progress {
                step: self.done,
                steps,
                loss: points.iter().map(|point| point.loss).sum::<f64>() / points.len() as f64,
                tokens_per_second: points.iter().map(|point| point.tokens).sum::<u64>() as f64 / elapsed,
            });
            self.curve.points.extend(points);
        }
        if save {
            watch.save(self.done, last, &mut |folder| state::write(folder, adamw, &self.curve))?;
            self.saved = self.done;
        }
        Ok(())
    }

    /// All steps of a run that is over.
    pub fn curve(self) -> Curve {
        self.curve
    }
}

/// Fetches the figures of all pending steps in one go; the first that is not a number ends the run.
fn read_back(pending: &mut Vec<Pending>) -> Result<Vec<Point>> {
    // The last step may have been read back already when the run is to end.
    if pending.is_empty() {
        return Ok(Vec::new());
    }
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

#[cfg(test)]
mod tests {
    #[test]
    fn nothing_pending_is_nothing_to_read_back() {
        assert!(super::read_back(&mut Vec::new()).unwrap().is_empty());
    }
}
