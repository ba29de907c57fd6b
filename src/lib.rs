//! `pipe`: a declarative pipeline orchestrator for adapter experiments.
//!
//! The tour, in order of dependency; a module uses only those above it, and a test holds that.

// Plain nouns that everything else speaks in.
pub mod digest;
pub mod error;
pub mod event;

// What `when:` and `expect:` say.
pub mod expression;

// What lies on other machines, and what it was when it was first fetched.
pub mod lockfile;

pub mod fetch;

// What a step is, and what computes inside steps.
pub mod step;

pub mod audit;
pub mod corpus;
pub mod metric;
#[cfg_attr(not(feature = "torch"), allow(dead_code))]
pub mod ml;
pub mod report;
pub mod statistics;
pub mod task;

pub mod steps;

// From a file to a result.
pub mod key;
pub mod spec;

pub mod graph;
pub mod store;

pub mod exec;
pub mod run;

// The two that print.
#[allow(clippy::print_stdout, clippy::print_stderr)]
pub mod cli;
#[allow(clippy::print_stdout, clippy::print_stderr)]
pub mod ui;
