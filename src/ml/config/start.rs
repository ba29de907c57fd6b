//! The ways to begin a training from nothing.
//! It does not know the numbers: `models::start` draws them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the first weights are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// As transformers does: N(0, 0.02) for matrices, zero biases, one for norms.
    Normal,
    /// The same, but that the first two blocks are an induction head (Elhage et al. 2021; Olsson et al. 2022,
    /// arXiv 2209.11895): what followed this id before is likely to follow it again. A narrow model that starts so
    /// can copy words from its text after minutes of training; from `normal` it was not seen to within four million
    /// ids.
    Induction,
}
