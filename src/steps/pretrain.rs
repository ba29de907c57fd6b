//! The step kind `pretrain`.
