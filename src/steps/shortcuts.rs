//! `shortcuts`: what rules reach that understand nothing, and what evaluation data shares with training data.
//! It does not know models: an arm that is no better than a shortcut has not shown that it understands.

mod nerus;
mod terra;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::evaluate::result::Metric;
use super::json;
use crate::error::{Problem, Result};
use crate::step::{Arity, Context, Input, Kind, Output};
use crate::task::Task;
use crate::task::terra::Label2Id;

/// The step kind.
pub struct Shortcuts;

/// What it can be told.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// What the data is: `terra` (JSON lines) or `nerus` (CoNLL-U).
    pub task: Task,
    /// Which number means which label, where TERRa's rows have numbers instead of names, as in `evaluate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label2id: Option<Label2Id>,
    /// Only the first so many rows or sentences of `data`, as in `evaluate`.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub limit: Option<u64>,
}

impl Params {
    fn limit(&self) -> usize {
        self.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
    }
}

impl Kind for Shortcuts {
    const NAME: &'static str = "shortcuts";
    /// 1: majority, hypothesis, word overlap and opposite premise for TERRa; gazetteer and capitals for Nerus.
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "Answers a task by rules without a model, and finds what it shares with training data";
    const EXAMPLE: &'static str =
        "terra_shortcuts:\n  uses: shortcuts\n  in: { data: terra_val, train: terra_train }\n  with: { task: terra }\n";
    const INPUTS: &'static [Input] = &[
        Input { name: "data", arity: Arity::One, named: false, doc: "What is evaluated, with its gold" },
        Input {
            name: "train",
            arity: Arity::Many,
            named: false,
            doc: "What the rules learn from: training data of the same kind",
        },
    ];
    const OUTPUTS: &'static [Output] = &[
        Output {
            name: "shortcuts",
            file: "shortcuts.json",
            doc: "Figures of each rule, and what is shared, for `compare`",
        },
        Output { name: "answers", file: "shortcuts.csv", doc: "The answer of each rule to each item" },
    ];
    type Params = Params;

    fn check(params: &Params) -> Vec<Problem> {
        super::prompted::label2id_problem(params.task, params.label2id).into_iter().collect()
    }

    fn run(params: &Params, cx: &mut Context) -> Result<()> {
        let found = match params.task {
            Task::Terra => terra::run(params, cx)?,
            Task::Nerus => nerus::run(params, cx)?,
        };
        for baseline in &found.baselines {
            for metric in &baseline.metrics {
                let average = metric.average.as_ref().map(|average| format!(".{average}")).unwrap_or_default();
                cx.figure(format!("{}.{}{average}", baseline.name, metric.name), metric.value);
            }
        }
        let (shared, total) = (found.overlap.shared, found.overlap.total);
        cx.note(format!("{shared} of {total} items share a {} with the training data", found.overlap.what));
        write_answers(cx, &found)?;
        let n = found.items.len();
        let document: Value = json!({
            "format": "pipe/shortcuts@1",
            "task": params.task.name(),
            "n": n,
            "baselines": found.baselines.iter().map(|baseline| json!({
                "name": baseline.name, "title": baseline.title, "n": n, "metrics": baseline.metrics,
            })).collect::<Vec<_>>(),
            "overlap": found.overlap,
        });
        json::write(&cx.output("shortcuts.json"), &document)
    }
}

/// What a task's rules found.
struct Found {
    /// Id and gold of each item.
    items: Vec<(String, String)>,
    baselines: Vec<Baseline>,
    overlap: Overlap,
}

/// A rule, its answers in the order of the items, and its figures.
struct Baseline {
    name: &'static str,
    title: &'static str,
    answers: Vec<String>,
    metrics: Vec<Metric>,
}

/// Items that share a text with the training data.
#[derive(Serialize)]
struct Overlap {
    what: &'static str,
    shared: u64,
    total: u64,
    /// Ids of the others.
    leak_free: Vec<String>,
}

fn write_answers(cx: &Context, found: &Found) -> Result<()> {
    let path = cx.output("shortcuts.csv");
    let failed = |error: csv::Error| Problem::new(format!("cannot write {}: {error}", path.display()));
    let mut writer = csv::Writer::from_path(&path).map_err(failed)?;
    let mut header = vec!["id", "gold"];
    header.extend(found.baselines.iter().map(|baseline| baseline.name));
    writer.write_record(&header).map_err(failed)?;
    for (i, (id, gold)) in found.items.iter().enumerate() {
        let mut line = vec![id.as_str(), gold.as_str()];
        line.extend(found.baselines.iter().map(|baseline| baseline.answers[i].as_str()));
        writer.write_record(&line).map_err(failed)?;
    }
    writer.flush().map_err(|error| Problem::io("write", &path, &error))
}

/// The key with the highest count; of equal ones the first in order.
fn most<K: Ord + Clone>(counts: &BTreeMap<K, u64>) -> Option<K> {
    let best = counts.values().max()?;
    counts.iter().find(|(_, count)| *count == best).map(|(key, _)| key.clone())
}
