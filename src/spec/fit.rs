//! A value against the JSON Schema of a step kind's parameters: all mistakes at once, in words.
//! It does not know which kind the parameters are of, nor where the value stands in a file.

use serde_json::{Map, Value};

use crate::error::{Path, Problem, Segment};

use super::node::type_name;
use super::problems::{Finding, Focus};
use super::schema::{bound, branches, choices, describe, resolve, takes_null, types};
use super::suggest;

/// Compares `value`, which stands at `path`, with `schema`.
pub(super) fn check(schema: &Value, value: &Value, path: &Path) -> Vec<Finding> {
    let mut walk = Walk { root: schema, findings: Vec::new() };
    walk.value(schema, value, path);
    walk.findings
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
    let mut name = String::new();
    for segment in path.0.iter().rev() {
        match segment {
            Segment::Key(key) => return format!("`{key}{name}`"),
            Segment::Index(index) => name = format!("[{index}]{name}"),
        }
    }
    format!("`{name}`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemars::JsonSchema;
    use serde_json::json;
    use std::collections::BTreeMap;

    #[derive(JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Params {
        #[schemars(range(min = 0.0, max = 1.0))]
        share: f64,
        #[serde(default)]
        schedule: Option<Schedule>,
        #[serde(default)]
        #[schemars(length(min = 1))]
        layers: Vec<u32>,
        #[serde(default)]
        pair: Option<(u32, String)>,
        #[serde(default)]
        names: BTreeMap<String, bool>,
        #[serde(default)]
        inner: Option<Box<Params>>,
        #[serde(default)]
        any: Value,
    }

    #[derive(JsonSchema)]
    #[serde(rename_all = "snake_case", deny_unknown_fields)]
    #[allow(dead_code)]
    enum Schedule {
        /// Stays the same.
        Constant,
        /// Falls.
        Linear {
            #[schemars(range(min = 1))]
            steps: u32,
        },
        /// Falls otherwise.
        Cosine { cycles: f64 },
    }

    fn told(value: Value) -> Vec<String> {
        let schema = schemars::schema_for!(Params).to_value();
        check(&schema, &value, &Path::root()).iter().map(|finding| finding.problem.to_string()).collect()
    }

    fn one(value: Value, words: &str) {
        let told = told(value);
        assert!(told.len() == 1 && told[0].contains(words), "{told:?}");
    }

    #[test]
    fn sound_values_pass() {
        for value in [
            json!({ "share": 1 }),
            json!({ "share": 0.5, "schedule": "constant", "layers": [1], "pair": [1, "a"], "any": { "x": [null] } }),
            json!({ "share": 0, "schedule": { "linear": { "steps": 5 } }, "inner": { "share": 0.1, "inner": null } }),
            json!({ "share": 0, "schedule": { "cosine": { "cycles": 2 } }, "names": { "a": true } }),
        ] {
            assert_eq!(told(value.clone()), Vec::<String>::new(), "{value}");
        }
    }

    #[test]
    fn each_mistake_is_told_where_it_is() {
        one(json!({}), "`share` is missing");
        one(json!({ "share": 1.5 }), "share: `share` is out of range: 1.5 (expected a number from 0 to 1)");
        one(json!({ "share": 1, "schedule": { "linear": { "steps": 0 } } }), "schedule.linear.steps: ");
        one(json!({ "share": 1, "schedule": { "linear": { "stesp": 1, "steps": 1 } } }), "did you mean `steps`?");
        one(json!({ "share": 1, "schedule": { "linaer": { "steps": 1 } } }), "did you mean `linear`?");
        one(json!({ "share": 1, "schedule": "constnat" }), "did you mean `constant`?");
        one(json!({ "share": 1, "layers": [] }), "has 0 items (expected at least 1 items)");
        one(json!({ "share": 1, "layers": [1, -1] }), "layers[1]: `layers[1]` is out of range");
        one(json!({ "share": 1, "pair": [1] }), "expected 2 items");
        one(json!({ "share": 1, "pair": [1, 2] }), "pair[1]: ");
        one(json!({ "share": 1, "names": { "a": 1 } }), "names.a: ");
        one(json!({ "share": 1, "inner": { "share": 2 } }), "inner.share: ");
        one(json!({ "share": null }), "`share` is nothing");
    }

    #[test]
    fn all_mistakes_come_at_once() {
        assert_eq!(told(json!({ "share": 2, "sahre": 1, "layers": ["a"], "inner": 5 })).len(), 4);
    }
}
