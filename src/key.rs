//! Why a result is what it is: the manifest, the key that is its hash, and the difference of two manifests.
//! It does not know where records are kept, nor in which order steps run.
//!
//! The manifest is a readable JSON document. Everything that can change the answer of a step stands in it and
//! nothing else does, so the same document makes the key and explains a rerun, and the two cannot drift apart.
//! The key is blake3 over `pipe key 1\n` and the document's canonical form: one line of JSON, keys in byte
//! order, no spaces, integers in decimal, floats in their shortest decimal form with at least one digit after
//! the point and without an exponent.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Number, Value, json};

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
    Digest::of(format!("pipe key 1\n{}", canonical(document)).as_bytes())
}

/// The canonical form of a document; see the head of this file.
pub fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

fn write(value: &Value, text: &mut String) {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => text.push_str(&value.to_string()),
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
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            text.push('{');
            for (i, (key, item)) in sorted.into_iter().enumerate() {
                if i > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write(item, text);
            }
            text.push('}');
        }
    }
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

/// One field in which two manifests differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// `params.adapter.lora.rank`, `inputs.data`, `version`.
    pub path: String,
    /// The earlier value in readable form; `None` if the field is new.
    pub old: Option<String>,
    /// The later value; `None` if the field is gone.
    pub new: Option<String>,
}

impl Difference {
    /// The input port that it is about, if it is about one.
    pub fn port(&self) -> Option<&str> {
        let tail = self.path.strip_prefix("inputs.")?;
        Some(tail.split(['.', '[']).next().unwrap_or(tail))
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => write!(f, "{}: {old} → {new}", self.path),
            (None, Some(new)) => write!(f, "{}: {new} is new", self.path),
            (Some(old), None) => write!(f, "{}: {old} is gone", self.path),
            (None, None) => write!(f, "{}", self.path),
        }
    }
}

/// The fields in which two manifests' documents differ, in order of their paths.
pub fn diff(old: &Value, new: &Value) -> Vec<Difference> {
    let (old, new) = (leaves(old), leaves(new));
    let paths: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changed = paths.into_iter().filter(|path| old.get(*path) != new.get(*path));
    changed
        .map(|path| Difference { path: path.clone(), old: old.get(path).cloned(), new: new.get(path).cloned() })
        .collect()
}

/// Every leaf by its path. A list of plain values is one leaf, because it is read as a whole; the entries of a
/// named port are told apart by their names, so that one more of them does not look as if all had changed.
fn leaves(document: &Value) -> BTreeMap<String, String> {
    fn walk(path: String, value: &Value, found: &mut BTreeMap<String, String>) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                for (key, item) in map {
                    walk(join(&path, key), item, found);
                }
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                for (i, item) in items.iter().enumerate() {
                    match named(item) {
                        Some((name, rest)) => walk(format!("{path}[{name}]"), &rest, found),
                        None => walk(format!("{path}[{i}]"), item, found),
                    }
                }
            }
            leaf => {
                found.insert(path, readable(leaf));
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(String::new(), document, &mut found);
    found
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn named(item: &Value) -> Option<(String, Value)> {
    let map = item.as_object()?;
    let (name, digest) = (map.get("name")?.as_str()?, map.get("digest")?);
    let rest: Map<String, Value> =
        map.iter().filter(|(key, _)| *key == "coordinates").map(|(k, v)| (k.clone(), v.clone())).collect();
    // The digest stands for the entry itself unless there is more to tell.
    let rest =
        if rest.is_empty() { digest.clone() } else { json!({"digest": digest, "coordinates": rest["coordinates"]}) };
    Some((name.to_owned(), rest))
}

/// A value for a person: digests are cut to what tells them apart, plain text goes without quotes.
fn readable(value: &Value) -> String {
    match value {
        Value::String(text) => match Digest::parse(text) {
            Some(digest) => format!("{}…", &digest.as_str()[..8]),
            None if text.is_empty() || text.contains(['\n', '→', '`']) => value.to_string(),
            None => text.clone(),
        },
        Value::Number(number) => number.to_string(),
        Value::Array(items) => format!("[{}]", items.iter().map(readable).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    #[test]
    fn differences_are_readable() {
        let mut old = manifest(json!({"lora": {"rank": 4, "layers": [0, 6]}, "gone": "x"}));
        let mut new = manifest(json!({"lora": {"rank": 8, "layers": [0, 12]}, "added": 0.5}));
        let entry = |name: &str, text: &[u8]| Entry {
            digest: Digest::of(text),
            name: Some(Name { id: name.to_owned(), coordinates: BTreeMap::new() }),
        };
        old.inputs.insert("results".into(), Port::Many(vec![entry("a", b"1"), entry("b", b"2")]));
        new.inputs.insert("results".into(), Port::Many(vec![entry("z", b"0"), entry("a", b"1"), entry("b", b"3")]));
        let lines: Vec<String> = diff(&old.document(), &new.document()).iter().map(ToString::to_string).collect();
        let short = |text: &[u8]| Digest::of(text).as_str()[..8].to_owned();
        assert_eq!(
            lines,
            [
                format!("inputs.results[b]: {}… → {}…", short(b"2"), short(b"3")),
                format!("inputs.results[z]: {}… is new", short(b"0")),
                "params.added: 0.5 is new".to_owned(),
                "params.gone: x is gone".to_owned(),
                "params.lora.layers: [0, 6] → [0, 12]".to_owned(),
                "params.lora.rank: 4 → 8".to_owned(),
            ]
        );
    }

    #[test]
    fn a_difference_knows_its_port() {
        let port = |path: &str| Difference { path: path.into(), old: None, new: None }.port().map(str::to_owned);
        assert_eq!(port("inputs.results[lora[rank=4]].digest").as_deref(), Some("results"));
        assert_eq!(port("inputs.data").as_deref(), Some("data"));
        assert_eq!(port("params.inputs.data"), None);
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
