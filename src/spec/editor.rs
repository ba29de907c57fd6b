//! The JSON Schema of pipeline files, for editors: what `with` and `in` take depends on `uses`.
//! It does not know the kinds; it describes those that it is given.

use serde_json::{Map, Value, json};

use crate::step::{ANY_NAME, AnyKind, Arity, Input};

/// The schema as it stands in a file.
pub fn text(kinds: &[&dyn AnyKind]) -> String {
    let mut text = serde_json::to_string_pretty(&sorted(&schema(kinds))).expect("a schema is plain data");
    text.push('\n');
    text
}

/// The JSON Schema of a pipeline file; what `with` and `in` take depends on `uses`.
pub fn schema(kinds: &[&dyn AnyKind]) -> Value {
    let mut definitions = Map::new();
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
    let uses = json!({
        "description": "The step kind.",
        "anyOf": [
            { "oneOf": kinds.iter().map(|kind| json!({ "const": kind.name(), "description": kind.summary() })).collect::<Vec<_>>() },
            { "type": "string", "pattern": NAME }
        ]
    });
    let uses = if names.is_empty() { json!({ "type": "string", "description": "The step kind." }) } else { uses };
    let mut branches = Vec::new();
    for kind in kinds {
        let mut with = kind.schema().to_value();
        move_definitions(&mut with, kind.name(), &mut definitions);
        // The description of a whole struct is about the code.
        if let Some(entries) = with.as_object_mut() {
            entries.remove("description");
        }
        // Only a kind that needs no parameter can do without `with`.
        let needs = with.get("required").and_then(Value::as_array).is_some_and(|names| !names.is_empty());
        let with = json!({ "anyOf": [with_names(with), { "type": "string", "pattern": NAME }, { "type": "null" }] });
        branches.push(json!({
            "if": { "properties": { "uses": { "const": kind.name() } }, "required": ["uses"] },
            "then": { "properties": { "with": with, "in": inputs(*kind) }, "required": required(*kind, needs) }
        }));
    }
    definitions.insert(
        "reference".to_owned(),
        json!({ "description": "A step: `step`, `step.output`, `step[axis=value]` or `step[axis=value].output`.", "type": "string" }),
    );
    let mut step = json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["uses"],
        "properties": {
            "uses": uses,
            "in": { "description": "What each input is connected to.", "type": ["object", "null"] },
            "with": { "description": "The parameters of the step.", "type": ["object", "string", "null"] },
            "matrix": {
                "description": "Axes: the step is made once per combination of their values.",
                "type": "object",
                "properties": {
                    "include": { "description": "Further cells, each with a value for every axis.", "$ref": "#/$defs/cells" },
                    "exclude": { "description": "Cells that are left out: all that have these values.", "$ref": "#/$defs/cells" }
                },
                "additionalProperties": {
                    "anyOf": [
                        { "type": "array", "minItems": 1, "items": { "type": ["string", "number", "boolean"] } },
                        { "type": "string", "pattern": NAME }
                    ]
                }
            },
            "when": { "description": "Which cells of the matrix there are: an expression over `matrix.…` and `params.…`.", "type": "string" },
            "resources": {
                "description": "What the step takes of the machine while it runs.",
                "anyOf": [
                    {
                        "type": "object",
                        "additionalProperties": false,
                        "properties": {
                            "cpu": { "description": "Slots for cores.", "anyOf": [{ "type": "integer", "minimum": 1 }, { "type": "string", "pattern": NAME }] },
                            "memory": { "description": "Memory: `512MB`, `8GB`.", "type": ["integer", "string"] },
                            "gpu": { "description": "GPUs for the step alone.", "anyOf": [{ "type": "integer", "minimum": 0 }, { "type": "string", "pattern": NAME }] }
                        }
                    },
                    { "type": ["string", "null"] }
                ]
            },
            "retries": {
                "description": "How often the step is tried again after a failure.",
                "anyOf": [
                    { "type": "integer", "minimum": 0, "maximum": 100 },
                    {
                        "type": "object",
                        "additionalProperties": false,
                        "properties": {
                            "times": { "description": "How often.", "type": ["integer", "string"] },
                            "backoff": { "description": "The first wait: `10s`; it doubles each time.", "type": ["number", "string"] }
                        }
                    },
                    { "type": ["string", "null"] }
                ]
            },
            "timeout": { "description": "How long an attempt may take: `90s`, `30m`, `1h30m`.", "type": ["number", "string", "null"] },
            "checkpoint": { "description": "How often a training leaves its state: `5m`; `1m` if nothing is said.", "type": ["number", "string", "null"] },
            "extends": { "description": "The parameter that may be raised later to go on from the end: `steps`.", "type": ["string", "null"] },
            "expect": {
                "description": "What must hold of the figures: `f1 >= base.f1 - 0.02`.",
                "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }, { "type": "null" }]
            }
        }
    });
    if !branches.is_empty() {
        step["allOf"] = Value::Array(branches);
    }
    definitions.insert("step".to_owned(), step);
    definitions.insert(
        "cells".to_owned(),
        json!({ "anyOf": [{ "type": "array", "items": { "type": "object", "minProperties": 1 } }, { "type": "string", "pattern": NAME }] }),
    );
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A pipeline of `pipe`",
        "type": "object",
        "additionalProperties": false,
        "required": ["steps"],
        "properties": {
            "name": { "description": "The name of the pipeline.", "type": "string" },
            "params": { "description": "Values for `${params.name}`; changed by `--set` and profiles.", "type": ["object", "null"] },
            "profiles": {
                "description": "Named changes of the parameters: `--profile name`.",
                "type": ["object", "null"],
                "additionalProperties": { "type": ["object", "null"] }
            },
            "targets": {
                "description": "The steps that a run is for; all without it.",
                "anyOf": [
                    { "$ref": "#/$defs/reference" },
                    { "type": "array", "minItems": 1, "items": { "$ref": "#/$defs/reference" } }
                ]
            },
            "steps": {
                "description": "The steps by name.",
                "type": "object",
                "minProperties": 1,
                "propertyNames": { "pattern": "^[\\p{L}\\p{N}_-]+$" },
                "additionalProperties": { "$ref": "#/$defs/step" }
            }
        },
        "$defs": definitions
    })
}

/// A text that is replaced as a whole.
const NAME: &str = r"^\$\{[^}]+\}$";

fn required(kind: &dyn AnyKind, with: bool) -> Vec<&'static str> {
    let inputs = kind.inputs().iter().any(|input| matches!(input.arity, Arity::One | Arity::Many));
    [("in", inputs), ("with", with)].into_iter().filter(|(_, needed)| *needed).map(|(name, _)| name).collect()
}

fn inputs(kind: &dyn AnyKind) -> Value {
    let one = json!({ "$ref": "#/$defs/reference" });
    let list = json!({ "type": "array", "items": { "$ref": "#/$defs/reference" } });
    let takes = |input: &Input| {
        // Null is "not connected", where that is allowed.
        let mut takes = vec![one.clone(), list.clone()];
        if !matches!(input.arity, Arity::One | Arity::Many) {
            takes.push(json!({ "type": "null" }));
        }
        json!({ "description": input.doc, "anyOf": takes })
    };
    let (any, own): (Vec<&Input>, Vec<&Input>) = kind.inputs().iter().partition(|input| input.name == ANY_NAME);
    let others = any.first().map_or(json!(false), |input| takes(input));
    let properties: Map<String, Value> = own.iter().map(|input| (input.name.to_owned(), takes(input))).collect();
    let required: Vec<&str> = kind
        .inputs()
        .iter()
        .filter(|input| matches!(input.arity, Arity::One | Arity::Many))
        .map(|input| input.name)
        .collect();
    let takes = if required.is_empty() { json!(["object", "null"]) } else { json!("object") };
    json!({ "type": takes, "additionalProperties": others, "properties": properties, "required": required })
}

/// Definitions of all kinds stand side by side, so each gets the kind's name in front.
fn move_definitions(schema: &mut Value, kind: &str, definitions: &mut Map<String, Value>) {
    fn rename(value: &mut Value, kind: &str) {
        match value {
            Value::Object(entries) => {
                if let Some(Value::String(target)) = entries.get_mut("$ref")
                    && let Some(name) = target.strip_prefix("#/$defs/")
                {
                    *target = format!("#/$defs/{kind}.{name}");
                }
                entries.values_mut().for_each(|value| rename(value, kind));
            }
            Value::Array(items) => items.iter_mut().for_each(|value| rename(value, kind)),
            _ => {}
        }
    }
    rename(schema, kind);
    let Some(entries) = schema.as_object_mut() else { return };
    entries.remove("$schema");
    entries.remove("title");
    if let Some(Value::Object(own)) = entries.remove("$defs") {
        for (name, definition) in own {
            definitions.insert(format!("{kind}.{name}"), with_names(definition));
        }
    }
}

/// Everywhere below the top a value may stand, `${…}` may stand for it.
fn with_names(mut schema: Value) -> Value {
    fn inside(schema: &mut Value) {
        let Some(entries) = schema.as_object_mut() else { return };
        if let Some(Value::Object(properties)) = entries.get_mut("properties") {
            properties.values_mut().for_each(value);
        }
        for word in ["additionalProperties", "items"] {
            if let Some(schema) = entries.get_mut(word) {
                value(schema);
            }
        }
        for word in ["anyOf", "oneOf", "prefixItems"] {
            if let Some(Value::Array(branches)) = entries.get_mut(word) {
                branches.iter_mut().for_each(inside);
            }
        }
    }
    fn value(schema: &mut Value) {
        inside(schema);
        let Some(entries) = schema.as_object_mut() else { return };
        let mut outer = Map::new();
        for word in ["description", "default"] {
            if let Some(found) = entries.remove(word) {
                outer.insert(word.to_owned(), found);
            }
        }
        let inner = Value::Object(std::mem::take(entries));
        outer.insert("anyOf".to_owned(), json!([inner, { "type": "string", "pattern": NAME }]));
        *entries = outer;
    }
    inside(&mut schema);
    schema
}

/// The same value with the keys of every mapping in order, whatever the features of the JSON library are.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(entries) => {
            let ordered: std::collections::BTreeMap<&String, Value> =
                entries.iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(ordered.into_iter().map(|(key, value)| (key.clone(), value)).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}
