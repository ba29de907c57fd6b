//! Adapters: what attaches to a model's sites. One file per way of adapting, and one entry of `ADAPTERS`.
//! It does not know architectures: a site's name, width and layer are all it sees.

pub mod params;

#[cfg(feature = "torch")]
mod arm;
#[cfg(feature = "torch")]
mod fields;
#[cfg(feature = "torch")]
pub mod lora;
#[cfg(feature = "torch")]
pub mod mlp;

#[cfg(feature = "torch")]
pub use arm::{ADAPTERS, Adapter, Arm, At, Entry};
pub use params::{AdapterParams, LoraParams, MlpParams, NonLinearity, parameter_count};
