//! The typed pipeline: what the YAML means once defaults, parameters and matrices are worked out.
//! It does not know how it was written, and nothing of keys, stores or running.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use crate::step::{AnyKind, AnyStep, Output};

/// A pipeline whose every problem has been ruled out.
pub struct Pipeline {
    /// Its name.
    pub name: String,
    /// Its file as the user gave it.
    pub file: PathBuf,
    /// Where relative paths start: the folder that holds `pipelines/`, or else the file's own folder.
    pub root: PathBuf,
    /// The parameters after profile and `--set`.
    pub params: Value,
    /// All steps in the order of the file, matrices expanded. Free of cycles.
    pub steps: Vec<Step>,
    /// Positions in `steps` of what a run is for: `targets:` or, without it, every step.
    pub targets: Vec<usize>,
}

/// One step, or one cell of a matrix step.
pub struct Step {
    /// `lora`, or `lora[rank=4,alpha=8]` with the axes in the order of the file.
    pub id: String,
    /// The name in the file.
    pub name: String,
    /// Axis to value; empty outside a matrix.
    pub coordinates: BTreeMap<String, Value>,
    /// Its kind.
    pub kind: &'static dyn AnyKind,
    /// The kind with its parameters.
    pub action: Box<dyn AnyStep>,
    /// Where each input port gets its artifacts from, in order; every port of the kind that is connected.
    pub inputs: BTreeMap<String, Vec<Edge>>,
}

/// An output of another step.
#[derive(Clone, Copy)]
pub struct Edge {
    /// Position of the producer in [`Pipeline::steps`].
    pub step: usize,
    /// Which of its outputs.
    pub output: &'static Output,
}
