//! The step kind `train`.
