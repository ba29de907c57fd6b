//! The cache and the engine, through the binary and with small step kinds.
