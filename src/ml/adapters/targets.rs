//! Which projections an adapter means: PEFT's rules for names, regular expressions, layers and patterns.
//! It does not know tensors: a projection is a module's name and its layer.

use std::borrow::Cow;

use regex::{Regex, RegexBuilder};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::{Problem, Result};

/// What `target_modules` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Targets {
    /// Names, or the last parts of names.
    List(Vec<String>),
    /// `all-linear`, or a regular expression that a module's whole name must match.
    Text(String),
}

impl Serialize for Targets {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::List(names) => names.serialize(serializer),
            Self::Text(text) => text.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Targets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Either;
        impl<'de> de::Visitor<'de> for Either {
            type Value = Targets;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of names, `all-linear`, or a regular expression")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<Targets, E> {
                Ok(Targets::Text(text.to_owned()))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, list: A) -> std::result::Result<Targets, A::Error> {
                Vec::deserialize(de::value::SeqAccessDeserializer::new(list)).map(Targets::List)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Targets {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Targets".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            {"type": "array", "items": {"type": "string"}, "minItems": 1},
            {"type": "string", "minLength": 1},
        ]})
    }
}

/// True if `target` names the module: all of its name, or the last parts of it (PEFT's rule for lists).
pub fn targets(target: &str, module: &str) -> bool {
    module.strip_suffix(target).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// A regular expression of a configuration: Rust's engine runs in linear time, whatever it is given. What Python's
/// `re` has beyond regular languages (look-around, back-references) is refused.
pub fn expression(pattern: &str) -> Result<Regex> {
    RegexBuilder::new(pattern).size_limit(1 << 20).build().map_err(|_| {
        Problem::new(format!("the regular expression `{pattern}` is not supported"))
            .expected("one without look-around and back-references")
    })
}

/// What matches a module's name.
#[derive(Debug)]
enum Matcher {
    All,
    List(Vec<String>),
    Whole(Regex),
}

impl Matcher {
    fn of(wanted: &Targets) -> Result<Self> {
        Ok(match wanted {
            // PEFT compares in lower case.
            Targets::Text(text) if text.to_lowercase() == "all-linear" => Self::All,
            // Alone too: `a)(b` is none, but would be one inside the group.
            Targets::Text(text) => Self::Whole(expression(text).and(expression(&format!(r"\A(?:{text})\z")))?),
            Targets::List(names) => Self::List(names.clone()),
        })
    }

    fn takes(&self, module: &str) -> bool {
        match self {
            Self::All => true,
            Self::List(names) => names.iter().any(|name| targets(name, module)),
            Self::Whole(regex) => regex.is_match(module),
        }
    }
}

/// Chooses projections as PEFT's `check_target_module_exists` does.
#[derive(Debug)]
pub struct Selector {
    wanted: Matcher,
    excluded: Option<Matcher>,
    layers: Option<Vec<i64>>,
    /// `layers_pattern`, each with the layer as its first group.
    containers: Vec<Regex>,
}

impl Selector {
    /// Takes what `wanted` means, in all layers.
    pub fn new(wanted: &Targets) -> Result<Self> {
        Ok(Self { wanted: Matcher::of(wanted)?, excluded: None, layers: None, containers: Vec::new() })
    }

    /// Takes nothing of `excluded`.
    pub fn without(mut self, excluded: Option<&Targets>) -> Result<Self> {
        self.excluded = excluded.map(Matcher::of).transpose()?;
        Ok(self)
    }

    /// Takes these layers only. `containers` are the names of lists of layers (`layers_pattern`): a module in none of
    /// them is not taken.
    pub fn within(mut self, layers: Option<&[i64]>, containers: &[String]) -> Result<Self> {
        self.layers = layers.map(<[i64]>::to_vec);
        let one = |name: &String| expression(&format!(r"\A(?:|.*?\.)(?:{name})\.(\d+)\."));
        self.containers = containers.iter().map(one).collect::<Result<_>>()?;
        Ok(self)
    }

    /// True if the projection is one that is meant.
    pub fn takes(&self, module: &str, layer: i64) -> bool {
        if self.excluded.as_ref().is_some_and(|excluded| excluded.takes(module)) || !self.wanted.takes(module) {
            return false;
        }
        let Some(layers) = &self.layers else { return true };
        if self.containers.is_empty() {
            return layers.contains(&layer);
        }
        let found = self.containers.iter().find_map(|regex| regex.captures(module));
        let index = found.and_then(|groups| groups.get(1)?.as_str().parse::<i64>().ok());
        index.is_some_and(|index| layers.contains(&index))
    }

    /// The names of the list that mean none of these modules; a regular expression that means none, as itself.
    pub fn idle<'a>(&self, modules: impl Iterator<Item = &'a str> + Clone) -> Vec<String> {
        match &self.wanted {
            Matcher::All => Vec::new(),
            Matcher::List(names) => {
                names.iter().filter(|name| !modules.clone().any(|m| targets(name, m))).cloned().collect()
            }
            Matcher::Whole(regex) if modules.clone().any(|module| regex.is_match(module)) => Vec::new(),
            Matcher::Whole(regex) => vec![regex.as_str().to_owned()],
        }
    }
}

/// The value of the first key of a `rank_pattern` or `alpha_pattern` that means the module. PEFT reads a key as a
/// regular expression of the end of the name: `get_pattern_key` of peft 0.21.
pub struct Patterns<T>(Vec<(Regex, T)>);

impl<T: Copy> Patterns<T> {
    /// Of the entries in the order of the file.
    pub fn new<'a>(entries: impl IntoIterator<Item = (&'a str, T)>) -> Result<Self> {
        let one = |(key, value): (&'a str, T)| Ok((expression(&format!(r"\A(?:.*\.)?(?:{key})\z"))?, value));
        entries.into_iter().map(one).collect::<Result<_>>().map(Self)
    }

    /// The value for a module.
    pub fn value(&self, module: &str) -> Option<T> {
        self.0.iter().find(|(regex, _)| regex.is_match(module)).map(|(_, value)| *value)
    }
}

/// The shortest list of targets that means exactly these modules: last names with layers, else whole names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What `target_modules` says, sorted.
    pub names: Vec<String>,
    /// The layers, sorted, unless they are all.
    pub layers: Option<Vec<i64>>,
}

impl Rule {
    /// Of the chosen ones among all projections, given as (name, layer).
    pub fn of(chosen: &[(&str, i64)], all: &[(&str, i64)]) -> Self {
        let sorted = |mut list: Vec<i64>| {
            list.sort_unstable();
            list.dedup();
            list
        };
        let layers = sorted(chosen.iter().map(|(_, layer)| *layer).collect());
        let layers = (layers != sorted(all.iter().map(|(_, layer)| *layer).collect())).then_some(layers);
        for parts in [1, 2] {
            let mut names: Vec<String> = chosen.iter().map(|(name, _)| last(name, parts).to_owned()).collect();
            names.sort();
            names.dedup();
            let means = |(name, layer): &(&str, i64)| {
                layers.as_ref().is_none_or(|layers| layers.contains(layer)) && names.iter().any(|t| targets(t, name))
            };
            if all.iter().filter(|site| means(site)).count() == chosen.len() {
                return Self { names, layers };
            }
        }
        let mut names: Vec<String> = chosen.iter().map(|(name, _)| (*name).to_owned()).collect();
        names.sort();
        Self { names, layers: None }
    }
}

/// The last so many parts of a dotted name.
pub fn last(name: &str, parts: usize) -> &str {
    let at = name.rmatch_indices('.').nth(parts - 1).map_or(0, |(at, _)| at + 1);
    &name[at..]
}

#[cfg(test)]
mod tests {
    use super::*;

    const Q: &str = "model.layers.0.self_attn.q_proj";

    fn list(names: &[&str]) -> Targets {
        Targets::List(names.iter().map(|name| (*name).to_owned()).collect())
    }

    fn text(text: &str) -> Targets {
        Targets::Text(text.to_owned())
    }

    #[test]
    fn a_target_is_a_whole_last_part() {
        assert!(targets("q_proj", Q) && targets("self_attn.q_proj", Q) && targets(Q, Q));
        assert!(!targets("proj", Q));
    }

    #[test]
    fn expressions_match_whole_names_and_cannot_hang() {
        let takes = |pattern: &str| Selector::new(&text(pattern)).map(|s| s.takes(Q, 0));
        assert!(takes(r".*\.(q|v)_proj").unwrap() && takes("ALL-linear").unwrap());
        assert!(!takes("q_proj").unwrap() && !takes("a|b").unwrap());
        assert!(takes(&format!("nothing|{}", Q.replace('.', r"\."))).unwrap());
        assert!(!takes("(a*)*b").unwrap());
        for refused in [r"(?=q).*", r"(.)\1", "(", "x{1000000000}"] {
            assert!(takes(refused).unwrap_err().to_string().contains(refused));
        }
    }

    #[test]
    fn layers_and_exclusions_narrow_the_choice() {
        let selector = |layers: &[i64], containers: &[&str]| {
            let containers: Vec<String> = containers.iter().map(|name| (*name).to_owned()).collect();
            Selector::new(&list(&["q_proj"])).unwrap().within(Some(layers), &containers).unwrap()
        };
        assert!(selector(&[0], &[]).takes(Q, 0) && !selector(&[1], &[]).takes(Q, 0));
        assert!(selector(&[0], &["h", "layers"]).takes(Q, 0) && !selector(&[0], &["h"]).takes(Q, 0));
        let without = |excluded: Targets| Selector::new(&text("all-linear")).unwrap().without(Some(&excluded)).unwrap();
        assert!(!without(list(&["q_proj"])).takes(Q, 0) && without(list(&["k_proj"])).takes(Q, 0));
        assert!(!without(text(r".*layers\.0\..*")).takes(Q, 0));
    }

    #[test]
    fn the_first_pattern_that_means_a_module_decides() {
        let rank = |patterns: &[(&'static str, i64)]| Patterns::new(patterns.iter().copied()).unwrap().value(Q);
        assert_eq!(rank(&[("q_proj", 2), (r"layers\.0\.self_attn\.q_proj", 6)]), Some(2));
        assert_eq!(rank(&[(r"layers\.0\.self_attn\.q_proj", 6), ("q_proj", 2)]), Some(6));
        assert_eq!(rank(&[("proj", 2)]), None);
        assert_eq!(rank(&[(".*proj", 3)]), Some(3));
        assert_eq!(rank(&[("^model.layers.0.self_attn.q_proj", 4)]), Some(4));
        assert_eq!(rank(&[("^layers.0.self_attn.q_proj", 4)]), None);
        assert_eq!(rank(&[("v_proj|q_proj", 5)]), Some(5));
    }

    #[test]
    fn the_rule_of_a_choice_means_that_choice_and_no_more() {
        let all: Vec<(String, i64)> = (0..3)
            .flat_map(|layer| ["attn.c_attn", "attn.c_proj", "mlp.c_proj"].map(|m| (format!("h.{layer}.{m}"), layer)))
            .collect();
        let all: Vec<(&str, i64)> = all.iter().map(|(name, layer)| (name.as_str(), *layer)).collect();
        let rule = |keep: &dyn Fn(&str, i64) -> bool| {
            let chosen: Vec<_> = all.iter().copied().filter(|(name, layer)| keep(name, *layer)).collect();
            let rule = Rule::of(&chosen, &all);
            let selector = Selector::new(&Targets::List(rule.names.clone())).unwrap();
            let selector = selector.within(rule.layers.as_deref(), &[]).unwrap();
            assert_eq!(all.iter().copied().filter(|(n, l)| selector.takes(n, *l)).collect::<Vec<_>>(), chosen);
            rule
        };
        assert_eq!(rule(&|name, _| name.ends_with("c_proj")), Rule { names: vec!["c_proj".into()], layers: None });
        let narrow = rule(&|name, layer| name.ends_with("mlp.c_proj") && layer != 1);
        assert_eq!(narrow, Rule { names: vec!["mlp.c_proj".into()], layers: Some(vec![0, 2]) });
        let odd = rule(&|name, layer| name.ends_with("c_attn") || layer == 2 && name.starts_with("h.2.mlp"));
        assert_eq!((odd.names.len(), odd.layers), (4, None));
    }
}
