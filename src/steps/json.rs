//! JSON files as steps write them: indented, with a line end.
//! It does not know what stands in them.

use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::error::{Problem, Result};

/// The text of a file.
pub fn text<T: Serialize>(value: &T) -> Result<String> {
    let text = serde_json::to_string_pretty(value);
    text.map(|text| text + "\n").map_err(|error| Problem::new(format!("cannot write JSON: {error}")))
}

/// Writes a file.
pub fn write<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    fs::write(path, text(value)?).map_err(|error| Problem::io("write", path, &error))
}
