//! `select`: of several trained adapters the one that did best on a development split.
//! It does not know how they were trained: names join adapters with their results.

use std::path::Path as FilePath;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{facts, json};
use crate::digest::{Digest, files_below};
use crate::error::{Problem, Result};
use crate::report::evidence::{Selection, Trial};
use crate::report::results;
use crate::step::{Arity, Artifact, Context, Input, Kind, Output};

/// The step kind.
pub struct Select;

/// What counts.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The metric that decides.
    #[serde(default = "metric")]
    pub metric: String,
    /// Its average, where the results have several: `micro`.
    #[serde(default)]
    pub average: Option<String>,
    /// Takes the least value instead of the greatest, as of a loss.
    #[serde(default)]
    pub lower_is_better: bool,
}

fn metric() -> String {
    "f1".to_owned()
}

impl Kind for Select {
    const NAME: &'static str = "select";
    /// 1: the first.
    /// 2: results must be of the same task, items and way of asking, and of the candidates' own content.
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "Takes the adapter that did best on a development split";
    const EXAMPLE: &'static str = "lora:\n  uses: select\n  in: { candidates: lora_trials, results: dev_results }\n  with: { metric: f1, average: micro }\n";
    const INPUTS: &'static [Input] = &[
        Input {
            name: "candidates",
            arity: Arity::Many,
            // A result says whose it is by the name of the adapter's step.
            named: true,
            doc: "The adapters: the cells of a matrix of `train`",
        },
        Input {
            name: "results",
            arity: Arity::Many,
            named: false,
            doc: "Result folders of `evaluate`, one for each candidate, all on the same data: not that of the test",
        },
    ];
    const OUTPUTS: &'static [Output] = &[
        Output {
            name: "adapter",
            file: "adapter",
            doc: "The best one's folder, which also says among what it was chosen",
        },
        Output { name: "selection", file: "selection.json", doc: "The value of every candidate" },
    ];
    type Params = Params;

    fn run(params: &Params, cx: &mut Context) -> Result<()> {
        let candidates = cx.inputs("candidates").to_vec();
        let (mut trials, mut first) = (Vec::new(), None);
        for artifact in cx.inputs("results") {
            let (trial, judged) = trial(params, artifact, &candidates)?;
            if let Some(what) = first.get_or_insert_with(|| judged.clone()).differs(&judged) {
                return Err(Problem::new(format!("{} {what} than the results before it", artifact.label()))
                    .help("evaluate every candidate on the same split, and ask each in the same way"));
            }
            if trials.iter().any(|known: &Trial| known.name == trial.name) {
                return Err(Problem::new(format!("`{}` has two results", trial.name)).in_file(artifact.label(), None));
            }
            trials.push(trial);
        }
        if let Some(missing) = candidates.iter().find(|one| !trials.iter().any(|trial| trial.name == one.name)) {
            return Err(Problem::new(format!("there is no result of the candidate `{}`", missing.name))
                .help("evaluate every candidate, and connect all results"));
        }
        // In the order of the candidates; of equal ones the first.
        let place = |trial: &Trial| candidates.iter().position(|one| one.name == trial.name);
        trials.sort_by_key(place);
        let ahead = |a: f64, b: f64| if params.lower_is_better { a < b } else { a > b };
        let mut best = 0;
        for (at, trial) in trials.iter().enumerate() {
            if ahead(trial.value, trials[best].value) {
                best = at;
            }
        }
        let selection = Selection {
            trials: trials.len() as u64,
            metric: params.metric.clone(),
            split: first.map(|judged| judged.split).unwrap_or_default(),
            values: trials,
        };
        let chosen = &candidates[best];
        cx.note(format!("{} of {} candidates: {}", chosen.name, candidates.len(), selection.values[best].value));
        cx.figure(params.metric.clone(), selection.values[best].value);
        let folder = cx.output("adapter");
        copy(&chosen.path, &folder)?;
        facts::write_selection(&folder, &selection)?;
        json::write(&cx.output("selection.json"), &selection)
    }
}

/// What a candidate was judged on: values can be set side by side only where all of it is the same.
#[derive(Clone)]
struct Judged {
    task: String,
    /// The digest of the data.
    split: String,
    model: Option<String>,
    asked: results::Asked,
    items: Vec<Digest>,
}

impl Judged {
    /// What is not the same.
    fn differs(&self, other: &Self) -> Option<&'static str> {
        let parts = [
            (self.task == other.task, "is on another task"),
            (self.split == other.split, "is on other data"),
            (self.model == other.model, "is of another base"),
            (self.asked == other.asked, "is asked in another way"),
            (self.items == other.items, "has other items"),
        ];
        parts.into_iter().find(|(same, _)| !same).map(|(_, what)| what)
    }
}

/// The value of a candidate, and what it was judged on.
fn trial(params: &Params, artifact: &Artifact, candidates: &[Artifact]) -> Result<(Trial, Judged)> {
    let label = artifact.label();
    let results::Evaluated { metrics, records, .. } = results::read(&artifact.path, &label)?;
    let Some(candidate) = candidates.iter().find(|one| one.name == metrics.arm.name) else {
        let names: Vec<&str> = candidates.iter().map(|one| one.name.as_str()).collect();
        return Err(Problem::new(format!("the result is of `{}`, which is no candidate", metrics.arm.name))
            .in_file(&label, None)
            .help(format!("the candidates are {}", names.join(", "))));
    };
    // A name alone may belong to an earlier state of the step.
    if metrics.inputs.get("adapter").is_some_and(|digest| digest != candidate.digest.as_str()) {
        return Err(Problem::new(format!("the result is of another adapter than the candidate `{}`", candidate.name))
            .in_file(&label, None)
            .help("evaluate the very adapters that are candidates"));
    }
    let wanted = |metric: &&results::Metric| {
        metric.name == params.metric && (params.average.is_none() || metric.average == params.average)
    };
    let mut found = metrics.metrics.iter().filter(wanted);
    let value = match (found.next(), found.next()) {
        (Some(metric), None) => metric.value,
        (None, _) => None,
        (Some(_), Some(_)) => {
            return Err(Problem::new(format!("there are several averages of `{}`", params.metric))
                .in_file(&label, None)
                .help("say which one: `average: micro`"));
        }
    };
    let value =
        value.ok_or_else(|| Problem::new(format!("there is no metric `{}`", params.metric)).in_file(&label, None))?;
    // `evaluate` calls it data, `perplexity` text.
    let split = metrics.inputs.get("data").or_else(|| metrics.inputs.get("text")).cloned().ok_or_else(|| {
        Problem::new("it does not say on which data it is")
            .in_file(format!("metrics.json of {label}"), None)
            .expected("the digest of `data` or `text` under `inputs`")
    })?;
    let judged = Judged {
        task: metrics.task,
        split,
        model: metrics.inputs.get("model").cloned(),
        asked: metrics.asked,
        items: records.into_iter().map(|record| record.item).collect(),
    };
    Ok((Trial { name: metrics.arm.name, value }, judged))
}

fn copy(from: &FilePath, to: &FilePath) -> Result<()> {
    // What an earlier selection said is written anew.
    for name in files_below(from)?.into_iter().filter(|name| name != facts::SELECTION.0) {
        let (source, target) = (from.join(&name), to.join(&name));
        if let Some(folder) = target.parent() {
            std::fs::create_dir_all(folder).map_err(|error| Problem::io("make", folder, &error))?;
        }
        std::fs::copy(&source, &target).map_err(|error| Problem::io("copy", &source, &error))?;
    }
    Ok(())
}
