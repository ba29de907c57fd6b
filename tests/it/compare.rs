//! `compare` on many records: tests and verdicts, seeds that are brought together, other prompts, shortcuts and leaks,
//! examples; and `select`, which chooses on a development split. It does not know how answers come about.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use pipe::metric::classification::classification;
use pipe::report::comparison::{Comparison, Task};
use pipe::report::decision::decision;
use pipe::report::evidence::{Certificate, Effect, Tensors, Test, Variant};
use pipe::report::reliability::reorders;
use pipe::statistics::verdict::Verdict;
use pipe::step::Artifact;
use serde_json::{Value, json};

use crate::data_steps::{Ran, artifact, run, told};

const LABELS: [&str; 2] = ["entailment", "not_entailment"];

/// An arm on 200 rows of TERRa with 100 premises: right where `right` says so.
struct Arm<'a> {
    name: &'a str,
    coordinates: Value,
    prompt: &'a str,
    right: &'a dyn Fn(usize) -> bool,
    more: Value,
}

impl<'a> Arm<'a> {
    fn new(name: &'a str, right: &'a dyn Fn(usize) -> bool) -> Self {
        Self { name, coordinates: json!({}), prompt: "p", right, more: json!({}) }
    }

    fn write(&self, folder: &Path) -> PathBuf {
        let name = format!("{}-{}", self.name.replace(['[', ']', '=', ','], "_"), self.prompt);
        let path = folder.join(name);
        fs::create_dir_all(&path).expect("a folder");
        let gold: Vec<&str> = (0..200).map(|i| LABELS[i % 2]).collect();
        let answers: Vec<&str> = (0..200).map(|i| LABELS[(i + usize::from(!(self.right)(i))) % 2]).collect();
        let mut records =
            "id,prompt,gold,answer,loglik_entailment,loglik_not_entailment,premise,hypothesis\n".to_owned();
        for i in 0..200 {
            let (a, b) = if answers[i] == LABELS[0] { (-0.7, -2.0) } else { (-2.0, -0.7) };
            records.push_str(&format!(
                "{i},{}{i},{},{},{a},{b},premise {},hypothesis {i}\n",
                self.prompt,
                gold[i],
                answers[i],
                i / 2
            ));
        }
        fs::write(path.join("records.csv"), records).expect("records");
        let figures = classification(&LABELS, &gold, &answers);
        let adapters = if self.name == "base" { json!([]) } else { json!([{"kind": "lora", "rank": 4, "alpha": 8.0}]) };
        let mut arm = json!({"name": self.name, "coordinates": self.coordinates, "adapters": adapters,
            "trainable_parameters": if self.name == "base" { 0 } else { 100 }});
        arm.as_object_mut().expect("a map").extend(self.more.as_object().expect("a map").clone());
        let document = json!({"format": "pipe/metrics@2", "task": "terra", "n": 200, "generated": false, "arm": arm,
            "classes": {"entailment": 100, "not_entailment": 100}, "parse": {"valid": 200},
            "asked": {"mode": "loglik", "prompt": self.prompt, "answers": {"entailment": " да", "not_entailment": " нет"}},
            "inputs": {"data": "d1", "model": "m1"},
            "metrics": [{"name": "accuracy", "average": null, "value": figures.accuracy},
                {"name": "f1", "average": "macro", "value": figures.macro_.f1}]});
        fs::write(path.join("metrics.json"), document.to_string()).expect("metrics");
        path
    }
}

fn compared(arms: &[Arm], with: Value, shortcuts: &[Artifact]) -> Result<Ran, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let results = arms.iter().map(|arm| artifact(&arm.write(folder.path()), "e")).collect();
    let mut params = json!({"resamples": 1000});
    params.as_object_mut().expect("a map").extend(with.as_object().expect("a map").clone());
    let inputs = vec![("results", results), ("shortcuts", shortcuts.to_vec())];
    run("compare", params, inputs, folder.path()).map_err(|problems| problems[0].to_string())
}

fn comparison(ran: &Ran) -> Comparison {
    let text = fs::read_to_string(ran.path("comparison.json")).expect("written");
    Comparison::read(&text, "comparison.json").expect("its own format")
}

fn terra(comparison: &Comparison) -> &Task {
    &comparison.tasks[0]
}

fn half(i: usize) -> bool {
    !(i / 2).is_multiple_of(2)
}

#[test]
fn verdicts_follow_from_tests_over_premises() {
    let better = |i: usize| half(i) || i % 10 < 3;
    let again = |i: usize| half(i) ^ (i == 7);
    let worse = |i: usize| half(i) && i % 10 > 4;
    let arms =
        [Arm::new("base", &half), Arm::new("better", &better), Arm::new("again", &again), Arm::new("worse", &worse)];
    let ran = compared(&arms, json!({}), &[]).expect("compared");
    let comparison = comparison(&ran);
    let task = terra(&comparison);
    assert_eq!(task.clusters, Some(("premise".to_owned(), 100)));
    let verdict = |arm: &str, against: &str| {
        task.tests.iter().find(|test| test.arm == arm && test.against == against).map(|test| test.verdict)
    };
    assert_eq!(verdict("better", "base"), Some(Verdict::Better));
    assert_eq!(verdict("again", "base"), Some(Verdict::Equivalent));
    assert_eq!(verdict("worse", "base"), Some(Verdict::Worse));
    assert_eq!(verdict("again", "better"), Some(Verdict::Worse));
    for test in &task.tests {
        assert!(test.interval.low <= test.difference && test.difference <= test.interval.high, "{test:?}");
        assert!(test.p <= test.p_holm && test.p_holm <= 1.0);
        let pair = test.discordant.expect("items are right or wrong");
        let accuracy = |arm: &str| task.results[arm]["accuracy"];
        let gap = (pair.fixed as f64 - pair.broken as f64) / 200.0;
        assert!((gap - (accuracy(&test.arm) - accuracy(&test.against))).abs() < 1e-12);
    }
    for (arm, figures) in &task.results {
        let interval = task.intervals[arm]["f1"];
        assert!(interval.low <= figures["f1"] && figures["f1"] <= interval.high, "{arm}");
    }
    let mass = task.label_mass["base"];
    assert!((mass - ((-0.7_f64).exp() + (-2.0_f64).exp())).abs() < 1e-12);
    // Examples: what an adapter mended and broke, with all answers.
    assert!(
        task.examples
            .iter()
            .any(|one| one.right.contains(&"better".to_owned()) && !one.right.contains(&"base".to_owned()))
    );
    assert!(task.examples.iter().all(|one| one.text.contains(" → ") && one.answers.len() == 4));
    // The same again, to the byte.
    assert_eq!(compared(&arms, json!({}), &[]).expect("compared").digest(), ran.digest());
    let conclusions = fs::read_to_string(ran.path("conclusions.json")).expect("written");
    assert!(conclusions.contains("лучше базовой модели и всех остальных адаптеров"), "{conclusions}");
}

/// One arm is better than the base, another is not shown to be: that alone does not make the one better than the other.
#[test]
fn a_recommendation_says_what_is_not_shown() {
    let better = |i: usize| half(i) || i % 10 < 3;
    let again = |i: usize| half(i) ^ (i == 7);
    let arms = [Arm::new("base", &half), Arm::new("better", &better), Arm::new("again", &again)];
    let mut comparison = comparison(&compared(&arms, json!({}), &[]).expect("compared"));
    let points = |comparison: &Comparison| decision(comparison).expect("it was tested").points.join("\n");
    assert!(!points(&comparison).contains("не показано"), "{}", points(&comparison));
    let pair = comparison.tasks[0].tests.iter_mut().find(|test| test.against == "better").expect("a pair");
    pair.verdict = Verdict::Indistinguishable;
    let told = points(&comparison);
    assert!(told.contains("на датасете TERRa не показано"), "{told}");
}

#[test]
fn wordings_reorder_arms_only_where_figures_do() {
    let arms = [Arm::new("base", &half), Arm::new("lora", &half)];
    let mut comparison = comparison(&compared(&arms, json!({}), &[]).expect("compared"));
    let task = &mut comparison.tasks[0];
    let variant = |base: f64, lora: f64| Variant {
        name: "p".to_owned(),
        values: BTreeMap::from([("base".to_owned(), base), ("lora".to_owned(), lora)]),
    };
    for (second, changes) in [((0.5, 0.6), false), ((0.5, 0.5), false), ((0.6, 0.599_99), false), ((0.6, 0.5), true)] {
        task.variants = vec![variant(0.5, 0.6), variant(second.0, second.1)];
        assert_eq!(reorders(task), changes, "{second:?}");
    }
}

#[test]
fn an_adapter_without_effect_is_never_ranked() {
    let better = |i: usize| half(i) || i % 10 < 3;
    let idle = Certificate {
        state: Effect::Disabled,
        reason: "множитель равен нулю".to_owned(),
        tensors: Tensors { placed: 4, expected: 4 },
        sites: Vec::new(),
        probe: None,
    };
    let mut broken = Arm::new("broken", &better);
    broken.more = json!({"certificate": idle});
    let arms = [Arm::new("base", &half), broken];
    let ran = compared(&arms, json!({}), &[]).expect("compared");
    let conclusions = fs::read_to_string(ran.path("conclusions.json")).expect("written");
    assert!(conclusions.contains("действующих адаптеров нет"), "{conclusions}");
    assert!(!conclusions.contains("против базовой модели"), "what does nothing has no verdict: {conclusions}");
    assert!(conclusions.contains("Ни один из адаптеров не рекомендуется"), "{conclusions}");
    assert!(conclusions.contains("не сравнивается: адаптер отключён"), "{conclusions}");
}

#[test]
fn an_adapter_without_effect_costs_the_others_nothing() {
    let better = |i: usize| half(i) || i % 30 < 3;
    let idle = Certificate {
        state: Effect::NoEffect,
        reason: "ответы те же".to_owned(),
        tensors: Tensors { placed: 4, expected: 4 },
        sites: Vec::new(),
        probe: None,
    };
    let tests = |more: Value| {
        let mut other = Arm::new("other", &half);
        other.more = more;
        let arms = [Arm::new("base", &half), Arm::new("better", &better), other];
        let comparison = comparison(&compared(&arms, json!({}), &[]).expect("compared"));
        terra(&comparison).tests.clone()
    };
    let of = |tests: &[Test], arm: &str, against: &str| {
        tests.iter().find(|test| test.arm == arm && test.against == against).cloned()
    };
    let with = tests(json!({}));
    let without = tests(json!({"certificate": idle}));
    // Two adapters that do something are a family of two, and a pair.
    let test = of(&with, "better", "base").expect("a test");
    assert!(test.p > 0.0 && test.p_holm == 2.0 * test.p, "{test:?}");
    assert!(of(&with, "other", "better").is_some());
    // Beside one without effect the other stands alone.
    let test = of(&without, "better", "base").expect("a test");
    assert_eq!(test.p_holm, test.p);
    assert!(of(&without, "other", "better").is_none() && of(&without, "better", "other").is_none());
    let test = of(&without, "other", "base").expect("what it is beside the base stays known");
    assert_eq!((test.p, test.p_holm), (1.0, 1.0));
}

#[test]
fn equal_figures_of_other_answers_are_told() {
    // As many right of each class as the base, but others.
    let other = |i: usize| (i / 2).is_multiple_of(2);
    let arms = [Arm::new("base", &half), Arm::new("lora", &other)];
    let ran = compared(&arms, json!({}), &[]).expect("compared");
    let conclusions = fs::read_to_string(ran.path("conclusions.json")).expect("written");
    assert!(
        conclusions.contains("F1 та же, что у базовой модели, хотя ответы различаются в 200 из 200"),
        "{conclusions}"
    );
}

#[test]
fn seeds_are_runs_of_one_arm() {
    let of = |shift: usize| move |i: usize| half(i) || (i + shift) % 10 < 3;
    let (one, two, three) = (of(0), of(1), of(2));
    let mut arms = vec![Arm::new("base", &half)];
    let rights: [&dyn Fn(usize) -> bool; 3] = [&one, &two, &three];
    let names = ["lora[rank=4,seed=1]", "lora[rank=4,seed=2]", "lora[rank=4,seed=3]"];
    for (i, right) in rights.into_iter().enumerate() {
        let mut arm = Arm::new(names[i], right);
        arm.coordinates = json!({"rank": 4, "seed": i + 1});
        arms.push(arm);
    }
    let ran = compared(&arms, json!({}), &[]).expect("compared");
    let comparison = comparison(&ran);
    let lora = comparison.adapted().next().expect("an arm");
    assert_eq!((lora.name.as_str(), lora.seeds.as_slice()), ("lora[rank=4]", &[1, 2, 3][..]));
    assert_eq!(comparison.adapted().count(), 1);
    let task = terra(&comparison);
    let values: Vec<f64> = task.by_seed["lora[rank=4]"].values().copied().collect();
    let mean = values.iter().sum::<f64>() / 3.0;
    assert!((task.results["lora[rank=4]"]["f1"] - mean).abs() < 1e-12);
    let test = &task.tests[0];
    assert_eq!(test.verdict, Verdict::Better);
    assert!(test.discordant.is_none() && test.probability_ahead.is_some_and(|ahead| ahead > 0.99));
    // A seed that was not evaluated everywhere is told.
    let other = |i: usize| half(i);
    let mut odd = Arm::new("lora[rank=4,seed=4]", &other);
    odd.coordinates = json!({"rank": 4, "seed": 4});
    odd.more = json!({"adapters": [{"kind": "lora", "rank": 8}]});
    arms.push(odd);
    let problem = compared(&arms, json!({}), &[]).err().expect("refused");
    assert!(problem.contains("differs from its other seeds in more than the seed"), "{problem}");
}

#[test]
fn other_prompts_are_variants_of_the_same_task() {
    let better = |i: usize| half(i) || i % 10 < 3;
    let worse = |i: usize| half(i) && i % 10 > 2;
    let mut arms = vec![Arm::new("base", &half), Arm::new("lora", &better)];
    for (name, right) in [("base", &half as &dyn Fn(usize) -> bool), ("lora", &worse)] {
        let mut arm = Arm::new(name, right);
        arm.prompt = "other";
        arms.push(arm);
    }
    let ran = compared(&arms, json!({}), &[]).expect("compared");
    let comparison = comparison(&ran);
    let variants = &terra(&comparison).variants;
    assert_eq!(variants.len(), 2);
    assert!(
        variants[0].values["lora"] > variants[0].values["base"]
            && variants[1].values["lora"] < variants[1].values["base"]
    );
    assert_eq!(variants[1].name, "«other»");
    let view = pipe::report::view::view(&comparison);
    let lines: Vec<&String> = view.reliability.iter().flat_map(|section| &section.lines).collect();
    assert!(lines.iter().any(|line| line.contains("порядок вариантов зависит от формулировки")), "{lines:?}");
    // Without the base there is nothing to compare with.
    arms.remove(2);
    let problem = compared(&arms, json!({}), &[]).err().expect("refused");
    assert!(problem.contains("no result of the base was asked as the others"), "{problem}");
}

#[test]
fn shortcuts_and_leaks_stand_beside_the_arms() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("shortcuts.json");
    let free: Vec<String> = (150..200).map(|i| i.to_string()).collect();
    let document = json!({"format": "pipe/shortcuts@1", "task": "terra", "n": 200,
        "baselines": [{"name": "majority", "title": "всегда", "n": 200, "metrics": [
            {"name": "accuracy", "average": null, "value": 0.5}, {"name": "f1", "average": "macro", "value": 0.3333}]}],
        "overlap": {"what": "premise", "shared": 150, "total": 200, "leak_free": free}});
    fs::write(&path, document.to_string()).expect("written");
    let late = |i: usize| i >= 150;
    let arms = [Arm::new("base", &half), Arm::new("lora", &late)];
    let ran = compared(&arms, json!({}), &[artifact(&path, "s")]).expect("compared");
    let comparison = comparison(&ran);
    let task = terra(&comparison);
    assert_eq!(task.shortcuts[0].figures, BTreeMap::from([("accuracy".to_owned(), 0.5), ("f1".to_owned(), 0.3333)]));
    let leaks = task.leaks.as_ref().expect("leaks");
    assert_eq!(leaks.leak_free["lora"]["accuracy"], 1.0, "all fifty are right");
    assert_eq!(task.results["lora"]["accuracy"], 0.25);
    fs::write(&path, document.to_string().replace("shortcuts@1", "shortcuts@7")).expect("written");
    let problem = compared(&arms, json!({}), &[artifact(&path, "s")]).err().expect("refused");
    assert!(problem.contains("shortcuts@7"), "{problem}");
}

/// Candidates in folders of their own, and a result of each.
fn trials(folder: &Path, accuracies: &[usize]) -> (Vec<Artifact>, Vec<Artifact>) {
    let (mut candidates, mut results) = (Vec::new(), Vec::new());
    for (i, right) in accuracies.iter().enumerate() {
        let name = format!("lora[lr={i}]");
        let adapter = folder.join(format!("adapter{i}"));
        fs::create_dir_all(adapter.join("lora")).expect("a folder");
        fs::write(adapter.join("lora/weights"), i.to_string()).expect("written");
        candidates.push(artifact(&adapter, &name));
        let rule = |at: usize| at < *right;
        results.push(artifact(&Arm::new(&name, &rule).write(folder), "e"));
    }
    (candidates, results)
}

#[test]
fn select_takes_the_best_and_says_among_what() {
    let folder = tempfile::tempdir().expect("a folder");
    let (candidates, mut results) = trials(folder.path(), &[120, 150, 150, 90]);
    results.reverse();
    let inputs = |results: &[Artifact]| vec![("candidates", candidates.clone()), ("results", results.to_vec())];
    let with = json!({"metric": "accuracy"});
    let ran = run("select", with.clone(), inputs(&results), folder.path()).unwrap_or_else(|p| panic!("{p:?}"));
    assert_eq!(fs::read_to_string(ran.path("adapter/lora/weights")).expect("copied"), "1", "of equal ones the first");
    let selection: Value =
        serde_json::from_slice(&fs::read(ran.path("adapter/pipe_selection.json")).expect("there")).expect("JSON");
    assert_eq!(
        (&selection["trials"], &selection["split"], &selection["metric"]),
        (&json!(4), &json!("d1"), &json!("accuracy"))
    );
    let names: Vec<&str> =
        selection["values"].as_array().expect("a list").iter().filter_map(|t| t["name"].as_str()).collect();
    assert_eq!(names, ["lora[lr=0]", "lora[lr=1]", "lora[lr=2]", "lora[lr=3]"]);
    let worst = json!({"metric": "accuracy", "lower_is_better": true});
    let ran = run("select", worst, inputs(&results), folder.path()).unwrap_or_else(|p| panic!("{p:?}"));
    assert_eq!(fs::read_to_string(ran.path("adapter/lora/weights")).expect("copied"), "3");

    let refused = |wanted: &str, results: &[Artifact], with: &Value| {
        let said = told(run("select", with.clone(), inputs(results), folder.path()));
        assert!(said.contains(wanted), "{wanted}: {said}");
    };
    refused("there is no result of the candidate `lora[lr=0]`", &results[..3], &with);
    refused("there is no metric `f2`", &results, &json!({"metric": "f2"}));
    let twice: Vec<Artifact> = results.iter().chain(&results[..1]).cloned().collect();
    refused("has two results", &twice, &with);
    let rule = |at: usize| at < 3;
    let stranger = artifact(&Arm::new("mlp", &rule).write(folder.path()), "e");
    refused("which is no candidate", &[&results[..], &[stranger]].concat(), &with);
}

#[test]
fn select_refuses_values_that_cannot_be_set_side_by_side() {
    // What stands in the file of one result, and what takes its place.
    for (file, from, to, wanted) in [
        ("metrics.json", r#""task":"terra""#, r#""task":"rte""#, "is on another task than"),
        ("metrics.json", r#""data":"d1""#, r#""data":"d2""#, "is on other data than"),
        ("metrics.json", r#""data":"d1""#, r#""text":"d2""#, "is on other data than"),
        ("metrics.json", r#""data":"d1","#, "", "does not say on which data"),
        ("metrics.json", r#""model":"m1""#, r#""model":"m2""#, "is of another base than"),
        ("metrics.json", r#""mode":"loglik""#, r#""mode":"generate""#, "is asked in another way than"),
        ("metrics.json", r#""data":"d1""#, r#""adapter":"a0","data":"d1""#, "is of another adapter than"),
        ("records.csv", "\n7,", "\n700,", "has other items than"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let (candidates, mut results) = trials(folder.path(), &[120, 150]);
        let path = results[1].path.join(file);
        let text = fs::read_to_string(&path).expect("there");
        assert!(text.contains(from), "{from}");
        fs::write(&path, text.replacen(from, to, 1)).expect("written");
        results[1] = artifact(&results[1].path, "e");
        let inputs = vec![("candidates", candidates), ("results", results)];
        let said = told(run("select", json!({"metric": "accuracy"}), inputs, folder.path()));
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
}

#[test]
fn select_judges_by_the_loss_of_texts_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let (candidates, results) = trials(folder.path(), &[120, 150]);
    for (result, text) in results.iter().zip(["t1", "t1"]) {
        let path = result.path.join("metrics.json");
        let changed =
            fs::read_to_string(&path).expect("there").replace(r#""data":"d1""#, &format!(r#""text":"{text}""#));
        fs::write(&path, changed).expect("written");
    }
    let inputs = vec![("candidates", candidates), ("results", results)];
    let ran = run("select", json!({"metric": "accuracy"}), inputs, folder.path()).unwrap_or_else(|p| panic!("{p:?}"));
    let selection: Value = serde_json::from_slice(&fs::read(ran.path("selection.json")).expect("there")).expect("JSON");
    assert_eq!(selection["split"], "t1");
}

#[test]
fn arms_of_another_base_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let base = Arm::new("base", &half).write(folder.path());
    let lora = Arm::new("lora", &half).write(folder.path());
    let text = fs::read_to_string(lora.join("metrics.json")).expect("written");
    fs::write(lora.join("metrics.json"), text.replace("\"m1\"", "\"m2\"")).expect("written");
    let inputs = vec![("results", vec![artifact(&base, "e"), artifact(&lora, "e")])];
    let said = told(run("compare", json!({"resamples": 100}), inputs, folder.path()));
    assert!(said.contains("is of another base model"), "{said}");
}

#[test]
fn a_choice_on_the_test_data_is_told() {
    let selection = |split: &str| json!({"selection": {"trials": 3, "metric": "f1", "split": split, "values": []}});
    for (split, found) in [("d1", true), ("d2", false)] {
        let better = |i: usize| half(i) || i % 10 < 3;
        let mut lora = Arm::new("lora", &better);
        lora.more = selection(split);
        let ran = compared(&[Arm::new("base", &half), lora], json!({}), &[]).expect("compared");
        let comparison = comparison(&ran);
        let codes: Vec<&str> = terra(&comparison).findings.iter().map(|finding| finding.code.as_str()).collect();
        assert_eq!(codes.contains(&"chosen_on_test"), found);
    }
}
