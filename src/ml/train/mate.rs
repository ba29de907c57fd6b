//! A thread that takes every other micro-batch of a step, over the same base and the same adapters.
//! It does not know models, nor how a loss becomes a gradient.

use std::thread::Scope;

use tch::Tensor;

use super::gradient::Gradient;
use super::loss::{Learner, backward};
use super::micro::Micro;
use crate::error::Result;
use crate::ml::crew::{Halves, Helper, Jobs};

/// A micro-batch of a step, both counted from 0, and how many ids have loss in the whole step.
pub(super) struct Job {
    pub step: u64,
    pub at: usize,
    pub micro: Micro,
    pub total: u64,
}

impl Job {
    /// The loss; its gradient is added.
    pub fn backward(&self, learner: &dyn Learner, gradient: &mut Gradient) -> Result<Tensor> {
        learner.draw(self.step, self.at);
        backward(learner, &self.micro, self.total, gradient)
    }
}

/// What comes back: the loss and the gradient.
type Done = Result<(Tensor, Tensor)>;

/// The thread.
pub(super) struct Mate {
    helper: Helper<Job, Done>,
    halves: Halves,
}

impl Mate {
    /// Begins it. `with` makes its own learner of the same tensors and hands it on.
    pub fn beside<'scope>(
        scope: &'scope Scope<'scope, '_>,
        halves: Halves,
        mut gradient: Gradient,
        with: impl FnOnce(&mut dyn FnMut(&dyn Learner)) + Send + 'scope,
    ) -> Self {
        let helper = Helper::begin(scope, halves, move |jobs: Jobs<Job, Done>| {
            let mut jobs = Some(jobs);
            with(&mut |learner| {
                let Some(jobs) = jobs.take() else { return };
                jobs.each(|job| {
                    let loss = job.backward(learner, &mut gradient);
                    let gradient = gradient.take();
                    Ok((loss?, gradient))
                });
            });
        });
        Self { helper, halves }
    }

    /// The losses of two micro-batches at once; their gradients are added one after the other, as if they had been
    /// made so.
    pub fn both(&self, learner: &dyn Learner, [own, other]: [Job; 2], gradient: &mut Gradient) -> Result<[Tensor; 2]> {
        self.helper.give(other);
        let loss = self.halves.alone(|| own.backward(learner, gradient));
        let (of_other, slopes) = self.helper.take()?;
        gradient.join(&slopes);
        Ok([loss?, of_other])
    }
}
