//! The difference of two manifests: the fields that made a step run again, in words.
//! It does not know what a field means, nor which step stands behind an input.

mod names;
mod pair;
mod twins;

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
            (Some(old), Some(new)) => {
                let (old, new) = pair::apart(old, new);
                write!(f, "{}: {old} → {new}", self.path)
            }
            (None, Some(new)) => write!(f, "{}: {} is new", self.path, pair::cut(new)),
            (Some(old), None) => write!(f, "{}: {} is gone", self.path, pair::cut(old)),
            (None, None) => write!(f, "{}", self.path),
        }
    }
}

/// The fields in which two manifests' documents differ, in order of their paths; none if they have the same key.
pub fn diff(old: &Value, new: &Value) -> Vec<Difference> {
    let names = names::between(old, new);
    let (before, after) = (leaves(old), leaves(new));
    let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changed = paths.into_iter().filter(|path| {
        let same = before.get(*path) == after.get(*path);
        !same && !was_filled(path, &before, &after) && !was_filled(path, &after, &before) && !names.covers(path)
    });
    let mut all: Vec<Difference> = changed.flat_map(|path| between(path, before.get(path), after.get(path))).collect();
    all.extend(names.told);
    if all.is_empty() && canonical(old) != canonical(new) {
        all.push(twins::apart(String::new(), old, new));
    }
    all.sort_by(|a, b| a.path.cmp(&b.path));
    all
}

/// True of something empty in one document that has entries in the other: they are told, and say it.
fn was_filled(path: &str, empty: &BTreeMap<String, Value>, filled: &BTreeMap<String, Value>) -> bool {
    let is_empty = |value: &Value| match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    let below = |mark: char| {
        let start = format!("{path}{mark}");
        filled.range(start.clone()..).next().is_some_and(|(other, _)| other.starts_with(&start))
    };
    empty.get(path).is_some_and(is_empty) && !filled.contains_key(path) && (below('.') || below('['))
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
    fn what_was_empty_is_told_by_what_is_in_it_now() {
        let told = |old: Value, new: Value| {
            let all = diff(&manifest(old).document(), &manifest(new).document());
            all.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(told(json!({"env": {}}), json!({"env": {"K": "1"}})), ["params.env.K: 1 is new"]);
        assert_eq!(told(json!({"a": [{"b": 1}], "ab": 1}), json!({"a": [], "ab": 1})), ["params.a[0].b: 1 is gone"]);
        assert_eq!(told(json!({"env": {}}), json!({})), ["params.env: {} is gone"]);
        assert_eq!(told(json!({"env": {}}), json!({"env": []})), ["params.env: {} → []"]);
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
    fn a_difference_knows_its_port() {
        let port = |path: &str| Difference { path: path.into(), old: None, new: None }.port().map(str::to_owned);
        assert_eq!(port("inputs.results[lora[rank=4]].digest").as_deref(), Some("results"));
        assert_eq!(port("inputs.data").as_deref(), Some("data"));
        assert_eq!(port("params.inputs.data"), None);
    }
}
