//! From results to a comparison: arms, tasks, figures, and what stands behind them.
//! It does not know how tests are computed, nor sentences.

use std::collections::BTreeMap;

use super::arms::Arms;
use super::shortcuts::Shortcuts;
use super::{Labelled, Params, TaskParams, examples, inference, variants};
use crate::error::{Path, Problem, Result};
use crate::metric::sums::Figure;
use crate::report::clusters::Clusters;
use crate::report::comparison::{Answers, BASE, Comparison, FORMAT, Figures, Role, Task};
use crate::report::evidence::{BATCHES, Finding, Leaks, Provenance};
use crate::report::results::{Metric, Record};

/// The results of an arm on a task: one, or one for each seed, in the order of the seeds.
pub type Results<'a> = Vec<&'a Labelled>;

/// The comparison of all results.
pub fn assemble(params: &Params, all: &[Labelled], shortcuts: &[Shortcuts]) -> Result<Comparison> {
    let mut tasks: BTreeMap<&str, Vec<&Labelled>> = BTreeMap::new();
    for one in all {
        tasks.entry(&one.result.metrics.task).or_default().push(one);
    }
    let known = || tasks.keys().copied().collect::<Vec<_>>().join(", ");
    if let Some(name) = params.tasks.keys().find(|name| !tasks.contains_key(name.as_str())) {
        return Err(Problem::new(format!("there is no result on the task `{name}`"))
            .at(Path::root().key("tasks").key(name))
            .help(format!("the results are on {}", known())));
    }
    if let Some(other) = shortcuts.iter().find(|one| !tasks.contains_key(one.task.as_str())) {
        return Err(Problem::new(format!("there is no result on the task `{}`", other.task))
            .in_file(&other.label, None)
            .help(format!("the results are on {}", known())));
    }
    let arms = Arms::of(params, all)?;
    let mut compared = Vec::new();
    for (id, results) in &tasks {
        let own = params.tasks.get(*id).cloned().unwrap_or_default();
        compared.push(task(params, id, own, &arms, results, shortcuts.iter().find(|one| one.task == **id))?);
    }
    compared.sort_by_key(|task| task.role);
    Ok(Comparison {
        format: FORMAT.to_owned(),
        date: None,
        generated: all.iter().any(|one| one.result.metrics.generated),
        arms: arms.arms,
        tasks: compared,
        settings: Some(params.settings()),
        provenance: Some(provenance(all)),
    })
}

/// Data and model by their content, and what of the machine may change answers.
fn provenance(all: &[Labelled]) -> Provenance {
    let mut known = Provenance::default();
    for metrics in all.iter().map(|one| &one.result.metrics) {
        for (port, name) in [("model", "model"), ("data", metrics.task.as_str()), ("text", metrics.task.as_str())] {
            known.data.extend(metrics.inputs.get(port).map(|digest| (name.to_owned(), digest.clone())));
        }
        known.environment.extend(metrics.environment.clone());
    }
    known
}

fn task(
    params: &Params,
    id: &str,
    own: TaskParams,
    arms: &Arms,
    results: &[&Labelled],
    shortcuts: Option<&Shortcuts>,
) -> Result<Task> {
    let base = results.iter().find(|one| one.result.metrics.arm.name == BASE).ok_or_else(|| {
        Problem::new(format!("there is no result of the base on the task `{id}`"))
            .help("evaluate the model without an adapter as well, and connect that result")
    })?;
    let first = &base.result.metrics;
    let (main, others) = variants::divide(results, &first.asked);
    let by_arm = by_arm(id, arms, &main)?;
    for one in &main {
        same_items(id, base, one)?;
    }
    let (title, role, average, metric) = match id {
        "terra" => ("TERRa", Role::General, Some("macro"), "f1"),
        "nerus" => ("Nerus", Role::Special, Some("micro"), "f1"),
        "text" => ("Русский текст", Role::Retention, None, "loss"),
        other => (other, Role::Special, None, "f1"),
    };
    let average = own
        .average
        .or(average.map(str::to_owned))
        .or_else(|| first.metrics.iter().find_map(|metric| metric.average.clone()));
    let metric = own.metric.unwrap_or_else(|| metric.to_owned());
    let mut task = Task {
        id: id.to_owned(),
        title: own.title.unwrap_or_else(|| title.to_owned()),
        role: own.role.unwrap_or(role),
        lower_is_better: matches!(metric.as_str(), "loss" | "perplexity"),
        metric,
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
        findings: findings(arms, &main),
        examples: examples::examples(&arms.arms, &by_arm),
    };
    for (name, results) in &by_arm {
        put_figures(&mut task, name, results)?;
    }
    task.shortcuts = shortcuts.map(|one| one.figures(task.average.as_deref())).unwrap_or_default();
    if let Some(overlap) = shortcuts.and_then(|one| one.overlap.as_ref()) {
        let leak_free =
            by_arm.iter().map(|(arm, results)| ((*arm).to_owned(), subset(&task, results, &overlap.leak_free)));
        task.leaks = Some(Leaks {
            what: overlap.what.clone(),
            shared: overlap.shared,
            total: overlap.total,
            leak_free: leak_free.collect(),
        });
    }
    task.variants = variants::variants(&task, arms, &first.asked, &others)?;
    inference::infer(params, own.margin.unwrap_or(params.margin), &mut task, &arms.arms, &by_arm)?;
    Ok(task)
}

/// The results of each arm; every arm and seed once.
fn by_arm<'a>(id: &str, arms: &'a Arms, results: &[&'a Labelled]) -> Result<BTreeMap<&'a str, Results<'a>>> {
    let mut by_name: BTreeMap<&str, &Labelled> = BTreeMap::new();
    let mut by_seed: BTreeMap<&str, BTreeMap<Option<u64>, &Labelled>> = BTreeMap::new();
    for one in results {
        let name = one.result.metrics.arm.name.as_str();
        if let Some(other) = by_name.insert(name, one) {
            return Err(Problem::new(format!("the arm `{name}` has two results on the task `{id}`"))
                .in_file(&one.label, None)
                .help(format!("the other one is {}", other.label)));
        }
        let (arm, seed) = arms.member(name);
        by_seed.entry(arm).or_default().insert(seed, one);
    }
    for (arm, seeds) in &by_seed {
        let wanted = arms.arms.iter().find(|known| known.name == *arm).map_or(&[][..], |arm| arm.seeds.as_slice());
        if let Some(seed) = wanted.iter().find(|seed| !seeds.contains_key(&Some(**seed))) {
            return Err(Problem::new(format!("the arm `{arm}` has no result with the seed {seed} on the task `{id}`"))
                .help("evaluate every seed on every task"));
        }
    }
    Ok(by_seed.into_iter().map(|(arm, seeds)| (arm, seeds.into_values().collect())).collect())
}

/// Figures of the main table go to `results`, those by another average to `averages`; over seeds they are means.
fn put_figures(task: &mut Task, arm: &str, results: &Results) -> Result<()> {
    let mut sums: BTreeMap<(&Option<String>, &str), f64> = BTreeMap::new();
    for one in results {
        for metric in &one.result.metrics.metrics {
            let Some(value) = metric.value else { continue };
            *sums.entry((&metric.average, &metric.name)).or_default() += value / results.len() as f64;
        }
        is_there(task, one)?;
        for (state, count) in &one.result.metrics.parse {
            *task.parse.entry(arm.to_owned()).or_default().entry(state.clone()).or_default() += count;
        }
        if let Some(seed) = one.result.metrics.arm.coordinates.get("seed").and_then(serde_json::Value::as_u64)
            && results.len() > 1
            && let Some(value) = main_value(task, one)
        {
            task.by_seed.entry(arm.to_owned()).or_default().insert(seed, value);
        }
    }
    let mut main = Figures::new();
    for ((average, metric), value) in sums {
        match average {
            Some(average) if task.average.as_ref() != Some(average) => {
                let arms = task.averages.entry(average.clone()).or_default();
                arms.entry(arm.to_owned()).or_default().insert(metric.to_owned(), value);
            }
            _ => {
                if main.insert(metric.to_owned(), value).is_some() {
                    let what = format!("the metric `{metric}` stands there with and without an average");
                    return Err(Problem::new(what).in_file(&results[0].label, None));
                }
            }
        }
    }
    task.results.insert(arm.to_owned(), main);
    let masses: Vec<f64> =
        results.iter().flat_map(|one| one.result.records.iter().filter_map(Record::label_mass)).collect();
    if !masses.is_empty() {
        task.label_mass.insert(arm.to_owned(), masses.iter().sum::<f64>() / masses.len() as f64);
    }
    Ok(())
}

fn is_main(task: &Task, metric: &Metric) -> bool {
    metric.name == task.metric && (metric.average.is_none() || metric.average == task.average)
}

/// The value that a result has for the metric of the task.
pub fn main_value(task: &Task, one: &Labelled) -> Option<f64> {
    one.result.metrics.metrics.iter().find(|metric| is_main(task, metric)).and_then(|metric| metric.value)
}

/// Refuses a result without the metric of the task.
fn is_there(task: &Task, one: &Labelled) -> Result<()> {
    let metrics = &one.result.metrics.metrics;
    if metrics.iter().any(|metric| is_main(task, metric)) {
        return Ok(());
    }
    let name = |m: &Metric| m.average.as_ref().map_or(m.name.clone(), |a| format!("{} ({a})", m.name));
    let known: Vec<String> = metrics.iter().map(name).collect();
    let average = task.average.as_deref().unwrap_or("no average");
    Err(Problem::new(format!("there is no metric `{}` ({average}) of the task `{}`", task.metric, task.id))
        .in_file(&one.label, None)
        .help(format!("the metrics are {}", known.join(", "))))
}

/// The figures of the main table on some of the items only, as means over seeds.
fn subset(task: &Task, results: &Results, ids: &std::collections::BTreeSet<String>) -> Figures {
    let mut figures = Figures::new();
    for metric in task.metrics() {
        let figure = Figure { average: task.average_of(&metric), metric: metric.clone() };
        let of = |one: &&Labelled| figure.of(&Clusters::of(&one.result, |record| ids.contains(&record.id)).total());
        let values: Option<Vec<f64>> = if ids.is_empty() { None } else { results.iter().map(of).collect() };
        if let Some(values) = values {
            figures.insert(metric, values.iter().sum::<f64>() / values.len() as f64);
        }
    }
    figures
}

/// What was found about the data; every arm saw the same. An arm that was chosen on these very data is ahead of others
/// by that alone.
fn findings(arms: &Arms, results: &[&Labelled]) -> Vec<Finding> {
    let mut all: Vec<Finding> = Vec::new();
    for one in results {
        let metrics = &one.result.metrics;
        let Some(selection) = &metrics.arm.selection else { continue };
        let read = ["data", "text"].into_iter().filter_map(|port| metrics.inputs.get(port));
        if read.into_iter().any(|digest| *digest == selection.split) {
            let title = title(arms, one);
            all.push(Finding {
                code: "chosen_on_test".to_owned(),
                severity: "warning".to_owned(),
                count: metrics.n,
                text: format!("{title}: настройки выбраны на этих же данных, поэтому его результат завышен"),
                examples: Vec::new(),
            });
        }
    }
    for one in results {
        for finding in &one.result.metrics.findings {
            let mut finding = finding.clone();
            // This one is about the arm.
            if finding.code == BATCHES {
                finding.text = format!("{}: {}", title(arms, one), finding.text);
            }
            if !all.contains(&finding) {
                all.push(finding);
            }
        }
    }
    all
}

fn title<'a>(arms: &'a Arms, one: &'a Labelled) -> &'a str {
    let (name, _) = arms.member(&one.result.metrics.arm.name);
    arms.arms.iter().find(|arm| arm.name == name).map_or(name, |arm| arm.title.as_str())
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
    let model = |one: &Labelled| one.result.metrics.inputs.get("model").cloned();
    if let (Some(x), Some(y)) = (model(base), model(one))
        && x != y
    {
        return Err(Problem::new(format!("the result on `{id}` is of another base model than that of the base"))
            .in_file(&one.label, None)
            .help("compare adapters of one base; give each base a comparison of its own"));
    }
    if a.metrics.classes != b.metrics.classes || a.metrics.documents != b.metrics.documents {
        return differ(format!("the task `{id}` has other class or document counts than for the base"));
    }
    Ok(())
}

/// The answers of every pair of arms, each set against those before it; of several seeds, the pair that differs most.
fn answers(arms: &Arms, by_arm: &BTreeMap<&str, Results>) -> Vec<Answers> {
    let present: Vec<(&str, &Results)> =
        arms.arms.iter().filter_map(|arm| Some((arm.name.as_str(), by_arm.get(arm.name.as_str())?))).collect();
    let mut pairs = Vec::new();
    for (i, (against, theirs)) in present.iter().enumerate() {
        for (arm, ours) in &present[i + 1..] {
            let counts =
                theirs.iter().flat_map(|a| ours.iter().map(|b| different(&a.result.records, &b.result.records)));
            let Some((different, scores_different)) = counts.max() else { continue };
            pairs.push(Answers { against: (*against).to_owned(), arm: (*arm).to_owned(), different, scores_different });
        }
    }
    pairs
}

/// How many answers differ, and how many scores where all are scored.
fn different(theirs: &[Record], ours: &[Record]) -> (u64, Option<u64>) {
    let items = || theirs.iter().zip(ours);
    let scored = items().all(|(a, b)| a.scores.is_some() && b.scores.is_some());
    let answers = items().filter(|(a, b)| a.answer != b.answer || a.loss != b.loss).count() as u64;
    (answers, scored.then(|| items().filter(|(a, b)| a.scores != b.scores).count() as u64))
}
