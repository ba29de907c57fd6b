//! The step kind `split`.
