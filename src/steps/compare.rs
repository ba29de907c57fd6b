//! `compare`: the results of all arms, set side by side as raw figures and as what follows from them.
//! It does not know models or data sets: it reads what `evaluate` left.

use std::collections::BTreeMap;
use std::fs;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::json;
use crate::error::{Path, Problem, Result};
use crate::report::comparison::{Comparison, Role};
use crate::report::evidence::Settings;
use crate::report::results::{self, Evaluated};
use crate::report::view::view;
use crate::report::{chart, clusters, export};
use shortcuts::Shortcuts;

use crate::step::{Arity, Context, Input, Kind, Output};

/// The step kind.
pub struct Compare;

mod arms;
mod assemble;
mod examples;
mod inference;
mod shortcuts;
mod variants;

/// What it can be told.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Titles of arms in the report, by the arm's or its step's name. Known without: `base`, `lora`, `mlp`,
    /// `both`, `lora_mlp`; other arms are named by their adapters and coordinates.
    #[serde(default)]
    pub titles: BTreeMap<String, String>,
    /// What to change about tasks, by name. `terra` (general) and `nerus` (special) are known.
    #[serde(default)]
    pub tasks: BTreeMap<String, TaskParams>,
    /// The level of significance of a family of tests: all adapters against the base, or all among themselves.
    #[serde(default = "alpha")]
    #[schemars(range(min = 0.0001, max = 0.5))]
    pub alpha: f64,
    /// The largest difference that does not matter, in units of the metric: within it arms are equivalent.
    #[serde(default = "margin")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub margin: f64,
    /// Resamples of the bootstrap and draws of the randomisation test.
    #[serde(default = "resamples")]
    #[schemars(range(min = 100, max = 1_000_000))]
    pub resamples: u64,
    /// The seed of both.
    #[serde(default = "seed")]
    pub seed: u64,
}

fn alpha() -> f64 {
    0.05
}
fn margin() -> f64 {
    0.02
}
fn resamples() -> u64 {
    10_000
}
fn seed() -> u64 {
    42
}

impl Params {
    fn settings(&self) -> Settings {
        Settings { alpha: self.alpha, resamples: self.resamples, seed: self.seed }
    }
}

/// How a task stands in the report.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskParams {
    /// Its title.
    #[serde(default)]
    pub title: Option<String>,
    /// What it stands for: `general` ability that adapters should keep, the `special` task they train on, or the
    /// `retention` of the language model.
    #[serde(default)]
    pub role: Option<Role>,
    /// The metric that arms are ranked by; `f1` if not given.
    #[serde(default)]
    pub metric: Option<String>,
    /// The average whose figures stand in the main table; `macro` for `terra` and `micro` for `nerus`
    /// if not given, else the only one.
    #[serde(default)]
    pub average: Option<String>,
    /// The largest difference that does not matter on this task.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub margin: Option<f64>,
}

impl Kind for Compare {
    const NAME: &'static str = "compare";
    /// 1: the first.
    /// 2: tests, intervals, verdicts; seeds are brought together; shortcuts, leaks, certificates, examples.
    /// 3: Holm over the adapters that do something; equal figures of other answers are told.
    const VERSION: u32 = 3;
    const SUMMARY: &'static str = "Compares the results of arms: figures, tests, verdicts, conclusions";
    const EXAMPLE: &'static str = "compare:\n  uses: compare\n  in: { results: [evaluate_terra, evaluate_nerus] }\n  with: { titles: { lora: LoRA, mlp: MLP } }\n";
    const INPUTS: &'static [Input] = &[
        Input {
            name: "results",
            arity: Arity::Many,
            // Arms are called as the results say, so the names of the evaluating steps do not count.
            named: false,
            doc: "Result folders of `evaluate`, one for each arm, task and way of asking; the base for every one",
        },
        Input {
            name: "shortcuts",
            arity: Arity::Any,
            named: false,
            doc: "What rules without a model reach, by `shortcuts`; one for each task at most",
        },
    ];
    const OUTPUTS: &'static [Output] = &[
        Output { name: "comparison", file: "comparison.json", doc: "Every raw figure, for `render`" },
        Output { name: "conclusions", file: "conclusions.json", doc: "Rankings, conclusions, recommendations" },
        Output { name: "differences", file: "differences.csv", doc: "Differences and relative changes, unrounded" },
        Output { name: "plots", file: "plots.csv", doc: "Everything that reports plot, a row for each mark" },
        Output { name: "grid", file: "grid.csv", doc: "A row for each arm: coordinates, parameters, figures" },
    ];
    type Params = Params;

    fn check(params: &Params) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut seen = BTreeMap::new();
        for (name, title) in &params.titles {
            let path = Path::root().key("titles").key(name);
            if title.trim().is_empty() {
                problems.push(Problem::new(format!("the title of `{name}` is empty")).at(path));
            } else if let Some(other) = seen.insert(title, name) {
                problems.push(Problem::new(format!("`{other}` and `{name}` have the same title")).at(path));
            }
        }
        problems
    }

    fn run(params: &Params, cx: &mut Context) -> Result<()> {
        let mut all = Vec::new();
        for artifact in cx.inputs("results") {
            cx.check_cancelled()?;
            let label = artifact.label();
            let result = results::read(&artifact.path, &label)?;
            clusters::check(&result, &label)?;
            all.push(Labelled { result, label });
        }
        let shortcuts = cx.inputs("shortcuts").iter().map(|one| Shortcuts::read(&one.path, &one.label()));
        let shortcuts = shortcuts.collect::<Result<Vec<_>>>()?;
        let comparison = assemble::assemble(params, &all, &shortcuts)?;
        for task in &comparison.tasks {
            for arm in comparison.arms.iter().filter(|arm| !task.results.contains_key(&arm.name)) {
                cx.warn(format!("the arm `{}` has no result on `{}`", arm.name, task.id));
            }
            for (arm, figures) in &task.results {
                for (metric, value) in figures {
                    cx.figure(format!("{}.{arm}.{metric}", task.id), *value);
                }
            }
        }
        let text = json::text(&comparison)?;
        // What was assembled from outside data must hold what every reader of a comparison relies on.
        Comparison::read(&text, "comparison.json")?;
        let view = view(&comparison);
        let conclusions = json!({
            "format": "pipe/conclusions@1",
            "notes": view.notes,
            "conclusions": view.conclusions,
            "recommendations": view.recommendations,
        });
        write(cx, "comparison.json", &text)?;
        write(cx, "conclusions.json", &json::text(&conclusions)?)?;
        write(cx, "differences.csv", &export::differences(&comparison)?)?;
        write(cx, "plots.csv", &chart::csv(&comparison)?)?;
        write(cx, "grid.csv", &export::grid(&comparison)?)
    }
}

/// A result, and how to call it in a message.
struct Labelled {
    result: Evaluated,
    label: String,
}

fn write(cx: &Context, file: &str, text: &str) -> Result<()> {
    let path = cx.output(file);
    fs::write(&path, text).map_err(|error| Problem::io("write", &path, &error))
}
