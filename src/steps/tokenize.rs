//! The step kind `tokenize`.
