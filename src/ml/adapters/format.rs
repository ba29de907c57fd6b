//! The two file formats of adapters, PEFT's and AdapterHub's: what a folder of each holds, and how it is written.
//! It does not know ways of adapting: those say themselves what stands in the files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};
use tch::Tensor;

use super::arm::Attached;
use super::sidecar;
use crate::error::{Problem, Result};
use crate::ml::config::ModelConfig;
use crate::ml::weights::{self, Shapes, Tensors};

/// The configuration of both formats.
pub const CONFIG: &str = "adapter_config.json";

/// A file format of adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Of peft 0.21.
    Peft,
    /// Of AdapterHub's adapters 1.3.
    AdapterHub,
}

impl Format {
    /// How its library is called.
    pub fn library(self) -> &'static str {
        match self {
            Self::Peft => "PEFT",
            Self::AdapterHub => "AdapterHub",
        }
    }

    /// The file of the tensors.
    pub fn weights(self) -> &'static str {
        match self {
            Self::Peft => "adapter_model.safetensors",
            Self::AdapterHub => "adapter.safetensors",
        }
    }

    /// The same in Python's own format, which is never read.
    pub fn pickled(self) -> &'static str {
        match self {
            Self::Peft => "adapter_model.bin",
            Self::AdapterHub => "pytorch_adapter.bin",
        }
    }
}

/// What a way of adapting writes.
pub struct Written {
    /// The fields of its configuration.
    pub config: Map<String, Value>,
    /// The tensors of its file.
    pub tensors: Vec<(String, Tensor)>,
}

/// What a configuration asks for, before its tensors are read.
pub struct Plan {
    /// The tensors that there must be.
    pub shapes: Shapes,
    /// Names under which a tensor of `shapes` may stand a second time, or instead.
    pub aliases: BTreeMap<String, String>,
    /// What a user should be told.
    pub notes: Vec<String>,
    /// Attaches the adapter with exactly those tensors, f32.
    #[expect(clippy::type_complexity, reason = "named by its field")]
    pub build: Box<dyn FnOnce(&mut Taken) -> Result<Attached>>,
}

/// Tensors that are taken by name.
pub struct Taken(pub Tensors);

impl Taken {
    /// The tensor of this name.
    pub fn take(&mut self, name: &str) -> Result<Tensor> {
        self.0.remove(name).ok_or_else(|| Problem::new(format!("no tensor `{name}`")))
    }
}

/// The base that an adapter belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Base<'a> {
    /// What the configuration calls it.
    pub name: &'a str,
    /// The fingerprint of its weights, for the side-car.
    pub fingerprint: Option<&'a str>,
}

impl<'a> From<&'a str> for Base<'a> {
    fn from(name: &'a str) -> Self {
        Self { name, fingerprint: None }
    }
}

/// Writes adapters into one folder, which is made.
pub fn write(format: Format, adapters: &[Attached], model: &ModelConfig, folder: &Path, base: Base) -> Result<()> {
    let (config, tensors) = match format {
        Format::Peft => peft(adapters, base.name)?,
        Format::AdapterHub => adapterhub(adapters, model, base.name)?,
    };
    fs::create_dir_all(folder).map_err(|e| Problem::io("create", folder, &e))?;
    let path = folder.join(CONFIG);
    fs::write(&path, format!("{config:#}\n")).map_err(|e| Problem::io("write", &path, &e))?;
    let path = folder.join(format.weights());
    weights::write_file(&path, &tensors)?;
    sidecar::write(folder, &path, adapters, model, base.fingerprint)
}

type Files = (Value, Vec<(String, Tensor)>);

/// Minimal keys: older PEFT fails on keys that it does not know.
fn peft(adapters: &[Attached], base: &str) -> Result<Files> {
    let [adapter] = adapters else {
        return Err(Problem::new("PEFT has no file for several kinds of adapters at once")
            .help("AdapterHub's `union` holds them: `--format adapterhub`"));
    };
    let Written { mut config, tensors } = adapter.to_peft()?;
    config.insert("base_model_name_or_path".to_owned(), Value::from(base));
    config.insert("task_type".to_owned(), Value::from("CAUSAL_LM"));
    Ok((Value::Object(config), tensors))
}

fn adapterhub(adapters: &[Attached], model: &ModelConfig, base: &str) -> Result<Files> {
    let (name, config, tensors) = match adapters {
        [adapter] => {
            let written = adapter.to_adapterhub(adapter.name())?;
            (adapter.name().to_owned(), Value::Object(written.config), written.tensors)
        }
        several => {
            let name = several.iter().map(|adapter| adapter.name()).collect::<Vec<_>>().join("_");
            let parts = several.iter().map(|adapter| adapter.to_adapterhub(&name)).collect::<Result<Vec<_>>>()?;
            let (mut configs, mut tensors) = (Vec::new(), Vec::new());
            for part in parts {
                configs.push(Value::Object(part.config));
                tensors.extend(part.tensors);
            }
            (name, json!({"architecture": "union", "configs": configs}), tensors)
        }
    };
    let whole = json!({
        "config": config,
        "hidden_size": model.hidden_size,
        "model_class": model.class,
        "model_name": base,
        "model_type": model.model_type,
        "name": name,
        "version": "adapters.1.3.0",
    });
    Ok((whole, tensors))
}

/// Python writes a whole number as one.
pub(super) fn whole(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 1e15 { Value::from(number as i64) } else { Value::from(number) }
}

/// The tensors in the order of their names.
pub(super) fn sorted(mut tensors: Vec<(String, Tensor)>) -> Vec<(String, Tensor)> {
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    tensors
}
