//! The learning rate over the steps of a run, as Hugging Face's `get_*_schedule_with_warmup` have it.
//! It does not know the optimiser, and needs no libtorch.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the learning rate moves after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// It stays.
    Constant,
    /// It falls to 0 in a straight line.
    Linear,
    /// It falls to 0 along half a cosine.
    Cosine,
}

impl Schedule {
    /// Its name in pipelines and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Linear => "linear",
            Self::Cosine => "cosine",
        }
    }

    /// By how much the learning rate of step `step` (counted from 0) is multiplied: `step / warmup` during the
    /// warm-up, so that the first step of a warm-up moves nothing; afterwards, with
    /// `p = (step - warmup) / (steps - warmup)`, 1, `1 - p` or `(1 + cos πp) / 2`.
    pub fn factor(self, step: u64, warmup: u64, steps: u64) -> f64 {
        if step < warmup {
            return step as f64 / warmup as f64;
        }
        let left = steps.saturating_sub(step) as f64 / steps.saturating_sub(warmup).max(1) as f64;
        match self {
            Self::Constant => 1.0,
            Self::Linear => left,
            Self::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * (1.0 - left)).cos()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Figures of transformers 4.57: `lr_lambda` of the three schedules with 4 warm-up steps out of 20.
    #[test]
    fn the_figures_of_transformers() {
        let at = |schedule: Schedule| [0, 1, 4, 8, 12, 16, 20].map(|step| schedule.factor(step, 4, 20));
        assert_eq!(at(Schedule::Constant), [0.0, 0.25, 1.0, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(at(Schedule::Linear), [0.0, 0.25, 1.0, 0.75, 0.5, 0.25, 0.0]);
        let cosine = [0.0, 0.25, 1.0, 0.853_553_390_6, 0.5, 0.146_446_609_4, 0.0];
        for (ours, theirs) in at(Schedule::Cosine).into_iter().zip(cosine) {
            assert!((ours - theirs).abs() < 1e-9, "{ours} {theirs}");
        }
    }

    proptest! {
        #[test]
        fn it_rises_to_one_and_never_rises_again(steps in 1u64..300, part in 0.0f64..1.0) {
            let warmup = (steps as f64 * part) as u64;
            for schedule in [Schedule::Constant, Schedule::Linear, Schedule::Cosine] {
                prop_assert!((schedule.factor(warmup, warmup, steps) - 1.0).abs() < 1e-12);
                for step in 0..steps {
                    let (now, next) = (schedule.factor(step, warmup, steps), schedule.factor(step + 1, warmup, steps));
                    prop_assert!((0.0..=1.0).contains(&now));
                    let fits = if step < warmup { next > now } else { next <= now };
                    prop_assert!(fits, "{} then {} at {}", now, next, step);
                }
            }
        }
    }
}
