//! The step kind `compare`.
