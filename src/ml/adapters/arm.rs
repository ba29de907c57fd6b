//! An arm: the adapters of one experiment, attached to a model; and the list of ways to adapt.
//! It does not know how any of them computes or is written down.

use std::path::{Path, PathBuf};

use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use super::batched::Inner;
use super::fields::Fields;
use super::format::{Base, Format, Plan, Written};
use super::pack::Pack;
use super::{AdapterParams, format, ia3, lora, mlp, read, sidecar};
use crate::error::{Problem, Result};
use crate::ml::config::ModelConfig;
use crate::ml::dropout::Dropout;
use crate::ml::models::{Model, Point, Site};

/// The two terms of a residual sum at a block's site, both [B, T, H].
pub struct At<'a> {
    /// What came into the sub-layer's residual connection.
    pub residual: &'a Tensor,
    /// What the sub-layer adds to it.
    pub sublayer: &'a Tensor,
}

/// A site where an adapter sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    /// Its position among the model's sites.
    pub site: usize,
    /// True if its weights change nothing there, whatever they are scaled by: as when training begins.
    pub idle: bool,
    /// True if they are scaled by nothing.
    pub off: bool,
}

/// What an adapter does to what the frozen model says at a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Nothing.
    None,
    /// It adds what it makes of what goes in: no gradient depends on what the frozen model says.
    Adds,
    /// Anything.
    Changes,
}

/// What an adapter changes at a site.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The site.
    pub seat: Seat,
    /// The checkpoint's name of the module.
    pub name: String,
    /// The way of adapting.
    pub kind: &'static str,
    /// ‖ΔW‖_F and ‖W‖_F of a projection; none where no weight is changed.
    pub norms: Option<(f64, f64)>,
}

/// A frozen projection.
#[derive(Debug)]
pub struct Frozen {
    /// W [outputs, inputs].
    pub weight: Tensor,
    /// b `[outputs]`.
    pub bias: Option<Tensor>,
}

impl Frozen {
    /// The same tensors.
    pub(super) fn share(&self) -> Self {
        Self { weight: self.weight.shallow_clone(), bias: self.bias.as_ref().map(Tensor::shallow_clone) }
    }

    /// The projection at a site, which is not copied.
    pub(super) fn at(site: &Site, fan_in_fan_out: bool, weights: &crate::ml::weights::Tensors) -> Result<Self> {
        let name = format!("{}.weight", site.name);
        let stored = weights.get(&name).ok_or_else(|| Problem::new(format!("the model has no tensor `{name}`")))?;
        let weight = if fan_in_fan_out { stored.tr() } else { stored.shallow_clone() };
        Ok(Self { weight, bias: weights.get(&format!("{}.bias", site.name)).map(Tensor::shallow_clone) })
    }
}

/// The Frobenius norm.
fn norm(weight: &Tensor) -> f64 {
    weight.norm().double_value(&[])
}

/// True if every element is `value`.
pub(super) fn all_are(tensor: &Tensor, value: f64) -> bool {
    tensor.eq(value).all().int64_value(&[]) == 1
}

/// `x`, or what dropout leaves of it in training.
pub(super) fn dropped(x: &Tensor, p: f64, dropout: Option<&Dropout>) -> Tensor {
    dropout.map_or_else(|| x.shallow_clone(), |dropout| dropout.apply(x, p))
}

/// One way of adapting, attached to a model.
pub trait Adapter: Send {
    /// Its name in `ADAPTERS`.
    fn name(&self) -> &'static str;
    /// What a projection is given instead of x [.., inputs]; `None` for x itself.
    fn input(&self, _site: usize, _x: &Tensor) -> Option<Tensor> {
        None
    }
    /// What becomes of y = W x at a projection, x [.., inputs], y [.., outputs]. It may lie where y lay: y is contiguous,
    /// nobody else has it, and nothing that computed it keeps it for the way back.
    fn linear(&self, _site: usize, _x: &Tensor, y: Tensor, _dropout: Option<&Dropout>) -> Tensor {
        y
    }
    /// What becomes of `out` = residual + sublayer at a block's site.
    fn block(&self, _site: usize, _at: &At, out: Tensor, _dropout: Option<&Dropout>) -> Tensor {
        out
    }
    /// What it does to what the frozen model says at a site.
    fn effect(&self, site: usize) -> Effect;
    /// It in the form of [`Inner`] at a site, if it has that form: many of them are then computed at once.
    fn inner(&self, _site: usize) -> Option<Inner<'_>> {
        None
    }
    /// True if all it does with its tensors is done in the dtype of the base, so that they may be seen in it while they are
    /// trained: its products are added up in f32 anyway, as autocast has it, and what is around them costs what it reads
    /// and writes.
    fn rounds(&self) -> bool {
        false
    }
    /// Where it sits, in the order of the forward pass.
    fn seats(&self) -> Vec<Seat>;
    /// What the frozen projection at a site is with this adapter in it, in f32; an error says why it cannot be.
    fn merge(&self, site: usize, frozen: Frozen) -> Result<Frozen>;
    /// The same tensors, which are not copied, for another thread.
    fn share(&self) -> Attached;
    /// Its tensors in f32 by names that no other adapter's have, in the order of the names.
    fn parameters(&self) -> Vec<(String, Tensor)>;
    /// What a report says of it: `{"kind": …, …}`.
    fn describe(&self) -> Value;
    /// Everything but its tensors that decides what it computes: the side-car keeps it.
    fn definition(&self) -> Value;
    /// It as PEFT's file; an error says what PEFT has no word for.
    fn to_peft(&self) -> Result<Written>;
    /// It as AdapterHub's file, its tensors named for the adapter `name`; an error says what it has no word for.
    fn to_adapterhub(&self, name: &str) -> Result<Written>;
}

/// An adapter on a model.
pub type Attached = Box<dyn Adapter>;

/// Reads what a configuration asks for; `name` is that of AdapterHub's adapter, which its tensors carry.
pub type Reader = fn(&Fields, name: &str, &dyn Model) -> Result<Plan>;

/// An entry of [`ADAPTERS`].
pub struct Entry {
    /// Its name, also that of its folder beside another adapter's.
    pub name: &'static str,
    /// Attaches a new one, if the parameters ask for it.
    pub init: fn(&AdapterParams, &dyn Model, &mut ChaCha8Rng) -> Result<Option<Attached>>,
    /// PEFT's `peft_type` for it, and how its configuration is read.
    pub peft: Option<(&'static str, Reader)>,
    /// True if a configuration of AdapterHub is of this kind.
    pub claims: fn(&Fields) -> bool,
    /// How AdapterHub's configuration is read.
    pub adapterhub: Reader,
}

/// Every way of adapting.
pub static ADAPTERS: &[Entry] = &[lora::ENTRY, ia3::ENTRY, mlp::ENTRY];

/// The adapters of one experiment, attached to a model; none for the base itself.
#[derive(Default)]
pub struct Arm {
    adapters: Vec<Attached>,
    config: Option<ModelConfig>,
    base: Option<String>,
    notes: Vec<String>,
    /// The arms that this one stands for, if it is several.
    pack: Option<Pack>,
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
        Ok(Self { adapters, config: Some(model.config().clone()), ..Self::default() })
    }

    /// The same adapters, whose tensors are not copied, for another thread.
    pub fn share(&self) -> Self {
        Self {
            adapters: self.adapters.iter().map(|adapter| adapter.share()).collect(),
            config: self.config.clone(),
            base: self.base.clone(),
            notes: self.notes.clone(),
            pack: self.pack.as_ref().map(Pack::share),
        }
    }

    /// Several arms over one base, each for its own rows.
    pub fn pack(arms: Vec<Self>) -> Self {
        Self { pack: Some(Pack::new(arms)), ..Self::default() }
    }

    /// What it is made of, if it is several.
    pub fn packed(&self) -> Option<&Pack> {
        self.pack.as_ref()
    }

    /// Reads what `save`, PEFT or AdapterHub wrote: one adapter's folder, or a folder of such folders.
    pub fn load(folder: &Path, model: &dyn Model) -> Result<Self> {
        let mut arm = Self { config: Some(model.config().clone()), ..Self::default() };
        for part in read::parts(folder)? {
            let mut read = read::adapters(&part, model)?;
            arm.adapters.append(&mut read.adapters);
            arm.notes.append(&mut read.notes);
            arm.base = arm.base.or(read.base);
        }
        Ok(arm)
    }

    /// Fails if the side-car says that the adapters belong to other weights than those of this checkpoint folder.
    pub fn check_base(&self, checkpoint: &Path) -> Result<()> {
        self.base.as_ref().map_or(Ok(()), |base| sidecar::check_base(base, checkpoint))
    }

    /// The fingerprint of the base that the side-car names.
    pub fn base(&self) -> Option<&str> {
        self.base.as_deref()
    }

    /// The folders of single adapters that [`Arm::load`] reads.
    pub fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
        read::parts(folder)
    }

    /// Writes the adapters with a side-car: one alone in PEFT's format where it has a word for it, else in
    /// AdapterHub's; several as AdapterHub's `union` where it has one, else in a folder each.
    pub fn save<'b>(&self, folder: &Path, base: impl Into<Base<'b>>) -> Result<()> {
        let base = base.into();
        if let [adapter] = self.adapters.as_slice() {
            let format = if adapter.to_peft().is_ok() { Format::Peft } else { Format::AdapterHub };
            return self.save_as(format, folder, base);
        }
        if self.adapters.iter().all(|adapter| adapter.to_adapterhub(adapter.name()).is_ok()) {
            return self.save_as(Format::AdapterHub, folder, base);
        }
        self.adapters.iter().try_for_each(|adapter| {
            let format = if adapter.to_peft().is_ok() { Format::Peft } else { Format::AdapterHub };
            format::write(format, std::slice::from_ref(adapter), self.config()?, &folder.join(adapter.name()), base)
        })
    }

    /// Writes the adapters in this format, with a side-car; an error says what it has no word for.
    pub fn save_as<'b>(&self, format: Format, folder: &Path, base: impl Into<Base<'b>>) -> Result<()> {
        format::write(format, &self.adapters, self.config()?, folder, base.into())
    }

    fn config(&self) -> Result<&ModelConfig> {
        self.config.as_ref().ok_or_else(|| Problem::new("there is no adapter to write"))
    }

    /// What a projection is given instead of x; `None` for x itself.
    pub fn input(&self, site: usize, x: &Tensor) -> Option<Tensor> {
        if let Some(pack) = &self.pack {
            return pack.input(site, x);
        }
        self.adapters.iter().fold(None, |given, adapter| adapter.input(site, given.as_ref().unwrap_or(x)).or(given))
    }

    /// What the adapters make of y = W x at a projection; see [`Adapter::linear`].
    pub fn linear(&self, site: usize, x: &Tensor, y: Tensor, dropout: Option<&Dropout>) -> Tensor {
        if let Some(pack) = &self.pack {
            return pack.linear(site, x, y);
        }
        self.adapters.iter().fold(y, |y, adapter| adapter.linear(site, x, y, dropout))
    }

    /// What the adapters make of a residual sum.
    pub fn block(&self, site: usize, at: &At, out: Tensor, dropout: Option<&Dropout>) -> Tensor {
        if let Some(pack) = &self.pack {
            return pack.block(site, at, out);
        }
        self.adapters.iter().fold(out, |out, adapter| adapter.block(site, at, out, dropout))
    }

    /// What the adapters do to what the frozen model says at a site, the strongest of it.
    pub fn effect(&self, site: usize) -> Effect {
        if self.pack.is_some() {
            return Effect::Changes;
        }
        self.adapters.iter().map(|adapter| adapter.effect(site)).max().unwrap_or(Effect::None)
    }

    /// What a frozen projection is with the adapters in it, in f32; an error says which of them cannot be merged.
    pub fn merge(&self, site: usize, frozen: Frozen) -> Result<Frozen> {
        self.adapters.iter().try_fold(frozen, |frozen, adapter| adapter.merge(site, frozen))
    }

    /// What it adds at a site, if it has an adapter there and that has such a form; there is one at most.
    pub(super) fn inner(&self, site: usize) -> Option<Inner<'_>> {
        self.adapters.iter().find_map(|adapter| adapter.inner(site))
    }

    /// The sites where it has an adapter, in the order of adapters.
    pub(super) fn seats(&self) -> Vec<Seat> {
        self.adapters.iter().flat_map(|adapter| adapter.seats()).collect()
    }

    /// What each adapter does at each of its sites. A projection's change is that of its merged weight in f32.
    pub fn changes(&self, model: &dyn Model) -> Result<Vec<Change>> {
        let weights = model.weights();
        let mut changes = Vec::new();
        for adapter in &self.adapters {
            for seat in adapter.seats() {
                let site = &model.sites()[seat.site];
                let norms = match site.point {
                    Point::Linear { fan_in_fan_out, .. } => {
                        let before = Frozen::at(site, fan_in_fan_out, &weights)?.weight.to_kind(Kind::Float);
                        let after = adapter.merge(seat.site, Frozen::at(site, fan_in_fan_out, &weights)?)?.weight;
                        Some((norm(&(after - &before)), norm(&before)))
                    }
                    Point::AfterAttention { .. } | Point::AfterFeedForward { .. } => None,
                };
                changes.push(Change { seat, name: site.name.clone(), kind: adapter.name(), norms });
            }
        }
        Ok(changes)
    }

    /// The lowest block of the model that has an adapter; `None` for the base itself.
    pub fn lowest_layer(&self, model: &dyn Model) -> Option<usize> {
        if let Some(pack) = &self.pack {
            return pack.arms().iter().filter_map(|arm| arm.lowest_layer(model)).min();
        }
        let layers = self.seats().into_iter().map(|seat| model.sites()[seat.site].layer);
        layers.min().and_then(|layer| usize::try_from(layer).ok())
    }

    /// Fails with the reason if one of the adapters cannot be merged.
    pub fn mergeable(&self) -> Result<()> {
        // No model has so many sites: only a way of adapting that never merges says no.
        let nowhere = || Frozen { weight: Tensor::zeros([1, 1], (Kind::Float, Device::Cpu)), bias: None };
        self.adapters.iter().try_for_each(|adapter| adapter.merge(usize::MAX, nowhere()).map(drop))
    }

    /// All trainable tensors, f32, by names that differ.
    pub fn parameters(&self) -> Vec<(String, Tensor)> {
        self.adapters.iter().flat_map(|adapter| adapter.parameters()).collect()
    }

    /// The dtype in which its tensors may be seen while they are trained.
    pub fn seen_in(&self, model: &dyn Model) -> Kind {
        if self.adapters.iter().all(|adapter| adapter.rounds()) { model.kind() } else { Kind::Float }
    }

    /// How many trainable parameters there are.
    pub fn trainable_parameters(&self) -> u64 {
        self.parameters().iter().map(|(_, tensor)| tensor.numel() as u64).sum()
    }

    /// What a report says of the adapters.
    pub fn describe(&self) -> Vec<Value> {
        self.adapters.iter().map(|adapter| adapter.describe()).collect()
    }

    /// What a user should be told about the files that were read.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// True for the base itself.
    pub fn is_none(&self) -> bool {
        self.adapters.is_empty()
    }
}
