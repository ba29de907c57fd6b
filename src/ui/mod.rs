//! ui

pub mod problem;
