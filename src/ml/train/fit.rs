//! The training loop, straight down: batches, loss, gradient, clip, update, and what it says on the way.
//! It does not know what is trained (`Learner`), on what (a closure gives micro-batches), or who listens (`Watch`).

use std::path::{Path, PathBuf};

use super::adamw::AdamW;
use super::course::Course;
use super::curve::Curve;
use super::loss::Learner;
use super::mate::{Job, Mate};
use super::micro::Micro;
use super::schedule::Schedule;
use crate::error::Result;

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
    fit_beside(options, learner, None, adamw, batches, watch)
}

/// The same; two micro-batches at a time, where there is somebody to take the second one.
pub(super) fn fit_beside(
    options: &Fit,
    learner: &dyn Learner,
    mate: Option<&Mate>,
    adamw: &mut AdamW,
    batches: &mut dyn FnMut(u64) -> Result<Vec<Micro>>,
    watch: &mut dyn Watch,
) -> Result<Curve> {
    let mut course = Course::begin(options, adamw, watch)?;
    while let Some(step) = course.next() {
        let micros = batches(step)?;
        let targets = course.targets(&micros)?;
        // Σ over micro-batches of NLL / targets: the same as one batch that holds them all.
        let mut losses = Vec::with_capacity(micros.len());
        let job = |(at, micro): (usize, &Micro)| Job { step, at, micro: micro.share(), total: targets };
        let mut jobs = micros.iter().enumerate().filter(|(_, micro)| micro.targets() > 0).map(job);
        while let Some(own) = jobs.next() {
            course.check(adamw, watch)?;
            match mate.and_then(|mate| Some((mate, jobs.next()?))) {
                Some((mate, other)) => losses.extend(mate.both(learner, [own, other], adamw.gradient())?),
                None => losses.push(own.backward(learner, adamw.gradient())?),
            }
        }
        course.step(adamw, &micros, &losses, watch)?;
    }
    Ok(course.curve())
}
