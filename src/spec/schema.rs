//! A value against the JSON Schema of a step kind's parameters: all mistakes at once, in words.
//! It knows as much of JSON Schema as `schemars` writes for parameter structs, and nothing of kinds.

use serde_json::{Map, Value};

use crate::error::{Path, Problem};

use super::node::type_name;
use super::problems::{Finding, Focus};
use super::suggest;

/// Compares `value`, which stands at `path`, with `schema`.
pub(super) fn check(schema: &Value, value: &Value, path: &Path) -> Vec<Finding> {
    let mut walk = Walk { root: schema, findings: Vec::new() };
    walk.value(schema, value, path);
    walk.findings
}

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

fn bound<'s>(schema: &'s Value, name: &str) -> Option<&'s Value> {
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

fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ if schema.get("properties").is_some() => vec!["object"],
        _ => Vec::new(),
    }
}

fn branches(schema: &Value) -> Option<&Vec<Value>> {
    schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array)
}

/// The values of an enum, however it is written.
fn choices<'s>(root: &'s Value, schema: &'s Value) -> Option<Vec<&'s Value>> {
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

fn takes_null(root: &Value, schema: &Value) -> bool {
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

struct Walk<'s> {
    root: &'s Value,
    findings: Vec<Finding>,
}

impl<'s> Walk<'s> {
    fn wrong(&mut self, focus: Focus, path: &Path, problem: Problem) {
        self.findings.push(Finding { problem: problem.at(path.clone()), focus });
    }

    fn value(&mut self, schema: &'s Value, value: &Value, path: &Path) {
        let schema = resolve(self.root, schema);
        if value.is_null() && takes_null(self.root, schema) {
            return;
        }
        if let Some(choices) = choices(self.root, schema) {
            return self.choice(schema, &choices, value, path);
        }
        if let Some(branches) = branches(schema) {
            return self.branch(schema, branches, value, path);
        }
        let types = types(schema);
        let fits = types.is_empty()
            || types.iter().any(|name| match *name {
                "integer" => value.is_u64() || value.is_i64(),
                "number" => value.is_number(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "array" => value.is_array(),
                "object" => value.is_object(),
                "null" => value.is_null(),
                _ => true,
            });
        if !fits {
            return self.wrong_type(schema, value, path);
        }
        match value {
            Value::Number(_) => self.number(schema, value, path),
            Value::String(text) => self.text(schema, text, path),
            Value::Array(items) => self.list(schema, items, path),
            Value::Object(entries) => self.mapping(schema, entries, path),
            _ => {}
        }
    }

    fn wrong_type(&mut self, schema: &Value, value: &Value, path: &Path) {
        let name = last_name(path);
        let found = match value {
            Value::Number(number) if types(schema).contains(&"integer") => format!("{number}, not a whole number"),
            other => type_name(other).to_owned(),
        };
        let problem = Problem::new(format!("{name} is {found}")).expected(describe(self.root, schema));

        let problem = match value {
            Value::Number(number) if types(schema).contains(&"string") => {
                problem.help(format!("put it in quotes: \"{number}\""))
            }
            _ => problem,
        };
        self.wrong(Focus::Value, path, problem);
    }

    fn choice(&mut self, schema: &Value, choices: &[&Value], value: &Value, path: &Path) {
        if choices.contains(&value) {
            return;
        }
        let problem = Problem::new(format!("{} cannot be {}", last_name(path), quoted(value)))
            .expected(describe(self.root, schema));
        let names = choices.iter().filter_map(|choice| choice.as_str());
        let near = value.as_str().and_then(|text| suggest::nearest(text, names));
        let problem = match near {
            Some(near) => problem.help(format!("did you mean `{near}`?")),
            None => problem,
        };
        self.wrong(Focus::Value, path, problem);
    }

    /// A value must fit one of several schemas; if it fits none, the mistakes against the likeliest are told.
    fn branch(&mut self, schema: &Value, branches: &'s [Value], value: &Value, path: &Path) {
        let mut best: Option<Vec<Finding>> = None;
        let mut candidates = 0;
        for branch in branches {
            let target = resolve(self.root, branch);
            let likely = match value {
                // An enum with data is a mapping of one name: the name tells which variant is meant.
                Value::Object(entries) if types(target) == ["object"] => {
                    let required = target.get("required").and_then(Value::as_array);
                    branches.len() <= 2
                        || required.is_none_or(|names| {
                            names.iter().filter_map(Value::as_str).any(|name| entries.contains_key(name))
                        })
                }
                _ => types(target).iter().any(|name| same_type(name, value)) || types(target).is_empty(),
            };
            if !likely {
                continue;
            }
            candidates += 1;
            let mut walk = Walk { root: self.root, findings: Vec::new() };
            walk.value(branch, value, path);
            if walk.findings.is_empty() {
                return;
            }
            if best.as_ref().is_none_or(|best| walk.findings.len() < best.len()) {
                best = Some(walk.findings);
            }
        }
        match best {
            Some(findings) if candidates > 0 => self.findings.extend(findings),
            _ => self.wrong_variant(schema, branches, value, path),
        }
    }

    fn wrong_variant(&mut self, schema: &Value, branches: &'s [Value], value: &Value, path: &Path) {
        let variants: Vec<&str> = branches
            .iter()
            .map(|branch| resolve(self.root, branch))
            .filter_map(|branch| branch.get("required")?.as_array()?.first()?.as_str())
            .collect();
        match value {
            Value::Object(entries) if !variants.is_empty() => {
                let name = entries.keys().next().map_or("", String::as_str);
                let list: Vec<String> = variants.iter().map(|name| format!("`{name}`")).collect();
                let problem = Problem::new(format!("{} has no `{name}`", last_name(path)))
                    .expected(format!("one of {}", list.join(", ")))
                    .help(suggest::help(name, variants, "there is", ""));
                let path = if name.is_empty() { path.clone() } else { path.key(name) };
                self.wrong(Focus::Key, &path, problem);
            }
            _ => self.wrong_type(schema, value, path),
        }
    }

    fn number(&mut self, schema: &Value, value: &Value, path: &Path) {
        let float = value.as_f64().unwrap_or(f64::NAN);
        let limit = |name: &str| bound(schema, name).and_then(Value::as_f64);
        let inside = limit("minimum").is_none_or(|low| float >= low)
            && limit("maximum").is_none_or(|high| float <= high)
            && limit("exclusiveMinimum").is_none_or(|low| float > low)
            && limit("exclusiveMaximum").is_none_or(|high| float < high);
        if !inside {
            let problem = Problem::new(format!("{} is out of range: {value}", last_name(path)))
                .expected(describe(self.root, schema));
            self.wrong(Focus::Value, path, problem);
        }
    }

    fn text(&mut self, schema: &Value, text: &str, path: &Path) {
        let length = text.chars().count() as u64;
        if schema.get("minLength").and_then(Value::as_u64).is_some_and(|least| length < least) {
            self.wrong(
                Focus::Value,
                path,
                Problem::new(format!("{} is too short", last_name(path))).expected("longer text"),
            );
        }
        if schema.get("maxLength").and_then(Value::as_u64).is_some_and(|most| length > most) {
            self.wrong(
                Focus::Value,
                path,
                Problem::new(format!("{} is too long", last_name(path))).expected("shorter text"),
            );
        }
    }

    fn list(&mut self, schema: &'s Value, items: &[Value], path: &Path) {
        let count = items.len() as u64;
        let least = schema.get("minItems").and_then(Value::as_u64);
        let most = schema.get("maxItems").and_then(Value::as_u64);
        if least.is_some_and(|least| count < least) || most.is_some_and(|most| count > most) {
            let expected = match (least, most) {
                (Some(least), Some(most)) if least == most => format!("{least} items"),
                (Some(least), Some(most)) => format!("{least} to {most} items"),
                (Some(least), None) => format!("at least {least} items"),
                (_, most) => format!("at most {} items", most.unwrap_or_default()),
            };
            let problem = Problem::new(format!("{} has {count} items", last_name(path))).expected(expected);
            self.wrong(Focus::Value, path, problem);
        }
        if schema.get("uniqueItems").and_then(Value::as_bool) == Some(true) {
            for (i, item) in items.iter().enumerate().filter(|(i, item)| items[..*i].contains(item)) {
                self.wrong(
                    Focus::Value,
                    &path.index(i),
                    Problem::new(format!("{} stands twice in this list", quoted(item))),
                );
            }
        }
        let prefix = schema.get("prefixItems").and_then(Value::as_array);
        let rest = schema.get("items").filter(|items| items.is_object());
        for (i, item) in items.iter().enumerate() {
            if let Some(schema) = prefix.and_then(|prefix| prefix.get(i)).or(rest) {
                self.value(schema, item, &path.index(i));
            }
        }
    }

    fn mapping(&mut self, schema: &'s Value, entries: &Map<String, Value>, path: &Path) {
        let properties = schema.get("properties").and_then(Value::as_object);
        let others = schema.get("additionalProperties");
        for (name, value) in entries {
            let path = path.key(name);
            match properties.and_then(|properties| properties.get(name)) {
                Some(schema) => self.value(schema, value, &path),
                None if others.is_some_and(|others| others.as_bool() == Some(false)) => {
                    let known = properties.into_iter().flat_map(|properties| properties.keys()).map(String::as_str);
                    let help = suggest::help(name, known, "there is", "it takes no parameters");
                    let problem = Problem::new(format!("there is no parameter `{name}` here")).help(help);
                    self.wrong(Focus::Key, &path, problem);
                }
                None => {
                    if let Some(schema) = others.filter(|others| others.is_object()) {
                        self.value(schema, value, &path);
                    }
                }
            }
        }
        let required = schema.get("required").and_then(Value::as_array);
        for name in required.into_iter().flatten().filter_map(Value::as_str).filter(|name| !entries.contains_key(*name))
        {
            let expected =
                properties.and_then(|properties| properties.get(name)).map(|schema| describe(self.root, schema));
            let mut problem = Problem::new(format!("the parameter `{name}` is missing"));
            if let Some(expected) = expected {
                problem = problem.expected(format!("`{name}:` with {expected}"));
            }
            self.wrong(Focus::Key, path, problem);
        }
    }
}

fn same_type(name: &str, value: &Value) -> bool {
    match value {
        Value::Null => name == "null",
        Value::Bool(_) => name == "boolean",
        Value::Number(_) => matches!(name, "number" | "integer"),
        Value::String(_) => name == "string",
        Value::Array(_) => name == "array",
        Value::Object(_) => name == "object",
    }
}

fn quoted(value: &Value) -> String {
    match value {
        Value::String(text) => format!("`{text}`"),
        Value::Number(_) | Value::Bool(_) => format!("`{value}`"),
        other => type_name(other).to_owned(),
    }
}

/// The name that a person would call the place by.
fn last_name(path: &Path) -> String {
    use crate::error::Segment;
    let mut name = String::new();
    for segment in path.0.iter().rev() {
        match segment {
            Segment::Key(key) => return format!("`{key}{name}`"),
            Segment::Index(index) => name = format!("[{index}]{name}"),
        }
    }
    format!("`{name}`")
}
