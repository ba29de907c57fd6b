//! A pipeline file: YAML in, typed pipeline or all of its problems out.
//! It does not know how steps run or what their results are.

mod anchors;
pub mod compiled;
mod document;
mod draft;
pub mod editor;
mod fit;
pub mod guide;
mod link;
mod load;
mod locate;
mod matrix;
mod node;
mod origin;
mod overrides;
pub mod parameters;
pub mod pipeline;
pub mod policy;
mod problems;
mod reference;
pub mod schema;
mod substitute;
pub mod suggest;
mod unit;

/// An amount of memory as people write it: `8GB`, in bytes.
pub fn size(text: &str) -> Option<u64> {
    unit::bytes(text)
}

pub use load::{Options, load, load_text, root_of, text_of};
pub use origin::Origins;
pub use pipeline::{Edge, Pipeline, Step, Written};
pub use policy::Policy;
pub use problems::{Located, Problems};
