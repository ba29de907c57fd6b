//! IA3 (Liu et al. 2022): vectors that scale what a projection gives, or what it takes. PEFT 0.21 has both, AdapterHub
//! 1.3 only the first, times α. It does not know which projections a model has beyond their sites, nor file formats.

mod adapterhub;
mod peft;

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use super::arm::{Adapter, Attached, Effect, Entry, Frozen, Seat, all_are};
use super::format::{Written, sorted};
use super::params::{AdapterParams, layers};
use super::place::{self, Place, places};
use super::targets::Rule;
use crate::error::Result;
use crate::ml::dropout::Dropout;
use crate::ml::models::Model;

/// The entry of `ADAPTERS`.
pub const ENTRY: Entry = Entry {
    name: "ia3",
    init,
    peft: Some(("IA3", peft::plan)),
    claims: adapterhub::claims,
    adapterhub: adapterhub::plan,
};

/// The vector of one projection.
struct Vector {
    place: Place,
    l: Tensor, // [1, inputs] if it scales the input, [outputs, 1] otherwise
    on_input: bool,
}

impl Vector {
    fn flat(&self) -> Tensor {
        self.l.reshape([-1])
    }

    /// `x` · `factor` · l, in the dtype of `x`.
    fn scale(&self, x: &Tensor, factor: f64) -> Tensor {
        let l = if factor == 1.0 { self.flat() } else { self.flat() * factor };
        (x.to_kind(Kind::Float) * l).to_kind(x.kind())
    }
}

/// IA3 on a model.
pub struct Ia3 {
    rule: Rule,
    /// AdapterHub's α, a factor of every vector; 1 in PEFT.
    alpha: f64,
    /// Blocks of the model.
    blocks: i64,
    vectors: BTreeMap<usize, Vector>,
}

impl Ia3 {
    fn new(alpha: f64, blocks: i64, all: &[(&str, i64)], vectors: BTreeMap<usize, Vector>) -> Self {
        let chosen: Vec<_> = vectors.values().map(|v| (v.place.name.as_str(), v.place.layer)).collect();
        Self { rule: Rule::of(&chosen, all), alpha, blocks, vectors }
    }
}

impl Adapter for Ia3 {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn input(&self, site: usize, x: &Tensor) -> Option<Tensor> {
        let vector = self.vectors.get(&site).filter(|vector| vector.on_input)?;
        Some(vector.scale(x, self.alpha))
    }

    fn linear(&self, site: usize, _x: &Tensor, y: Tensor, _dropout: Option<&Dropout>) -> Tensor {
        match self.vectors.get(&site) {
            Some(vector) if !vector.on_input => vector.scale(&y, self.alpha),
            _ => y,
        }
    }

    fn effect(&self, site: usize) -> Effect {
        if self.vectors.get(&site).is_none_or(|vector| vector.on_input) { Effect::None } else { Effect::Changes }
    }

    fn seats(&self) -> Vec<Seat> {
        let seat = |(site, vector): (&usize, &Vector)| Seat {
            site: *site,
            idle: all_are(&(&vector.l * self.alpha), 1.0),
            off: false,
        };
        self.vectors.iter().map(seat).collect()
    }

    fn merge(&self, site: usize, frozen: Frozen) -> Result<Frozen> {
        let Some(vector) = self.vectors.get(&site) else { return Ok(frozen) };
        let l = vector.flat().detach().to_device(frozen.weight.device()) * self.alpha;
        let weight = frozen.weight.to_kind(Kind::Float);
        Ok(if vector.on_input {
            Frozen { weight: weight * l, bias: frozen.bias }
        } else {
            let bias = frozen.bias.map(|bias| bias.to_kind(Kind::Float) * &l);
            Frozen { weight: weight * l.unsqueeze(1), bias }
        })
    }

    fn share(&self) -> Attached {
        let share = |vector: &Vector| Vector {
            place: vector.place.clone(),
            l: vector.l.shallow_clone(),
            on_input: vector.on_input,
        };
        let vectors = self.vectors.iter().map(|(&site, vector)| (site, share(vector))).collect();
        Box::new(Self { rule: self.rule.clone(), alpha: self.alpha, blocks: self.blocks, vectors })
    }

    fn parameters(&self) -> Vec<(String, Tensor)> {
        sorted(self.vectors.values().map(|v| (peft::tensor_name(&v.place.name), v.l.shallow_clone())).collect())
    }

    fn describe(&self) -> Value {
        let mut on_input: Vec<&str> = self.vectors.values().filter(|v| v.on_input).map(|v| v.place.short()).collect();
        on_input.sort_unstable();
        on_input.dedup();
        json!({
            "kind": ENTRY.name, "target_modules": self.rule.names, "feedforward_modules": on_input,
            "layers": self.rule.layers,
        })
    }

    fn definition(&self) -> Value {
        let scaled: BTreeMap<&str, &str> = self
            .vectors
            .values()
            .map(|v| (v.place.name.as_str(), if v.on_input { "input" } else { "output" }))
            .collect();
        json!({"kind": ENTRY.name, "scaled": scaled, "alpha": self.alpha})
    }

    fn to_peft(&self) -> Result<Written> {
        peft::write(self)
    }

    fn to_adapterhub(&self, name: &str) -> Result<Written> {
        adapterhub::write(self, name)
    }
}

fn shape(place: &Place, on_input: bool) -> [i64; 2] {
    if on_input { [1, place.inputs] } else { [place.outputs, 1] }
}

/// Ones: nothing changes at first.
fn init(params: &AdapterParams, model: &dyn Model, _rng: &mut ChaCha8Rng) -> Result<Option<Attached>> {
    let Some(params) = &params.ia3 else { return Ok(None) };
    layers(params.layers.as_deref(), model.config())?;
    let mut vectors = BTreeMap::new();
    for place in places(model, &params.selector()?)? {
        let on_input = params.on_input(&place.name);
        let l = Tensor::ones(shape(&place, on_input), (Kind::Float, model.device()));
        vectors.insert(place.site, Vector { place, l, on_input });
    }
    let blocks = model.config().num_hidden_layers;
    Ok(Some(Box::new(Ia3::new(1.0, blocks, &place::all(model), vectors))))
}
