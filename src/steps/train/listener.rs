//! Takes what the training loop says, and the states that it leaves, to the step's context.
//! It does not know what is trained.

use std::path::PathBuf;

use crate::error::Result;
use crate::ml::train::Watch;
use crate::ml::train::fit::{Progress, Write};
use crate::step::Context;
use crate::steps::base::worked;

/// Follows a run for a step.
pub struct Listener<'a>(pub &'a Context);

impl Watch for Listener<'_> {
    fn check(&mut self) -> Result<()> {
        self.0.check_cancelled()
    }

    fn updated(&mut self, _step: u64) {
        worked(self.0);
    }

    fn progress(&mut self, progress: &Progress) {
        let text = format!("loss {:.3}  {} tok/s", progress.loss, short(progress.tokens_per_second));
        self.0.progress(progress.step, Some(progress.steps), "steps", &text);
        self.0.metric("loss", progress.step, progress.loss);
    }

    fn restore(&mut self, steps: u64) -> Result<Option<PathBuf>> {
        let Some(checkpoints) = self.0.checkpoints() else { return Ok(None) };
        let Some(state) = checkpoints.latest(steps)? else { return Ok(None) };
        self.0.resumed(state.position, steps, "steps", &state.run);
        Ok(Some(state.folder))
    }

    fn due(&mut self, finished: bool) -> bool {
        self.0.checkpoints().is_some_and(|checkpoints| checkpoints.due(finished))
    }

    fn save(&mut self, steps: u64, finished: bool, write: Write) -> Result<()> {
        let saved = self.0.checkpoints().map_or(Ok(()), |checkpoints| checkpoints.save(steps, finished, write));
        // The work is worth more than a state on its way.
        if let Err(problem) = saved {
            self.0.remark(format!("no checkpoint is left at step {steps}: {}", problem.what));
        }
        Ok(())
    }
}

/// `950`, `3.1k`, `1.2M`.
fn short(number: f64) -> String {
    match number {
        n if n >= 1e6 => format!("{:.1}M", n / 1e6),
        n if n >= 1e3 => format!("{:.1}k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_short() {
        assert_eq!([950.4, 3_140.0, 1_250_000.0].map(super::short), ["950", "3.1k", "1.2M"]);
    }
}
