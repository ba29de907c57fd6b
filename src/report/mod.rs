//! stub
pub mod number;
pub mod table;
