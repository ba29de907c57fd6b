//! The two tasks: their files, prompts and answers.
//! It does not know models or steps.

pub mod answer;
pub mod encode;
pub mod gate;
pub mod lines;
pub mod nerus;
pub mod prompt;
pub mod terra;
pub mod text;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Textual entailment: does the hypothesis follow from the premise?
    Terra,
    /// Named entities of a sentence: persons, places, organisations.
    Nerus,
}

impl Task {
    /// Its name in pipelines and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Terra => "terra",
            Self::Nerus => "nerus",
        }
    }
}
