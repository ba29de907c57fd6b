//! How much of the memory a training may trade for time.
//! It does not know how that is done.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is kept of a forward pass for the way back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Memory {
    /// Every activation that a gradient needs.
    #[default]
    Normal,
    /// What goes into each block, and all of the last one; the rest is computed again: under a frozen base a quarter to a
    /// half of the work once more.
    Low,
}
