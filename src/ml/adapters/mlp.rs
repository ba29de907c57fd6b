//! Bottleneck adapters as AdapterHub's `adapters` 1.3 computes, names and writes them (`seq_bn`, Pfeiffer et al. 2020).
//! It does not know which blocks a model has beyond their sites.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value};
use tch::{Kind, Tensor};

use super::arm::{Adapter, At, Attached, Entry, dropped, read_tensors};
use super::fields::{Fields, wrong};
use super::params::{AdapterParams, MlpParams, NonLinearity, layers};
use crate::error::{Problem, Result};
use crate::ml::dropout::Dropout;
use crate::ml::models::{Model, Point, Site};
use crate::ml::random;
use crate::ml::weights::{self, Shapes};

/// The entry of `ADAPTERS`.
pub const ENTRY: Entry = Entry { name: "mlp", init, claims, load };

/// What a bottleneck reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reads {
    /// residual + sublayer (`original_ln_before: true`).
    Sum,
    /// The sub-layer's output alone (`original_ln_before: false`).
    Sublayer,
    /// The residual, not normalised (`is_parallel: true`).
    Residual,
}

/// One bottleneck: h ↦ scaling · (U f(D h + b) + c).
struct Bottleneck {
    prefix: String,
    layer: i64,
    down: (Tensor, Tensor), // [hidden, H], [hidden]
    up: (Tensor, Tensor),   // [H, hidden], [H]
}

/// Bottlenecks on a model.
pub struct Mlp {
    params: MlpParams,
    /// The name that stands in every tensor's name.
    name: String,
    reads: Reads,
    scaling: f64,
    after_attention: bool,
    after_feed_forward: bool,
    blocks: i64,
    width: i64,
    bottlenecks: BTreeMap<usize, Bottleneck>,
}

impl Adapter for Mlp {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn block(&self, site: usize, at: &At, out: Tensor, dropout: Option<&Dropout>) -> Tensor {
        let Some(bottleneck) = self.bottlenecks.get(&site) else { return out };
        let h = match self.reads {
            Reads::Sum => &out,
            Reads::Sublayer => at.sublayer,
            Reads::Residual => at.residual,
        };
        let h = h.to_kind(Kind::Float);
        let inner = h.linear(&bottleneck.down.0, Some(&bottleneck.down.1));
        let inner = match self.params.non_linearity {
            NonLinearity::Relu => inner.relu(),
            NonLinearity::Gelu => inner.gelu("none"),
            NonLinearity::Swish => inner.silu(),
            NonLinearity::Tanh => inner.tanh(),
        };
        let change = inner.linear(&bottleneck.up.0, Some(&bottleneck.up.1)) * self.scaling;
        &out + dropped(&change, self.params.dropout, dropout).to_kind(out.kind())
    }

    fn parameters(&self) -> Vec<(String, Tensor)> {
        let all = self.bottlenecks.values().flat_map(|b| {
            let tensors = [&b.down.0, &b.down.1, &b.up.0, &b.up.1];
            PARTS.iter().zip(tensors).map(|(part, tensor)| (format!("{}.{part}", b.prefix), tensor.shallow_clone()))
        });
        let mut all: Vec<_> = all.collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    fn describe(&self) -> Value {
        let mut value = serde_json::to_value(&self.params).unwrap_or_default();
        value["kind"] = Value::from(ENTRY.name);
        value
    }

    fn save(&self, folder: &Path, base: &str) -> Result<()> {
        let kept = self.params.layers.clone().unwrap_or_else(|| (0..self.blocks).collect());
        let leave_out: Vec<i64> = (0..self.blocks).filter(|layer| !kept.contains(layer)).collect();
        let config = serde_json::json!({
            "config": {
                "adapter_residual_before_ln": false,
                "cross_adapter": false,
                "dropout": self.params.dropout,
                "factorized_phm_W": true,
                "factorized_phm_rule": false,
                "hypercomplex_nonlinearity": "glorot-uniform",
                "init_weights": "bert",
                "init_weights_seed": null,
                "inv_adapter": null,
                "inv_adapter_reduction_factor": null,
                "is_parallel": self.reads == Reads::Residual,
                "learn_phm": true,
                "leave_out": leave_out,
                "ln_after": false,
                "ln_before": false,
                "mh_adapter": self.after_attention,
                "non_linearity": self.params.non_linearity,
                "original_ln_after": true,
                "original_ln_before": self.reads == Reads::Sum,
                "output_adapter": self.after_feed_forward,
                "phm_bias": true,
                "phm_c_init": "normal",
                "phm_dim": 4,
                "phm_init_range": 0.0001,
                "phm_layer": false,
                "phm_rank": 1,
                "reduction_factor": self.reduction_factor()?,
                "residual_before_ln": true,
                "scaling": self.scaling,
                "shared_W_phm": false,
                "shared_phm_rule": true,
                "stochastic_depth": 0.0,
                "use_gating": false,
            },
            "hidden_size": self.width,
            "model_class": "LlamaForCausalLM",
            "model_name": base,
            "model_type": "llama",
            "name": self.name,
            "version": "adapters.1.3.0",
        });
        let path = folder.join("adapter_config.json");
        fs::write(&path, format!("{config:#}\n")).map_err(|e| Problem::io("write", &path, &e))?;
        weights::write_file(&folder.join("adapter.safetensors"), &self.parameters())
    }
}

impl Mlp {
    /// One factor, or one for every layer if the bottlenecks differ.
    fn reduction_factor(&self) -> Result<Value> {
        let mut factors = Map::new();
        for bottleneck in self.bottlenecks.values() {
            let factor = reduction_factor(self.width, bottleneck.down.1.size()[0])?;
            factors.insert(bottleneck.layer.to_string(), factor);
        }
        let mut values = factors.values();
        match values.next().cloned() {
            Some(first) if values.all(|factor| *factor == first) => Ok(first),
            _ => Ok(Value::Object(factors)),
        }
    }
}

/// The tensors of a bottleneck, in the order of its fields.
const PARTS: [&str; 4] = ["adapter_down.0.weight", "adapter_down.0.bias", "adapter_up.weight", "adapter_up.bias"];

fn part_shapes(hidden: i64, width: i64) -> [Vec<i64>; 4] {
    [vec![hidden, width], vec![hidden], vec![width, hidden], vec![width]]
}

/// `width // reduction_factor` must be `hidden` again: an integer where it divides, else the quotient.
fn reduction_factor(width: i64, hidden: i64) -> Result<Value> {
    if hidden > 0 && width % hidden == 0 {
        return Ok(Value::from(width / hidden));
    }
    let quotient = width as f64 / hidden as f64;
    // Python's floor division of floats may fall short of the quotient's own inverse by one.
    [quotient, quotient * (1.0 - f64::EPSILON), quotient * (1.0 - 4.0 * f64::EPSILON)]
        .into_iter()
        .find(|factor| bottleneck_width(width, *factor) == hidden)
        .map(Value::from)
        .ok_or_else(|| Problem::new(format!("a bottleneck of {hidden} cannot be written as a reduction of {width}")))
}

/// AdapterHub: `int(width // reduction_factor)`.
fn bottleneck_width(width: i64, factor: f64) -> i64 {
    (width as f64 / factor).floor() as i64
}

/// The sites of these layers at the points that are wanted.
fn sites<'a>(
    model: &'a dyn Model,
    layers: &[i64],
    after_attention: bool,
    after_feed_forward: bool,
) -> Vec<(usize, &'a Site)> {
    let wanted = |site: &Site| match site.point {
        Point::AfterAttention { .. } => after_attention,
        Point::AfterFeedForward { .. } => after_feed_forward,
        Point::Linear { .. } => false,
    };
    model.sites().iter().enumerate().filter(|(_, s)| wanted(s) && layers.contains(&s.layer)).collect()
}

/// The site's tensors are named for the block, not for the module they follow.
fn prefix(site: &Site, name: &str) -> String {
    let block = site.name.rsplit_once('.').map_or(site.name.as_str(), |(block, _)| block);
    let place = if matches!(site.point, Point::AfterAttention { .. }) { "attention" } else { "output" };
    format!("{block}.{place}_adapters.adapters.{name}")
}

fn init(params: &AdapterParams, model: &dyn Model, rng: &mut ChaCha8Rng) -> Result<Option<Attached>> {
    let Some(params) = &params.mlp else { return Ok(None) };
    let width = model.config().hidden_size;
    reduction_factor(width, params.hidden_size)?;
    let layers = layers(params.layers.as_deref(), model.config())?;
    let mut bottlenecks = BTreeMap::new();
    for (position, site) in sites(model, &layers, false, true) {
        // `init_weights: bert`: N(0, 0.02) for both matrices, zero biases. Not the identity at first.
        let mut matrix = |shape: &[i64]| random::normal(rng, shape, 0.02).to_device(model.device());
        let bias = |size: i64| Tensor::zeros([size], (Kind::Float, model.device()));
        let down = (matrix(&[params.hidden_size, width]), bias(params.hidden_size));
        let up = (matrix(&[width, params.hidden_size]), bias(width));
        bottlenecks.insert(position, Bottleneck { prefix: prefix(site, ENTRY.name), layer: site.layer, down, up });
    }
    let mut params = params.clone();
    // As it is read back: the file names the layers that are left out.
    params.layers.iter_mut().for_each(|layers| layers.sort_unstable());
    params.layers = params.layers.filter(|layers| (layers.len() as i64) < model.config().num_hidden_layers);
    Ok(Some(Box::new(Mlp {
        params,
        name: ENTRY.name.to_owned(),
        reads: Reads::Sum,
        scaling: 1.0,
        after_attention: false,
        after_feed_forward: true,
        blocks: model.config().num_hidden_layers,
        width,
        bottlenecks,
    })))
}

fn claims(config: &Value) -> bool {
    config.get("peft_type").is_none()
        && config.get("version").is_some()
        && config.get("config").is_some_and(|config| {
            config.get("architecture").is_none_or(Value::is_null) && config.get("output_adapter").is_some()
        })
}

/// Options of AdapterHub's BnConfig that would change what is computed.
fn refuse_options(config: &Fields) -> Result<()> {
    config.refuse(&[
        ("ln_before", &[]),
        ("ln_after", &[]),
        ("use_gating", &[]),
        ("inv_adapter", &[]),
        ("cross_adapter", &[]),
        ("phm_layer", &[]),
        ("adapter_residual_before_ln", &[]),
        ("stochastic_depth", &[Value::from(0.0), Value::from(0)]),
    ])?;
    for (name, value) in [("residual_before_ln", true), ("original_ln_after", true)] {
        if config.flag(name, value)? != value {
            return Err(Problem::new(format!("the option `{name}: {}` is not supported", !value)));
        }
    }
    Ok(())
}

fn load(folder: &Path, whole: &Value, model: &dyn Model) -> Result<Attached> {
    let name = whole.get("name").and_then(Value::as_str).ok_or_else(|| Problem::new("`name` is missing"))?;
    let fields = Fields::of(&whole["config"])?;
    refuse_options(&fields)?;
    let width = model.config().hidden_size;
    if whole.get("hidden_size").is_some_and(|size| size.as_i64() != Some(width)) {
        let what = format!("the adapter is for a model of width {}, this one has {width}", whole["hidden_size"]);
        return Err(Problem::new(what));
    }
    let left_out = fields.layers("leave_out")?.unwrap_or_default();
    layers(Some(&left_out), model.config())?;
    let blocks = model.config().num_hidden_layers;
    let kept: Vec<i64> = (0..blocks).filter(|layer| !left_out.contains(layer)).collect();
    let after_attention = fields.flag("mh_adapter", false)?;
    let after_feed_forward = fields.flag("output_adapter", true)?;
    let reads = if fields.flag("is_parallel", false)? {
        Reads::Residual
    } else if fields.flag("original_ln_before", false)? {
        Reads::Sum
    } else {
        Reads::Sublayer
    };

    let mut expected = Shapes::new();
    let found = sites(model, &kept, after_attention, after_feed_forward);
    let mut hidden_size = 0;
    for (_, site) in &found {
        hidden_size = bottleneck_width(width, factor(&fields, site.layer)?);
        if hidden_size < 1 {
            return Err(wrong("reduction_factor", &whole["config"]["reduction_factor"], "at most the model's width"));
        }
        for (part, shape) in PARTS.iter().zip(part_shapes(hidden_size, width)) {
            expected.insert(format!("{}.{part}", prefix(site, name)), shape);
        }
    }
    let mut tensors =
        read_tensors(&folder.join("adapter.safetensors"), "pytorch_adapter.bin", &expected, str::to_owned, model)?;
    let mut bottlenecks = BTreeMap::new();
    for (position, site) in found {
        let prefix = prefix(site, name);
        let mut take = |part: &str| {
            let name = format!("{prefix}.{part}");
            tensors.remove(&name).ok_or_else(|| Problem::new(format!("no tensor `{name}`")))
        };
        let [dw, db, uw, ub] = PARTS;
        let (down, up) = ((take(dw)?, take(db)?), (take(uw)?, take(ub)?));
        bottlenecks.insert(position, Bottleneck { prefix: prefix.clone(), layer: site.layer, down, up });
    }
    let params = MlpParams {
        hidden_size,
        layers: (!left_out.is_empty()).then_some(kept),
        dropout: fields.share("dropout")?,
        non_linearity: non_linearity(&fields)?,
    };
    let scaling = match fields.get("scaling") {
        Some(Value::String(text)) => return Err(Problem::new(format!("`scaling: {text}` is not supported"))),
        _ => fields.number_or("scaling", 1.0)?,
    };
    let name = name.to_owned();
    Ok(Box::new(Mlp { params, name, reads, scaling, after_attention, after_feed_forward, blocks, width, bottlenecks }))
}

/// One factor for all layers, or a mapping from layers (and `default`) to factors.
fn factor(fields: &Fields, layer: i64) -> Result<f64> {
    let value = fields.get("reduction_factor").ok_or_else(|| Problem::new("`reduction_factor` is missing"))?;
    let value = match value {
        Value::Object(map) => map
            .get(&layer.to_string())
            .or_else(|| map.get("default"))
            .ok_or_else(|| Problem::new(format!("`reduction_factor` says nothing of layer {layer}")))?,
        one => one,
    };
    value.as_f64().filter(|f| *f > 0.0 && f.is_finite()).ok_or_else(|| wrong("reduction_factor", value, "a number"))
}

fn non_linearity(fields: &Fields) -> Result<NonLinearity> {
    let value = fields.get("non_linearity").ok_or_else(|| Problem::new("`non_linearity` is missing"))?;
    match value.as_str() {
        Some("relu") => Ok(NonLinearity::Relu),
        Some("gelu" | "gelu_orig") => Ok(NonLinearity::Gelu),
        Some("swish" | "silu") => Ok(NonLinearity::Swish),
        Some("tanh") => Ok(NonLinearity::Tanh),
        _ => Err(wrong("non_linearity", value, "`relu`, `gelu`, `swish` or `tanh`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_factor_gives_the_width_back() {
        for width in [64, 100, 128, 192, 4096] {
            for hidden in 1..=width {
                let factor = reduction_factor(width, hidden).unwrap();
                assert_eq!(bottleneck_width(width, factor.as_f64().unwrap()), hidden, "{width} / {hidden}");
            }
        }
    }
}
