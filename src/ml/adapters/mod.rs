//! Adapters: what attaches to a model's sites. One file per way of adapting, and one entry of `ADAPTERS`.
//! It does not know architectures: a site's name, width and layer are all it sees.

mod count;
pub mod matching;
mod non_linearity;
pub mod params;
pub mod targets;

#[cfg(feature = "torch")]
mod arm;
#[cfg(feature = "torch")]
mod batched;
#[cfg(feature = "torch")]
mod fields;
#[cfg(feature = "torch")]
mod format;
#[cfg(feature = "torch")]
mod hub;
#[cfg(feature = "torch")]
pub mod ia3;
#[cfg(feature = "torch")]
pub mod lora;
#[cfg(feature = "torch")]
pub mod merge;
#[cfg(feature = "torch")]
pub mod mlp;
#[cfg(feature = "torch")]
mod pack;
#[cfg(feature = "torch")]
mod place;
#[cfg(feature = "torch")]
mod read;
#[cfg(feature = "torch")]
pub mod sidecar;

#[cfg(feature = "torch")]
pub use arm::{ADAPTERS, Adapter, Arm, At, Change, Effect, Entry, Frozen, Seat};
#[cfg(feature = "torch")]
pub use batched::Inner;
pub use count::parameter_count;
#[cfg(feature = "torch")]
pub use format::{Base, Format};
pub use non_linearity::NonLinearity;
#[cfg(feature = "torch")]
pub use pack::{Pack, Part};
pub use params::{AdapterParams, Ia3Params, LoraParams, MlpParams};
