//! The difference of two manifests: the fields that made a step run again, in words.
//! It does not know what a field means, nor which step stands behind an input.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value, json};

use super::canonical;
use crate::digest::Digest;

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

/// The fields in which two manifests' documents differ, in order of their paths; none if they have the same key.
pub fn diff(old: &Value, new: &Value) -> Vec<Difference> {
    let (before, after) = (leaves(old), leaves(new));
    let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changed = paths.into_iter().filter(|path| before.get(*path) != after.get(*path));
    let found: Vec<Difference> = changed.flat_map(|path| between(path, before.get(path), after.get(path))).collect();
    if found.is_empty() && canonical(old) != canonical(new) {
        return vec![apart(String::new(), old, new)];
    }
    found
}

/// Of two documents with the same leaves: entries of a named port in another order, or `{a.b: 1}` and `{a: {b: 1}}`.
/// The deepest place that holds all of the difference.
fn apart(path: String, old: &Value, new: &Value) -> Difference {
    let differ = |old: &Value, new: &Value| canonical(old) != canonical(new);
    let below = match (old, new) {
        (Value::Object(one), Value::Object(other)) if one.keys().eq(other.keys()) => {
            let mut changed = one.iter().filter(|(key, value)| differ(value, &other[*key]));
            changed
                .next()
                .filter(|_| changed.next().is_none())
                .map(|(key, value)| (join(&path, key), value, &other[key]))
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            let mut changed = (0..one.len()).filter(|&i| differ(&one[i], &other[i]));
            let only = changed.next().filter(|_| changed.next().is_none());
            only.map(|i| (format!("{path}[{i}]"), &one[i], &other[i]))
        }
        _ => None,
    };
    match below {
        Some((path, old, new)) => apart(path, old, new),
        None => match (names(old), names(new)) {
            (Some(old), Some(new)) if old != new => Difference { path, old: Some(old), new: Some(new) },
            _ => Difference { path, old: Some(old.to_string()), new: Some(new.to_string()) },
        },
    }
}

/// The entries of a named port, in order, by their names.
fn names(list: &Value) -> Option<String> {
    let names = list.as_array()?.iter().map(|item| Some(named(item)?.0)).collect::<Option<Vec<_>>>()?;
    Some(format!("[{}]", names.join(", ")))
}

/// The differences of two leaves that differ.
fn between(path: &str, old: Option<&Value>, new: Option<&Value>) -> Vec<Difference> {
    if let (Some(old), Some(new)) = (old.and_then(digests), new.and_then(digests)) {
        return entries(path, &old, &new);
    }
    vec![Difference { path: path.to_owned(), old: old.map(readable), new: new.map(readable) }]
}

/// The entries of a port that takes a list.
fn digests(value: &Value) -> Option<Vec<&Value>> {
    let is_digest = |item: &Value| item.as_str().is_some_and(|text| Digest::parse(text).is_some());
    value.as_array().filter(|items| items.iter().all(is_digest)).map(|items| items.iter().collect())
}

/// Two lists of digests: entries in one place are compared; where there are more or fewer of them, only those are
/// told that the other list has not, each by its place in its own list.
fn entries(path: &str, old: &[&Value], new: &[&Value]) -> Vec<Difference> {
    let at = |i: usize, old: Option<&Value>, new: Option<&Value>| Difference {
        path: format!("{path}[{i}]"),
        old: old.map(readable),
        new: new.map(readable),
    };
    if old.len() == new.len() {
        let pairs = old.iter().zip(new).enumerate().filter(|(_, (old, new))| old != new);
        return pairs.map(|(i, (old, new))| at(i, Some(old), Some(new))).collect();
    }
    let gone = without(old, new).into_iter().map(|i| at(i, Some(old[i]), None));
    let added = without(new, old).into_iter().map(|i| at(i, None, Some(new[i])));
    gone.chain(added).collect()
}

/// The places in `list` of what is left when each entry of `other` has taken away one like it.
fn without(list: &[&Value], other: &[&Value]) -> Vec<usize> {
    let mut other = other.to_vec();
    let left = list.iter().enumerate().filter(|(_, item)| match other.iter().position(|one| one == *item) {
        Some(at) => {
            other.swap_remove(at);
            false
        }
        None => true,
    });
    left.map(|(i, _)| i).collect()
}

/// Every leaf by its path. A list of plain values is one leaf, because it is read as a whole; the entries of a
/// named port are told apart by their names, so that one more of them does not look as if all had changed.
fn leaves(document: &Value) -> BTreeMap<String, Value> {
    fn walk(path: String, value: &Value, found: &mut BTreeMap<String, Value>) {
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
                found.insert(path, leaf.clone());
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

/// A digest as the fields show it: `1a2b3c4d…`.
pub fn short(digest: &Digest) -> String {
    format!("{}…", &digest.as_str()[..8])
}

/// A value for a person: digests are cut to what tells them apart, plain text goes without quotes.
fn readable(value: &Value) -> String {
    match value {
        Value::String(text) => match Digest::parse(text) {
            Some(digest) => short(&digest),
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
    use super::super::{Entry, Manifest, Name, Port};
    use super::*;

    fn manifest(params: Value) -> Manifest {
        Manifest {
            kind: "train".into(),
            version: 1,
            params,
            inputs: BTreeMap::new(),
            sources: BTreeMap::new(),
            environment: BTreeMap::new(),
        }
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
    fn of_a_list_of_digests_only_what_changed_is_told() {
        let list = |texts: &[&[u8]]| {
            let entries = texts.iter().map(|text| Entry { digest: Digest::of(text), name: None }).collect();
            let inputs = BTreeMap::from([("results".to_owned(), Port::Many(entries))]);
            Manifest { inputs, ..manifest(json!({})) }.document()
        };
        let short = |text: &[u8]| Digest::of(text).as_str()[..8].to_owned();
        let told = |old: &[&[u8]], new: &[&[u8]]| {
            diff(&list(old), &list(new)).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            told(&[b"a", b"b", b"c"], &[b"a", b"x", b"c"]),
            [format!("inputs.results[1]: {}… → {}…", short(b"b"), short(b"x"))]
        );
        assert_eq!(told(&[b"a", b"b"], &[b"b", b"a"]).len(), 2, "the order counts");
        assert_eq!(
            told(&[b"a", b"a", b"b"], &[b"a", b"c", b"d", b"b", b"e"]),
            [
                format!("inputs.results[1]: {}… is gone", short(b"a")),
                format!("inputs.results[1]: {}… is new", short(b"c")),
                format!("inputs.results[2]: {}… is new", short(b"d")),
                format!("inputs.results[4]: {}… is new", short(b"e")),
            ]
        );
    }

    #[test]
    fn another_order_of_named_entries_is_told() {
        let list = |names: &[&str]| {
            let name = |id: &str| Name { id: id.to_owned(), coordinates: BTreeMap::new() };
            let entry = |id: &&str| Entry { digest: Digest::of(id.as_bytes()), name: Some(name(id)) };
            let inputs = BTreeMap::from([("results".to_owned(), Port::Many(names.iter().map(entry).collect()))]);
            Manifest { inputs, ..manifest(json!({})) }.document()
        };
        let told = diff(&list(&["a", "b", "c"]), &list(&["a", "c", "b"]));
        assert_eq!(told.iter().map(ToString::to_string).collect::<Vec<_>>(), ["inputs.results: [a, b, c] → [a, c, b]"]);
    }

    /// Their keys differ, so that the step runs again: that must not be without a reason.
    #[test]
    fn documents_whose_leaves_look_the_same_differ() {
        let told = |old: Value, new: Value| {
            let found = diff(&manifest(old).document(), &manifest(new).document());
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            told(json!({"x": {"a.b": 1}, "y": 2}), json!({"x": {"a": {"b": 1}}, "y": 2})),
            [r#"params.x: {"a.b":1} → {"a":{"b":1}}"#]
        );
        let named = |more: u32| json!([7, {"name": "a", "digest": "b", "more": more}]);
        assert_eq!(told(named(1), named(2)), ["params[1].more: 1 → 2"]);
        assert_eq!(told(named(1), named(1)), [""; 0]);
    }

    #[test]
    fn a_difference_knows_its_port() {
        let port = |path: &str| Difference { path: path.into(), old: None, new: None }.port().map(str::to_owned);
        assert_eq!(port("inputs.results[lora[rank=4]].digest").as_deref(), Some("results"));
        assert_eq!(port("inputs.data").as_deref(), Some("data"));
        assert_eq!(port("params.inputs.data"), None);
    }
}
