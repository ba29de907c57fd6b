//! The comparison of arms as raw figures: the document `comparison.json` that `compare` writes and reports read.
//! It does not know differences, rankings or sentences: whatever can be computed from it is not in it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::evidence::{
    Certificate, Example, Finding, Interval, Leaks, Provenance, Selection, Settings, Shortcut, Test, Training, Variant,
};
use crate::error::{Problem, Result};

/// The format that this program writes and reads.
pub const FORMAT: &str = "pipe/comparison@2";

/// The name of the arm without adapters.
pub const BASE: &str = "base";

/// Figures of one arm on one task by metric: `f1` → 0.3615.
pub type Figures = BTreeMap<String, f64>;

/// What was compared, and every figure of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// [`FORMAT`].
    pub format: String,
    /// When it was made, as printed; only where the figures come from a dated document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// True if the data was made by the step `generate`.
    pub generated: bool,
    /// The arms in the order of the report; the base is one of them.
    pub arms: Vec<Arm>,
    /// The tasks in the order of the report.
    pub tasks: Vec<Task>,
    /// How tests were made; left out where there are no records to test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Settings>,
    /// What was evaluated, and on what; left out where figures alone are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
}

/// One way of running the base model: with some adapters, or with none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    /// Its name in `results`: `base`, `lora`, `lora_grid[rank=4]`.
    pub name: String,
    /// Its name for people; unique.
    pub title: String,
    /// The cell of a matrix that it is: axis to value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub coordinates: BTreeMap<String, Value>,
    /// Its adapters; none for the base.
    pub adapters: Vec<Adapter>,
    /// Parameters that training could change.
    pub trainable_parameters: u64,
    /// True if that number was estimated, not counted.
    #[serde(default)]
    pub parameters_are_estimated: bool,
    /// The seeds it was trained with, where there are several: its figures are means over them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seeds: Vec<u64>,
    /// What its training was given; one for each seed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub training: Vec<Training>,
    /// How it was chosen among trials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<Selection>,
    /// What it does to the base; the weakest of its seeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
}

/// An adapter's own description; fields that its kind does not have are left out. Others are not kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Adapter {
    /// `lora` or `mlp`.
    pub kind: String,
    /// LoRA's rank r.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<u64>,
    /// LoRA's α.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// The bottleneck's width.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden_size: Option<u64>,
    /// The projections that LoRA changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_modules: Option<Vec<String>>,
    /// The layers that it is on, counted from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<u64>>,
    /// The dropout's probability in training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,
}

/// What a task stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// General ability, which adapters should keep.
    General,
    /// The special task that adapters are trained on.
    Special,
    /// What the base could say before: the loss on running text.
    Retention,
}

/// A data set and the figures of every arm on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Its name: `terra`.
    pub id: String,
    /// Its name for people: `TERRa`.
    pub title: String,
    /// What it stands for.
    pub role: Role,
    /// The metric that arms are ranked by: `f1`.
    pub metric: String,
    /// True if less of it is better, as of a loss.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lower_is_better: bool,
    /// How the figures in `results` are averaged: `macro`, `micro`; left out where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub average: Option<String>,
    /// Evaluated items; left out where there are no records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<u64>,
    /// The documents that the items come from, where there are documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents: Option<u64>,
    /// Gold items (entities) per class.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub classes: BTreeMap<String, u64>,
    /// Figures by arm and metric; an arm that was not evaluated is not there.
    pub results: BTreeMap<String, Figures>,
    /// The same by other averages: average, arm, metric.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub averages: BTreeMap<String, BTreeMap<String, Figures>>,
    /// How generated answers were read, by arm: `valid`, `unparsed`, `truncated`, … → count.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parse: BTreeMap<String, BTreeMap<String, u64>>,
    /// Answers of pairs of arms set side by side; empty where there are no records.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Answers>,
    /// What is drawn anew when items are resampled: `premise`, `document` or `item`, and how many there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clusters: Option<(String, u64)>,
    /// Intervals of the main figures, by arm and metric.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub intervals: BTreeMap<String, BTreeMap<String, Interval>>,
    /// The metric of the task by arm and seed, where there are several seeds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub by_seed: BTreeMap<String, BTreeMap<u64, f64>>,
    /// Pairs of arms, tested.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<Test>,
    /// The mean share of probability on the labels, by arm; for scored answers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub label_mass: BTreeMap<String, f64>,
    /// Rules without a model.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shortcuts: Vec<Shortcut>,
    /// What evaluation and training data share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaks: Option<Leaks>,
    /// The same with other prompts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<Variant>,
    /// What was found about the data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// Items that arms answer differently.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<Example>,
}

/// The answers of two arms to the same items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answers {
    /// The arm that the other is set against.
    pub against: String,
    /// The other arm.
    pub arm: String,
    /// Items whose answers differ.
    pub different: u64,
    /// Items whose scores (log-likelihoods) differ; left out for tasks without scores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scores_different: Option<u64>,
}

impl Comparison {
    /// Reads and checks a document; `label` names it in messages.
    pub fn read(text: &str, label: &str) -> Result<Self> {
        let mut json = serde_json::Deserializer::from_str(text);
        let comparison: Self = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let path = error.path().to_string();
            let error = error.into_inner();
            let line = u64::try_from(error.line()).ok().filter(|line| *line > 0);
            Problem::new(format!("`{path}` of the comparison is wrong: {error}")).in_file(label, line)
        })?;
        comparison.check().map_err(|what| Problem::new(what).in_file(label, None))?;
        Ok(comparison)
    }

    /// What types cannot tell: names that fit each other, figures that are numbers.
    fn check(&self) -> Result<(), String> {
        if self.format != FORMAT {
            return Err(format!("the format is `{}`, and this program reads `{FORMAT}`", self.format));
        }
        let mut names = BTreeSet::new();
        let mut titles = BTreeSet::new();
        for arm in &self.arms {
            if !names.insert(arm.name.as_str()) {
                return Err(format!("the arm `{}` stands twice in `arms`", arm.name));
            }
            if !titles.insert(arm.title.as_str()) {
                return Err(format!("two arms have the title `{}`", arm.title));
            }
            if (arm.name == BASE) != arm.adapters.is_empty() {
                return Err(format!("the arm without adapters, and only it, is called `{BASE}`; see `{}`", arm.name));
            }
        }
        if !names.contains(BASE) {
            return Err(format!("there is no arm `{BASE}` to compare with"));
        }
        let mut tasks = BTreeSet::new();
        for task in &self.tasks {
            if !tasks.insert(task.id.as_str()) {
                return Err(format!("the task `{}` stands twice in `tasks`", task.id));
            }
            let averaged = task.averages.values().flatten();
            for (arm, figures) in task.results.iter().chain(averaged) {
                if !names.contains(arm.as_str()) {
                    return Err(format!("task `{}` has results of `{arm}`, which is not in `arms`", task.id));
                }
                if let Some((metric, value)) = figures.iter().find(|(_, value)| !value.is_finite()) {
                    return Err(format!("`{metric}` of `{arm}` on task `{}` is {value}", task.id));
                }
            }
            if !task.results.contains_key(BASE) {
                return Err(format!("task `{}` has no results of `{BASE}` to compare with", task.id));
            }
            for pair in &task.answers {
                let total = task.n.ok_or_else(|| format!("task `{}` has answers and no `n`", task.id))?;
                for arm in [&pair.arm, &pair.against] {
                    if !names.contains(arm.as_str()) {
                        return Err(format!("task `{}` has answers of `{arm}`, which is not in `arms`", task.id));
                    }
                }
                if pair.different > total || pair.scores_different.is_some_and(|n| n > total) {
                    return Err(format!("task `{}` has more different answers than items", task.id));
                }
            }
        }
        Ok(())
    }

    /// The arm without adapters.
    pub fn base(&self) -> Option<&Arm> {
        self.arms.iter().find(|arm| arm.name == BASE)
    }

    /// The arms with adapters, in order.
    pub fn adapted(&self) -> impl Iterator<Item = &Arm> {
        self.arms.iter().filter(|arm| arm.name != BASE)
    }

    /// True if the figures come from per-item records.
    pub fn has_records(&self) -> bool {
        self.tasks.iter().any(|task| task.n.is_some())
    }
}

impl Arm {
    /// True if it has exactly one adapter, of this kind.
    pub fn is_only(&self, kind: &str) -> bool {
        self.adapters.len() == 1 && self.adapters[0].kind == kind
    }
}

impl Task {
    /// A figure of the main table.
    pub fn figure(&self, arm: &str, metric: &str) -> Option<f64> {
        self.results.get(arm)?.get(metric).copied()
    }

    /// The metrics of the main table, in the order of reports.
    pub fn metrics(&self) -> Vec<String> {
        const FIRST: [&str; 4] = ["accuracy", "precision", "recall", "f1"];
        let all: BTreeSet<&String> = self.results.values().flat_map(BTreeMap::keys).collect();
        let rank = |name: &str| FIRST.iter().position(|first| *first == name).unwrap_or(FIRST.len());
        let mut metrics: Vec<String> = all.into_iter().cloned().collect();
        metrics.sort_by_key(|name| rank(name));
        metrics
    }

    /// How a figure of the main table is averaged; accuracy is a share of items and no average.
    pub fn average_of(&self, metric: &str) -> Option<String> {
        self.average.clone().filter(|_| metric != "accuracy")
    }

    /// The answers of an arm set against those of the base.
    pub fn against_base(&self, arm: &str) -> Option<&Answers> {
        self.answers.iter().find(|pair| pair.arm == arm && pair.against == BASE)
    }
}
