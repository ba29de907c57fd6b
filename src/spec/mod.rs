//! A pipeline file: YAML in, typed pipeline or all of its problems out.
//! It does not know how steps run or what their results are.

mod anchors;
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
mod problems;
mod reference;
pub mod schema;
mod substitute;
pub mod suggest;

pub use load::{Options, load, load_text};
pub use origin::Origins;
pub use pipeline::{Edge, Pipeline, Step};
pub use problems::{Located, Problems};
