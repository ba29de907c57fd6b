//! Bottleneck adapters as AdapterHub's `adapters` 1.3 computes them (`methods/modeling.py`): `seq_bn` (Pfeiffer et al.
//! 2020), `double_seq_bn` (Houlsby et al. 2019), `par_bn` (He et al. 2021). It does not know which blocks a model has
//! beyond their sites, nor its file: `config` and `adapterhub` do.

mod adapterhub;
mod config;

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use super::Inner;
use super::arm::{Adapter, At, Attached, Effect, Entry, Frozen, Seat, all_are, dropped};
use super::format::{Written, sorted};
use super::params::{AdapterParams, MlpInit, MlpParams, Scaling, layers};
use crate::error::{Problem, Result};
use crate::ml::dropout::Dropout;
use crate::ml::models::{Model, Point, Site};
use crate::ml::random;
use config::{BnConfig, factor_of};

/// The entry of `ADAPTERS`.
pub const ENTRY: Entry =
    Entry { name: "mlp", init, peft: None, claims: adapterhub::claims, adapterhub: adapterhub::plan };

/// One bottleneck.
struct Bottleneck {
    /// What its tensors' names begin with.
    prefix: String,
    layer: i64,
    /// By the last parts of their names: those of [`parts`].
    tensors: BTreeMap<&'static str, Tensor>,
}

impl Bottleneck {
    fn hidden(&self) -> i64 {
        self.tensors[DOWN_BIAS].size()[0]
    }

    /// One of its tensors in the dtype that it computes in.
    fn part(&self, name: &str, kind: Kind) -> Option<Tensor> {
        self.tensors.get(name).map(|tensor| tensor.to_kind(kind))
    }

    /// scaling · U f(D ln(h)), in the dtype of h.
    fn change(&self, h: &Tensor, config: &BnConfig, dropout: Option<&Dropout>) -> Tensor {
        let kind = h.kind();
        let part = |name: &str| self.part(name, kind);
        let h = match (part(BEFORE_WEIGHT), part(BEFORE_BIAS)) {
            (Some(weight), Some(bias)) => layer_norm(h, &weight, &bias),
            _ => h.shallow_clone(),
        };
        let linear = |x: &Tensor, weight: &str, bias: &str| x.linear(&self.tensors[weight].to_kind(kind), part(bias));
        let inner = linear(&h, DOWN_WEIGHT, DOWN_BIAS);
        let up = linear(&config.non_linearity.apply(&inner), UP_WEIGHT, UP_BIAS);
        let up = match dropout.filter(|_| config.stochastic_depth > 0.0 && !config.is_parallel) {
            // Whole rows of the batch are dropped.
            Some(dropout) => {
                let rows = Tensor::ones([up.size()[0], 1, 1], (kind, up.device()));
                up * dropout.apply(&rows, config.stochastic_depth)
            }
            None => up,
        };
        let scaled = match config.scaling {
            Scaling::Fixed(number) => up * number,
            Scaling::Learned | Scaling::Channel => up * self.tensors[SCALING].to_kind(kind),
        };
        dropped(&scaled, config.dropout, dropout)
    }
}

/// torch's `LayerNorm` with its usual ε.
fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
    x.layer_norm(weight.size(), Some(weight), Some(bias), 1e-5, false)
}

/// Bottlenecks on a model.
pub struct Mlp {
    config: BnConfig,
    /// The name that its tensors' names carried in their file.
    name: String,
    /// Width and blocks of the model.
    width: i64,
    blocks: i64,
    bottlenecks: BTreeMap<usize, Bottleneck>,
}

impl Adapter for Mlp {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn block(&self, site: usize, at: &At, out: Tensor, dropout: Option<&Dropout>) -> Tensor {
        let Some(bottleneck) = self.bottlenecks.get(&site) else { return out };
        let config = &self.config;
        // `pre_forward`: what it reads, and what its own residual connection carries.
        let (reads, carried) = if config.is_parallel {
            (at.residual, None)
        } else {
            let reads = if config.original_ln_before { &out } else { at.sublayer };
            (reads, Some(if config.residual_before_ln { at.sublayer } else { reads }))
        };
        let mut change = bottleneck.change(reads, config, dropout);
        let inside = config.adapter_residual_before_ln && !config.is_parallel;
        if let (true, Some(carried)) = (inside, carried) {
            change += carried;
        }
        let kind = out.kind();
        let part = |name: &str| bottleneck.part(name, kind);
        if let (Some(weight), Some(bias)) = (part(AFTER_WEIGHT), part(AFTER_BIAS)) {
            change = layer_norm(&change, &weight, &bias);
        }
        // `post_forward`: the residual connections of adapter and block, as far as they are outside.
        let carried = match carried {
            None => Some(at.sublayer),
            Some(carried) => (!inside).then_some(carried),
        };
        let outside = match carried {
            // sublayer + residual, as the block itself adds them.
            Some(carried) if config.original_ln_after && same(carried, at.sublayer) => Some(out),
            Some(carried) if config.original_ln_after => Some(carried + at.residual),
            Some(carried) => Some(carried.shallow_clone()),
            None if config.original_ln_after => Some(at.residual.shallow_clone()),
            None => None,
        };
        match outside {
            Some(outside) => outside + change,
            None => change,
        }
    }

    fn effect(&self, site: usize) -> Effect {
        if self.bottlenecks.contains_key(&site) { Effect::Changes } else { Effect::None }
    }

    fn inner(&self, site: usize) -> Option<Inner<'_>> {
        let Bottleneck { tensors, .. } = self.bottlenecks.get(&site)?;
        let Scaling::Fixed(scale) = self.config.scaling else { return None };
        let part = |name: &str| tensors.get(name);
        let plain = self.config.unlike_seq_bn().iter().all(|(name, _)| *name == "scaling");
        (plain && self.config.stochastic_depth == 0.0).then_some(Inner {
            down: (part(DOWN_WEIGHT)?, part(DOWN_BIAS)),
            up: (part(UP_WEIGHT)?, part(UP_BIAS)),
            non_linearity: Some(self.config.non_linearity),
            scale,
            dropout: self.config.dropout,
        })
    }

    fn rounds(&self) -> bool {
        true
    }

    fn seats(&self) -> Vec<Seat> {
        let seat = |(site, bottleneck): (&usize, &Bottleneck)| {
            let zero = |name: &str| bottleneck.tensors.get(name).is_none_or(|tensor| all_are(tensor, 0.0));
            let off = match self.config.scaling {
                Scaling::Fixed(number) => number == 0.0,
                Scaling::Learned | Scaling::Channel => zero(SCALING),
            };
            Seat { site: *site, idle: zero(UP_WEIGHT) && zero(UP_BIAS), off }
        };
        self.bottlenecks.iter().map(seat).collect()
    }

    fn merge(&self, _site: usize, _frozen: Frozen) -> Result<Frozen> {
        Err(Problem::new("a bottleneck is not linear: it cannot be merged into the weights of the base")
            .help("export it in AdapterHub's format: `--format adapterhub`"))
    }

    fn share(&self) -> Attached {
        let share = |bottleneck: &Bottleneck| Bottleneck {
            prefix: bottleneck.prefix.clone(),
            layer: bottleneck.layer,
            tensors: bottleneck.tensors.iter().map(|(&name, tensor)| (name, tensor.shallow_clone())).collect(),
        };
        let bottlenecks = self.bottlenecks.iter().map(|(&site, bottleneck)| (site, share(bottleneck))).collect();
        let (config, name) = (self.config.clone(), self.name.clone());
        Box::new(Self { config, name, width: self.width, blocks: self.blocks, bottlenecks })
    }

    fn parameters(&self) -> Vec<(String, Tensor)> {
        let all = self.bottlenecks.values().flat_map(|bottleneck| {
            let named = |(part, tensor): (&&str, &Tensor)| {
                let part = adapterhub::in_file(part, &self.config);
                (format!("{}.{}.{part}", bottleneck.prefix, self.name), tensor.shallow_clone())
            };
            bottleneck.tensors.iter().map(named).collect::<Vec<_>>()
        });
        sorted(all.collect())
    }

    fn describe(&self) -> Value {
        let hidden: Vec<i64> = self.bottlenecks.values().map(Bottleneck::hidden).collect();
        let layers = self.layers();
        let mut value = json!({
            "kind": ENTRY.name, "hidden_size": hidden.last(), "dropout": self.config.dropout,
            "non_linearity": self.config.non_linearity,
            "layers": ((layers.len() as i64) < self.blocks).then_some(layers),
        });
        for (name, other) in self.config.unlike_seq_bn() {
            value[name] = other;
        }
        value
    }

    fn definition(&self) -> Value {
        json!({"kind": ENTRY.name, "config": self.config.definition(), "layers": self.layers()})
    }

    fn to_peft(&self) -> Result<Written> {
        Err(Problem::new("PEFT has no bottleneck adapters").help("AdapterHub has: `--format adapterhub`"))
    }

    fn to_adapterhub(&self, name: &str) -> Result<Written> {
        adapterhub::write(self, name)
    }
}

/// True if both are one tensor.
fn same(a: &Tensor, b: &Tensor) -> bool {
    std::ptr::eq(a, b)
}

impl Mlp {
    /// The layers that have a bottleneck, sorted.
    fn layers(&self) -> Vec<i64> {
        let layers: std::collections::BTreeSet<i64> = self.bottlenecks.values().map(|b| b.layer).collect();
        layers.into_iter().collect()
    }
}

const BEFORE_WEIGHT: &str = "adapter_norm_before.weight";
const BEFORE_BIAS: &str = "adapter_norm_before.bias";
const AFTER_WEIGHT: &str = "adapter_norm_after.weight";
const AFTER_BIAS: &str = "adapter_norm_after.bias";
const DOWN_WEIGHT: &str = "adapter_down.weight";
const DOWN_BIAS: &str = "adapter_down.bias";
const UP_WEIGHT: &str = "adapter_up.weight";
const UP_BIAS: &str = "adapter_up.bias";
const SCALING: &str = "scaling";

/// The tensors of a bottleneck of this width, with their shapes, in the order in which they are drawn.
fn parts(config: &BnConfig, hidden: i64, width: i64) -> Vec<(&'static str, Vec<i64>)> {
    let mut parts = vec![
        (DOWN_WEIGHT, vec![hidden, width]),
        (DOWN_BIAS, vec![hidden]),
        (UP_WEIGHT, vec![width, hidden]),
        (UP_BIAS, vec![width]),
    ];
    if config.ln_before {
        parts.extend([(BEFORE_WEIGHT, vec![width]), (BEFORE_BIAS, vec![width])]);
    }
    if config.ln_after {
        parts.extend([(AFTER_WEIGHT, vec![width]), (AFTER_BIAS, vec![width])]);
    }
    match config.scaling {
        Scaling::Fixed(_) => {}
        Scaling::Learned => parts.push((SCALING, vec![1])),
        Scaling::Channel => parts.push((SCALING, vec![width])),
    }
    parts
}

/// The sites of these layers where a configuration puts bottlenecks.
fn sites<'a>(model: &'a dyn Model, layers: &[i64], config: &BnConfig) -> Vec<(usize, &'a Site)> {
    let wanted = |site: &Site| match site.point {
        Point::AfterAttention { .. } => config.mh_adapter,
        Point::AfterFeedForward { .. } => config.output_adapter,
        Point::Linear { .. } => false,
    };
    model.sites().iter().enumerate().filter(|(_, s)| wanted(s) && layers.contains(&s.layer)).collect()
}

/// The site's tensors are named for the block, not for the module they follow.
fn prefix(site: &Site) -> String {
    let block = site.name.rsplit_once('.').map_or(site.name.as_str(), |(block, _)| block);
    let place = if matches!(site.point, Point::AfterAttention { .. }) { "attention" } else { "output" };
    format!("{block}.{place}_adapters.adapters")
}

fn init(params: &AdapterParams, model: &dyn Model, rng: &mut ChaCha8Rng) -> Result<Option<Attached>> {
    let Some(params) = &params.mlp else { return Ok(None) };
    let width = model.config().hidden_size;
    factor_of(width, params.hidden_size)?;
    let layers = layers(params.layers.as_deref(), model.config())?;
    let config = BnConfig::of(params);
    let mut bottlenecks = BTreeMap::new();
    for (position, site) in sites(model, &layers, &config) {
        let draw = |(part, shape): (&'static str, Vec<i64>)| {
            (part, first_values(part, &shape, params, rng).to_device(model.device()))
        };
        let tensors = parts(&config, params.hidden_size, width).into_iter().map(draw).collect();
        bottlenecks.insert(position, Bottleneck { prefix: prefix(site), layer: site.layer, tensors });
    }
    let blocks = model.config().num_hidden_layers;
    Ok(Some(Box::new(Mlp { config, name: ENTRY.name.to_owned(), width, blocks, bottlenecks })))
}

fn first_values(part: &str, shape: &[i64], params: &MlpParams, rng: &mut ChaCha8Rng) -> Tensor {
    let constant = |value: f64| Tensor::full(shape, value, (Kind::Float, tch::Device::Cpu));
    match (part, params.init_weights()) {
        (BEFORE_WEIGHT | AFTER_WEIGHT | SCALING, _) => constant(1.0),
        (DOWN_WEIGHT | UP_WEIGHT, MlpInit::Bert) => random::normal(rng, shape, 0.02),
        (DOWN_WEIGHT | UP_WEIGHT, MlpInit::Houlsby) => random::truncated_normal(rng, shape, 0.01, 2.0),
        // kaiming_uniform with a = √5.
        (DOWN_WEIGHT, MlpInit::MamAdapter) => random::uniform(rng, shape, (shape[1] as f64).sqrt().recip()),
        _ => constant(0.0),
    }
}
