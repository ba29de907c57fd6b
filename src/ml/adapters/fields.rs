//! The fields of an adapter's configuration, read with words about what was wrong.
//! It does not know which fields there are.

use serde_json::{Map, Value};

use crate::error::{Problem, Result};

/// A JSON object whose `null` fields count as absent.
pub struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    /// The fields of `value`.
    pub fn of(value: &'a Value) -> Result<Self> {
        value.as_object().map(Self).ok_or_else(|| Problem::new("the configuration is not a JSON object"))
    }

    /// The field, unless it is absent or null.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// A number that must be there.
    pub fn number(&self, name: &str) -> Result<f64> {
        let value = self.get(name).ok_or_else(|| Problem::new(format!("`{name}` is missing")))?;
        value.as_f64().filter(|n| n.is_finite()).ok_or_else(|| wrong(name, value, "a number"))
    }

    /// A number with a default.
    pub fn number_or(&self, name: &str, default: f64) -> Result<f64> {
        if self.get(name).is_some() { self.number(name) } else { Ok(default) }
    }

    /// The share of a dropout, 0 if it is not named.
    pub fn share(&self, name: &str) -> Result<f64> {
        let share = self.number_or(name, 0.0)?;
        if (0.0..1.0).contains(&share) {
            return Ok(share);
        }
        Err(Problem::new(format!("`{name}` is {share}")).expected("from 0 to less than 1"))
    }

    /// A whole number from 1 on that must be there.
    pub fn size(&self, name: &str) -> Result<i64> {
        let value = self.get(name).ok_or_else(|| Problem::new(format!("`{name}` is missing")))?;
        value.as_i64().filter(|n| (1..=1 << 20).contains(n)).ok_or_else(|| wrong(name, value, "a number from 1 on"))
    }

    /// True or false with a default.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool> {
        self.get(name).map_or(Ok(default), |v| v.as_bool().ok_or_else(|| wrong(name, v, "true or false")))
    }

    /// A list of layers; a single number counts as a list of one.
    pub fn layers(&self, name: &str) -> Result<Option<Vec<i64>>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let list = value.as_array().map_or_else(|| vec![value], |list| list.iter().collect());
        let layers = list.into_iter().map(|v| v.as_i64().ok_or_else(|| wrong(name, value, "a list of layers")));
        layers.collect::<Result<Vec<_>>>().map(Some)
    }

    /// Refuses the named options unless they are absent or have the value that changes nothing.
    pub fn refuse(&self, options: &[(&str, &[Value])]) -> Result<()> {
        for (name, harmless) in options {
            if let Some(value) = self.get(name).filter(|value| !is_empty(value) && !harmless.contains(value)) {
                return Err(Problem::new(format!("the option `{name}: {value}` is not supported")));
            }
        }
        Ok(())
    }
}

/// `false`, `[]`, `{}` and `""` switch nothing on.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Bool(on) => !on,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// A field with a value that it cannot have.
pub fn wrong(name: &str, value: &Value, expected: &str) -> Problem {
    Problem::new(format!("`{name}` is `{value}`")).expected(expected)
}
