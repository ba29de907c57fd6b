//! The step kind `download`.
