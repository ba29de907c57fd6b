//! Training.
//! Nothing yet.
