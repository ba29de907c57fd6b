//! LoRA (Hu et al. 2021) as PEFT 0.21 computes, names and writes it.
//! It does not know which projections a model has beyond their sites.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value};
use tch::{Kind, Tensor};

use super::arm::{Adapter, Attached, Entry, dropped, read_tensors};
use super::fields::{Fields, wrong};
use super::params::{AdapterParams, LoraParams, layers, targets};
use crate::error::{Problem, Result};
use crate::ml::dropout::Dropout;
use crate::ml::models::{Model, Point, Site};
use crate::ml::random;
use crate::ml::weights::{self, Shapes};

/// The entry of `ADAPTERS`.
pub const ENTRY: Entry = Entry { name: "lora", init, claims, load };

/// The update of one projection: s · B A.
struct Update {
    name: String,
    a: Tensor, // [r, inputs]
    b: Tensor, // [outputs, r]
    alpha: f64,
    scale: f64,
}

impl Update {
    fn rank(&self) -> i64 {
        self.a.size()[0]
    }
}

/// LoRA on a model.
pub struct Lora {
    params: LoraParams,
    /// The update is scaled by α / √r (rsLoRA).
    rooted: bool,
    updates: BTreeMap<usize, Update>,
}

impl Adapter for Lora {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn linear(&self, site: usize, x: &Tensor, y: Tensor, dropout: Option<&Dropout>) -> Tensor {
        let Some(update) = self.updates.get(&site) else { return y };
        let x = dropped(&x.to_kind(Kind::Float), self.params.dropout, dropout);
        let inner = x.linear(&update.a, None::<&Tensor>) * update.scale; // [.., r]
        let delta = inner.linear(&update.b, None::<&Tensor>);
        &y + delta.to_kind(y.kind())
    }

    fn parameters(&self) -> Vec<(String, Tensor)> {
        let both = |update: &Update| {
            let name = |part: &str| format!("base_model.model.{}.{part}.weight", update.name);
            [(name("lora_A"), update.a.shallow_clone()), (name("lora_B"), update.b.shallow_clone())]
        };
        let mut all: Vec<_> = self.updates.values().flat_map(both).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    fn describe(&self) -> Value {
        let mut value = serde_json::to_value(&self.params).unwrap_or_default();
        value["kind"] = Value::from(ENTRY.name);
        value
    }

    /// Minimal keys: older PEFT fails on keys that it does not know.
    fn save(&self, folder: &Path, base: &str) -> Result<()> {
        let mut config = serde_json::json!({
            "base_model_name_or_path": base,
            "bias": "none",
            "lora_alpha": whole(self.params.alpha),
            "lora_dropout": self.params.dropout,
            "peft_type": "LORA",
            "r": self.params.rank,
            "target_modules": self.params.target_modules,
            "task_type": "CAUSAL_LM",
        });
        if let Some(layers) = &self.params.layers {
            config["layers_to_transform"] = Value::from(layers.clone());
        }
        if self.rooted {
            config["use_rslora"] = Value::from(true);
        }
        // Updates that do not follow the rule for all.
        let others = |differs: &dyn Fn(&Update) -> Option<Value>| {
            let found: Map<String, Value> =
                self.updates.values().filter_map(|update| Some((update.name.clone(), differs(update)?))).collect();
            (!found.is_empty()).then_some(Value::Object(found))
        };
        let rank = |update: &Update| (update.rank() != self.params.rank).then(|| Value::from(update.rank()));
        if let Some(ranks) = others(&rank) {
            config["rank_pattern"] = ranks;
        }
        let alpha = |update: &Update| (update.alpha != self.params.alpha).then(|| whole(update.alpha));
        if let Some(alphas) = others(&alpha) {
            config["alpha_pattern"] = alphas;
        }
        let path = folder.join("adapter_config.json");
        let text = format!("{config:#}\n");
        fs::write(&path, text).map_err(|e| Problem::io("write", &path, &e))?;
        weights::write_file(&folder.join("adapter_model.safetensors"), &self.parameters())
    }
}

/// PEFT writes α as an integer where it is one.
fn whole(number: f64) -> Value {
    if number.fract() == 0.0 { Value::from(number as i64) } else { Value::from(number) }
}

/// The projections that these targets mean, and their positions; every target must mean at least one.
fn sites<'a>(model: &'a dyn Model, wanted: &[String], layers: &[i64]) -> Result<Vec<(usize, &'a Site, i64, i64)>> {
    let linear = |site: &Site| match site.point {
        Point::Linear { inputs, outputs, .. } => Some((inputs, outputs)),
        _ => None,
    };
    let all = || model.sites().iter().enumerate().filter_map(|(i, s)| linear(s).map(|(a, b)| (i, s, a, b)));
    if let Some(unknown) = wanted.iter().find(|target| !all().any(|(_, site, _, _)| targets(target, &site.name))) {
        return Err(Problem::new(format!("the model has no projection `{unknown}`")));
    }
    Ok(all()
        .filter(|(_, site, _, _)| layers.contains(&site.layer) && wanted.iter().any(|t| targets(t, &site.name)))
        .collect())
}

fn init(params: &AdapterParams, model: &dyn Model, rng: &mut ChaCha8Rng) -> Result<Option<Attached>> {
    let Some(params) = &params.lora else { return Ok(None) };
    let layers = layers(params.layers.as_deref(), model.config())?;
    let mut updates = BTreeMap::new();
    for (position, site, inputs, outputs) in sites(model, &params.target_modules, &layers)? {
        // kaiming_uniform with a = √5 is U(±1/√inputs); B = 0, so that nothing changes at first.
        let a = random::uniform(rng, &[params.rank, inputs], (inputs as f64).sqrt().recip()).to_device(model.device());
        let b = Tensor::zeros([outputs, params.rank], (Kind::Float, model.device()));
        let scale = params.alpha / params.rank as f64;
        updates.insert(position, Update { name: site.name.clone(), a, b, alpha: params.alpha, scale });
    }
    let mut params = params.clone();
    // The order in which they are saved, so that a report says the same before and after.
    params.target_modules.sort();
    params.layers.iter_mut().for_each(|layers| layers.sort_unstable());
    Ok(Some(Box::new(Lora { params, rooted: false, updates })))
}

fn claims(config: &Value) -> bool {
    config.get("peft_type").and_then(Value::as_str) == Some("LORA")
}

/// Options of PEFT's LoraConfig that would change what is computed; a value that is empty or listed changes nothing.
fn refuse_options(config: &Fields) -> Result<()> {
    let kept_by_weights = [Value::from(true), Value::from("gaussian"), Value::from("orthogonal"), Value::from("eva")];
    let none = [Value::from("none")];
    config.refuse(&[
        ("use_dora", &[]),
        ("use_qalora", &[]),
        ("use_bdlora", &[]),
        ("lora_bias", &[]),
        ("bias", &none),
        ("fan_in_fan_out", &[]),
        ("modules_to_save", &[]),
        ("trainable_token_indices", &[]),
        ("target_parameters", &[]),
        ("layer_replication", &[]),
        ("layers_pattern", &[]),
        ("exclude_modules", &[]),
        ("alora_invocation_tokens", &[]),
        ("arrow_config", &[]),
        ("kasa_config", &[]),
        ("velora_config", &[]),
        ("monteclora_config", &[]),
        ("megatron_config", &[]),
        ("init_lora_weights", &kept_by_weights),
    ])
}

/// The value of a `rank_pattern` or `alpha_pattern` for a module; PEFT reads its keys as ends of module names.
fn pattern(config: &Fields, name: &str, module: &str) -> Result<Option<f64>> {
    let Some(value) = config.get(name) else { return Ok(None) };
    let map = value.as_object().ok_or_else(|| wrong(name, value, "an object"))?;
    for (key, value) in map {
        if key.contains(['*', '^', '$', '(', '[', '|', '\\', '?', '+']) {
            return Err(Problem::new(format!("the regular expression `{key}` in `{name}` is not supported"))
                .expected("names of modules"));
        }
        if targets(key, module) {
            let number = value.as_f64().filter(|n| n.is_finite()).ok_or_else(|| wrong(name, value, "numbers"))?;
            return Ok(Some(number));
        }
    }
    Ok(None)
}

fn load(folder: &Path, config: &Value, model: &dyn Model) -> Result<Attached> {
    let fields = Fields::of(config)?;
    refuse_options(&fields)?;
    let rank = fields.size("r")?;
    let alpha = fields.number("lora_alpha").map_err(|p| p.help("without it PEFT silently takes 8"))?;
    let dropout = fields.share("lora_dropout")?;
    let target_modules = target_modules(&fields, model)?;
    let wanted = fields.layers("layers_to_transform")?;
    let rooted = fields.flag("use_rslora", false)?;
    let layers = layers(wanted.as_deref(), model.config())?;

    let mut expected = Shapes::new();
    let mut scales = BTreeMap::new();
    let found = sites(model, &target_modules, &layers)?;
    for &(position, site, inputs, outputs) in &found {
        let r = match pattern(&fields, "rank_pattern", &site.name)? {
            None => rank,
            Some(r) if r >= 1.0 && r.fract() == 0.0 && r <= 65536.0 => r as i64,
            Some(r) => return Err(Problem::new(format!("`rank_pattern` has the rank {r}")).expected("1 to 65536")),
        };
        let alpha = pattern(&fields, "alpha_pattern", &site.name)?.unwrap_or(alpha);
        let root = if rooted { (r as f64).sqrt() } else { r as f64 };
        scales.insert(position, (alpha, alpha / root));
        expected.insert(tensor_name(&site.name, "lora_A"), vec![r, inputs]);
        expected.insert(tensor_name(&site.name, "lora_B"), vec![outputs, r]);
    }
    let path = folder.join("adapter_model.safetensors");
    let rename = |name: &str| name.replace(".lora_A.default.", ".lora_A.").replace(".lora_B.default.", ".lora_B.");
    let mut tensors = read_tensors(&path, "adapter_model.bin", &expected, rename, model)?;
    let mut take = |name: String| tensors.remove(&name).ok_or_else(|| Problem::new(format!("no tensor `{name}`")));
    let mut updates = BTreeMap::new();
    for (position, site, _, _) in found {
        let a = take(tensor_name(&site.name, "lora_A"))?;
        let b = take(tensor_name(&site.name, "lora_B"))?;
        let (alpha, scale) = scales[&position];
        updates.insert(position, Update { name: site.name.clone(), a, b, alpha, scale });
    }
    let params = LoraParams { rank, alpha, dropout, target_modules, layers: wanted };
    Ok(Box::new(Lora { params, rooted, updates }))
}

fn tensor_name(module: &str, part: &str) -> String {
    format!("base_model.model.{module}.{part}.weight")
}

/// A list of names, or `all-linear`.
fn target_modules(fields: &Fields, model: &dyn Model) -> Result<Vec<String>> {
    let value = fields.get("target_modules").ok_or_else(|| Problem::new("`target_modules` is missing"))?;
    if value.as_str() == Some("all-linear") {
        let linear = model.sites().iter().filter(|site| matches!(site.point, Point::Linear { .. }));
        let mut names: Vec<String> =
            linear.filter_map(|site| site.name.rsplit('.').next().map(str::to_owned)).collect();
        names.sort();
        names.dedup();
        return Ok(names);
    }
    let list = value.as_array().ok_or_else(|| wrong("target_modules", value, "a list of module names"))?;
    let names = list.iter().map(|v| v.as_str().map(str::to_owned).ok_or_else(|| wrong("target_modules", v, "a name")));
    let mut names = names.collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}
