//! The step kind `evaluate`.
