//! A pipeline file: YAML in, typed pipeline or all of its problems out.
//! It does not know how steps run or what their results are.

pub mod pipeline;

pub use pipeline::{Edge, Pipeline, Step};
