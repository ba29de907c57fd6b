//! Models, adapters, training and scoring: the only place that names tch.
//! It does not know that there is a pipeline.

pub mod adapters;
pub mod config;
pub mod device;
pub mod memory;
pub mod models;
pub mod shapes;
pub mod tokens;
pub mod train;

#[cfg(feature = "torch")]
mod crew;
#[cfg(feature = "torch")]
pub mod dropout;
#[cfg(feature = "torch")]
pub mod generate;
#[cfg(feature = "torch")]
mod header;
#[cfg(feature = "torch")]
pub mod limit;
#[cfg(feature = "torch")]
pub mod linear;
#[cfg(feature = "torch")]
mod malloc;
#[cfg(feature = "torch")]
mod mkl;
#[cfg(feature = "torch")]
pub mod probe;
#[cfg(feature = "torch")]
pub mod random;
#[cfg(feature = "torch")]
pub mod score;
#[cfg(feature = "torch")]
mod slope;
#[cfg(feature = "torch")]
pub mod steady;
#[cfg(feature = "torch")]
pub mod tally;
#[cfg(feature = "torch")]
pub mod weights;
