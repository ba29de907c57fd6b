//! Figures that a program writes: the numbers of a JSON file.
//! It does not know what they measure.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::Params;
use crate::error::{Problem, Result};
use crate::step::Context;

/// A larger file is data, not figures.
const MOST_BYTES: u64 = 1 << 20;

/// Records the numbers of the file that `figures` names.
pub(super) fn read(params: &Params, cx: &mut Context) -> Result<()> {
    let Some(name) = &params.figures else { return Ok(()) };
    let path = cx.folder().join(name);
    let wrong = |what: String| Problem::new(what).in_file(name, None).expected("a JSON mapping of names to numbers");
    let text = text(&path).map_err(|error| wrong(format!("the figures cannot be read: {error}")))?;
    if text.len() as u64 > MOST_BYTES {
        return Err(wrong("the file of figures is longer than 1 MiB".to_owned()));
    }
    let value = serde_json::from_slice(&text).map_err(|error| wrong(format!("the figures are no JSON: {error}")))?;
    let Value::Object(_) = value else { return Err(wrong("the figures are no mapping".to_owned())) };
    record("", &value, cx);
    Ok(())
}

fn text(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(MOST_BYTES + 1).read_to_end(&mut text)?;
    Ok(text)
}

/// Numbers are figures, mappings are groups of them; anything else says something that no figure can.
fn record(name: &str, value: &Value, cx: &mut Context) {
    match value {
        Value::Number(number) => {
            if let Some(number) = number.as_f64() {
                cx.figure(name, number);
            }
        }
        Value::Object(entries) => {
            for (key, value) in entries {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                record(&name, value, cx);
            }
        }
        _ => {}
    }
}
