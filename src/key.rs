//! Why a result is what it is: the manifest, and the key that is its hash.
//! It does not know where records are kept, nor in which order steps run.
//!
//! The manifest is a readable JSON document. Everything that can change the answer of a step stands in it and
//! nothing else does, so the same document makes the key and explains a rerun, and the two cannot drift apart.
//! The key is blake3 over `pipe key 1\n` and the document's canonical form: one line of JSON, keys in byte
//! order, no spaces, integers in decimal, floats in their shortest decimal form with at least one digit after
//! the point and without an exponent.

mod diff;

use std::collections::BTreeMap;

use serde_json::{Number, Value, json};

pub use diff::{Difference, diff, short};

use crate::digest::Digest;

/// Written into every manifest; raised when the meaning of a field changes, which makes every step run again.
pub const FORMAT: &str = "pipe/manifest@1";

/// What one port of a step was given.
#[derive(Debug, Clone, PartialEq)]
pub enum Port {
    /// A port that takes at most one artifact.
    One(Entry),
    /// A port that takes a list, in order.
    Many(Vec<Entry>),
}

/// One artifact, as the manifest sees it: by content.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// What it contains.
    pub digest: Digest,
    /// Its producer's name and coordinates, for ports whose step writes them into its result.
    pub name: Option<Name>,
}

/// The name that a `named` port sees.
#[derive(Debug, Clone, PartialEq)]
pub struct Name {
    /// The producer's id.
    pub id: String,
    /// Its coordinates in a matrix: axis to value.
    pub coordinates: BTreeMap<String, Value>,
}

/// Everything that may change the answer of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The step kind's name.
    pub kind: String,
    /// Its version.
    pub version: u32,
    /// All parameters that count, defaults spelled out.
    pub params: Value,
    /// What each connected port was given.
    pub inputs: BTreeMap<String, Port>,
    /// Content of the files outside the store, by the names that the kind gives them.
    pub sources: BTreeMap<String, Digest>,
    /// What of the machine may change the answer.
    pub environment: BTreeMap<String, String>,
}

impl Manifest {
    /// The readable document.
    pub fn document(&self) -> Value {
        let inputs: BTreeMap<&String, Value> = self.inputs.iter().map(|(name, port)| (name, port.document())).collect();
        json!({
            "format": FORMAT,
            "kind": self.kind,
            "version": self.version,
            "params": self.params,
            "inputs": inputs,
            "sources": self.sources,
            "environment": self.environment,
        })
    }

    /// The key of the result.
    pub fn key(&self) -> Digest {
        key_of(&self.document())
    }
}

impl Port {
    fn document(&self) -> Value {
        match self {
            Self::One(entry) => entry.document(),
            Self::Many(entries) => entries.iter().map(Entry::document).collect(),
        }
    }
}

impl Entry {
    fn document(&self) -> Value {
        match &self.name {
            None => json!(self.digest),
            Some(name) if name.coordinates.is_empty() => json!({"name": name.id, "digest": self.digest}),
            Some(name) => json!({"name": name.id, "coordinates": name.coordinates, "digest": self.digest}),
        }
    }
}

/// The key of a manifest's document, also of one read back from a record.
pub fn key_of(document: &Value) -> Digest {
    // Room for most at once.
    let mut text = String::with_capacity(1024);
    text.push_str("pipe key 1\n");
    write(document, &mut text);
    Digest::of(text.as_bytes())
}

/// What the results of all lengths have in common that a step may be given: the hash of a manifest's document without the
/// parameter that says how long the work is.
pub fn series_of(document: &Value, length: &str) -> Digest {
    let mut document = document.clone();
    if let Some(params) = document.get_mut("params").and_then(Value::as_object_mut) {
        params.remove(length);
    }
    Digest::of(format!("pipe series 1\n{}", canonical(&document)).as_bytes())
}

/// The canonical form of a document; see the head of this file.
pub fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

fn write(value: &Value, text: &mut String) {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
        Value::String(value) => write_text(value, text),
        Value::Number(number) => text.push_str(&canonical_number(number)),
        Value::Array(items) => {
            text.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    text.push(',');
                }
                write(item, text);
            }
            text.push(']');
        }
        // Sorted here: the map itself keeps insertion order as soon as any dependency asks for that.
        Value::Object(map) => {
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            text.push('{');
            for (i, (key, item)) in entries.into_iter().enumerate() {
                if i > 0 {
                    text.push(',');
                }
                write_text(key, text);
                text.push(':');
                write(item, text);
            }
            text.push('}');
        }
    }
}

/// Text as JSON writes it; most of it stands as it is.
fn write_text(value: &str, text: &mut String) {
    if value.bytes().any(|byte| byte < b' ' || matches!(byte, b'"' | b'\\')) {
        return text.push_str(&Value::from(value).to_string());
    }
    text.push('"');
    text.push_str(value);
    text.push('"');
}

fn canonical_number(number: &Number) -> String {
    if number.is_f64() {
        let float = number.as_f64().unwrap_or_default();
        // Minus zero equals zero, so it must not make another key.
        let text = if float == 0.0 { "0".to_owned() } else { float.to_string() };
        if text.contains('.') { text } else { format!("{text}.0") }
    } else {
        number.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn manifest(params: Value) -> Manifest {
        Manifest {
            kind: "train".into(),
            version: 1,
            params,
            inputs: BTreeMap::from([("data".to_owned(), Port::One(Entry { digest: Digest::of(b"a"), name: None }))]),
            sources: BTreeMap::new(),
            environment: BTreeMap::from([("device".to_owned(), "cpu".to_owned())]),
        }
    }

    #[test]
    fn the_canonical_form_is_fixed() {
        let value = json!({"b": [1, 1.0, 0.10, 1e-7, -0.0, 1e21], "a": {"ж": "x\ny", "t": true, "n": null}});
        assert_eq!(
            canonical(&value),
            r#"{"a":{"n":null,"t":true,"ж":"x\ny"},"b":[1,1.0,0.1,0.0000001,0.0,1000000000000000000000.0]}"#
        );
    }

    #[test]
    fn texts_are_written_as_json_writes_them() {
        let ascii: String = (0..=127).map(char::from).collect();
        let each = ascii.chars().map(|c| format!("a{c}б"));
        for text in each.chain([String::new(), ascii.clone(), "\u{2028}\u{fffd}😀".to_owned()]) {
            assert_eq!(canonical(&json!([&text, {&text: null}])), json!([&text, {&text: null}]).to_string());
        }
    }

    #[test]
    fn the_key_is_the_hash_of_the_document() {
        let manifest = manifest(json!({"rank": 4}));
        let text = format!("pipe key 1\n{}", canonical(&manifest.document()));
        assert_eq!(manifest.key().as_str(), blake3::hash(text.as_bytes()).to_hex().as_str());
        // A document that went through pretty-printed JSON has the same key.
        let printed = serde_json::to_string_pretty(&manifest.document()).unwrap();
        assert_eq!(key_of(&serde_json::from_str(&printed).unwrap()), manifest.key());
    }

    #[test]
    fn every_field_counts() {
        let base = manifest(json!({"rank": 4}));
        let mut others = vec![manifest(json!({"rank": 8})), manifest(json!({"rank": 4.0}))];
        others.push(Manifest { kind: "other".into(), ..base.clone() });
        others.push(Manifest { version: 2, ..base.clone() });
        others.push(Manifest { inputs: BTreeMap::new(), ..base.clone() });
        others.push(Manifest { sources: BTreeMap::from([("file".into(), Digest::of(b""))]), ..base.clone() });
        others.push(Manifest { environment: BTreeMap::new(), ..base.clone() });
        let keys: BTreeSet<Digest> = others.iter().chain([&base]).map(Manifest::key).collect();
        assert_eq!(keys.len(), others.len() + 1);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e12f64..1e12).prop_map(Value::from),
            "[a-zа-я ]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("[a-z]{1,4}", inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// The same value as YAML, written another way: keys backwards, comments, spaces, indentation.
    fn yaml(value: &Value, indent: usize, text: &mut String) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                let mut keys: Vec<&String> = map.keys().collect();
                keys.reverse();
                for key in keys {
                    text.push_str(&format!("\n{:indent$}\"{key}\":   # a comment", ""));
                    yaml(&map[key], indent + 3, text);
                }
            }
            Value::Array(items) if !items.is_empty() => {
                for item in items {
                    text.push_str(&format!("\n\n{:indent$}-", ""));
                    yaml(item, indent + 2, text);
                }
            }
            leaf => text.push_str(&format!("\n{:indent$}{leaf}", "")),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

        #[test]
        fn the_key_ignores_order_comments_and_spacing(value in any_value()) {
            let mut text = String::from("params:");
            yaml(&value, 1, &mut text);
            let read: Value = serde_yaml::from_str::<Value>(&text).unwrap();
            prop_assert_eq!(manifest(read["params"].clone()).key(), manifest(value).key());
        }

        #[test]
        fn no_difference_means_the_same_key(a in any_value(), b in any_value()) {
            let (a, b) = (manifest(a), manifest(b));
            prop_assert_eq!(diff(&a.document(), &b.document()).is_empty(), a.key() == b.key());
        }
    }
}
