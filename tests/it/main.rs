//! Every test of behaviour, in one binary.
// A test fails by panicking, and says what it skips; its helpers too.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod architecture;
mod audit;
mod bad_input;
mod bench;
#[cfg(unix)]
mod cache;
#[cfg(feature = "torch")]
mod certificate;
#[cfg(unix)]
mod command;
mod compare;
mod corpus;
mod data_steps;
mod docs;
mod dtypes;
mod engine;
mod evaluate;
#[cfg(feature = "torch")]
mod evaluate_torch;
#[cfg(feature = "torch")]
mod evaluated_together;
#[cfg(feature = "torch")]
mod export;
#[cfg(all(unix, not(feature = "torch")))]
mod front;
mod fuzzing;
mod gold;
mod gold_nerus;
mod golden_metrics;
#[cfg(feature = "torch")]
mod golden_models;
mod golden_statistics;
mod golden_tables;
#[cfg(feature = "torch")]
mod golden_train;
#[cfg(unix)]
mod guide;
#[cfg(unix)]
mod hub;
mod interface;
#[cfg(feature = "torch")]
mod interop;
#[cfg(unix)]
mod lessons;
#[cfg(feature = "torch")]
mod long;
#[cfg(feature = "torch")]
mod ml_laws;
mod model_configs;
#[cfg(feature = "torch")]
mod model_laws;
#[cfg(feature = "torch")]
mod model_reference;
#[cfg(feature = "torch")]
mod packed;
mod profiles;
#[cfg(unix)]
mod receipts;
mod report;
mod report_html;
#[cfg(all(unix, feature = "torch"))]
mod resume;
#[cfg(unix)]
mod runs;
#[cfg(unix)]
mod scheduler;
mod scheduler_laws;
mod spec;
mod starter;
mod support;
mod tasks;
mod terminal;
mod together;
mod tokenizers;
#[cfg(feature = "torch")]
mod training;
#[cfg(feature = "torch")]
mod whole;
mod wrapper;
