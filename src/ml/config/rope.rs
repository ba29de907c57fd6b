//! Rotary embedding (Su et al. 2021, arXiv 2104.09864) and the ways to stretch it to longer texts, as transformers'
//! `modeling_rope_utils` (4.57 and 5.23) defines them. It does not know tensors: frequencies are numbers.

use std::f64::consts::PI;

use serde_json::Value;

use super::Positions;
use super::fields::Fields;
use crate::error::{Problem, Result};

/// θ of Gemma 3's blocks with a window.
const LOCAL_THETA: f64 = 1e4;

/// The angles by which queries and keys are turned: place times frequency.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// The base θ.
    pub theta: f64,
    /// How many of a head's values are turned, from the first one on.
    pub dim: i64,
    /// How frequencies are changed for longer texts.
    pub scaling: RopeScaling,
}

/// The kinds of `rope_scaling` (`rope_parameters` since transformers 5) that are supported.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// None.
    Default,
    /// Every frequency divided by a factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Frequencies that shrink with the length of a text beyond the longest of the training: none up to there.
    Dynamic {
        /// The factor.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided by the factor, high ones kept, those between blended.
    Llama3 {
        /// The factor.
        factor: f64,
        /// `low_freq_factor`.
        low: f64,
        /// `high_freq_factor`.
        high: f64,
        /// `original_max_position_embeddings`.
        original: f64,
    },
    /// YaRN (Peng et al. 2023, arXiv 2309.00071): the same idea, blended along a ramp over the dimensions.
    Yarn {
        /// The factor.
        factor: f64,
        /// `original_max_position_embeddings`.
        original: f64,
        /// Turns over the original length above which a frequency is kept.
        beta_fast: f64,
        /// Turns below which it is divided by the factor.
        beta_slow: f64,
        /// True if the ramp begins and ends at whole dimensions.
        truncate: bool,
        /// cos and sin are multiplied by this.
        attention_factor: f64,
    },
}

impl Rope {
    /// Width of what is turned: `dim`, or one more if it is odd.
    pub fn width(&self) -> i64 {
        (self.dim + 1) / 2 * 2
    }

    /// The inverse frequencies, `width() / 2` numbers.
    pub fn inverse_frequencies(&self) -> Vec<f64> {
        let dim = self.dim as f64;
        let plain = (0..self.width() / 2).map(|i| self.theta.powf(-(2 * i) as f64 / dim));
        match self.scaling {
            RopeScaling::Default | RopeScaling::Dynamic { .. } => plain.collect(),
            RopeScaling::Linear { factor } => plain.map(|f| f / factor).collect(),
            RopeScaling::Llama3 { factor, low, high, original } => plain
                .map(|f| {
                    let wavelength = 2.0 * PI / f;
                    if wavelength > original / low {
                        f / factor
                    } else if wavelength < original / high {
                        f
                    } else {
                        let smooth = (original / wavelength - low) / (high - low);
                        (1.0 - smooth) * f / factor + smooth * f
                    }
                })
                .collect(),
            RopeScaling::Yarn { factor, original, beta_fast, beta_slow, truncate, .. } => {
                // The dimension whose frequency makes so many turns over the original length.
                let turning = |turns: f64| dim * (original / (turns * 2.0 * PI)).ln() / (2.0 * self.theta.ln());
                let (low, high) = (turning(beta_fast), turning(beta_slow));
                let (low, high) = if truncate { (low.floor(), high.ceil()) } else { (low, high) };
                let (low, mut high) = (low.max(0.0), high.min(dim - 1.0));
                if low == high {
                    high += 0.001;
                }
                let ramp = |i: usize| ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                plain.enumerate().map(|(i, f)| f / factor * ramp(i) + f * (1.0 - ramp(i))).collect()
            }
        }
    }

    /// What cos and sin are multiplied by.
    pub fn attention_factor(&self) -> f64 {
        match self.scaling {
            RopeScaling::Yarn { attention_factor, .. } => attention_factor,
            _ => 1.0,
        }
    }

    /// True if a text longer than `max_position_embeddings` would have other frequencies from its beginning on.
    pub fn depends_on_length(&self) -> bool {
        matches!(self.scaling, RopeScaling::Dynamic { .. })
    }
}

/// What a family says where its configuration says nothing.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    /// The base θ.
    pub theta: f64,
    /// Width of a head.
    pub head_dim: i64,
    /// The longest text of the training.
    pub max_position_embeddings: i64,
}

/// `rope_theta` with `rope_scaling`, or transformers 5's `rope_parameters` with both; the whole head is turned.
pub fn read(fields: &Fields, defaults: &Defaults) -> Result<Positions> {
    let table = table(fields)?;
    let theta = theta(fields, "rope_theta", &table, defaults.theta)?;
    whole(fields)?;
    whole(&table)?;
    let rope = scaled(&table, theta, defaults.head_dim, defaults.max_position_embeddings)?;
    Ok(Positions::Rotary { rope, sliding: None })
}

/// The same, where only a share of each head is turned: `rotary_pct` and `rotary_emb_base` of GPT-NeoX,
/// `partial_rotary_factor` in `rope_parameters`.
pub fn read_partial(fields: &Fields, defaults: &Defaults, share: f64) -> Result<Positions> {
    let table = table(fields)?;
    let theta = theta(fields, "rotary_emb_base", &table, defaults.theta)?;
    let of_table = table.number("partial_rotary_factor")?;
    let share = same("rotary_pct", of_table, fields.number("rotary_pct")?)?.unwrap_or(share);
    // Written beside by transformers 4, and not read by it.
    same("partial_rotary_factor", Some(share), fields.number("partial_rotary_factor")?)?;
    same("rope_theta", Some(theta), fields.number("rope_theta")?)?;
    if !(0.0..=1.0).contains(&share) {
        return Err(Problem::new(format!("`rotary_pct` is {share}")).expected("a share from 0 to 1"));
    }
    let dim = (defaults.head_dim as f64 * share) as i64;
    let rope = scaled(&table, theta, dim, defaults.max_position_embeddings)?;
    Ok(Positions::Rotary { rope, sliding: None })
}

/// Gemma 3's two: `rope_theta` with `rope_scaling` for blocks that see everything, `rope_local_base_freq` for those
/// with a window; transformers 5's `rope_parameters` has both by the kind of block.
pub fn read_pair(fields: &Fields, defaults: &Defaults) -> Result<Positions> {
    let (global, local) = match fields.table("rope_parameters")? {
        None => (fields.table("rope_scaling")?.unwrap_or_default(), Fields::default()),
        Some(both) => {
            let full = both.table("full_attention")?.unwrap_or_default();
            let sliding = both.table("sliding_attention")?.unwrap_or_default();
            both.refuse_rest("rotary option")?;
            (full, sliding)
        }
    };
    whole(fields)?;
    let read = |table: &Fields, name: &str, default: f64| {
        whole(table)?;
        let theta = theta(fields, name, table, default)?;
        scaled(table, theta, defaults.head_dim, defaults.max_position_embeddings)
    };
    let rope = read(&global, "rope_theta", defaults.theta)?;
    let sliding = Some(read(&local, "rope_local_base_freq", LOCAL_THETA)?);
    Ok(Positions::Rotary { rope, sliding })
}

/// `rope_scaling` of transformers 4, or `rope_parameters` of transformers 5.
fn table<'a>(fields: &Fields<'a>) -> Result<Fields<'a>> {
    let empty = |value: &&Value| value.as_object().is_none_or(|map| !map.is_empty());
    let [new, old] = ["rope_parameters", "rope_scaling"].map(|name| fields.get(name).filter(empty));
    if new.is_some() && old.is_some() && new != old {
        return Err(Problem::new("`rope_parameters` and `rope_scaling` say different things").expected("one of them"));
    }
    let name = if new.is_some() { "rope_parameters" } else { "rope_scaling" };
    Ok(fields.table(name)?.unwrap_or_default())
}

fn theta(fields: &Fields, name: &str, table: &Fields, default: f64) -> Result<f64> {
    let theta = same(name, table.number("rope_theta")?, fields.number(name)?)?.unwrap_or(default);
    if theta > 1.0 { Ok(theta) } else { Err(Problem::new(format!("`{name}` is {theta}")).expected("a base above 1")) }
}

/// One number that may be said twice, but not differently.
fn same(name: &str, one: Option<f64>, other: Option<f64>) -> Result<Option<f64>> {
    match (one, other) {
        (Some(one), Some(other)) if one != other => {
            Err(Problem::new(format!("`{name}` is {other}, but the rotary embedding has {one}"))
                .expected("the same number in both places"))
        }
        (one, other) => Ok(one.or(other)),
    }
}

/// Fails if only a share of each head is turned.
fn whole(fields: &Fields) -> Result<()> {
    fields.only("partial_rotary_factor", &Value::from(1.0))
}

fn scaled(table: &Fields, theta: f64, dim: i64, max_position_embeddings: i64) -> Result<Rope> {
    let kind = match (table.text("rope_type")?, table.text("type")?) {
        (Some(new), Some(old)) if new != old => {
            return Err(Problem::new(format!("`rope_type` is `{new}`, but `type` is `{old}`")).expected("one of them"));
        }
        (new, old) => new.or(old).unwrap_or("default"),
    };
    let need = |name: &str| {
        if table.get(name).is_none() {
            return Err(Problem::new(format!("rotary scaling `{kind}` needs `{name}`")));
        }
        table.positive(name, 1.0)
    };
    let original = || table.positive("original_max_position_embeddings", max_position_embeddings as f64);
    let scaling = match kind {
        "default" => RopeScaling::Default,
        "linear" => RopeScaling::Linear { factor: need("factor")? },
        "dynamic" => RopeScaling::Dynamic { factor: need("factor")? },
        "llama3" => {
            let (low, high) = (need("low_freq_factor")?, need("high_freq_factor")?);
            if low >= high {
                return Err(Problem::new(format!("`low_freq_factor` is {low}, `high_freq_factor` is {high}"))
                    .expected("the high one above the low one"));
            }
            RopeScaling::Llama3 { factor: need("factor")?, low, high, original: original()? }
        }
        "yarn" => {
            let factor = need("factor")?;
            let (scale, all) = (table.number("mscale")?, table.number("mscale_all_dim")?);
            let attention_factor = match (table.number("attention_factor")?, scale, all) {
                (Some(given), _, _) => given,
                // A factor of 0 counts as none.
                (None, Some(scale), Some(all)) if scale != 0.0 && all != 0.0 => {
                    magnitude(factor, scale) / magnitude(factor, all)
                }
                _ => magnitude(factor, 1.0),
            };
            let (beta_fast, beta_slow) = (table.positive("beta_fast", 32.0)?, table.positive("beta_slow", 1.0)?);
            let (original, truncate) = (original()?, table.flag("truncate", true)?);
            RopeScaling::Yarn { factor, original, beta_fast, beta_slow, truncate, attention_factor }
        }
        other => {
            return Err(Problem::new(format!("rotary scaling `{other}` is not supported"))
                .expected("`default`, `linear`, `dynamic`, `llama3` or `yarn`"));
        }
    };
    table.refuse_rest("rotary option")?;
    Ok(Rope { theta, dim, scaling })
}

/// YaRN's growth of the attention with the factor.
fn magnitude(factor: f64, scale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 }
}
