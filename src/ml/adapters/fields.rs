//! The fields of an adapter's configuration, read with words about what was wrong.
//! It does not know which fields there are.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::targets::Targets;
use crate::error::{Problem, Result};

/// A JSON object whose `null` fields count as absent.
#[derive(Clone, Copy)]
pub struct Fields<'a> {
    map: &'a Map<String, Value>,
    /// The text that it was read from: the order of keys is there alone.
    text: &'a str,
}

impl<'a> Fields<'a> {
    /// The fields of `value`.
    pub fn of(value: &'a Value) -> Result<Self> {
        Self::with_text(value, "")
    }

    /// The fields of `value`, which `text` says.
    pub fn with_text(value: &'a Value, text: &'a str) -> Result<Self> {
        let map = value.as_object().ok_or_else(|| Problem::new("the configuration is not a JSON object"))?;
        Ok(Self { map, text })
    }

    /// The field, unless it is absent or null.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// The fields that are not among these.
    pub fn others(&self, known: &[&str]) -> Vec<String> {
        self.map.keys().filter(|key| !known.contains(&key.as_str())).cloned().collect()
    }

    /// A number that must be there.
    pub fn number(&self, name: &str) -> Result<f64> {
        let value = self.get(name).ok_or_else(|| missing(name))?;
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
        let value = self.get(name).ok_or_else(|| missing(name))?;
        value.as_i64().filter(|n| (1..=1 << 20).contains(n)).ok_or_else(|| wrong(name, value, "a number from 1 on"))
    }

    /// True or false with a default.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool> {
        self.get(name).map_or(Ok(default), |v| v.as_bool().ok_or_else(|| wrong(name, v, "true or false")))
    }

    /// Text with a default.
    pub fn text(&self, name: &str, default: &'static str) -> Result<&'a str> {
        self.get(name).map_or(Ok(default), |v| v.as_str().ok_or_else(|| wrong(name, v, "text")))
    }

    /// A list of layers; a single number counts as a list of one.
    pub fn layers(&self, name: &str) -> Result<Option<Vec<i64>>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let list = value.as_array().map_or_else(|| vec![value], |list| list.iter().collect());
        let layers = list.into_iter().map(|v| v.as_i64().ok_or_else(|| wrong(name, value, "a list of layers")));
        layers.collect::<Result<Vec<_>>>().map(Some)
    }

    /// A list of names; a single one counts as a list of one.
    pub fn names(&self, name: &str) -> Result<Option<Vec<String>>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let list = value.as_array().map_or_else(|| vec![value], |list| list.iter().collect());
        let names = list.into_iter().map(|v| v.as_str().map(str::to_owned).ok_or_else(|| wrong(name, value, "names")));
        names.collect::<Result<Vec<_>>>().map(Some)
    }

    /// A list of names or a regular expression; an empty one counts as absent.
    pub fn targets(&self, name: &str) -> Result<Option<Targets>> {
        let Some(value) = self.get(name).filter(|value| !is_empty(value)) else { return Ok(None) };
        let targets = serde_json::from_value(value.clone());
        targets
            .map(Some)
            .map_err(|_| wrong(name, value, "a list of module names, `all-linear`, or a regular expression"))
    }

    /// A mapping from keys to numbers in the order of the file; none if it is not named.
    pub fn ordered(&self, name: &str) -> Result<Vec<(String, f64)>> {
        let Some(value) = self.get(name) else { return Ok(Vec::new()) };
        if !value.as_object().is_some_and(|map| map.values().all(Value::is_number)) {
            return Err(wrong(name, value, "an object of numbers"));
        }
        let mut reader = serde_json::Deserializer::from_str(self.text);
        Pick(name).deserialize(&mut reader).map_err(|error| Problem::new(format!("`{name}`: {error}")))
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

/// Picks one field out of an object and reads it as numbers in their order.
struct Pick<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for Pick<'_> {
    type Value = Vec<(String, f64)>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Pick<'_> {
    type Value = Vec<(String, f64)>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
        struct Entries;
        impl<'de> DeserializeSeed<'de> for Entries {
            type Value = Vec<(String, f64)>;
            fn deserialize<D: Deserializer<'de>>(self, d: D) -> std::result::Result<Self::Value, D::Error> {
                d.deserialize_map(self)
            }
        }
        impl<'de> Visitor<'de> for Entries {
            type Value = Vec<(String, f64)>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of numbers")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
                let mut entries: Vec<(String, f64)> = Vec::new();
                while let Some((key, number)) = map.next_entry::<String, f64>()? {
                    if entries.iter().any(|(known, _)| *known == key) {
                        return Err(A::Error::custom(format!("`{key}` stands there twice")));
                    }
                    entries.push((key, number));
                }
                Ok(entries)
            }
        }
        let mut found = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if key == self.0 {
                found = map.next_value_seed(Entries)?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
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

fn missing(name: &str) -> Problem {
    Problem::new(format!("`{name}` is missing"))
}

/// A field with a value that it cannot have.
pub fn wrong(name: &str, value: &Value, expected: &str) -> Problem {
    Problem::new(format!("`{name}` is `{value}`")).expected(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_the_file_is_kept() {
        let text = r#"{"r": 4, "rank_pattern": {"z": 1, "a": 2, "m": 3}, "x": {"rank_pattern": {"no": 9}}}"#;
        let value: Value = serde_json::from_str(text).unwrap();
        let fields = Fields::with_text(&value, text).unwrap();
        let entries = fields.ordered("rank_pattern").unwrap();
        assert_eq!(entries, [("z".to_owned(), 1.0), ("a".to_owned(), 2.0), ("m".to_owned(), 3.0)]);
        assert_eq!(fields.ordered("alpha_pattern").unwrap(), []);
        assert!(fields.ordered("r").unwrap_err().to_string().contains("`r`"));
    }
}
