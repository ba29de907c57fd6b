//! Names of arms for people: `lora_grid[rank=4]` → «LoRA r=4».
//! It does not know figures.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::comparison::{Adapter, Arm, BASE};

/// The title of an arm: what `given` says for its name or its step, else by its kinds of adapters,
/// followed by its coordinates.
pub fn title(
    name: &str,
    adapters: &[Adapter],
    coordinates: &BTreeMap<String, Value>,
    given: &BTreeMap<String, String>,
) -> String {
    if let Some(title) = given.get(name) {
        return title.clone();
    }
    let step = name.split('[').next().unwrap_or(name);
    let known = given.get(step).cloned().or_else(|| default(step).map(str::to_owned));
    let kinds = || adapters.iter().map(|adapter| kind(&adapter.kind)).collect::<Vec<_>>().join(" + ");
    let mut title = known.unwrap_or_else(|| if adapters.is_empty() { step.to_owned() } else { kinds() });
    let parts: Vec<String> =
        coordinates.iter().map(|(axis, value)| format!("{}={}", short(axis), plain(value))).collect();
    if !parts.is_empty() {
        title.push(' ');
        title.push_str(&parts.join(", "));
    }
    title
}

/// Adds the name to titles that several arms share.
pub fn tell_apart(arms: &mut [Arm]) {
    let mut seen = BTreeSet::new();
    let shared: BTreeSet<String> =
        arms.iter().filter(|arm| !seen.insert(arm.title.clone())).map(|arm| arm.title.clone()).collect();
    for arm in arms {
        if shared.contains(&arm.title) {
            arm.title = format!("{} ({})", arm.title, arm.name);
        }
    }
}

fn default(name: &str) -> Option<&'static str> {
    match name {
        BASE => Some("Базовая модель"),
        "lora" => Some("LoRA"),
        "mlp" => Some("MLP"),
        "dora" => Some("DoRA"),
        "ia3" => Some("IA3"),
        "both" | "lora_mlp" => Some("LoRA + MLP"),
        _ => None,
    }
}

fn kind(kind: &str) -> String {
    default(kind).map_or_else(|| kind.to_owned(), str::to_owned)
}

/// How papers write an axis.
pub fn short(axis: &str) -> &str {
    match axis.rsplit('.').next().unwrap_or(axis) {
        "rank" => "r",
        "alpha" => "α",
        "hidden_size" => "h",
        other => other,
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lora() -> Vec<Adapter> {
        vec![serde_json::from_value(json!({"kind": "lora", "rank": 4})).expect("an adapter")]
    }

    #[test]
    fn cells_are_named_by_kind_and_coordinates() {
        let cell = BTreeMap::from([("rank".to_owned(), json!(4)), ("alpha".to_owned(), json!(8))]);
        assert_eq!(title("lora_grid[alpha=8,rank=4]", &lora(), &cell, &BTreeMap::new()), "LoRA α=8, r=4");
        let given = BTreeMap::from([("lora_grid".to_owned(), "Сетка".to_owned())]);
        assert_eq!(title("lora_grid[alpha=8,rank=4]", &lora(), &cell, &given), "Сетка α=8, r=4");
    }

    #[test]
    fn plain_arms_have_plain_titles() {
        assert_eq!(title("base", &[], &BTreeMap::new(), &BTreeMap::new()), "Базовая модель");
        assert_eq!(title("second", &lora(), &BTreeMap::new(), &BTreeMap::new()), "LoRA");
    }
}
