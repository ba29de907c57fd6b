//! Training: batches, loss, AdamW, schedules and the loop over them.
//! It does not know architectures, adapters, files or the pipeline; progress goes out through `Watch`.

pub mod batch;
pub mod memory;
pub mod schedule;

#[cfg(feature = "torch")]
pub mod adamw;
#[cfg(feature = "torch")]
pub mod arms;
#[cfg(feature = "torch")]
pub mod base;
#[cfg(feature = "torch")]
mod course;
#[cfg(feature = "torch")]
pub mod curve;
#[cfg(feature = "torch")]
pub mod fit;
#[cfg(feature = "torch")]
pub mod gradient;
#[cfg(feature = "torch")]
pub mod loss;
#[cfg(feature = "torch")]
mod mate;
#[cfg(feature = "torch")]
pub mod micro;
#[cfg(feature = "torch")]
pub mod pack;
#[cfg(feature = "torch")]
mod recomputed;
#[cfg(feature = "torch")]
pub mod state;

#[cfg(feature = "torch")]
pub use fit::{Fit, Watch, fit};
