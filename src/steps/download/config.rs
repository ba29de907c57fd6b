//! What a model's `config.json` must say.
//! It does not know what the fields mean.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::error::{Path as SpecPath, Problem, Result};

/// Fails at the first field that says something else; `written` is what messages call the source.
pub fn check(expected: &BTreeMap<String, Value>, path: &Path, written: &str) -> Result<()> {
    let at = SpecPath::root().key("config");
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound || e.kind() == std::io::ErrorKind::NotADirectory => {
            return Err(Problem::new(format!("{written} has no config.json, so it is not a model")).at(at));
        }
        Err(e) => return Err(Problem::io("read", path, &e)),
    };
    let config: Value = serde_json::from_slice(&text)
        .map_err(|e| Problem::new(format!("config.json of {written} is not JSON: {e}")).at(at.clone()))?;
    for (field, due) in expected {
        let found = config.get(field).unwrap_or(&Value::Null);
        if !same(found, due) {
            return Err(Problem::new(format!("config.json of {written} says `{field}: {found}`, not `{due}`"))
                .at(at.key(field.as_str()))
                .help("is it another model? if not, write here what it says"));
        }
    }
    Ok(())
}

/// `1` and `1.0` are one number.
fn same(found: &Value, due: &Value) -> bool {
    found == due || found.as_f64().is_some_and(|found| due.as_f64() == Some(found))
}
