//! Reading a JSON Schema of parameters: what it takes, and how to say that in words.
//! It knows as much of JSON Schema as `schemars` writes for parameter structs, and nothing of values or kinds.

use serde_json::{Map, Value};

/// The schema that a `$ref` stands for; the schema itself without one.
pub fn resolve<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
    let mut schema = schema;
    // Recursive types refer in circles only through properties, so few steps are enough.
    for _ in 0..16 {
        let Some(target) = schema.get("$ref").and_then(Value::as_str) else { break };
        match target.strip_prefix('#').and_then(|pointer| root.pointer(pointer)) {
            Some(found) => schema = found,
            None => break,
        }
    }
    schema
}

/// What a schema takes, in words: `a whole number from 1 to 64`.
pub fn describe(root: &Value, schema: &Value) -> String {
    let schema = resolve(root, schema);
    if let Some(choices) = choices(root, schema) {
        let list: Vec<String> = choices.iter().map(|choice| format!("`{}`", plain(choice))).collect();
        return if list.len() == 1 { list[0].clone() } else { format!("one of {}", list.join(", ")) };
    }
    if let Some(branches) = branches(schema) {
        let mut list: Vec<String> = Vec::new();
        for branch in branches.iter().filter(|branch| types(resolve(root, branch)) != ["null"]) {
            let words = describe(root, branch);
            if !list.contains(&words) {
                list.push(words);
            }
        }
        return list.join(", or ");
    }
    let list: Vec<String> =
        types(schema).iter().filter(|name| **name != "null").map(|name| describe_type(root, schema, name)).collect();
    if list.is_empty() { "any value".to_owned() } else { list.join(", or ") }
}

fn describe_type(root: &Value, schema: &Value, name: &str) -> String {
    match name {
        "integer" => format!("a whole number{}", range(schema)),
        "number" => format!("a number{}", range(schema)),
        "string" => "text".to_owned(),
        "boolean" => "`true` or `false`".to_owned(),
        "array" => match schema.get("items") {
            Some(items) if items.is_object() => format!("a list, each {}", describe(root, items)),
            _ => "a list".to_owned(),
        },
        _ => "a mapping".to_owned(),
    }
}

pub(super) fn bound<'s>(schema: &'s Value, name: &str) -> Option<&'s Value> {
    schema.get(name).filter(|value| value.is_number())
}

/// ` from 1 to 64`, ` above 0, below 1`, or nothing.
fn range(schema: &Value) -> String {
    let low = bound(schema, "minimum");
    let high = bound(schema, "maximum");
    let above = bound(schema, "exclusiveMinimum");
    let below = bound(schema, "exclusiveMaximum");
    let mut words = match (low, high) {
        (Some(low), Some(high)) => format!(" from {} to {}", number(low), number(high)),
        (Some(low), None) => format!(" of at least {}", number(low)),
        (None, Some(high)) => format!(" of at most {}", number(high)),
        (None, None) => String::new(),
    };
    for (name, value) in [("above", above), ("below", below)] {
        if let Some(value) = value {
            let comma = if words.is_empty() { "" } else { "," };
            words.push_str(&format!("{comma} {name} {}", number(value)));
        }
    }
    words
}

/// `1` for 1.0: schemars writes the bounds of floats as floats.
fn number(value: &Value) -> String {
    match value.as_f64() {
        Some(float) if float.fract() == 0.0 && float.abs() < 1e15 => format!("{float:.0}"),
        _ => value.to_string(),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

pub(super) fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ if schema.get("properties").is_some() => vec!["object"],
        _ => Vec::new(),
    }
}

pub(super) fn branches(schema: &Value) -> Option<&Vec<Value>> {
    schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array)
}

/// The values of an enum, however it is written.
pub(super) fn choices<'s>(root: &'s Value, schema: &'s Value) -> Option<Vec<&'s Value>> {
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return Some(values.iter().filter(|value| !value.is_null()).collect());
    }
    if let Some(value) = schema.get("const") {
        return Some(vec![value]);
    }
    let branches: Vec<&Value> = branches(schema)?
        .iter()
        .map(|branch| resolve(root, branch))
        .filter(|branch| types(branch) != ["null"])
        .collect();
    let mut all = Vec::new();
    for branch in branches {
        all.extend(choices(root, branch)?);
    }
    (!all.is_empty()).then_some(all)
}

pub(super) fn takes_null(root: &Value, schema: &Value) -> bool {
    let schema = resolve(root, schema);
    types(schema).contains(&"null")
        || schema.get("enum").and_then(Value::as_array).is_some_and(|values| values.contains(&Value::Null))
        || branches(schema).is_some_and(|branches| branches.iter().any(|branch| takes_null(root, branch)))
        || schema.as_bool() == Some(true)
        || schema.as_object().is_some_and(is_open)
}

/// True for a schema that takes anything, as `serde_json::Value` has it.
fn is_open(schema: &Map<String, Value>) -> bool {
    !["type", "properties", "anyOf", "oneOf", "enum", "const", "$ref"].iter().any(|word| schema.contains_key(*word))
}
