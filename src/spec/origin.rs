//! Where the value of a parameter comes from: a place in the file, or the `--set` that gave it.
//! It does not know what changed, nor why anybody asks.

use std::ops::Range;
use std::path::Path as FilePath;

use serde_json::Value;

use crate::error::Path;

use super::document::{self, Document, RawStep};
use super::load::{self, Options};
use super::node::{self, Node};
use super::pipeline::Step;
use super::problems::{Findings, Focus};
use super::{locate, reference, substitute};

/// The text of a pipeline file, to be asked for places.
pub struct Origins {
    file: String,
    source: String,
    document: Document,
    profile: Option<String>,
    sets: Vec<String>,
}

impl Origins {
    /// Reads a pipeline file; `None` if it cannot be read any more.
    pub fn read(file: &FilePath, options: &Options) -> Option<Self> {
        let source = load::read(file).ok()?;
        let source = source.strip_prefix('\u{feff}').unwrap_or(&source).to_owned();
        let mut findings = Findings::default();
        let document = document::read(node::parse(&source, &mut findings)?, &mut findings);
        let (profile, sets) = (options.profile.clone(), options.sets.clone());
        Some(Self { file: file.display().to_string(), source, document, profile, sets })
    }

    /// Where a field of a step's manifest was written: `pipelines/x.yaml:31:11`, or `--set lora.rank=8`. `None` for
    /// what nobody wrote: a default, a version, the machine.
    pub fn of(&self, step: &Step, field: &str) -> Option<String> {
        let raw = self.document.steps.iter().find(|raw| raw.name == step.name)?;
        let place = Path::root().key("steps").key(&raw.name);
        if let Some(port) = field.strip_prefix("inputs.") {
            let port = port.split(['.', '[']).next().unwrap_or(port);
            raw.inputs.iter().find(|(name, _)| name == port)?;
            return self.place(&place.key("in").key(port));
        }
        let rest = field.strip_prefix("params")?;
        self.value(&raw.with, place.key("with"), rest.trim_start_matches('.'), raw, step)
    }

    /// Follows `rest` below a value of the file, and through `${…}`.
    fn value(&self, node: &Node, place: Path, rest: &str, raw: &RawStep, step: &Step) -> Option<String> {
        match node {
            Node::Text(text) => match substitute::whole_name(text) {
                Some(name) => self.name(name, rest, raw, step),
                // A text that names stand in: whatever was set by hand is what a reader looks for.
                None => substitute::names(text)
                    .into_iter()
                    .find_map(|name| self.set(&parameter(name, "")?))
                    .or_else(|| self.place(&place)),
            },
            Node::Map(entries) if !rest.is_empty() => {
                let (key, value, rest) = entries.iter().find_map(|(key, value)| {
                    let rest = rest.strip_prefix(key.as_str())?;
                    (rest.is_empty() || rest.starts_with(['.', '['])).then_some((key, value, rest))
                })?;
                self.value(value, place.key(key), rest.trim_start_matches('.'), raw, step)
            }
            Node::List(items) => {
                let index = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
                match index.and_then(|(i, rest)| Some((i.parse::<usize>().ok()?, rest))) {
                    Some((i, rest)) if i < items.len() => {
                        self.value(&items[i], place.index(i), rest.trim_start_matches('.'), raw, step)
                    }
                    _ => self.place(&place),
                }
            }
            _ => self.place(&place),
        }
    }

    /// What `${name}` stands for, and `rest` below it.
    fn name(&self, name: &str, rest: &str, raw: &RawStep, step: &Step) -> Option<String> {
        if let Some(axis) = name.strip_prefix("matrix.") {
            return self.coordinate(axis.trim(), raw, step);
        }
        let parameter = parameter(name, rest)?;
        self.set(&parameter).or_else(|| self.profiled(&parameter)).or_else(|| {
            let (path, ..) = walk(&self.document.params, &parameter);
            self.place(&Path::root().key("params").join(&path))
        })
    }

    /// The last `--set` that touches a parameter.
    fn set(&self, parameter: &str) -> Option<String> {
        let touches = |set: &&String| {
            let name = set.split('=').next().unwrap_or_default().trim();
            let name = name.strip_prefix("params.").unwrap_or(name);
            below(parameter, name) || below(name, parameter)
        };
        self.sets.iter().rev().find(touches).map(|set| format!("--set {set}"))
    }

    fn profiled(&self, parameter: &str) -> Option<String> {
        let wanted = self.profile.as_ref()?;
        let (_, profile) = self.document.profiles.iter().find(|(name, _)| name == wanted)?;
        let (path, rest, value) = walk(profile, parameter);
        // A profile that gives a mapping says nothing of what is not in it.
        (!path.0.is_empty() && (rest.is_empty() || !value.is_object()))
            .then(|| self.place(&Path::root().key("profiles").key(wanted).join(&path)))?
    }

    /// The value of an axis that a cell has.
    fn coordinate(&self, axis: &str, raw: &RawStep, step: &Step) -> Option<String> {
        let place = Path::root().key("steps").key(&raw.name).key("matrix");
        let Some(Node::Map(entries)) = &raw.matrix else { return self.place(&place) };
        let wanted = step.coordinates.get(axis)?;
        let place = place.key(axis);
        match entries.iter().find(|(name, _)| name == axis) {
            Some((_, Node::List(values))) => {
                let at = values.iter().position(|value| reference::equal(&value.to_json(), wanted));
                self.place(&at.map_or(place.clone(), |at| place.index(at)))
            }
            Some((_, Node::Text(text))) => match substitute::whole_name(text) {
                Some(name) => self.name(name, "", raw, step),
                None => self.place(&place),
            },
            _ => self.place(&place),
        }
    }

    fn place(&self, path: &Path) -> Option<String> {
        let Range { start, .. } = locate::span(&self.source, path, &Focus::Value)?;
        let before = &self.source[..start];
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Some(format!("{}:{}:{column}", self.file, before.matches('\n').count() + 1))
    }
}

/// `lora.rank` of `params.lora` and `rank`.
fn parameter(name: &str, rest: &str) -> Option<String> {
    let name = name.strip_prefix("params.")?.trim();
    Some(if rest.is_empty() || rest.starts_with('[') { format!("{name}{rest}") } else { format!("{name}.{rest}") })
}

/// True if `name` is `above` or lies below it.
fn below(name: &str, above: &str) -> bool {
    name.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// As much of a dotted name as there is in a value: the path, the rest of the name, and what stands there.
fn walk<'n, 'v>(mut value: &'v Value, name: &'n str) -> (Path, &'n str, &'v Value) {
    let (mut path, mut rest) = (Path::root(), name);
    while !rest.is_empty() {
        if let Some((i, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            let Some((i, item)) = i.parse().ok().and_then(|i: usize| Some((i, value.get(i)?))) else { break };
            (path, value, rest) = (path.index(i), item, after.trim_start_matches('.'));
            continue;
        }
        let segment = rest.split(['.', '[']).next().unwrap_or_default();
        let Some(item) = value.get(segment) else { break };
        (path, value, rest) = (path.key(segment), item, rest[segment.len()..].trim_start_matches('.'));
    }
    (path, rest, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lie_below_names() {
        assert!(below("lora.rank", "lora") && below("lora", "lora") && below("layers[2]", "layers"));
        assert!(!below("lorax.rank", "lora") && !below("lora", "lora.rank"));
        let value = serde_json::json!({"a": {"b": [{"c": 1}]}});
        let path = |name| walk(&value, name).0.to_string();
        assert_eq!([path("a.b[0].c"), path("a.x.y"), path("x"), path("a.b[7]")], ["a.b[0].c", "a", "", "a.b"]);
    }
}
