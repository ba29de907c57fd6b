//! IA3 in AdapterHub's files: `LoRAConfig` of adapters 1.3 with `composition_mode: scale`, and the tensors beside it.
//! It does not know how a vector computes.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Ia3, Vector};
use crate::error::{Problem, Result};
use crate::ml::adapters::arm::Attached;
use crate::ml::adapters::fields::{Fields, wrong};
use crate::ml::adapters::format::{Plan, Taken, Written, sorted, whole};
use crate::ml::adapters::hub;
use crate::ml::adapters::lora::peft::unknown;
use crate::ml::adapters::place::{self, places};
use crate::ml::models::Model;
use crate::ml::weights::Shapes;

pub(super) fn claims(config: &Fields) -> bool {
    config.text("architecture", "") == Ok("lora") && config.text("composition_mode", "add") == Ok("scale")
}

pub(super) fn plan(config: &Fields, name: &str, model: &dyn Model) -> Result<Plan> {
    hub::refuse_options(config)?;
    config.refuse(&[("use_dora", &[])])?;
    if config.size("r")? != 1 {
        return Err(wrong("r", &json!(config.size("r")?), "1 with `composition_mode: scale`"));
    }
    if config.share("dropout")? > 0.0 {
        return Err(Problem::new("`composition_mode: scale` has no dropout, but `dropout` is not 0"));
    }
    let alpha = config.number("alpha")?;
    let named = |module: &str, name: &str| format!("{module}.loras.{name}.lora_B");
    let mut shapes = Shapes::new();
    let chosen = places(model, &hub::selector(config, model)?)?;
    for place in &chosen {
        shapes.insert(named(&place.name, name), vec![place.outputs, 1]);
    }
    let (all, blocks, name) = (place::owned(model), model.config().num_hidden_layers, name.to_owned());
    let build = move |taken: &mut Taken| {
        let mut vectors = BTreeMap::new();
        for place in chosen {
            let l = taken.take(&named(&place.name, &name))?;
            vectors.insert(place.site, Vector { place, l, on_input: false });
        }
        Ok(Box::new(Ia3::new(alpha, blocks, &place::borrowed(&all), vectors)) as Attached)
    };
    Ok(Plan { shapes, aliases: BTreeMap::new(), notes: unknown(config, &hub::KNOWN), build: Box::new(build) })
}

pub(super) fn write(ia3: &Ia3, name: &str) -> Result<Written> {
    if let Some(vector) = ia3.vectors.values().find(|vector| vector.on_input) {
        return Err(Problem::new(format!(
            "AdapterHub's IA3 scales what a projection gives, but this one scales what `{}` takes",
            vector.place.name
        ))
        .help("train it with `feedforward_modules: []`, or merge it into the base: `--format merged`"));
    }
    let places: Vec<_> = ia3.vectors.values().map(|vector| &vector.place).collect();
    let mut config = hub::switches(&places, ia3.blocks)?;
    for (field, value) in [
        ("alpha", whole(ia3.alpha)),
        ("composition_mode", json!("scale")),
        ("dropout", json!(0.0)),
        ("init_weights", json!("ia3")),
        ("r", json!(1)),
        ("use_dora", json!(false)),
    ] {
        config.insert(field.to_owned(), value);
    }
    let tensors = ia3
        .vectors
        .values()
        .map(|vector| (format!("{}.loras.{name}.lora_B", vector.place.name), vector.l.shallow_clone()));
    Ok(Written { config, tensors: sorted(tensors.collect()) })
}
