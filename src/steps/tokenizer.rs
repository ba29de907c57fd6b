//! The step kind `tokenizer`.
