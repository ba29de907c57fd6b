//! What stands behind the figures of a comparison: intervals, tests, certificates, budgets, leaks, examples.
//! It does not know how they are computed, nor how they are told.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::comparison::Figures;
pub use crate::statistics::verdict::Verdict;

/// How tests were made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The level of significance of a family of tests, in 0..1.
    pub alpha: f64,
    /// Resamples of the bootstrap and draws of the randomisation test.
    pub resamples: u64,
    /// The seed of both.
    pub seed: u64,
}

/// An interval that holds the true value with the confidence 1 − α.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// Two arms compared on the same items by the metric of their task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Test {
    /// The arm that the other is set against.
    pub against: String,
    /// The arm.
    pub arm: String,
    /// The arm's figure less the other's.
    pub difference: f64,
    /// Of the difference, by the paired bootstrap over clusters; over seeds as well where there are several.
    pub interval: Interval,
    /// Two-sided, by randomisation over clusters, or by the bootstrap where there are several seeds; in 0..=1.
    pub p: f64,
    /// The same after Holm over its family: all arms against the base, or all adapters among themselves.
    pub p_holm: f64,
    /// Two one-sided tests against the margin of equivalence.
    pub equivalence: Equivalence,
    /// Answers that only one of the two has right; left out where an item is not simply right or wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discordant: Option<Discordant>,
    /// The share of resamples in which the arm is ahead; left out with one seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability_ahead: Option<f64>,
    /// What follows.
    pub verdict: Verdict,
}

impl Test {
    /// The same test told of the other arm.
    pub fn turned(&self) -> Self {
        Self {
            against: self.arm.clone(),
            arm: self.against.clone(),
            difference: -self.difference,
            interval: Interval { low: -self.interval.high, high: -self.interval.low },
            discordant: self.discordant.map(|pair| Discordant { fixed: pair.broken, broken: pair.fixed, ..pair }),
            probability_ahead: self.probability_ahead.map(|ahead| 1.0 - ahead),
            verdict: match self.verdict {
                Verdict::Better => Verdict::Worse,
                Verdict::Worse => Verdict::Better,
                other => other,
            },
            ..self.clone()
        }
    }
}

/// Whether a difference is too small to matter.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Equivalence {
    /// The largest difference that does not matter, in units of the metric.
    pub margin: f64,
    /// The larger of both one-sided p.
    pub p: f64,
}

/// McNemar's table off its diagonal, and what it says.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Discordant {
    /// Items that only the arm has right.
    pub fixed: u64,
    /// Items that only the other has right.
    pub broken: u64,
    /// Exact two-sided p.
    pub exact_p: f64,
    /// Mid-p.
    pub mid_p: f64,
    /// The smallest difference of accuracy that would be found at this n and share of discordant items in four cases
    /// of five; none where no difference would.
    pub detectable: Option<f64>,
}

/// What an adapter does to its base.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// What follows from the rest.
    pub state: Effect,
    /// Why, in a sentence.
    pub reason: String,
    /// Tensors that found their place.
    pub tensors: Tensors,
    /// Where the adapter sits, and how much it changes there.
    pub sites: Vec<Site>,
    /// The change of logits; left out where none was computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
}

/// The states of an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Its weights change nothing: as at the start of training.
    Untrained,
    /// Tensors without a place, or places without tensors.
    NotLoaded,
    /// Its weights would change something, but are switched off.
    Disabled,
    /// Its weights change something, but not the logits.
    NoEffect,
    /// It changes the logits.
    Active,
}

/// How many tensors found their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tensors {
    /// With a place.
    pub placed: u64,
    /// That the configuration asks for.
    pub expected: u64,
}

/// A place of an adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// The module of the base.
    pub name: String,
    /// `lora`, `mlp`, ….
    pub kind: String,
    /// The Frobenius norm of the change of the weight; none where the adapter changes no weight.
    pub delta_norm: Option<f64>,
    /// The Frobenius norm of the weight.
    pub weight_norm: Option<f64>,
}

/// Logits with and without the adapter on the same inputs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// How many inputs.
    pub inputs: u64,
    /// The largest absolute change of a logit.
    pub max_logit_change: f64,
    /// The mean absolute change.
    pub mean_logit_change: f64,
    /// Inputs whose likeliest next token is another.
    pub argmax_flips: u64,
}

/// What the training of an arm was given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// Rows of the training data.
    pub rows: u64,
    /// Passes over them, where the length was given so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u64>,
    /// Optimiser steps.
    pub steps: u64,
    /// Rows of a step.
    pub batch_size: u64,
    /// Ids that went through the model, padding not counted.
    pub tokens: u64,
    /// Ids of them that had loss.
    pub target_tokens: u64,
    /// The highest learning rate.
    pub lr: f64,
    /// How it moved.
    pub schedule: String,
    /// The seed.
    pub seed: u64,
    /// The digest of the rows.
    pub data: String,
    /// Loss of the first step, in nats.
    pub first_loss: Option<f64>,
    /// Mean loss of the last tenth of the steps.
    pub last_loss: Option<f64>,
    /// Some points of the curve.
    #[serde(default)]
    pub curve: Vec<CurvePoint>,
}

/// A point of a learning curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CurvePoint {
    /// Counted from 1.
    pub step: u64,
    /// In nats.
    pub loss: f64,
}

/// How an arm was chosen among trials.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Selection {
    /// How many were tried.
    pub trials: u64,
    /// By which metric the best was chosen.
    pub metric: String,
    /// The digest of the data that they were judged on.
    pub split: String,
    /// The value of each.
    pub values: Vec<Trial>,
}

/// A candidate and its value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// Its name.
    pub name: String,
    /// Its value on the development split.
    pub value: f64,
}

/// The code of the finding that tells how far an arm's answers depend on what shares a batch with them.
pub const BATCHES: &str = "batches";

/// Something about the data, or about how it was answered, that may be intended, but must be known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// `duplicates`, `shared_premises`, ….
    pub code: String,
    /// `warning` or `note`; errors end a run.
    pub severity: String,
    /// How many items it concerns.
    pub count: u64,
    /// A sentence with the numbers.
    pub text: String,
    /// Ids of some of them.
    #[serde(default)]
    pub examples: Vec<String>,
}

/// A rule that needs no model, or no understanding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shortcut {
    /// `majority`, `hypothesis_only`, ….
    pub name: String,
    /// Its name for people.
    pub title: String,
    /// Items that it answered.
    pub n: u64,
    /// Its figures by the task's average.
    pub figures: Figures,
}

/// What evaluation and training data share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leaks {
    /// `premise` or `sentence`.
    pub what: String,
    /// Items that share one with the training data.
    pub shared: u64,
    /// All items.
    pub total: u64,
    /// Figures on the other items, by arm.
    pub leak_free: BTreeMap<String, Figures>,
}

/// An item that arms answer differently.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Example {
    /// The item's id.
    pub id: String,
    /// The text that was asked about.
    pub text: String,
    /// The right answer: a label, or entities as `PER:0:12 LOC:20:26` (characters of `text`).
    pub gold: String,
    /// The answer of each arm, written like `gold`.
    pub answers: BTreeMap<String, String>,
    /// Arms that have it right.
    pub right: Vec<String>,
}

/// The same task asked with another prompt or other words for the labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// The cell of the matrix: `prompt=2`.
    pub name: String,
    /// The metric of the task by arm.
    pub values: BTreeMap<String, f64>,
}

/// What was evaluated, and how to do it again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Data by name: the digest of their content.
    pub data: BTreeMap<String, String>,
    /// What of the machine may change the answers: dtype, device, libtorch.
    pub environment: BTreeMap<String, String>,
}
