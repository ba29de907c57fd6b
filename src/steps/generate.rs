//! The step kind `generate`.
