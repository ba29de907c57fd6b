//! IA3 in PEFT's files: `IA3Config` of peft 0.21.2 and the tensors beside it.
//! It does not know how a vector computes.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{ENTRY, Ia3, Vector, shape};
use crate::error::{Problem, Result};
use crate::ml::adapters::arm::Attached;
use crate::ml::adapters::fields::Fields;
use crate::ml::adapters::format::{Plan, Taken, Written, sorted};
use crate::ml::adapters::lora::peft::{selector, unknown};
use crate::ml::adapters::place::{self, places};
use crate::ml::adapters::targets::{Targets, expression, last};
use crate::ml::models::Model;
use crate::ml::weights::Shapes;

/// Every field of `IA3Config` in peft 0.21.2.
const KNOWN: [&str; 13] = [
    "auto_mapping",
    "base_model_name_or_path",
    "exclude_modules",
    "fan_in_fan_out",
    "feedforward_modules",
    "inference_mode",
    "init_ia3_weights",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "revision",
    "target_modules",
    "task_type",
];

pub(super) fn tensor_name(module: &str) -> String {
    format!("base_model.model.{module}.ia3_l")
}

pub(super) fn plan(fields: &Fields, _name: &str, model: &dyn Model) -> Result<Plan> {
    fields.refuse(&[("modules_to_save", &[])])?;
    if fields.get("feedforward_modules").is_none() {
        return Err(
            Problem::new("`feedforward_modules` is missing").help("PEFT writes it resolved; an empty list for none")
        );
    }
    // PEFT compares the ends of names, whole parts or not.
    let inputs = fields.targets("feedforward_modules")?;
    let inputs: Box<dyn Fn(&str) -> bool> = match inputs {
        None => Box::new(|_| false),
        Some(Targets::List(ends)) => Box::new(move |name| ends.iter().any(|end| name.ends_with(end.as_str()))),
        Some(Targets::Text(text)) => {
            let whole = expression(&format!(r"\A(?:{text})\z"))?;
            Box::new(move |name| whole.is_match(name))
        }
    };
    let mut shapes = Shapes::new();
    let mut chosen = Vec::new();
    for place in places(model, &selector(fields)?)? {
        let on_input = inputs(&place.name);
        shapes.insert(tensor_name(&place.name), shape(&place, on_input).to_vec());
        chosen.push((place, on_input));
    }
    let (all, blocks) = (place::owned(model), model.config().num_hidden_layers);
    let build = move |taken: &mut Taken| {
        let mut vectors = BTreeMap::new();
        for (place, on_input) in chosen {
            let l = taken.take(&tensor_name(&place.name))?;
            vectors.insert(place.site, Vector { place, l, on_input });
        }
        Ok(Box::new(Ia3::new(1.0, blocks, &place::borrowed(&all), vectors)) as Attached)
    };
    Ok(Plan { shapes, aliases: BTreeMap::new(), notes: unknown(fields, &KNOWN), build: Box::new(build) })
}

/// The minimal fields of `IA3Config`, which has no layers: where they are not all, whole names say which.
pub(super) fn write(ia3: &Ia3) -> Result<Written> {
    if ia3.alpha != 1.0 {
        return Err(Problem::new(format!("PEFT's IA3 has no α, and this one has {}", ia3.alpha)));
    }
    let whole = |vectors: &mut dyn Iterator<Item = &Vector>| vectors.map(|v| v.place.name.clone()).collect::<Vec<_>>();
    let short = ia3.rule.layers.is_none().then(|| Some((ia3.rule.names.clone(), ends(ia3)?))).flatten();
    let (names, inputs) = short.unwrap_or_else(|| {
        (whole(&mut ia3.vectors.values()), whole(&mut ia3.vectors.values().filter(|vector| vector.on_input)))
    });
    let mut config = Map::new();
    config.insert("feedforward_modules".to_owned(), json!(inputs));
    config.insert("peft_type".to_owned(), json!(ENTRY.peft.map(|(name, _)| name)));
    config.insert("target_modules".to_owned(), Value::from(names));
    let tensors = ia3.vectors.values().map(|vector| (tensor_name(&vector.place.name), vector.l.shallow_clone()));
    Ok(Written { config, tensors: sorted(tensors.collect()) })
}

/// Those of the rule's names whose ends mean exactly the vectors that scale an input; PEFT asks for names of the rule.
fn ends(ia3: &Ia3) -> Option<Vec<String>> {
    let parts = ia3.rule.names.first()?.split('.').count();
    let inputs = ia3.vectors.values().filter(|vector| vector.on_input);
    let mut ends: Vec<String> = inputs.map(|vector| last(&vector.place.name, parts).to_owned()).collect();
    ends.sort();
    ends.dedup();
    let means = |name: &str| ends.iter().any(|end| name.ends_with(end.as_str()));
    ia3.vectors.values().all(|vector| means(&vector.place.name) == vector.on_input).then_some(ends)
}
