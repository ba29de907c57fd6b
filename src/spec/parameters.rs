//! The parameters of a step kind as rows: name, what it takes, default, documentation.
//! It does not know how they are shown; `help` and the guide do.

use serde_json::Value;

use crate::step::AnyKind;

use super::schema::{describe, resolve};

/// One parameter, or one field of a parameter that is a mapping.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// `adapter.lora.rank`; `layers[].size` for a field of list items.
    pub name: String,
    /// What it takes, in words: `a whole number from 1 to 512`.
    pub takes: String,
    /// Its default; `None` if it must be given or may be left open.
    pub default: Option<Value>,
    /// True if it must be given where its mapping is.
    pub required: bool,
    /// Its documentation.
    pub doc: String,
}

/// Types may contain themselves; nobody reads deeper than this.
const DEEPEST: usize = 6;

/// All parameters of a kind, in the order of their names, each followed by its fields.
pub fn rows(kind: &dyn AnyKind) -> Vec<Row> {
    let schema = kind.schema().to_value();
    let mut rows = Vec::new();
    fields(&schema, &schema, "", DEEPEST, &mut rows);
    rows
}

fn fields(root: &Value, schema: &Value, prefix: &str, depth: usize, rows: &mut Vec<Row>) {
    let schema = resolve(root, schema);
    if depth == 0 {
        return;
    }
    let required: Vec<&str> =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        let ordered: std::collections::BTreeMap<_, _> = properties.iter().collect();
        for (name, field) in ordered {
            let full = format!("{prefix}{name}");
            let text = |schema: &Value| schema.get("description").and_then(Value::as_str).map(one_line);
            rows.push(Row {
                name: full.clone(),
                takes: describe(root, field),
                default: field.get("default").filter(|default| !default.is_null()).cloned(),
                required: required.contains(&name.as_str()),
                doc: text(field).or_else(|| text(resolve(root, field))).unwrap_or_default(),
            });
            fields(root, field, &format!("{full}."), depth - 1, rows);
        }
    }
    if let Some(items) = schema.get("items").filter(|items| items.is_object()) {
        let list = format!("{}[].", prefix.trim_end_matches('.'));
        fields(root, items, &list, depth - 1, rows);
    }
    for word in ["anyOf", "oneOf"] {
        for branch in schema.get(word).and_then(Value::as_array).into_iter().flatten() {
            fields(root, branch, prefix, depth - 1, rows);
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
