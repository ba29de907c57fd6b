//! Pipeline files: what they mean, and every mistake with its place.
