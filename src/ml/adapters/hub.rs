//! AdapterHub's `LoRAConfig`, which LoRA and its IA3 share: which projections its switches mean, both ways.
//! It does not know what is done there.

use serde_json::{Map, Value, json};

use super::fields::{Fields, wrong};
use super::place::Place;
use super::targets::{Selector, Targets};
use crate::error::{Problem, Result};
use crate::ml::adapters::params::layers;
use crate::ml::models::Model;

/// The switch, its value in `attn_matrices` if it has one, and the projection that it means in models of Llama's
/// kind (`mixin_llama.py` of adapters 1.3: the feed-forward switches are the other way round than they sound).
const SWITCHES: [(&str, Option<&str>, &str); 5] = [
    ("selfattn_lora", Some("q"), "q_proj"),
    ("selfattn_lora", Some("k"), "k_proj"),
    ("selfattn_lora", Some("v"), "v_proj"),
    ("intermediate_lora", None, "down_proj"),
    ("output_lora", None, "up_proj"),
];

/// Every field of `LoRAConfig` in adapters 1.3.0.
pub const KNOWN: [&str; 17] = [
    "alpha",
    "architecture",
    "attn_matrices",
    "composition_mode",
    "dropout",
    "dtype",
    "init_weights",
    "init_weights_seed",
    "intermediate_lora",
    "leave_out",
    "output_lora",
    "r",
    "selfattn_lora",
    "use_dora",
    "use_gating",
    "vera_b",
    "vera_d",
];

/// Fails at options that would change what is computed. `dtype` is that of the tensors, which are read as f32.
pub fn refuse_options(config: &Fields) -> Result<()> {
    config.refuse(&[("use_gating", &[]), ("vera_b", &[]), ("vera_d", &[])])?;
    match config.text("dtype", "float32")? {
        "float32" | "float16" | "bfloat16" => Ok(()),
        other => Err(Problem::new(format!("the option `dtype: {other}` is not supported"))),
    }
}

/// The layers that a configuration does not leave out.
pub fn kept(config: &Fields, model: &dyn Model) -> Result<Vec<i64>> {
    let left_out = config.layers("leave_out")?.unwrap_or_default();
    layers(Some(&left_out), model.config())?;
    Ok((0..model.config().num_hidden_layers).filter(|layer| !left_out.contains(layer)).collect())
}

/// The projections that a configuration switches on.
pub fn selector(config: &Fields, model: &dyn Model) -> Result<Selector> {
    let matrices = config.names("attn_matrices")?.unwrap_or_else(|| vec!["q".to_owned(), "v".to_owned()]);
    let known = |name: &str| SWITCHES.iter().any(|(_, matrix, _)| *matrix == Some(name));
    if let Some(other) = matrices.iter().find(|name| !known(name)) {
        return Err(wrong("attn_matrices", &Value::from(other.as_str()), "`q`, `k` and `v`"));
    }
    let mut names = Vec::new();
    for (switch, matrix, projection) in SWITCHES {
        let on = config.flag(switch, switch == "selfattn_lora")?;
        if on && matrix.is_none_or(|matrix| matrices.iter().any(|name| name == matrix)) {
            names.push(projection.to_owned());
        }
    }
    Selector::new(&Targets::List(names))?.within(Some(&kept(config, model)?), &[])
}

/// The switches that mean exactly these projections, of a model with so many blocks.
pub fn switches(places: &[&Place], blocks: i64) -> Result<Map<String, Value>> {
    let mut config = Map::new();
    let mut matrices = Vec::new();
    let layers: std::collections::BTreeSet<i64> = places.iter().map(|place| place.layer).collect();
    for switch in ["selfattn_lora", "intermediate_lora", "output_lora"] {
        config.insert(switch.to_owned(), Value::from(false));
    }
    for place in places {
        if !SWITCHES.iter().any(|(_, _, projection)| *projection == place.short()) {
            return Err(Problem::new(format!("AdapterHub's LoRA has no place for `{}`", place.short()))
                .expected("q_proj, k_proj, v_proj, down_proj, up_proj"));
        }
    }
    for (switch, matrix, projection) in SWITCHES {
        let here = places.iter().filter(|place| place.short() == projection);
        let here: std::collections::BTreeSet<i64> = here.map(|place| place.layer).collect();
        if here.is_empty() {
            continue;
        }
        if here != layers {
            return Err(Problem::new(format!(
                "AdapterHub's LoRA is the same in all its layers, but `{projection}` has an update in some of them only"
            )));
        }
        config.insert(switch.to_owned(), Value::from(true));
        matrices.extend(matrix);
    }
    let left_out: Vec<i64> = (0..blocks).filter(|layer| !layers.contains(layer)).collect();
    config.insert("attn_matrices".to_owned(), json!(matrices));
    config.insert("leave_out".to_owned(), json!(left_out));
    for (name, value) in [
        ("architecture", json!("lora")),
        ("dtype", Value::Null),
        ("init_weights_seed", Value::Null),
        ("use_gating", json!(false)),
        ("vera_b", Value::Null),
        ("vera_d", Value::Null),
    ] {
        config.insert(name.to_owned(), value);
    }
    Ok(config)
}
