//! The generated data: formats, balance, no leaks.
