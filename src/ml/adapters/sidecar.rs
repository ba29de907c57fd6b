//! `pipe_adapter.json` beside an adapter: what its format does not say, so that a changed α, lost tensors or another
//! base are noticed. It does not know ways of adapting: each says itself what decides what it computes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::arm::Attached;
use crate::error::{Problem, Result};
use crate::ml::config::ModelConfig;
use crate::ml::weights::{self, Stored};

/// The file.
pub const FILE: &str = "pipe_adapter.json";
const FORMAT: &str = "pipe adapter 1";

/// What stands in it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SideCar {
    format: String,
    /// The fingerprint of the weights of the base, if it was known.
    base: Option<String>,
    /// What decides what the adapters compute, besides their tensors: scales, places, functions.
    adapters: Vec<Value>,
    /// blake3 of every tensor of the file.
    tensors: BTreeMap<String, String>,
    /// `config.json` of the base: from it the adapter can be converted without the base.
    model: Value,
}

/// Writes it beside the tensors in `file`.
pub fn write(folder: &Path, file: &Path, adapters: &[Attached], model: &ModelConfig, base: Option<&str>) -> Result<()> {
    let all = SideCar {
        format: FORMAT.to_owned(),
        base: base.map(str::to_owned),
        adapters: adapters.iter().map(|adapter| adapter.definition()).collect(),
        tensors: Stored::open(file)?.digests()?,
        model: model.to_value(),
    };
    let path = folder.join(FILE);
    let text = serde_json::to_value(&all).map_err(|e| Problem::new(format!("cannot write {FILE}: {e}")))?;
    fs::write(&path, format!("{text:#}\n")).map_err(|e| Problem::io("write", &path, &e))
}

fn read(folder: &Path) -> Result<Option<(PathBuf, SideCar)>> {
    let path = folder.join(FILE);
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path).map_err(|e| Problem::io("read", &path, &e))?;
    let all: SideCar = serde_json::from_str(&text).map_err(|e| {
        Problem::new(format!("not a side-car of an adapter: {e}"))
            .in_file(path.display().to_string(), Some(e.line() as u64))
    })?;
    if all.format != FORMAT {
        return Err(Problem::new(format!("the side-car has the format `{}`", all.format))
            .expected(format!("`{FORMAT}`"))
            .in_file(path.display().to_string(), None));
    }
    Ok(Some((path, all)))
}

/// The configuration of the base that a folder's side-car keeps.
pub fn model(folder: &Path) -> Result<Option<ModelConfig>> {
    let Some((path, all)) = read(folder)? else { return Ok(None) };
    let config = ModelConfig::from_value(&all.model);
    config.map(Some).map_err(|problem| problem.in_file(path.display().to_string(), None))
}

/// Compares adapters that were read with the side-car beside them, if there is one: the tensors of `file` and what
/// decides what they compute. Gives the fingerprint of the base.
pub fn check(folder: &Path, file: &Path, adapters: &[Attached]) -> Result<Option<String>> {
    let Some((path, all)) = read(folder)? else { return Ok(None) };
    let fail = |what: String| {
        Err(Problem::new(what)
            .in_file(path.display().to_string(), None)
            .help(format!("the adapter was changed after it was written; without {FILE} it is read as it is")))
    };
    let found = Stored::open(file)?.digests()?;
    let missing = all.tensors.keys().find(|name| !found.contains_key(*name));
    if let Some(name) = missing {
        return fail(format!("the tensor `{name}` is missing: it was written with {} tensors", all.tensors.len()));
    }
    if let Some(name) = found.keys().find(|name| !all.tensors.contains_key(*name)) {
        return fail(format!("the tensor `{name}` was not written with it"));
    }
    if let Some((name, _)) = found.iter().find(|(name, digest)| all.tensors[*name] != **digest) {
        return fail(format!("the tensor `{name}` has other values than it was written with"));
    }
    if all.adapters.len() != adapters.len() {
        return fail(format!("it was written with {} adapters, and {} were read", all.adapters.len(), adapters.len()));
    }
    for (adapter, written) in adapters.iter().zip(&all.adapters) {
        if let Some((place, now, then)) = difference(&adapter.definition(), written, "") {
            return fail(format!("`{place}` is {now} by the configuration, but was {then} when it was written"));
        }
    }
    Ok(all.base)
}

/// The first place where two values differ, and both there.
fn difference(now: &Value, then: &Value, place: &str) -> Option<(String, String, String)> {
    let join = |key: &str| if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") };
    match (now, then) {
        (Value::Object(now), Value::Object(then)) => {
            let keys: std::collections::BTreeSet<&String> = now.keys().chain(then.keys()).collect();
            let none = Value::Null;
            keys.into_iter()
                .find_map(|key| difference(now.get(key).unwrap_or(&none), then.get(key).unwrap_or(&none), &join(key)))
        }
        (Value::Number(a), Value::Number(b)) if a.as_f64() == b.as_f64() => None,
        _ if now == then => None,
        _ => Some((place.to_owned(), now.to_string(), then.to_string())),
    }
}

/// Fails unless `checkpoint` holds the weights with this fingerprint.
pub fn check_base(fingerprint: &str, checkpoint: &Path) -> Result<()> {
    let found = weights::fingerprint(checkpoint)?;
    if found.as_str() == fingerprint {
        return Ok(());
    }
    let short = |text: &str| text.chars().take(12).collect::<String>();
    Err(Problem::new(format!(
        "the adapter was trained on another base: on weights {}…, but this base holds {}…",
        short(fingerprint),
        found.short()
    ))
    .help(format!("give it the base it was trained on; without {FILE} beside it nobody would know")))
}
