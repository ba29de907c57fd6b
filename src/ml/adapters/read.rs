//! Reads a folder of PEFT or AdapterHub: which format it is, who reads its configuration, and that the tensors of the
//! file and those of the configuration are the same, both ways. It does not know any way of adapting.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tch::Kind;

use super::arm::{ADAPTERS, Attached};
use super::fields::{Fields, wrong};

use super::format::{CONFIG, Format, Plan, Taken};
use super::sidecar;
use crate::error::{Place, Problem, Result};
use crate::ml::models::Model;
use crate::ml::weights::{self, Shapes, Stored, Tensors};

/// What a folder holds.
pub struct Read {
    /// The adapters, attached.
    pub adapters: Vec<Attached>,
    /// What a user should be told.
    pub notes: Vec<String>,
    /// The fingerprint of the base that the side-car names.
    pub base: Option<String>,
}

/// One adapter's folder, or the folders of several below it.
pub fn parts(folder: &Path) -> Result<Vec<PathBuf>> {
    if folder.join(CONFIG).exists() {
        return Ok(vec![folder.to_owned()]);
    }
    let below = ADAPTERS.iter().map(|entry| folder.join(entry.name));
    let parts: Vec<PathBuf> = below.filter(|part| part.join(CONFIG).exists()).collect();
    if parts.is_empty() {
        return Err(Problem::new(format!("no {CONFIG} in {}", folder.display()))
            .expected("a folder written by PEFT, AdapterHub or the step kind `train`"));
    }
    Ok(parts)
}

/// Reads and attaches what one folder holds.
pub fn adapters(folder: &Path, model: &dyn Model) -> Result<Read> {
    let path = folder.join(CONFIG);
    let shown = || path.display().to_string();
    let text = fs::read_to_string(&path).map_err(|e| Problem::io("read", &path, &e))?;
    let config: Value = serde_json::from_str(&text)
        .map_err(|e| Problem::new(format!("not JSON: {e}")).in_file(shown(), Some(e.line() as u64)))?;
    attach(folder, &config, &text, model)
        .map_err(|problem| if problem.place == Place::Nowhere { problem.in_file(shown(), None) } else { problem })
}

fn attach(folder: &Path, config: &Value, text: &str, model: &dyn Model) -> Result<Read> {
    let format = if config.get("peft_type").is_some() { Format::Peft } else { Format::AdapterHub };
    let plans = match format {
        Format::Peft => vec![peft(&Fields::with_text(config, text)?, model)?],
        Format::AdapterHub => adapterhub(config, model)?,
    };
    let mut expected = Shapes::new();
    let (mut aliases, mut notes) = (std::collections::BTreeMap::new(), Vec::new());
    let mut builds = Vec::new();
    for plan in plans {
        for (name, shape) in plan.shapes {
            if expected.insert(name.clone(), shape).is_some() {
                return Err(Problem::new(format!("two parts of the union claim the tensor `{name}`")));
            }
        }
        aliases.extend(plan.aliases);
        notes.extend(plan.notes);
        builds.push(plan.build);
    }
    let path = folder.join(format.weights());
    let rename = |name: &str| match format {
        Format::Peft => without_adapter_name(name),
        Format::AdapterHub => name.to_owned(),
    };
    let tensors = tensors(&path, format, &expected, &aliases, rename, model)?;
    let mut taken = Taken(tensors);
    let adapters = builds.into_iter().map(|build| build(&mut taken)).collect::<Result<Vec<_>>>()?;
    let base = sidecar::check(folder, &path, &adapters)?;
    Ok(Read { adapters, notes, base })
}

fn peft(fields: &Fields, model: &dyn Model) -> Result<Plan> {
    let kind = fields.text("peft_type", "")?;
    let readers = || ADAPTERS.iter().filter_map(|entry| entry.peft);
    let (_, reader) = readers().find(|(name, _)| *name == kind).ok_or_else(|| {
        let known: Vec<String> = readers().map(|(name, _)| format!("`{name}`")).collect();
        Problem::new(format!("adapters of the kind `{kind}` are not supported"))
            .expected(format!("`peft_type` {}, or an adapter of AdapterHub", known.join(" or ")))
    })?;
    match fields.text("task_type", "CAUSAL_LM")? {
        "CAUSAL_LM" => reader(fields, "", model),
        other => Err(Problem::new(format!("the option `task_type: {other}` is not supported")).expected("`CAUSAL_LM`")),
    }
}

/// The plans of an adapter, or of the parts of a union.
fn adapterhub(whole: &Value, model: &dyn Model) -> Result<Vec<Plan>> {
    let fields = Fields::of(whole)?;
    let Some(config) = fields.get("config") else {
        return Err(Problem::new("neither an adapter of PEFT nor of AdapterHub")
            .expected("`peft_type`, or AdapterHub's `config` and `name`"));
    };
    if config.is_string() {
        return Err(wrong("config", config, "the configuration itself, as AdapterHub writes it"));
    }
    let name = fields.get("name").ok_or_else(|| Problem::new("`name` is missing"))?;
    let name = name.as_str().filter(|name| !name.is_empty()).ok_or_else(|| wrong("name", name, "a name"))?;
    let width = model.config().hidden_size;
    if let Some(size) = fields.get("hidden_size").filter(|size| size.as_i64() != Some(width)) {
        return Err(Problem::new(format!("the adapter is for a model of width {size}, this one has {width}")));
    }
    let mut config = config.clone();
    for_its_version(fields.text("version", "")?, &mut config);
    let config = Fields::of(&config)?;
    if config.text("architecture", "")? != "union" {
        return Ok(vec![one(&config, name, model)?]);
    }
    let list = config.get("configs").and_then(Value::as_array).filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| Problem::new("`configs` of the union is not a list of configurations"))?;
    list.iter().map(|part| one(&Fields::of(part)?, name, model)).collect()
}

fn one(config: &Fields, name: &str, model: &dyn Model) -> Result<Plan> {
    let entry = ADAPTERS.iter().find(|entry| (entry.claims)(config)).ok_or_else(|| {
        let kind = config.text("architecture", "bottleneck").unwrap_or("unknown");
        Problem::new(format!("adapters of the kind `{kind}` are not supported"))
            .expected("AdapterHub's bottleneck, `lora`, or a `union` of them")
    })?;
    (entry.adapterhub)(config, name, model)
}

/// What AdapterHub 1.3 changes in a configuration of an older version (`loading.py`).
fn for_its_version(version: &str, config: &mut Value) {
    let text = |config: &Value, field: &str| config.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    if version.is_empty() {
        // `ACTIVATION_RENAME`: GPT-2's function was called `gelu`.
        let renamed = match text(config, "non_linearity").as_str() {
            "gelu" => "gelu_new",
            "gelu_orig" => "gelu",
            _ => return,
        };
        config["non_linearity"] = Value::from(renamed);
        return;
    }
    // Before 1.1 LoRA's scale was 1 whatever α was (adapters#770).
    let old = version.strip_prefix("adapters.").is_some_and(before_1_1);
    if old && text(config, "architecture") == "lora" && config.get("r") != config.get("alpha") {
        config["alpha"] = config["r"].clone();
    }
}

/// True for versions below 1.1.0, its own pre-releases among them.
fn before_1_1(version: &str) -> bool {
    let mut parts = version.split('.');
    let mut number = || {
        let part = parts.next().unwrap_or("0");
        let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        (part[..digits].parse::<u64>().unwrap_or(0), digits < part.len())
    };
    let numbers = [number(), number(), number()];
    let release = [numbers[0].0, numbers[1].0, numbers[2].0];
    let pre = numbers.iter().any(|(_, suffix)| *suffix) || version.contains("dev");
    release < [1, 1, 0] || (release == [1, 1, 0] && pre)
}

/// PEFT's file without the adapter's name; `default` in its place is accepted, as PEFT does.
fn without_adapter_name(name: &str) -> String {
    let mut name = name.to_owned();
    for part in ["lora_A", "lora_B", "lora_magnitude_vector", "ia3_l"] {
        name = name.replace(&format!(".{part}.default"), &format!(".{part}"));
    }
    match name.strip_suffix(".weight") {
        Some(short) if short.ends_with(".lora_magnitude_vector") => short.to_owned(),
        _ => name,
    }
}

/// Checks the tensors of an adapter's file against those that there must be before it reads them, and hands them out
/// in f32 on the model's device.
fn tensors(
    path: &Path,
    format: Format,
    expected: &Shapes,
    aliases: &std::collections::BTreeMap<String, String>,
    rename: impl Fn(&str) -> String,
    model: &dyn Model,
) -> Result<Tensors> {
    let pickled = path.with_file_name(format.pickled());
    if !path.exists() && pickled.exists() {
        return Err(weights::pickle(&pickled));
    }
    let file = Stored::open(path)?;
    let shown = |problem: Problem| problem.in_file(path.display().to_string(), None);
    if expected.is_empty() {
        return Err(shown(Problem::new("the adapter attaches to nothing: it names no layer of this model")));
    }
    let names: Vec<String> = file.shapes().into_keys().collect();
    // AdapterHub writes no `model.` where the adapter was on a model without its head.
    let headless = headless(format, expected, &names);
    let rename = |name: &str| rename(&format!("{headless}{name}"));
    let mut found = Shapes::new();
    for (name, shape) in file.shapes() {
        if found.insert(rename(&name), shape).is_some() {
            return Err(shown(Problem::new(format!("tensor `{}` stands there twice", rename(&name)))));
        }
    }
    let mut twice = Vec::new();
    for (alias, name) in aliases {
        let Some(shape) = found.remove(alias) else { continue };
        twice.push((alias, name));
        found.entry(name.clone()).or_insert(shape);
    }
    weights::cover(expected, &found).map_err(|problem| {
        shown(Problem { what: format!("the adapter is not loaded: {}", problem.what), ..problem })
    })?;
    let tensors = file.tensors(Some(Kind::Float), model.device())?;
    let mut tensors: Tensors = tensors.into_iter().map(|(name, tensor)| (rename(&name), tensor)).collect();
    for (alias, name) in twice {
        let Some(other) = tensors.remove(alias) else { continue };
        let known = tensors.entry(name.clone()).or_insert_with(|| other.shallow_clone());
        if known.size() != other.size() || !known.equal(&other) {
            return Err(shown(
                Problem::new(format!("`{alias}` is another tensor than `{name}`"))
                    .expected("the same values under both names"),
            ));
        }
    }
    Ok(tensors)
}

/// `model.`, if the tensors that there must be start with it and none of the file does.
fn headless(format: Format, expected: &Shapes, names: &[String]) -> String {
    let first = expected.keys().next().and_then(|name| name.split('.').next()).unwrap_or_default();
    let prefix = format!("{first}.");
    let bare = format == Format::AdapterHub && !names.iter().any(|name| name.starts_with(&prefix));
    if bare { prefix } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_are_read_as_adapterhub_reads_them() {
        for (version, old) in
            [("1.0.1", true), ("0.2.2", true), ("1.1.0", false), ("1.1.0.dev0", true), ("1.3.0", false)]
        {
            assert_eq!(before_1_1(version), old, "{version}");
        }
        let fixed = |version: &str, config: Value| {
            let mut config = config;
            for_its_version(version, &mut config);
            config
        };
        let lora = serde_json::json!({"architecture": "lora", "r": 4, "alpha": 8});
        assert_eq!(fixed("adapters.1.0.0", lora.clone())["alpha"], 4);
        assert_eq!(fixed("adapters.1.1.0", lora.clone())["alpha"], 8);
        let bottleneck = serde_json::json!({"non_linearity": "gelu"});
        assert_eq!(fixed("", bottleneck.clone())["non_linearity"], "gelu_new");
        assert_eq!(fixed("3.0.0", bottleneck)["non_linearity"], "gelu");
    }

    #[test]
    fn the_adapters_name_leaves_the_tensors_name() {
        for (name, plain) in [
            ("x.lora_A.default.weight", "x.lora_A.weight"),
            ("x.lora_A.weight", "x.lora_A.weight"),
            ("x.lora_magnitude_vector.default.weight", "x.lora_magnitude_vector"),
            ("x.lora_magnitude_vector", "x.lora_magnitude_vector"),
            ("x.ia3_l.default", "x.ia3_l"),
        ] {
            assert_eq!(without_adapter_name(name), plain);
        }
    }
}
