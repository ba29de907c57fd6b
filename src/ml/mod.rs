//! Models, adapters, training and scoring: the only place that names tch.
//! It does not know that there is a pipeline.

pub mod tokens;
