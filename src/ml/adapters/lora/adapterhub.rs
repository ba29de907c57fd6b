//! LoRA in AdapterHub's files: `LoRAConfig` of adapters 1.3 with `composition_mode: add`, and the tensors beside it.
//! It does not know how an update computes.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde_json::json;

use super::{Common, Dora, Lora, Magnitude, Update};
use crate::error::{Problem, Result};
use crate::ml::adapters::arm::Attached;
use crate::ml::adapters::fields::{Fields, wrong};
use crate::ml::adapters::format::{Plan, Taken, Written, sorted, whole};
use crate::ml::adapters::hub;
use crate::ml::adapters::place::{self, places};
use crate::ml::models::Model;
use crate::ml::weights::Shapes;

use super::peft::unknown;

pub(super) fn claims(config: &Fields) -> bool {
    config.text("architecture", "") == Ok("lora") && config.text("composition_mode", "add") != Ok("scale")
}

pub(super) fn plan(config: &Fields, name: &str, model: &dyn Model) -> Result<Plan> {
    hub::refuse_options(config)?;
    if let Some(mode) = config.get("composition_mode").filter(|mode| mode.as_str() != Some("add")) {
        return Err(wrong("composition_mode", mode, "`add` or `scale`"));
    }
    let rank = config.size("r")?;
    let alpha = config.number("alpha")?;
    let dropout = config.share("dropout")?;
    let dora = config.flag("use_dora", false)?.then_some(Dora::AdapterHub);
    let weights = if dora.is_some() { model.weights() } else { Default::default() };
    let mut shapes = Shapes::new();
    let mut chosen = Vec::new();
    for place in places(model, &hub::selector(config, model)?)? {
        let named = |part: &str| format!("{}.loras.{name}.{part}", place.name);
        shapes.insert(named("lora_A"), vec![rank, place.inputs]);
        shapes.insert(named("lora_B"), vec![place.outputs, rank]);
        let frozen = if dora.is_some() {
            shapes.insert(named("m.weight"), vec![place.outputs, 1]);
            Some(place.frozen(model, &weights)?)
        } else {
            None
        };
        chosen.push((place, frozen));
    }
    let all = place::owned(model);
    let common = Common { rank, alpha, dropout, rooted: false, dora, blocks: model.config().num_hidden_layers };
    let name = name.to_owned();
    let build = move |taken: &mut Taken| {
        let mut updates = BTreeMap::new();
        for (place, frozen) in chosen {
            let mut take = |part: &str| taken.take(&format!("{}.loras.{name}.{part}", place.name));
            let (a, b) = (take("lora_A")?, take("lora_B")?);
            let magnitude = match frozen {
                Some(frozen) => {
                    let m = take("m.weight")?.flatten(0, 1);
                    Some(Magnitude { m, frozen, norm: RefCell::default() })
                }
                None => None,
            };
            let scale = alpha / rank as f64;
            updates.insert(place.site, Update::new(place, [a, b], alpha, scale, magnitude));
        }
        Ok(Box::new(Lora::new(common, &place::borrowed(&all), updates)) as Attached)
    };
    Ok(Plan { shapes, aliases: BTreeMap::new(), notes: unknown(config, &hub::KNOWN), build: Box::new(build) })
}

/// All updates have one rank and one scale here; a conversion that would round the scale is refused.
pub(super) fn write(lora: &Lora, name: &str) -> Result<Written> {
    let common = &lora.common;
    if common.dora == Some(Dora::Peft) {
        return Err(Problem::new(
            "AdapterHub's DoRA is another than PEFT's: it takes the norm of W + BA, not of W + s·BA",
        )
        .help("merge it into the base instead: `--format merged`"));
    }
    let mut updates = lora.updates.values();
    let first = updates.next().ok_or_else(|| Problem::new("the adapter has no update"))?;
    let rank = first.rank();
    if let Some(other) = updates.find(|update| update.rank() != rank || update.scale != first.scale) {
        return Err(Problem::new(format!(
            "AdapterHub's LoRA has one rank and one scale: `{}` has rank {rank} and scale {}, `{}` has {} and {}",
            first.place.name,
            first.scale,
            other.place.name,
            other.rank(),
            other.scale
        )));
    }
    let alpha = first.scale * rank as f64;
    if alpha / rank as f64 != first.scale {
        return Err(Problem::new(format!(
            "AdapterHub scales by alpha / r, and no alpha gives {} with r = {rank} exactly",
            first.scale
        )));
    }
    let places: Vec<_> = lora.updates.values().map(|update| &update.place).collect();
    let mut config = hub::switches(&places, common.blocks)?;
    for (field, value) in [
        ("alpha", whole(alpha)),
        ("composition_mode", json!("add")),
        ("dropout", json!(common.dropout)),
        ("init_weights", json!("lora")),
        ("r", json!(rank)),
        ("use_dora", json!(common.dora.is_some())),
    ] {
        config.insert(field.to_owned(), value);
    }
    let tensors = lora.updates.values().flat_map(|update| {
        let named = |part: &str| format!("{}.loras.{name}.{part}", update.place.name);
        let mut tensors =
            vec![(named("lora_A"), update.a.shallow_clone()), (named("lora_B"), update.b.shallow_clone())];
        tensors.extend(update.magnitude.as_ref().map(|at| (named("m.weight"), at.m.unsqueeze(1))));
        tensors
    });
    Ok(Written { config, tensors: sorted(tensors.collect()) })
}
