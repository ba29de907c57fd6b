//! Comparison, conclusions and the reference report.
