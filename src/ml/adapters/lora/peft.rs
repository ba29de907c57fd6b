//! LoRA in PEFT's files: `LoraConfig` of peft 0.21.2 and the tensors beside it.
//! It does not know how an update computes.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tch::Tensor;

use super::{Common, Dora, ENTRY, Lora, Magnitude, Update, scale};
use crate::error::{Problem, Result};
use crate::ml::adapters::arm::Attached;
use crate::ml::adapters::fields::{Fields, wrong};
use crate::ml::adapters::format::{Plan, Taken, Written, sorted, whole};
use crate::ml::adapters::params::layers;
use crate::ml::adapters::place::{self, places};
use crate::ml::adapters::targets::{Patterns, Selector, Targets};
use crate::ml::models::Model;
use crate::ml::weights::Shapes;

/// Options that would change what is computed; a value that is empty or listed changes nothing.
fn refuse_options(config: &Fields) -> Result<()> {
    // These draw first values and leave the base as it is; others (PiSSA, OLoRA, LoftQ, …) change the base too.
    let by_weights = [true.into(), "gaussian".into(), "orthogonal".into(), "eva".into()];
    let none = ["none".into()];
    config.refuse(&[
        ("use_qalora", &[]),
        ("use_bdlora", &[]),
        ("lora_bias", &[]),
        ("bias", &none),
        ("modules_to_save", &[]),
        ("trainable_token_indices", &[]),
        ("target_parameters", &[]),
        ("layer_replication", &[]),
        ("alora_invocation_tokens", &[]),
        ("arrow_config", &[]),
        ("kasa_config", &[]),
        ("velora_config", &[]),
        ("monteclora_config", &[]),
        ("megatron_config", &[]),
        ("init_lora_weights", &by_weights),
    ])
}

/// Every field of `LoraConfig` in peft 0.21.2; `fan_in_fan_out` follows from the model, the rest say how training
/// began or where the adapter comes from.
const KNOWN: [&str; 41] = [
    "alora_invocation_tokens",
    "alpha_pattern",
    "arrow_config",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "kasa_config",
    "layer_replication",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_bias",
    "lora_dropout",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "modules_to_save",
    "monteclora_config",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "target_modules",
    "target_parameters",
    "task_type",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
    "use_rslora",
    "velora_config",
];

/// What `target_modules` and its companions choose.
pub(in crate::ml::adapters) fn selector(fields: &Fields) -> Result<Selector> {
    let wanted = fields.targets("target_modules")?;
    let wanted = wanted.ok_or_else(|| Problem::new("`target_modules` is missing").help("PEFT writes it resolved"))?;
    // PEFT takes an empty list for none.
    let layers = fields.layers("layers_to_transform")?.filter(|layers| !layers.is_empty());
    if let (Some(_), Targets::Text(text)) = (&layers, &wanted)
        && text.to_lowercase() != "all-linear"
    {
        return Err(Problem::new("`layers_to_transform` goes with a list of `target_modules`, not with text"));
    }
    let containers = fields.names("layers_pattern")?.unwrap_or_default();
    let containers: Vec<String> = containers.into_iter().filter(|name| !name.is_empty()).collect();
    Selector::new(&wanted)?.without(fields.targets("exclude_modules")?.as_ref())?.within(layers.as_deref(), &containers)
}

/// What is said of fields that nobody knows: PEFT ignores them with a warning.
pub(in crate::ml::adapters) fn unknown(fields: &Fields, known: &[&str]) -> Vec<String> {
    let others = fields.others(known);
    others
        .into_iter()
        .map(|name| format!("the field `{name}` of adapter_config.json is not known and ignored"))
        .collect()
}

pub(super) fn plan(fields: &Fields, _name: &str, model: &dyn Model) -> Result<Plan> {
    refuse_options(fields)?;
    let rank = fields.size("r")?;
    let alpha = fields.number("lora_alpha").map_err(|p| p.help("without it PEFT silently takes 8"))?;
    let dropout = fields.share("lora_dropout")?;
    let rooted = fields.flag("use_rslora", false)?;
    let dora = fields.flag("use_dora", false)?.then_some(Dora::Peft);
    layers(fields.layers("layers_to_transform")?.as_deref(), model.config())?;
    let (ranks, alphas) = (fields.ordered("rank_pattern")?, fields.ordered("alpha_pattern")?);
    if let Some((_, r)) = ranks.iter().find(|(_, r)| r.fract() != 0.0 || !(1.0..=65536.0).contains(r)) {
        return Err(Problem::new(format!("`rank_pattern` has the rank {r}")).expected("1 to 65536"));
    }
    if let Some((_, alpha)) = alphas.iter().find(|(_, alpha)| !alpha.is_finite()) {
        return Err(wrong("alpha_pattern", &Value::from(*alpha), "numbers"));
    }
    let in_field = |name: &str, p: Problem| Problem { what: format!("{} in `{name}`", p.what), ..p };
    let ranks = Patterns::new(ranks.iter().map(|(key, r)| (key.as_str(), *r as i64)));
    let ranks = ranks.map_err(|p| in_field("rank_pattern", p))?;
    let alphas = Patterns::new(alphas.iter().map(|(key, alpha)| (key.as_str(), *alpha)));
    let alphas = alphas.map_err(|p| in_field("alpha_pattern", p))?;

    let weights = if dora.is_some() { model.weights() } else { Default::default() };
    let mut shapes = Shapes::new();
    let mut chosen = Vec::new();
    for place in places(model, &selector(fields)?)? {
        let r = ranks.value(&place.name).unwrap_or(rank);
        let alpha = alphas.value(&place.name).unwrap_or(alpha);
        shapes.insert(tensor_name(&place.name, "lora_A.weight"), vec![r, place.inputs]);
        shapes.insert(tensor_name(&place.name, "lora_B.weight"), vec![place.outputs, r]);
        let frozen = if dora.is_some() {
            shapes.insert(tensor_name(&place.name, "lora_magnitude_vector"), vec![place.outputs]);
            Some(place.frozen(model, &weights)?)
        } else {
            None
        };
        chosen.push((place, frozen, alpha, scale(alpha, r, rooted)));
    }
    let all = place::owned(model);
    let common = Common { rank, alpha, dropout, rooted, dora, blocks: model.config().num_hidden_layers };
    let build = move |taken: &mut Taken| {
        let mut updates = BTreeMap::new();
        for (place, frozen, alpha, scale) in chosen {
            let mut take = |part: &str| taken.take(&tensor_name(&place.name, part));
            let (a, b) = (take("lora_A.weight")?, take("lora_B.weight")?);
            let magnitude = match frozen {
                Some(frozen) => Some(Magnitude { m: take("lora_magnitude_vector")?, frozen, norm: RefCell::default() }),
                None => None,
            };
            updates.insert(place.site, Update::new(place, [a, b], alpha, scale, magnitude));
        }
        Ok(Box::new(Lora::new(common, &place::borrowed(&all), updates)) as Attached)
    };
    Ok(Plan { shapes, aliases: BTreeMap::new(), notes: unknown(fields, &KNOWN), build: Box::new(build) })
}

fn tensor_name(module: &str, part: &str) -> String {
    format!("base_model.model.{module}.{part}")
}

/// The tensors of an update by PEFT's names.
pub(super) fn named(update: &Update) -> Vec<(String, Tensor)> {
    let name = |part: &str| tensor_name(&update.place.name, part);
    let mut tensors =
        vec![(name("lora_A.weight"), update.a.shallow_clone()), (name("lora_B.weight"), update.b.shallow_clone())];
    tensors.extend(update.magnitude.as_ref().map(|at| (name("lora_magnitude_vector"), at.m.shallow_clone())));
    tensors
}

/// The minimal fields of `LoraConfig`.
pub(super) fn write(lora: &Lora) -> Result<Written> {
    if lora.common.dora == Some(Dora::AdapterHub) {
        return Err(Problem::new(
            "PEFT's DoRA is another than AdapterHub's: it takes the norm of W + s·BA, not of W + BA",
        )
        .help("merge it into the base instead: `--format merged`"));
    }
    let mut config = Map::new();
    let mut set = |name: &str, value: Value| config.insert(name.to_owned(), value);
    set("bias", json!("none"));
    set("lora_alpha", whole(lora.common.alpha));
    set("lora_dropout", json!(lora.common.dropout));
    set("peft_type", json!(ENTRY.peft.map(|(name, _)| name)));
    set("r", json!(lora.common.rank));
    set("target_modules", json!(lora.rule.names));
    if let Some(layers) = &lora.rule.layers {
        set("layers_to_transform", json!(layers));
    }
    if lora.common.rooted {
        set("use_rslora", json!(true));
    }
    if lora.common.dora.is_some() {
        set("use_dora", json!(true));
    }
    // Updates that do not follow the rule for all.
    let others = |differs: &dyn Fn(&Update) -> Option<Value>| {
        let found = lora.updates.values().filter_map(|update| Some((update.place.name.clone(), differs(update)?)));
        let found: Map<String, Value> = found.collect();
        (!found.is_empty()).then_some(Value::Object(found))
    };
    if let Some(ranks) = others(&|update| (update.rank() != lora.common.rank).then(|| Value::from(update.rank()))) {
        set("rank_pattern", ranks);
    }
    if let Some(alphas) = others(&|update| (update.alpha != lora.common.alpha).then(|| whole(update.alpha))) {
        set("alpha_pattern", alphas);
    }
    let tensors = sorted(lora.updates.values().flat_map(named).collect());
    Ok(Written { config, tensors })
}
