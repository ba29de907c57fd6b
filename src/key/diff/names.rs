//! Inputs that have another name or another place and the same content: told as that, not as gone and new.
//! It does not know what else differs.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Difference;

/// What two manifests differ in by the names and the order of their inputs.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Each as a difference of `inputs`: it concerns no content.
    pub told: Vec<Difference>,
    /// The paths that this tells all of.
    covered: BTreeSet<String>,
}

impl Names {
    /// True if the path, or what it lies below, has been told.
    pub fn covers(&self, path: &str) -> bool {
        let below = |(end, _): (usize, char)| self.covered.contains(&path[..end]);
        self.covered.contains(path) || path.char_indices().filter(|(_, c)| ".[".contains(*c)).any(below)
    }

    fn tell(&mut self, old: String, new: String) {
        self.told.push(Difference { path: "inputs".to_owned(), old: Some(old), new: Some(new) });
    }
}

/// Compares the names of ports, and in a list that bears names those of its entries and their order.
pub(super) fn between(old: &Value, new: &Value) -> Names {
    let mut names = Names::default();
    let (Some(old), Some(new)) = (old["inputs"].as_object(), new["inputs"].as_object()) else { return names };
    for (was, is) in renamed(old.iter(), new.iter()) {
        names.covered.extend([format!("inputs.{was}"), format!("inputs.{is}")]);
        names.tell(was.clone(), is.clone());
    }
    for (port, was) in old {
        if let Some((was, is)) = entries(was).zip(new.get(port).and_then(entries)) {
            list(port, &was, &is, &mut names);
        }
    }
    names
}

/// The names that are gone, each with the new one that stands for the same.
fn renamed<'a, V: PartialEq>(
    old: impl Iterator<Item = (&'a String, V)>,
    new: impl Iterator<Item = (&'a String, V)>,
) -> Vec<(&'a String, &'a String)> {
    let (old, new): (Vec<_>, Vec<_>) = (old.collect(), new.collect());
    let known = |list: &[(&String, V)], name: &String| list.iter().any(|(other, _)| *other == name);
    let mut added: Vec<_> = new.iter().filter(|(name, _)| !known(&old, name)).collect();
    let mut pairs = Vec::new();
    for (name, value) in old.iter().filter(|(name, _)| !known(&new, name)) {
        if let Some(at) = added.iter().position(|(_, other)| other == value) {
            pairs.push((*name, added.remove(at).0));
        }
    }
    pairs
}

/// The entries of a list that bears names, as name and digest; `None` if it bears none, or one twice.
fn entries(port: &Value) -> Option<Vec<(&String, &Value)>> {
    let all: Vec<_> = port.as_array()?.iter().map(entry).collect::<Option<_>>()?;
    let unique: BTreeSet<_> = all.iter().map(|(name, _)| name).collect();
    (unique.len() == all.len() && !all.is_empty()).then_some(all)
}

fn entry(item: &Value) -> Option<(&String, &Value)> {
    match item.get("name")? {
        Value::String(name) => Some((name, item.get("digest")?)),
        _ => None,
    }
}

fn list(port: &str, old: &[(&String, &Value)], new: &[(&String, &Value)], names: &mut Names) {
    let pairs: BTreeMap<&String, &String> = renamed(old.iter().copied(), new.iter().copied()).into_iter().collect();
    for (was, is) in &pairs {
        names.covered.extend([format!("inputs.{port}[{was}]"), format!("inputs.{port}[{is}]")]);
        names.tell(format!("{port}[{was}]"), format!("{port}[{is}]"));
    }
    // What is in both, by its name of today, in the order of then and of today.
    let now: BTreeSet<&String> = new.iter().map(|(name, _)| *name).collect();
    let kept = |name: &&String| now.contains(name);
    let then: Vec<&String> = old.iter().map(|(name, _)| *pairs.get(name).unwrap_or(name)).filter(kept).collect();
    let was: BTreeSet<&String> = then.iter().copied().collect();
    let today: Vec<&String> = new.iter().map(|(name, _)| *name).filter(|name| was.contains(name)).collect();
    let same = |(a, b): (&&String, &&String)| a == b;
    let begin = then.iter().zip(&today).take_while(|(a, b)| same((a, b))).count();
    if begin < then.len() {
        let end = then.len() - then.iter().rev().zip(today.iter().rev()).take_while(|(a, b)| same((a, b))).count();
        let told = |list: &[&String]| {
            let part: Vec<&str> = list[begin..end].iter().map(|name| name.as_str()).collect();
            format!("{port}[{}]", part.join(", "))
        };
        names.tell(told(&then), told(&today));
    }
}

#[cfg(test)]
mod tests {
    use super::super::diff;
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn told(old: &Value, new: &Value) -> Vec<String> {
        let document = |inputs: &Value| json!({ "inputs": inputs });
        diff(&document(old), &document(new)).iter().map(ToString::to_string).collect()
    }

    fn list_of(entries: &[(&str, &str)]) -> Value {
        entries.iter().map(|(name, digest)| json!({"name": name, "digest": digest})).collect()
    }

    #[test]
    fn another_name_for_the_same_is_told_as_that() {
        assert_eq!(told(&json!({"data": "1", "x": "2"}), &json!({"text": "1", "x": "2"})), ["inputs: data → text"]);
        assert_eq!(
            told(&json!({"data": "1"}), &json!({"text": "2"})),
            ["inputs.data: 1 is gone", "inputs.text: 2 is new"]
        );
        let old = json!({"results": list_of(&[("a", "1"), ("b", "2"), ("c", "3")])});
        let new = json!({"results": list_of(&[("a", "1"), ("z", "2"), ("c", "4")])});
        assert_eq!(told(&old, &new), ["inputs: results[b] → results[z]", "inputs.results[c]: 3 → 4"]);
    }

    #[test]
    fn another_order_is_told_as_far_as_it_reaches() {
        let of = |names: &[&str]| json!({"p": list_of(&names.iter().map(|name| (*name, *name)).collect::<Vec<_>>())});
        assert_eq!(told(&of(&["a", "b", "c", "d"]), &of(&["a", "c", "b", "d"])), ["inputs: p[b, c] → p[c, b]"]);
        assert_eq!(told(&of(&["a", "b"]), &of(&["x", "a", "b"])), ["inputs.p[x]: x is new"]);
        assert_eq!(
            told(&of(&["a", "b"]), &of(&["b", "x", "a"])),
            ["inputs: p[a, b] → p[b, a]", "inputs.p[x]: x is new"]
        );
    }

    #[test]
    fn a_list_that_names_one_step_twice_has_no_names_to_go_by() {
        let old = json!({"p": list_of(&[("a", "1"), ("a", "2")])});
        assert_eq!(told(&old, &old), Vec::<String>::new());
        assert!(!told(&old, &json!({"p": list_of(&[("a", "1"), ("a", "3")])})).is_empty());
    }

    fn any_inputs() -> impl Strategy<Value = Value> {
        let entries = prop::collection::btree_map("[a-c]", "[12]", 0..4);
        let list = (entries, any::<prop::sample::Index>()).prop_map(|(map, turn)| {
            let mut all: Vec<Value> =
                map.iter().map(|(name, digest)| json!({"name": name, "digest": digest})).collect();
            if !all.is_empty() {
                let by = turn.index(all.len());
                all.rotate_left(by);
            }
            Value::from(all)
        });
        let port = prop_oneof![list, "[12]".prop_map(Value::from)];
        prop::collection::btree_map("[p-r]", port, 0..3).prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

        #[test]
        fn whatever_differs_is_told(a in any_inputs(), b in any_inputs()) {
            prop_assert_eq!(told(&a, &b).is_empty(), a == b, "{} {}", a, b);
        }
    }
}
