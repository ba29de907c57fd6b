//! The fields of a configuration in JSON, read with words about what was wrong, and what nobody read.
//! It does not know which fields there are.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{Activation, Window};
use crate::error::{Problem, Result};

/// Numbers larger than this in a configuration are a mistake, whatever they mean.
const LARGEST: i64 = 1 << 24;

/// A JSON object that remembers what was asked of it.
#[derive(Debug, Default)]
pub struct Fields<'a> {
    map: Option<&'a Map<String, Value>>,
    read: RefCell<BTreeSet<String>>,
}

impl<'a> Fields<'a> {
    /// The fields of an object.
    pub fn of(map: &'a Map<String, Value>) -> Self {
        Self { map: Some(map), read: RefCell::default() }
    }

    /// The object itself.
    pub fn source(&self) -> Value {
        self.map.map_or(Value::Null, |map| Value::Object(map.clone()))
    }

    /// The value, unless it is absent or null.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.value(name).filter(|value| !value.is_null())
    }

    /// The value; null if it is null.
    fn value(&self, name: &str) -> Option<&'a Value> {
        self.read.borrow_mut().insert(name.to_owned());
        self.map?.get(name)
    }

    /// A text.
    pub fn text(&self, name: &str) -> Result<Option<&'a str>> {
        self.get(name).map(|value| value.as_str().ok_or_else(|| wrong(name, value, "text"))).transpose()
    }

    /// An object.
    pub fn table(&self, name: &str) -> Result<Option<Fields<'a>>> {
        let table = |value: &'a Value| value.as_object().map(Self::of).ok_or_else(|| wrong(name, value, "an object"));
        self.get(name).map(table).transpose()
    }

    /// A whole number from 1 on; the default if it is absent or null.
    pub fn size(&self, name: &str, default: Option<i64>) -> Result<i64> {
        match (self.get(name), default) {
            (None, Some(default)) => within(name, default),
            (None, None) => Err(Problem::new(format!("`{name}` is missing"))),
            (Some(value), _) => within(name, value.as_i64().ok_or_else(|| wrong(name, value, "a whole number"))?),
        }
    }

    /// A whole number from 1 on that null switches off; the default if it is absent.
    pub fn switched_size(&self, name: &str, default: Option<i64>) -> Result<Option<i64>> {
        match self.value(name) {
            None => Ok(default),
            Some(Value::Null) => Ok(None),
            Some(_) => self.size(name, None).map(Some),
        }
    }

    /// A finite number.
    pub fn number(&self, name: &str) -> Result<Option<f64>> {
        let number = |value: &Value| {
            value.as_f64().filter(|n| n.is_finite()).ok_or_else(|| wrong(name, value, "a finite number"))
        };
        self.get(name).map(number).transpose()
    }

    /// A number above 0; the default if it is absent or null.
    pub fn positive(&self, name: &str, default: f64) -> Result<f64> {
        let number = self.number(name)?.unwrap_or(default);
        if number > 0.0 {
            Ok(number)
        } else {
            Err(Problem::new(format!("`{name}` is {number}")).expected("a positive number"))
        }
    }

    /// A number above 0 that null switches off; the default if it is absent.
    pub fn switched_positive(&self, name: &str, default: Option<f64>) -> Result<Option<f64>> {
        match self.value(name) {
            None => Ok(default),
            Some(Value::Null) => Ok(None),
            Some(_) => self.positive(name, 1.0).map(Some),
        }
    }

    /// True or false; the default if it is absent or null.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool> {
        self.get(name).map_or(Ok(default), |value| value.as_bool().ok_or_else(|| wrong(name, value, "true or false")))
    }

    /// One id, a list of ids, or none for null; the default if it is absent.
    pub fn ids(&self, name: &str, default: Option<i64>) -> Result<Vec<i64>> {
        let id = |value: &Value| {
            value.as_i64().filter(|id| (0..=LARGEST).contains(id)).ok_or_else(|| wrong(name, value, "a token id"))
        };
        match self.value(name) {
            None => Ok(default.into_iter().collect()),
            Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(list)) => list.iter().map(id).collect(),
            Some(value) => Ok(vec![id(value)?]),
        }
    }

    /// The function called so.
    pub fn activation(&self, name: &str, default: Activation) -> Result<Activation> {
        let Some(wanted) = self.text(name)? else { return Ok(default) };
        let found = Activation::NAMES.iter().find(|(known, _)| *known == wanted);
        found.map(|(_, activation)| *activation).ok_or_else(|| {
            let known: Vec<&str> = Activation::NAMES.iter().map(|(name, _)| *name).collect();
            Problem::new(format!("`{name}: {wanted}` is not supported"))
                .expected(format!("one of {}", known.join(", ")))
        })
    }

    /// A window of this size in the blocks that `layer_types` names, or by default in those that `slides`.
    pub fn window(&self, size: Option<i64>, blocks: i64, slides: impl Fn(i64) -> bool) -> Result<Option<Window>> {
        let name = "layer_types";
        let layers: Vec<bool> = match self.get(name) {
            None => (0..blocks).map(slides).collect(),
            Some(Value::Array(list)) if list.len() as i64 == blocks => {
                let kind = |value: &Value| match value.as_str() {
                    Some("sliding_attention") => Ok(true),
                    Some("full_attention") => Ok(false),
                    _ => Err(Problem::new(format!("the layer type `{value}` is not supported"))
                        .expected("`full_attention` or `sliding_attention` in `layer_types`")),
                };
                list.iter().map(kind).collect::<Result<_>>()?
            }
            Some(value) => return Err(wrong(name, value, &format!("a list of {blocks} kinds, one for each block"))),
        };
        match size {
            _ if !layers.contains(&true) => Ok(None),
            Some(size) => Ok(Some(Window { size, layers })),
            None => Err(Problem::new("`layer_types` has `sliding_attention`, but `sliding_window` is missing")),
        }
    }

    /// Shares of a dropout by their names, where they are not 0.
    pub fn dropout(&self, names: &[&'static str]) -> Result<Vec<(&'static str, f64)>> {
        let mut shares = Vec::new();
        for name in names {
            if let Some(share) = self.number(name)?.filter(|share| *share != 0.0) {
                shares.push((*name, share));
            }
        }
        Ok(shares)
    }

    /// Fails if the option has another value than the one that is computed anyway.
    pub fn only(&self, name: &str, supported: &Value) -> Result<()> {
        let same = |value: &Value| value == supported || (value.is_number() && value.as_f64() == supported.as_f64());
        match self.get(name) {
            Some(value) if !same(value) => {
                Err(Problem::new(format!("`{name}: {value}` is not supported")).expected(format!("`{supported}`")))
            }
            _ => Ok(()),
        }
    }

    /// Fails on the first of these options that is there and that nobody read, unless it switches nothing on.
    pub fn refuse_unread(&self, names: &[&str]) -> Result<()> {
        for name in names {
            if !self.read.borrow().contains(*name)
                && let Some(value) = self.get(name).filter(|value| !is_off(value))
            {
                return Err(Problem::new(format!("the option `{name}: {value}` is not supported")));
            }
        }
        Ok(())
    }

    /// Fails on every option that is there and that nobody read; `what` says what kind of option it is.
    pub fn refuse_rest(&self, what: &str) -> Result<()> {
        let read = self.read.borrow();
        match self.map.into_iter().flatten().find(|(name, value)| !value.is_null() && !read.contains(*name)) {
            None => Ok(()),
            Some((name, value)) => Err(Problem::new(format!("the {what} `{name}: {value}` is not supported"))),
        }
    }
}

fn within(name: &str, size: i64) -> Result<i64> {
    if (1..=LARGEST).contains(&size) {
        return Ok(size);
    }
    Err(Problem::new(format!("`{name}` is {size}")).expected(format!("1 to {LARGEST}")))
}

/// `false`, a number that multiplies by one or adds nothing, and what is empty.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_f64().is_some_and(|n| n == 0.0 || n == 1.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// A field with a value that it cannot have.
pub fn wrong(name: &str, value: &Value, expected: &str) -> Problem {
    Problem::new(format!("`{name}` is `{value}`")).expected(expected)
}
