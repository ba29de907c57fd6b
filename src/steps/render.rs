//! The step kind `render`.
