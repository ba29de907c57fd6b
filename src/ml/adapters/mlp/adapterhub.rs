//! Bottlenecks in AdapterHub's file: their tensors' names there, and the layers that are left out.
//! It does not know how a bottleneck computes.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::config::{BnConfig, KNOWN, bottleneck_width, factor, factor_of};
use super::{BEFORE_BIAS, BEFORE_WEIGHT, Bottleneck, DOWN_BIAS, DOWN_WEIGHT, Mlp, parts, prefix, sites};
use crate::error::Result;
use crate::ml::adapters::arm::Attached;
use crate::ml::adapters::fields::Fields;
use crate::ml::adapters::format::{Plan, Taken, Written, sorted};
use crate::ml::adapters::hub;
use crate::ml::adapters::lora::peft::unknown;
use crate::ml::models::Model;
use crate::ml::weights::Shapes;

pub(super) fn claims(config: &Fields) -> bool {
    config.get("architecture").is_none()
}

/// The name of a part in the file: `adapter_down` is a sequence of layers there, which a norm may begin.
pub(super) fn in_file(part: &str, config: &BnConfig) -> String {
    let at = usize::from(config.ln_before);
    match part {
        DOWN_WEIGHT => format!("adapter_down.{at}.weight"),
        DOWN_BIAS => format!("adapter_down.{at}.bias"),
        other => other.to_owned(),
    }
}

/// The norm before is a layer of that sequence too, so that Python has its tensors twice.
fn alias(part: &str) -> Option<&'static str> {
    match part {
        BEFORE_WEIGHT => Some("adapter_down.0.weight"),
        BEFORE_BIAS => Some("adapter_down.0.bias"),
        _ => None,
    }
}

pub(super) fn plan(fields: &Fields, name: &str, model: &dyn Model) -> Result<Plan> {
    let config = BnConfig::read(fields)?;
    let kept = hub::kept(fields, model)?;
    let (width, blocks) = (model.config().hidden_size, model.config().num_hidden_layers);
    let mut shapes = Shapes::new();
    let mut aliases = BTreeMap::new();
    let mut chosen = Vec::new();
    for (position, site) in sites(model, &kept, &config) {
        let hidden = bottleneck_width(width, factor(fields, site.layer)?);
        let mut names = Vec::new();
        for (part, shape) in parts(&config, hidden, width) {
            let full = format!("{}.{name}.{}", prefix(site), in_file(part, &config));
            if let Some(alias) = alias(part) {
                aliases.insert(format!("{}.{name}.{alias}", prefix(site)), full.clone());
            }
            shapes.insert(full.clone(), shape);
            names.push((part, full));
        }
        chosen.push((position, prefix(site), site.layer, names));
    }
    let notes = unknown(fields, &KNOWN);
    let name = name.to_owned();
    let build = move |taken: &mut Taken| {
        let mut bottlenecks = BTreeMap::new();
        for (position, prefix, layer, names) in chosen {
            let tensors =
                names.into_iter().map(|(part, full)| Ok((part, taken.take(&full)?))).collect::<Result<_>>()?;
            bottlenecks.insert(position, Bottleneck { prefix, layer, tensors });
        }
        Ok(Box::new(Mlp { config, name, width, blocks, bottlenecks }) as Attached)
    };
    Ok(Plan { shapes, aliases, notes, build: Box::new(build) })
}

pub(super) fn write(mlp: &Mlp, name: &str) -> Result<Written> {
    let mut config = mlp.config.fields();
    let layers = mlp.layers();
    let left_out: Vec<i64> = (0..mlp.blocks).filter(|layer| !layers.contains(layer)).collect();
    config.insert("leave_out".to_owned(), Value::from(left_out));
    config.insert("reduction_factor".to_owned(), reduction_factor(mlp)?);
    let tensors = mlp.bottlenecks.values().flat_map(|bottleneck| {
        let named =
            |part: &str, tensor: &tch::Tensor| (format!("{}.{name}.{part}", bottleneck.prefix), tensor.shallow_clone());
        bottleneck.tensors.iter().flat_map(move |(part, tensor)| {
            let twice = alias(part).map(|alias| named(alias, tensor));
            std::iter::once(named(&in_file(part, &mlp.config), tensor)).chain(twice)
        })
    });
    Ok(Written { config, tensors: sorted(tensors.collect()) })
}

/// One factor, or one for every layer if the bottlenecks differ.
fn reduction_factor(mlp: &Mlp) -> Result<Value> {
    let mut factors = Map::new();
    for bottleneck in mlp.bottlenecks.values() {
        factors.insert(bottleneck.layer.to_string(), factor_of(mlp.width, bottleneck.hidden())?);
    }
    let mut values = factors.values();
    match values.next().cloned() {
        Some(first) if values.all(|factor| *factor == first) => Ok(first),
        _ => Ok(Value::Object(factors)),
    }
}
