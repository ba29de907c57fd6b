//! Two documents whose leaves look the same and that differ all the same: `{a.b: 1}` and `{a: {b: 1}}`.
//! It does not know what the documents are.

use serde_json::Value;

use super::super::canonical;
use super::{Difference, join};

/// The deepest place that holds all of the difference.
pub(super) fn apart(path: String, old: &Value, new: &Value) -> Difference {
    let differ = |old: &Value, new: &Value| canonical(old) != canonical(new);
    let below = match (old, new) {
        (Value::Object(one), Value::Object(other)) if one.keys().eq(other.keys()) => {
            let mut changed = one.iter().filter(|(key, value)| differ(value, &other[*key]));
            let only = changed.next().filter(|_| changed.next().is_none());
            only.map(|(key, value)| (join(&path, key), value, &other[key]))
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
        None => Difference { path, old: Some(old.to_string()), new: Some(new.to_string()) },
    }
}

#[cfg(test)]
mod tests {
    use super::super::diff;
    use serde_json::{Value, json};

    /// Their keys differ, so that the step runs again: that must not be without a reason.
    #[test]
    fn documents_whose_leaves_look_the_same_differ() {
        let told = |old: Value, new: Value| {
            let found = diff(&json!({ "params": old }), &json!({ "params": new }));
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
}
