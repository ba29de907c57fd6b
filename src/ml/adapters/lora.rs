//! LoRA (Hu et al. 2021), rsLoRA and DoRA (Liu et al. 2024) as PEFT 0.21 and AdapterHub 1.3 compute them.
//! It does not know which projections a model has beyond their sites, nor file formats: `peft` and `adapterhub` do.

mod adapterhub;
pub(super) mod peft;

use std::cell::RefCell;
use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use super::Inner;
use super::arm::{Adapter, Attached, Effect, Entry, Frozen, Seat, all_are, dropped};
use super::format::{Written, sorted};
use super::params::{AdapterParams, LoraInit, layers};
use super::place::{self, Place, places};
use super::targets::Rule;
use crate::error::Result;
use crate::ml::dropout::Dropout;
use crate::ml::models::Model;
use crate::ml::random;

/// The entry of `ADAPTERS`.
pub const ENTRY: Entry = Entry {
    name: "lora",
    init,
    peft: Some(("LORA", peft::plan)),
    claims: adapterhub::claims,
    adapterhub: adapterhub::plan,
};

/// How the norm of a row of W is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dora {
    /// PEFT: m ⊙ (W + s·BA) / ‖W + s·BA‖, the bias outside.
    Peft,
    /// AdapterHub: m ⊙ (W x + b + s·BA x) / ‖W + BA‖: the norm without s, the bias inside.
    AdapterHub,
}

/// The update of one projection: s · B A.
struct Update {
    place: Place,
    a: Tensor, // [r, inputs]
    b: Tensor, // [outputs, r]
    alpha: f64,
    scale: f64,
    /// DoRA's m and the frozen projection.
    magnitude: Option<Magnitude>,
    /// A and B in the model's dtype, while nobody trains.
    rounded: RefCell<Option<[Tensor; 2]>>,
}

struct Magnitude {
    m: Tensor, // [outputs]
    frozen: Frozen,
    /// ‖W + s·BA‖ [outputs], while nobody trains.
    norm: RefCell<Option<Tensor>>,
}

impl Update {
    fn rank(&self) -> i64 {
        self.a.size()[0]
    }

    fn new(place: Place, [a, b]: [Tensor; 2], alpha: f64, scale: f64, magnitude: Option<Magnitude>) -> Self {
        Self { place, a, b, alpha, scale, magnitude, rounded: RefCell::default() }
    }

    fn share(&self) -> Self {
        let magnitude = self.magnitude.as_ref().map(|magnitude| Magnitude {
            m: magnitude.m.shallow_clone(),
            frozen: magnitude.frozen.share(),
            norm: RefCell::default(),
        });
        let matrices = [&self.a, &self.b].map(Tensor::shallow_clone);
        Self::new(self.place.clone(), matrices, self.alpha, self.scale, magnitude)
    }

    /// A and B in a dtype.
    fn matrices(&self, kind: Kind) -> [Tensor; 2] {
        let compute = || [&self.a, &self.b].map(|tensor| tensor.to_kind(kind));
        if kind == Kind::Float || self.a.requires_grad() || self.b.requires_grad() {
            return compute();
        }
        let mut kept = self.rounded.borrow_mut();
        kept.get_or_insert_with(compute).each_ref().map(Tensor::shallow_clone)
    }

    /// The norm of each row, [outputs].
    fn norm(&self, dora: Dora, magnitude: &Magnitude) -> Tensor {
        let scale = if dora == Dora::Peft { self.scale } else { 1.0 };
        let compute = || row_norms(&(magnitude.frozen.weight.to_kind(Kind::Float) + self.b.matmul(&self.a) * scale));
        if self.a.requires_grad() || self.b.requires_grad() {
            // Section 4.3 of the paper: the norm is a constant for the gradient. AdapterHub does not do that.
            return if dora == Dora::Peft { tch::no_grad(compute) } else { compute() };
        }
        let mut kept = magnitude.norm.borrow_mut();
        kept.get_or_insert_with(compute).shallow_clone()
    }
}

/// y [.., outputs] + inner [.., r] · bᵀ, added up in the place of y while it is multiplied.
fn added(y: &Tensor, inner: &Tensor, b: &Tensor) -> Tensor {
    let (shape, (outputs, r)) = (y.size(), b.size2().expect("two dimensions"));
    // Not an ordinary view, for which autograd would put y's gradient together from that of the view; nor does autograd
    // see that y is written to.
    let mut sum = y.internal_unsafe_view([-1, outputs]);
    let _ = sum.addmm_(&inner.reshape([-1, r]), &b.tr());
    sum.view(shape.as_slice())
}

fn row_norms(weight: &Tensor) -> Tensor {
    weight.square().sum_dim_intlist(1, false, Kind::Float).sqrt()
}

/// What all projections share.
#[derive(Debug, Clone, Copy)]
struct Common {
    /// Rank and α of most projections.
    rank: i64,
    alpha: f64,
    dropout: f64,
    /// The update is scaled by α / √r (rsLoRA).
    rooted: bool,
    dora: Option<Dora>,
    /// Blocks of the model.
    blocks: i64,
}

/// LoRA on a model.
pub struct Lora {
    common: Common,
    rule: Rule,
    updates: BTreeMap<usize, Update>,
}

impl Adapter for Lora {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn linear(&self, site: usize, x: &Tensor, y: Tensor, dropout: Option<&Dropout>) -> Tensor {
        let Some(update) = self.updates.get(&site) else { return y };
        let kind = if update.magnitude.is_some() { Kind::Float } else { x.kind() };
        let x = dropped(&x.to_kind(kind), self.common.dropout, dropout);
        let [a, b] = update.matrices(kind);
        let inner = x.linear(&a, None::<&Tensor>).g_mul_scalar_(update.scale); // [.., r]
        let (Some(dora), Some(magnitude)) = (self.common.dora, &update.magnitude) else {
            return added(&y, &inner, &b);
        };
        let delta = inner.linear(&b, None::<&Tensor>);
        let factor = &magnitude.m / update.norm(dora, magnitude);
        let kind = y.kind();
        let wide = y.to_kind(Kind::Float);
        match dora {
            Dora::AdapterHub => (factor * (wide + delta)).to_kind(kind),
            Dora::Peft => {
                // W x, of what dropout left of x.
                let base = match (&magnitude.frozen.bias, dropout) {
                    (_, Some(_)) if self.common.dropout > 0.0 => {
                        x.linear(&magnitude.frozen.weight.to_kind(Kind::Float), None::<&Tensor>)
                    }
                    (Some(bias), _) => &wide - bias,
                    (None, _) => wide.shallow_clone(),
                };
                (wide + (&factor - 1.0) * base + factor * delta).to_kind(kind)
            }
        }
    }

    fn effect(&self, site: usize) -> Effect {
        match self.common.dora {
            _ if !self.updates.contains_key(&site) => Effect::None,
            None => Effect::Adds,
            Some(_) => Effect::Changes,
        }
    }

    fn inner(&self, site: usize) -> Option<Inner<'_>> {
        let update = self.updates.get(&site).filter(|_| self.common.dora.is_none())?;
        let (scale, dropout) = (update.scale, self.common.dropout);
        Some(Inner { down: (&update.a, None), up: (&update.b, None), non_linearity: None, scale, dropout })
    }

    fn rounds(&self) -> bool {
        self.common.dora.is_none()
    }

    fn seats(&self) -> Vec<Seat> {
        let seat = |(site, update): (&usize, &Update)| {
            let as_it_was = |magnitude: &Magnitude| {
                let norms = row_norms(&magnitude.frozen.weight.to_kind(Kind::Float));
                magnitude.m.equal(&norms)
            };
            let idle = all_are(&update.b, 0.0) || all_are(&update.a, 0.0);
            let idle = idle && update.magnitude.as_ref().is_none_or(as_it_was);
            Seat { site: *site, idle, off: update.scale == 0.0 }
        };
        self.updates.iter().map(seat).collect()
    }

    fn merge(&self, site: usize, frozen: Frozen) -> Result<Frozen> {
        let Some(update) = self.updates.get(&site) else { return Ok(frozen) };
        let device = frozen.weight.device();
        let (a, b) = (update.a.detach().to_device(device), update.b.detach().to_device(device));
        let (weight, product) = (frozen.weight.to_kind(Kind::Float), b.matmul(&a));
        let sum = &weight + &product * update.scale;
        let (Some(dora), Some(magnitude)) = (self.common.dora, &update.magnitude) else {
            return Ok(Frozen { weight: sum, bias: frozen.bias });
        };
        let norms = if dora == Dora::Peft { row_norms(&sum) } else { row_norms(&(&weight + &product)) };
        let factor = magnitude.m.detach().to_device(device) / norms;
        let bias = match dora {
            Dora::Peft => frozen.bias,
            Dora::AdapterHub => frozen.bias.map(|bias| &factor * bias.to_kind(Kind::Float)),
        };
        Ok(Frozen { weight: sum * factor.unsqueeze(1), bias })
    }

    fn share(&self) -> Attached {
        let updates = self.updates.iter().map(|(&site, update)| (site, update.share())).collect();
        Box::new(Self { common: self.common, rule: self.rule.clone(), updates })
    }

    fn parameters(&self) -> Vec<(String, Tensor)> {
        sorted(self.updates.values().flat_map(peft::named).collect())
    }

    fn describe(&self) -> Value {
        let common = self.common;
        let mut value = json!({
            "kind": ENTRY.name, "rank": common.rank, "alpha": common.alpha, "dropout": common.dropout,
            "target_modules": self.rule.names, "layers": self.rule.layers,
        });
        for (name, on) in [("use_rslora", common.rooted), ("use_dora", common.dora.is_some())] {
            if on {
                value[name] = Value::from(true);
            }
        }
        value
    }

    fn definition(&self) -> Value {
        let scales: BTreeMap<&str, f64> =
            self.updates.values().map(|update| (update.place.name.as_str(), update.scale)).collect();
        let dora = self.common.dora.map(|dora| if dora == Dora::Peft { "peft" } else { "adapterhub" });
        json!({"kind": ENTRY.name, "scale": scales, "dora": dora})
    }

    fn to_peft(&self) -> Result<Written> {
        peft::write(self)
    }

    fn to_adapterhub(&self, name: &str) -> Result<Written> {
        adapterhub::write(self, name)
    }
}

impl Lora {
    /// With what most updates have in common worked out; `all` are name and layer of every projection.
    fn new(common: Common, all: &[(&str, i64)], updates: BTreeMap<usize, Update>) -> Self {
        let chosen: Vec<_> = updates.values().map(|update| (update.place.name.as_str(), update.place.layer)).collect();
        let rule = Rule::of(&chosen, all);
        Self { common, rule, updates }
    }
}

fn scale(alpha: f64, rank: i64, rooted: bool) -> f64 {
    alpha / if rooted { (rank as f64).sqrt() } else { rank as f64 }
}

fn init(params: &AdapterParams, model: &dyn Model, rng: &mut ChaCha8Rng) -> Result<Option<Attached>> {
    let Some(params) = &params.lora else { return Ok(None) };
    layers(params.layers.as_deref(), model.config())?;
    let weights = if params.use_dora { model.weights() } else { Default::default() };
    let mut updates = BTreeMap::new();
    for place in places(model, &params.selector()?)? {
        let (rank, alpha) = params.size(&place.name)?;
        let shape = [rank, place.inputs];
        let a = match params.init_weights {
            // kaiming_uniform with a = √5.
            LoraInit::Kaiming => random::uniform(rng, &shape, (place.inputs as f64).sqrt().recip()),
            LoraInit::Gaussian => random::normal(rng, &shape, (rank as f64).recip()),
        };
        let a = a.to_device(model.device());
        // B = 0, so that nothing changes at first.
        let b = Tensor::zeros([place.outputs, rank], (Kind::Float, model.device()));
        let magnitude = if params.use_dora {
            let frozen = place.frozen(model, &weights)?;
            let m = row_norms(&frozen.weight.to_kind(Kind::Float));
            Some(Magnitude { m, frozen, norm: RefCell::default() })
        } else {
            None
        };
        let scale = scale(alpha, rank, params.use_rslora);
        updates.insert(place.site, Update::new(place, [a, b], alpha, scale, magnitude));
    }
    let common = Common {
        rank: params.rank,
        alpha: params.alpha,
        dropout: params.dropout,
        rooted: params.use_rslora,
        dora: params.use_dora.then_some(Dora::Peft),
        blocks: model.config().num_hidden_layers,
    };
    Ok(Some(Box::new(Lora::new(common, &place::all(model), updates))))
}
