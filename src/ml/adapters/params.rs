//! What one says about an adapter to be trained: LoRA or DoRA, IA3, a bottleneck MLP, or two of them together.
//! It does not know tensors, models or file formats.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::non_linearity::NonLinearity;
use super::targets::{Patterns, Selector, Targets};
use crate::error::{Path, Problem, Result};
use crate::ml::config::ModelConfig;

/// Which adapter to train: LoRA, IA3, MLP, or MLP together with one of the others.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdapterParams {
    /// Low-rank updates of projections (Hu et al. 2021), as PEFT's LoRA; with `use_dora` DoRA (Liu et al. 2024).
    #[serde(default)]
    pub lora: Option<LoraParams>,
    /// Vectors that scale what projections take or give (Liu et al. 2022), as PEFT's IA3.
    #[serde(default)]
    pub ia3: Option<Ia3Params>,
    /// A bottleneck beside or behind the sub-layers of a block, as AdapterHub's `seq_bn`, `double_seq_bn`, `par_bn`.
    #[serde(default)]
    pub mlp: Option<MlpParams>,
}

/// W x becomes W x + (alpha / rank) · B A x.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoraParams {
    /// The rank r of the update.
    #[serde(default = "default_rank")]
    #[schemars(range(min = 1, max = 4096))]
    pub rank: i64,
    /// The update is scaled by alpha / rank.
    #[serde(default = "default_alpha")]
    #[schemars(range(min = 0.001, max = 65536))]
    pub alpha: f64,
    /// Share of the input of A that is dropped in training.
    #[serde(default)]
    #[schemars(range(min = 0, max = 0.99))]
    pub dropout: f64,
    /// Projections that get an update, by the last part of their names; or `all-linear`; or a regular expression of
    /// whole names.
    #[serde(default = "default_targets")]
    pub target_modules: Targets,
    /// Layers that get an update, counted from 0; all of them if absent.
    #[serde(default)]
    pub layers: Option<Vec<i64>>,
    /// Other ranks for the projections whose names end as a key (a regular expression) says; the first in the order
    /// of the alphabet counts.
    #[serde(default)]
    pub rank_pattern: BTreeMap<String, i64>,
    /// Other alphas, likewise.
    #[serde(default)]
    pub alpha_pattern: BTreeMap<String, f64>,
    /// Scales by alpha / √rank (rsLoRA, Kalajdzievski 2023).
    #[serde(default)]
    pub use_rslora: bool,
    /// Trains the norm of every row of W apart from its direction (DoRA).
    #[serde(default)]
    pub use_dora: bool,
    /// How A is drawn; B is zero.
    #[serde(default)]
    pub init_weights: LoraInit,
}

/// First values of A.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoraInit {
    /// U(±1/√inputs): PEFT's `init_lora_weights: true`.
    #[default]
    Kaiming,
    /// N(0, 1/rank).
    Gaussian,
}

/// W x becomes l ⊙ W x, and W (l ⊙ x) in feed-forward projections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ia3Params {
    /// Projections that get a vector, by the last part of their names; or `all-linear`; or a regular expression of
    /// whole names.
    #[serde(default = "default_ia3_targets")]
    pub target_modules: Targets,
    /// Those of them whose input is scaled instead of their output, by the end of their names. With an empty list all
    /// outputs are scaled, which is AdapterHub's IA3.
    #[serde(default = "default_feedforward")]
    pub feedforward_modules: Vec<String>,
    /// Layers that get vectors, counted from 0; all of them if absent.
    #[serde(default)]
    pub layers: Option<Vec<i64>>,
}

/// A bottleneck U f(D h + b) + c in every block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MlpParams {
    /// Where bottlenecks stand and what they read, by AdapterHub's names.
    #[serde(default)]
    pub config: MlpConfig,
    /// Width of the bottleneck.
    #[serde(default = "default_hidden_size")]
    #[schemars(range(min = 1, max = 65536))]
    pub hidden_size: i64,
    /// Layers that get a bottleneck, counted from 0; all of them if absent.
    #[serde(default)]
    pub layers: Option<Vec<i64>>,
    /// Share of the bottleneck's output that is dropped in training.
    #[serde(default)]
    #[schemars(range(min = 0, max = 0.99))]
    pub dropout: f64,
    /// f; without it that of `config`: `relu`, for `double_seq_bn` `swish`.
    #[serde(default)]
    pub non_linearity: Option<NonLinearity>,
    /// Scales the bottleneck's output: a number, or `learned` or `channel` for one learned number for all or for each
    /// channel. Without it that of `config`: 1, for `par_bn` 4.
    #[serde(default)]
    pub scaling: Option<Scaling>,
    /// First values; without it those of `config`: `bert`, for `par_bn` `mam_adapter`.
    #[serde(default)]
    pub init_weights: Option<MlpInit>,
    /// A learned layer norm before D.
    #[serde(default)]
    pub ln_before: bool,
    /// A learned layer norm after U.
    #[serde(default)]
    pub ln_after: bool,
}

/// AdapterHub's configurations of bottlenecks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MlpConfig {
    /// After the feed-forward block, on the sum with the residual (Pfeiffer et al. 2020).
    #[default]
    SeqBn,
    /// After attention and after the feed-forward block, on their outputs alone (Houlsby et al. 2019).
    DoubleSeqBn,
    /// Beside the feed-forward block, on its residual (He et al. 2021).
    ParBn,
}

/// First values of a bottleneck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MlpInit {
    /// N(0, 0.02): not the identity.
    Bert,
    /// D from U(±1/√inputs), U zero: the identity.
    MamAdapter,
    /// N(0, 0.01) cut off at ±0.02: not the identity.
    Houlsby,
}

/// What scales the output of a bottleneck.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scaling {
    /// A number.
    Fixed(f64),
    /// One learned number, 1 at first.
    Learned,
    /// A learned number for each channel, 1 at first.
    Channel,
}

impl Serialize for Scaling {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Fixed(number) => serializer.serialize_f64(*number),
            Self::Learned => serializer.serialize_str("learned"),
            Self::Channel => serializer.serialize_str("channel"),
        }
    }
}

impl<'de> Deserialize<'de> for Scaling {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Either;
        impl de::Visitor<'_> for Either {
            type Value = Scaling;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number, `learned` or `channel`")
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> std::result::Result<Scaling, E> {
                if number.is_finite() { Ok(Scaling::Fixed(number)) } else { Err(E::custom("not a finite number")) }
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> std::result::Result<Scaling, E> {
                Ok(Scaling::Fixed(number as f64))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> std::result::Result<Scaling, E> {
                Ok(Scaling::Fixed(number as f64))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<Scaling, E> {
                match text {
                    "learned" => Ok(Scaling::Learned),
                    "channel" => Ok(Scaling::Channel),
                    other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
                }
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Scaling {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Scaling".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            {"type": "number", "minimum": -65536.0, "maximum": 65536.0},
            {"type": "string", "enum": ["learned", "channel"]},
        ]})
    }
}

fn default_rank() -> i64 {
    8
}
fn default_alpha() -> f64 {
    16.0
}
fn default_targets() -> Targets {
    Targets::List(vec!["q_proj".to_owned(), "v_proj".to_owned()])
}
fn default_ia3_targets() -> Targets {
    Targets::List(vec!["k_proj".to_owned(), "v_proj".to_owned(), "down_proj".to_owned()])
}
fn default_feedforward() -> Vec<String> {
    vec!["down_proj".to_owned()]
}
fn default_hidden_size() -> i64 {
    64
}

impl LoraParams {
    /// What `target_modules` and `layers` choose.
    pub fn selector(&self) -> Result<Selector> {
        Selector::new(&self.target_modules)?.within(self.layers.as_deref(), &[])
    }

    /// Rank and α of a projection.
    pub fn size(&self, module: &str) -> Result<(i64, f64)> {
        let rank = Patterns::new(self.rank_pattern.iter().map(|(key, rank)| (key.as_str(), *rank)))?;
        let alpha = Patterns::new(self.alpha_pattern.iter().map(|(key, alpha)| (key.as_str(), *alpha)))?;
        Ok((rank.value(module).unwrap_or(self.rank), alpha.value(module).unwrap_or(self.alpha)))
    }
}

impl Ia3Params {
    /// What `target_modules` and `layers` choose.
    pub fn selector(&self) -> Result<Selector> {
        Selector::new(&self.target_modules)?.within(self.layers.as_deref(), &[])
    }

    /// True if a projection's input is scaled; PEFT compares the ends of names, whole parts or not.
    pub fn on_input(&self, module: &str) -> bool {
        self.feedforward_modules.iter().any(|end| module.ends_with(end.as_str()))
    }
}

impl MlpParams {
    /// f.
    pub fn non_linearity(&self) -> NonLinearity {
        let of_config =
            if self.config == MlpConfig::DoubleSeqBn { NonLinearity::Swish } else { NonLinearity::default() };
        self.non_linearity.unwrap_or(of_config)
    }

    /// What scales the output.
    pub fn scaling(&self) -> Scaling {
        self.scaling.unwrap_or(Scaling::Fixed(if self.config == MlpConfig::ParBn { 4.0 } else { 1.0 }))
    }

    /// First values.
    pub fn init_weights(&self) -> MlpInit {
        let of_config = if self.config == MlpConfig::ParBn { MlpInit::MamAdapter } else { MlpInit::Bert };
        self.init_weights.unwrap_or(of_config)
    }
}

impl AdapterParams {
    /// True if there is nothing to train.
    pub fn is_none(&self) -> bool {
        self.lora.is_none() && self.ia3.is_none() && self.mlp.is_none()
    }

    /// Mistakes that can be seen without a model.
    pub fn check(&self, at: &Path) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.is_none() {
            problems.push(Problem::new("no adapter is named").at(at.clone()).expected("`lora`, `ia3`, `mlp`, or two"));
        }
        if self.lora.is_some() && self.ia3.is_some() {
            let problem = Problem::new("`lora` and `ia3` together are not defined").at(at.key("ia3"));
            problems.push(problem.help("neither PEFT nor AdapterHub has them on one model; `mlp` goes with either"));
        }
        let mut wrong = |path: Path, result: Result<()>| problems.extend(result.err().map(|problem| problem.at(path)));
        if let Some(lora) = &self.lora {
            let at = at.key("lora");
            wrong(at.key("target_modules"), named(&lora.target_modules).and(lora.selector().map(drop)));
            let large = lora.rank_pattern.iter().find(|(_, rank)| !(1..=4096).contains(*rank));
            let large =
                large.map(|(key, rank)| Problem::new(format!("the rank of `{key}` is {rank}")).expected("1 to 4096"));
            wrong(at.key("rank_pattern"), large.map_or(Ok(()), Err));
            wrong(
                at.key("rank_pattern"),
                Patterns::new(lora.rank_pattern.keys().map(|key| (key.as_str(), ()))).map(drop),
            );
            wrong(
                at.key("alpha_pattern"),
                Patterns::new(lora.alpha_pattern.keys().map(|key| (key.as_str(), ()))).map(drop),
            );
        }
        if let Some(ia3) = &self.ia3 {
            let path = at.key("ia3").key("target_modules");
            wrong(path, named(&ia3.target_modules).and(ia3.selector().map(drop)));
        }
        let layers = [
            ("lora", self.lora.as_ref().and_then(|lora| lora.layers.as_ref())),
            ("ia3", self.ia3.as_ref().and_then(|ia3| ia3.layers.as_ref())),
            ("mlp", self.mlp.as_ref().and_then(|mlp| mlp.layers.as_ref())),
        ];
        for (name, layers) in layers {
            let Some(layers) = layers else { continue };
            let path = at.key(name).key("layers");
            if layers.is_empty() {
                problems.push(
                    Problem::new("the list of layers is empty").at(path.clone()).help("leave it out for all layers"),
                );
            }
            for (i, layer) in layers.iter().enumerate() {
                if *layer < 0 || layers[..i].contains(layer) {
                    let what = format!("layer {layer} is {}", if *layer < 0 { "negative" } else { "named twice" });
                    problems.push(Problem::new(what).at(path.index(i)));
                }
            }
        }
        problems
    }
}

fn named(targets: &Targets) -> Result<()> {
    match targets {
        Targets::List(names) if names.iter().any(String::is_empty) => Err(Problem::new("a target has no name")),
        _ => Ok(()),
    }
}

/// The layers of a list, or all; fails if the model has no such layer.
pub fn layers(wanted: Option<&[i64]>, config: &ModelConfig) -> Result<Vec<i64>> {
    let Some(wanted) = wanted else { return Ok((0..config.num_hidden_layers).collect()) };
    if let Some(layer) = wanted.iter().find(|&&layer| layer < 0 || layer >= config.num_hidden_layers) {
        let what = format!("the adapter wants layer {layer}, but the model has {}", config.num_hidden_layers);
        return Err(Problem::new(what).expected(format!("layers 0 to {}", config.num_hidden_layers - 1)));
    }
    Ok(wanted.to_vec())
}
