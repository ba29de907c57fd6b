//! `compare`: the results of all arms, set side by side as raw figures and as what follows from them.
//! It does not know models or data sets: it reads what `evaluate` left.

use std::collections::BTreeMap;
use std::fs;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::error::{Path, Problem, Result};
use crate::report::comparison::{Answers, Arm, BASE, Comparison, FORMAT, Figures, Role, Task};
use crate::report::results::{self, Evaluated, Record};
use crate::report::view::view;
use crate::report::{export, title};
use crate::step::{Arity, Context, Input, Kind, Output};

/// The step kind.
pub struct Compare;

/// What it can be told.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Titles of arms in the report, by the arm's or its step's name. Known without: `base`, `lora`, `mlp`,
    /// `both`, `lora_mlp`; other arms are named by their adapters and coordinates.
    #[serde(default)]
    pub titles: BTreeMap<String, String>,
    /// What to change about tasks, by name. `terra` (general) and `nerus` (special) are known.
    #[serde(default)]
    pub tasks: BTreeMap<String, TaskParams>,
}

/// How a task stands in the report.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskParams {
    /// Its title.
    #[serde(default)]
    pub title: Option<String>,
    /// What it stands for: `general` ability that adapters should keep, or the `special` task they train on.
    #[serde(default)]
    pub role: Option<Role>,
    /// The metric that arms are ranked by; `f1` if not given.
    #[serde(default)]
    pub metric: Option<String>,
    /// The average whose figures stand in the main table; `macro` for `terra` and `micro` for `nerus`
    /// if not given, else the only one.
    #[serde(default)]
    pub average: Option<String>,
}

impl Kind for Compare {
    const NAME: &'static str = "compare";
    /// 1: the first.
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Compares the results of arms: figures, differences, conclusions";
    const EXAMPLE: &'static str = "compare:\n  uses: compare\n  in: { results: [evaluate_terra, evaluate_nerus] }\n  with: { titles: { lora: LoRA, mlp: MLP } }\n";
    const INPUTS: &'static [Input] = &[Input {
        name: "results",
        arity: Arity::Many,
        // Arms are called as the results say, so the names of the evaluating steps do not count.
        named: false,
        doc: "Result folders of `evaluate`, one for each arm and task; the base on every task",
    }];
    const OUTPUTS: &'static [Output] = &[
        Output { name: "comparison", file: "comparison.json", doc: "Every raw figure, for `render`" },
        Output { name: "conclusions", file: "conclusions.json", doc: "Rankings, conclusions, recommendations" },
        Output { name: "differences", file: "differences.csv", doc: "Differences and relative changes, unrounded" },
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
            all.push(Labelled { result: results::read(&artifact.path, &label)?, label });
        }
        let comparison = assemble(params, &all)?;
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
        let text = to_json(&comparison)?;
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
        write(cx, "conclusions.json", &to_json(&conclusions)?)?;
        write(cx, "differences.csv", &export::differences(&comparison)?)?;
        write(cx, "grid.csv", &export::grid(&comparison)?)
    }
}

/// A result, and how to call it in a message.
struct Labelled {
    result: Evaluated,
    label: String,
}

fn assemble(params: &Params, all: &[Labelled]) -> Result<Comparison> {
    let mut tasks: BTreeMap<&str, Vec<&Labelled>> = BTreeMap::new();
    for one in all {
        tasks.entry(&one.result.metrics.task).or_default().push(one);
    }
    if let Some(name) = params.tasks.keys().find(|name| !tasks.contains_key(name.as_str())) {
        let known: Vec<&str> = tasks.keys().copied().collect();
        let path = Path::root().key("tasks").key(name);
        return Err(Problem::new(format!("there is no result on the task `{name}`"))
            .at(path)
            .help(format!("the results are on {}", known.join(", "))));
    }
    let arms = arms(params, all)?;
    let mut compared = Vec::new();
    for (id, results) in tasks {
        compared.push(task(id, params.tasks.get(id), &arms, &results)?);
    }
    compared.sort_by_key(|task| task.role);
    Ok(Comparison {
        format: FORMAT.to_owned(),
        date: None,
        generated: all.iter().any(|one| one.result.metrics.generated),
        arms,
        tasks: compared,
        settings: None,
        provenance: None,
    })
}

/// Every arm once, the base first, the others as they come.
fn arms(params: &Params, all: &[Labelled]) -> Result<Vec<Arm>> {
    let mut arms: Vec<Arm> = Vec::new();
    for one in all {
        let info = &one.result.metrics.arm;
        let arm = Arm {
            name: info.name.clone(),
            title: title::title(&info.name, &info.adapters, &info.coordinates, &params.titles),
            coordinates: info.coordinates.clone(),
            adapters: info.adapters.clone(),
            trainable_parameters: info.trainable_parameters,
            parameters_are_estimated: false,
            seeds: Vec::new(),
            training: Vec::new(),
            selection: None,
            certificate: None,
        };
        match arms.iter().find(|known| known.name == arm.name) {
            Some(known) if *known == arm => {}
            Some(_) => {
                return Err(Problem::new(format!(
                    "the arm `{}` has other adapters here than on another task",
                    arm.name
                ))
                .in_file(&one.label, None)
                .help("evaluate the same adapters on every task, or give the arms different names"));
            }
            None => arms.push(arm),
        }
    }
    arms.sort_by_key(|arm| arm.name != BASE);
    title::tell_apart(&mut arms);
    Ok(arms)
}

fn task(id: &str, params: Option<&TaskParams>, arms: &[Arm], results: &[&Labelled]) -> Result<Task> {
    let params = params.cloned().unwrap_or_default();
    let mut by_arm: BTreeMap<&str, &Labelled> = BTreeMap::new();
    for one in results {
        let name = one.result.metrics.arm.name.as_str();
        if let Some(other) = by_arm.insert(name, one) {
            return Err(Problem::new(format!("the arm `{name}` has two results on the task `{id}`"))
                .in_file(&one.label, None)
                .help(format!("the other one is {}", other.label)));
        }
    }
    let base = *by_arm.get(BASE).ok_or_else(|| {
        Problem::new(format!("there is no result of the base on the task `{id}`"))
            .help("evaluate the model without an adapter as well, and connect that result")
    })?;
    let first = &base.result.metrics;
    for one in results {
        same_items(id, base, one)?;
    }
    let (title, role, average) = match id {
        "terra" => ("TERRa", Role::General, Some("macro")),
        "nerus" => ("Nerus", Role::Special, Some("micro")),
        other => (other, Role::Special, None),
    };
    let average = params
        .average
        .or(average.map(str::to_owned))
        .or_else(|| first.metrics.iter().find_map(|metric| metric.average.clone()));
    let metric = params.metric.unwrap_or_else(|| "f1".to_owned());
    let mut task = Task {
        id: id.to_owned(),
        title: params.title.unwrap_or_else(|| title.to_owned()),
        role: params.role.unwrap_or(role),
        metric,
        lower_is_better: false,
        average,
        n: Some(first.n),
        documents: first.documents,
        classes: first.classes.clone(),
        results: BTreeMap::new(),
        averages: BTreeMap::new(),
        parse: BTreeMap::new(),
        answers: answers(arms, &by_arm),
        clusters: None,
        intervals: BTreeMap::new(),
        by_seed: BTreeMap::new(),
        tests: Vec::new(),
        label_mass: BTreeMap::new(),
        shortcuts: Vec::new(),
        leaks: None,
        variants: Vec::new(),
        findings: Vec::new(),
        examples: Vec::new(),
    };
    for (name, one) in &by_arm {
        put_figures(&mut task, name, one)?;
    }
    Ok(task)
}

/// Figures of the main table go to `results`, those by another average to `averages`.
fn put_figures(task: &mut Task, arm: &str, one: &Labelled) -> Result<()> {
    let metrics = &one.result.metrics;
    let mut main = Figures::new();
    for metric in &metrics.metrics {
        let Some(value) = metric.value else { continue };
        match &metric.average {
            Some(average) if task.average.as_ref() != Some(average) => {
                let arms = task.averages.entry(average.clone()).or_default();
                arms.entry(arm.to_owned()).or_default().insert(metric.name.clone(), value);
            }
            _ => {
                if main.insert(metric.name.clone(), value).is_some() {
                    let what = format!("the metric `{}` stands there with and without an average", metric.name);
                    return Err(Problem::new(what).in_file(&one.label, None));
                }
            }
        }
    }
    let is_main =
        |name: &str, average: &Option<String>| name == task.metric && (average.is_none() || *average == task.average);
    if !metrics.metrics.iter().any(|metric| is_main(&metric.name, &metric.average)) {
        let name = |m: &results::Metric| m.average.as_ref().map_or(m.name.clone(), |a| format!("{} ({a})", m.name));
        let known: Vec<String> = metrics.metrics.iter().map(name).collect();
        let average = task.average.as_deref().unwrap_or("no average");
        return Err(Problem::new(format!(
            "there is no metric `{}` ({average}) of the task `{}`",
            task.metric, task.id
        ))
        .in_file(&one.label, None)
        .help(format!("the metrics are {}", known.join(", "))));
    }
    task.results.insert(arm.to_owned(), main);
    if !metrics.parse.is_empty() {
        task.parse.insert(arm.to_owned(), metrics.parse.clone());
    }
    Ok(())
}

/// Arms can be compared only on the same items in the same order.
fn same_items(id: &str, base: &Labelled, one: &Labelled) -> Result<()> {
    let (a, b) = (&base.result, &one.result);
    let differ = |what: String| {
        Err(Problem::new(what)
            .in_file(format!("records.csv of {}", one.label), None)
            .help("evaluate every arm on the same data with the same prompt and limit"))
    };
    if a.records.len() != b.records.len() {
        let (n, m) = (b.records.len(), a.records.len());
        return differ(format!("{n} items of the task `{id}`, but the base has {m}"));
    }
    if let Some((x, y)) = a.records.iter().zip(&b.records).find(|(x, y)| x.item != y.item) {
        let what = if x.id == y.id {
            format!("item `{}` of the task `{id}` has another prompt or gold answer than for the base", y.id)
        } else {
            format!("item `{}` of the task `{id}` stands where the base has `{}`", y.id, x.id)
        };
        return differ(what);
    }
    if a.metrics.classes != b.metrics.classes || a.metrics.documents != b.metrics.documents {
        return differ(format!("the task `{id}` has other class or document counts than for the base"));
    }
    Ok(())
}

/// The answers of every pair of arms, each set against those before it.
fn answers(arms: &[Arm], by_arm: &BTreeMap<&str, &Labelled>) -> Vec<Answers> {
    let present: Vec<(&str, &[Record])> = arms
        .iter()
        .filter_map(|arm| Some((arm.name.as_str(), by_arm.get(arm.name.as_str())?.result.records.as_slice())))
        .collect();
    let mut pairs = Vec::new();
    for (i, (against, theirs)) in present.iter().enumerate() {
        for (arm, ours) in &present[i + 1..] {
            let items = || theirs.iter().zip(ours.iter());
            let scored = items().all(|(a, b)| a.scores.is_some() && b.scores.is_some());
            pairs.push(Answers {
                against: (*against).to_owned(),
                arm: (*arm).to_owned(),
                different: items().filter(|(a, b)| a.answer != b.answer).count() as u64,
                scores_different: scored.then(|| items().filter(|(a, b)| a.scores != b.scores).count() as u64),
            });
        }
    }
    pairs
}

fn to_json<T: Serialize>(value: &T) -> Result<String> {
    let text = serde_json::to_string_pretty(value);
    text.map(|text| text + "\n").map_err(|error| Problem::new(format!("cannot write JSON: {error}")))
}

fn write(cx: &Context, file: &str, text: &str) -> Result<()> {
    let path = cx.output(file);
    fs::write(&path, text).map_err(|error| Problem::io("write", &path, &error))
}
