//! The parameters of AdamW and of its learning rate, the same for every step kind that trains.
//! It does not know what is trained.

use crate::error::Problem;
use crate::ml::train::schedule::Schedule;

/// Adds the parameters of an optimiser to those of a step kind. Where kinds have different defaults, these are
/// functions in a module `defaults` beside the struct: `lr`, `betas` and `weight_decay`.
///
/// A macro, because `#[serde(flatten)]` would take the places out of error messages, and let unknown keys pass.
macro_rules! optimised {
    ($(#[$attribute:meta])* pub struct $name:ident { $($own:tt)* }) => {
        $(#[$attribute])*
        pub struct $name {
            $($own)*
            /// The highest learning rate.
            #[serde(default = "defaults::lr")]
            #[schemars(range(min = 0.0, max = 10.0))]
            pub lr: f64,
            /// How the learning rate moves after the warm-up: `constant`, `linear` or `cosine`.
            #[serde(default = "crate::steps::optimiser::schedule")]
            pub schedule: crate::ml::train::schedule::Schedule,
            /// Steps over which the learning rate moves, instead of all of them; after the last it stays as it is. With
            /// it, a longer run begins like a shorter one: see `extends`.
            #[serde(default)]
            #[schemars(range(min = 1, max = 10_000_000))]
            pub schedule_steps: Option<u64>,
            /// Share of the steps over which the learning rate rises from 0.
            #[serde(default = "crate::steps::optimiser::warmup_ratio")]
            #[schemars(range(min = 0.0, max = 1.0))]
            pub warmup_ratio: f64,
            /// AdamW's β₁ and β₂.
            #[serde(default = "defaults::betas")]
            #[schemars(inner(range(min = 0.0, max = 0.999_999)))]
            pub betas: [f64; 2],
            /// AdamW's ε.
            #[serde(default = "crate::steps::optimiser::eps")]
            #[schemars(range(min = 0.0, max = 1.0))]
            pub eps: f64,
            /// AdamW's decoupled weight decay: on every tensor of an adapter, on the matrices of a base.
            #[serde(default = "defaults::weight_decay")]
            #[schemars(range(min = 0.0, max = 10.0))]
            pub weight_decay: f64,
            /// The largest norm of the gradient of a step; 0 leaves it as it is.
            #[serde(default = "crate::steps::optimiser::clip")]
            #[schemars(range(min = 0.0, max = 1_000_000.0))]
            pub clip: f64,
        }

        impl $name {
            /// Why the learning rates of a longer run are not those of this one, if they are not.
            fn moves_with(&self, length: &str, warmup: Option<u64>) -> Option<crate::error::Problem> {
                use crate::ml::train::schedule::Schedule;
                let stays = self.schedule == Schedule::Constant && (warmup.is_some() || self.warmup_ratio == 0.0);
                (self.schedule_steps.is_none() && !stays).then(|| crate::steps::optimiser::moves(length))
            }
        }

        #[cfg(feature = "torch")]
        impl $name {
            /// How so many steps are trained; without `warmup`, its share of them.
            fn fit(&self, steps: u64, warmup: Option<u64>) -> crate::ml::train::fit::Fit {
                let moving = self.schedule_steps.unwrap_or(steps);
                let share = (moving as f64 * self.warmup_ratio).round() as u64;
                crate::ml::train::fit::Fit {
                    lr: self.lr,
                    schedule: self.schedule,
                    schedule_steps: moving,
                    warmup: warmup.unwrap_or(share).min(moving),
                    steps,
                    clip: (self.clip > 0.0).then_some(self.clip),
                }
            }

            fn adamw(&self) -> crate::ml::train::adamw::AdamWOptions {
                crate::ml::train::adamw::AdamWOptions {
                    betas: self.betas.into(),
                    eps: self.eps,
                    weight_decay: self.weight_decay,
                }
            }
        }
    };
}
pub(super) use optimised;

/// See `moves_with`.
pub(super) fn moves(length: &str) -> Problem {
    Problem::new(format!("the learning rate depends on `{length}`: a longer run would not begin like this one"))
        .help("say how long it moves with `schedule_steps`, or take `schedule: constant` and `warmup_ratio: 0`")
}

pub(super) fn schedule() -> Schedule {
    Schedule::Cosine
}
pub(super) fn warmup_ratio() -> f64 {
    0.05
}
pub(super) fn eps() -> f64 {
    1e-8
}
pub(super) fn clip() -> f64 {
    1.0
}
