//! Metrics against scikit-learn and seqeval.
