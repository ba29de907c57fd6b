//! Every test of behaviour, in one binary.

mod architecture;
mod corpus;
mod data_steps;
mod docs;
mod engine;
mod golden_metrics;
#[cfg(feature = "torch")]
mod golden_models;
mod golden_tables;
#[cfg(feature = "torch")]
mod golden_train;
mod report;
mod spec;
mod support;
mod tasks;
mod wrapper;
