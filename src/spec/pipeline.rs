//! The typed pipeline: what the YAML means once defaults, parameters and matrices are worked out.
//! It does not know how it was written, and nothing of keys, stores or running.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use super::policy::Policy;
use crate::digest::Digest;
use crate::step::{AnyKind, AnyStep, Named, Product};

/// A pipeline whose every problem has been ruled out.
pub struct Pipeline {
    /// Its name.
    pub name: String,
    /// Its file as the user gave it.
    pub file: PathBuf,
    /// Where relative paths start: the folder that holds `pipelines/`, or else the file's own folder.
    pub root: PathBuf,
    /// The digest of the file's text.
    pub text: Digest,
    /// The parameters after profile and `--set`.
    pub params: Value,
    /// All steps in the order of the file, matrices expanded. Free of cycles.
    pub steps: Vec<Step>,
    /// Positions in `steps` of what a run is for: `targets:` or, without it, every step.
    pub targets: Vec<usize>,
}

impl Pipeline {
    /// The output that an edge leads from.
    pub fn output(&self, edge: &Edge) -> &Product {
        &self.steps[edge.step].outputs[edge.output]
    }
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
    /// What it makes; the first is meant by the bare name of the step.
    pub outputs: Vec<Product>,
    /// Where each input port gets its artifacts from, in order; every port of the kind that is connected.
    pub inputs: Named<Vec<Edge>>,
    /// Positions of the steps whose figures its `expect:` names, by their names.
    pub after: BTreeMap<String, usize>,
    /// How it is run.
    pub policy: Policy,
    /// What `action` and `policy` were read from.
    pub written: Written,
}

/// Parts of a step as they are written, names substituted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// `with:` as JSON.
    pub with: Box<str>,
    /// The keys of the policy and their values as a list in JSON; empty if there are none.
    pub policy: Box<str>,
}

/// An output of another step.
#[derive(Clone, Copy)]
pub struct Edge {
    /// Position of the producer in [`Pipeline::steps`].
    pub step: usize,
    /// Position in its [`Step::outputs`].
    pub output: usize,
    /// True if it is written in a list, or as a whole matrix.
    pub listed: bool,
}
