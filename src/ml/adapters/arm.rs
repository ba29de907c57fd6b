//! An arm: the adapters of one experiment, attached to a model; and the list of ways to adapt.
//! It does not know how any of them computes or is written down.

use std::fs;
use std::path::Path;

use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tch::{Kind, Tensor};

use super::{AdapterParams, lora, mlp};
use crate::error::{Problem, Result};
use crate::ml::dropout::Dropout;
use crate::ml::models::Model;
use crate::ml::weights::{self, Mapped, Shapes, Tensors};

/// The two terms of a residual sum at a block's site, both [B, T, H].
pub struct At<'a> {
    /// What came into the sub-layer's residual connection.
    pub residual: &'a Tensor,
    /// What the sub-layer adds to it.
    pub sublayer: &'a Tensor,
}

/// `x`, or what dropout leaves of it in training.
pub(super) fn dropped(x: &Tensor, p: f64, dropout: Option<&Dropout>) -> Tensor {
    dropout.map_or_else(|| x.shallow_clone(), |dropout| dropout.apply(x, p))
}

/// One way of adapting, attached to a model.
pub trait Adapter: Send {
    /// Its name in `ADAPTERS`.
    fn name(&self) -> &'static str;
    /// What becomes of y = W x at a projection, x [.., inputs], y [.., outputs].
    fn linear(&self, _site: usize, _x: &Tensor, y: Tensor, _dropout: Option<&Dropout>) -> Tensor {
        y
    }
    /// What becomes of `out` = residual + sublayer at a block's site.
    fn block(&self, _site: usize, _at: &At, out: Tensor, _dropout: Option<&Dropout>) -> Tensor {
        out
    }
    /// Its tensors in f32 by their names in its file, in the order of the names.
    fn parameters(&self) -> Vec<(String, Tensor)>;
    /// What a report says of it: `{"kind": …, …}`.
    fn describe(&self) -> Value;
    /// Writes its configuration and tensors in its own format.
    fn save(&self, folder: &Path, base: &str) -> Result<()>;
}

/// An adapter on a model.
pub type Attached = Box<dyn Adapter>;

/// An entry of [`ADAPTERS`].
pub struct Entry {
    /// Its name, also that of its folder beside another adapter's.
    pub name: &'static str,
    /// Attaches a new one, if the parameters ask for it.
    pub init: fn(&AdapterParams, &dyn Model, &mut ChaCha8Rng) -> Result<Option<Attached>>,
    /// True if it can read what this `adapter_config.json` describes.
    pub claims: fn(&Value) -> bool,
    /// Reads one and attaches it, strict in both directions.
    pub load: fn(&Path, &Value, &dyn Model) -> Result<Attached>,
}

/// Every way of adapting.
pub static ADAPTERS: &[Entry] = &[lora::ENTRY, mlp::ENTRY];

/// The adapters of one experiment, attached to a model; none for the base itself.
#[derive(Default)]
pub struct Arm {
    adapters: Vec<Box<dyn Adapter>>,
}

impl Arm {
    /// The base itself.
    pub fn none() -> Self {
        Self::default()
    }

    /// New adapters, ready to be trained.
    pub fn init(params: &AdapterParams, model: &dyn Model, rng: &mut ChaCha8Rng) -> Result<Self> {
        let mut adapters = Vec::new();
        for entry in ADAPTERS {
            adapters.extend((entry.init)(params, model, rng)?);
        }
        Ok(Self { adapters })
    }

    /// Reads what `save`, PEFT or AdapterHub wrote: one adapter's folder, or a folder of such folders.
    pub fn load(folder: &Path, model: &dyn Model) -> Result<Self> {
        if folder.join("adapter_config.json").exists() {
            return Ok(Self { adapters: vec![load_one(folder, model)?] });
        }
        let mut adapters = Vec::new();
        for entry in ADAPTERS {
            let part = folder.join(entry.name);
            if part.join("adapter_config.json").exists() {
                adapters.push(load_one(&part, model)?);
            }
        }
        if adapters.is_empty() {
            return Err(Problem::new(format!("no adapter_config.json in {}", folder.display()))
                .expected("a folder written by PEFT, AdapterHub or the step kind `train`"));
        }
        Ok(Self { adapters })
    }

    /// Writes the adapters: one alone in its own format, several in a folder each.
    pub fn save(&self, folder: &Path, base: &str) -> Result<()> {
        for adapter in &self.adapters {
            let part = if self.adapters.len() == 1 { folder.to_owned() } else { folder.join(adapter.name()) };
            fs::create_dir_all(&part).map_err(|e| Problem::io("create", &part, &e))?;
            adapter.save(&part, base)?;
        }
        Ok(())
    }

    /// What the adapters make of y = W x at a projection.
    pub fn linear(&self, site: usize, x: &Tensor, y: Tensor, dropout: Option<&Dropout>) -> Tensor {
        self.adapters.iter().fold(y, |y, adapter| adapter.linear(site, x, y, dropout))
    }

    /// What the adapters make of a residual sum.
    pub fn block(&self, site: usize, at: &At, out: Tensor, dropout: Option<&Dropout>) -> Tensor {
        self.adapters.iter().fold(out, |out, adapter| adapter.block(site, at, out, dropout))
    }

    /// All trainable tensors, f32, by their names in the files.
    pub fn parameters(&self) -> Vec<(String, Tensor)> {
        self.adapters.iter().flat_map(|adapter| adapter.parameters()).collect()
    }

    /// How many trainable parameters there are.
    pub fn trainable_parameters(&self) -> u64 {
        self.parameters().iter().map(|(_, tensor)| tensor.numel() as u64).sum()
    }

    /// What a report says of the adapters.
    pub fn describe(&self) -> Vec<Value> {
        self.adapters.iter().map(|adapter| adapter.describe()).collect()
    }

    /// True for the base itself.
    pub fn is_none(&self) -> bool {
        self.adapters.is_empty()
    }
}

fn load_one(folder: &Path, model: &dyn Model) -> Result<Attached> {
    let path = folder.join("adapter_config.json");
    let shown = || path.display().to_string();
    let text = fs::read_to_string(&path).map_err(|e| Problem::io("read", &path, &e))?;
    let config: Value = serde_json::from_str(&text)
        .map_err(|e| Problem::new(format!("not JSON: {e}")).in_file(shown(), Some(e.line() as u64)))?;
    let entry = ADAPTERS.iter().find(|entry| (entry.claims)(&config)).ok_or_else(|| {
        let kind = config.get("peft_type").or_else(|| config.pointer("/config/architecture"));
        let kind = kind.and_then(Value::as_str).unwrap_or("unknown");
        Problem::new(format!("adapters of the kind `{kind}` are not supported"))
            .expected("`peft_type` `LORA`, or AdapterHub's bottleneck")
            .in_file(shown(), None)
    })?;
    (entry.load)(folder, &config, model).map_err(|problem| {
        if problem.place == crate::error::Place::Nowhere { problem.in_file(shown(), None) } else { problem }
    })
}

/// Checks the tensors of an adapter's file against the sites' before it reads them, and hands them out in f32 on the
/// model's device. `pickled` is the name that the file has in Python's own format.
pub(super) fn read_tensors(
    path: &Path,
    pickled: &str,
    expected: &Shapes,
    rename: impl Fn(&str) -> String,
    model: &dyn Model,
) -> Result<Tensors> {
    let pickled = path.with_file_name(pickled);
    if !path.exists() && pickled.exists() {
        return Err(weights::pickle(&pickled));
    }
    let file = Mapped::open(path)?;
    let shown = |problem: Problem| problem.in_file(path.display().to_string(), None);
    if expected.is_empty() {
        return Err(shown(Problem::new("the adapter attaches to nothing: it names no layer of this model")));
    }
    let mut found = Shapes::new();
    for (name, shape) in file.shapes()? {
        if found.insert(rename(&name), shape).is_some() {
            return Err(shown(Problem::new(format!("tensor `{}` stands there twice", rename(&name)))));
        }
    }
    weights::cover(expected, &found).map_err(shown)?;
    let tensors = file.tensors(Some(Kind::Float), model.device())?;
    Ok(tensors.into_iter().map(|(name, tensor)| (rename(&name), tensor)).collect())
}
