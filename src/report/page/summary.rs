//! The verdicts of all tasks at a glance, below the decision.
//! It does not know what is decided, nor what a verdict rests on.

use super::table::{self, ABSENT, Cell, Table};
use super::tested::verdict;
use crate::report::comparison::{Arm, BASE, Comparison, Task};
use crate::report::decision::decision;
use crate::report::verdicts;
use crate::report::wording;

/// Adapters that it has room for.
const MOST: usize = 12;

/// What supports the decision; among many candidates only what the table below it does not say.
pub fn points(comparison: &Comparison) -> Vec<String> {
    const FEW: usize = 2;
    let Some(decision) = decision(comparison) else { return Vec::new() };
    let named = |point: &String, arm: &Arm| {
        comparison.tasks.iter().any(|task| point.starts_with(&format!("{}, {}: ", arm.title, task.title)))
    };
    let candidates = || comparison.arms.iter().filter(|arm| decision.arms.contains(&arm.name));
    let many = decision.arms.len() > FEW;
    decision.points.iter().filter(|point| !(many && candidates().any(|arm| named(point, arm)))).cloned().collect()
}

/// A row for each adapter, the recommended ones first; none where nothing was tested.
pub fn overview(comparison: &Comparison) -> Option<Table> {
    let tasks: Vec<&Task> = comparison.tasks.iter().filter(|task| !task.tests.is_empty()).collect();
    let chosen = decision(comparison)?.arms;
    let mut arms: Vec<&Arm> = comparison.adapted().collect();
    arms.sort_by_key(|arm| !chosen.contains(&arm.name));
    let left_out = arms.len().saturating_sub(MOST);
    let mut headers = vec!["Адаптер".to_owned(), "Обучаемые параметры".to_owned()];
    headers.extend(tasks.iter().map(|task| format!("{}: {}", task.title, wording::metric(&task.metric))));
    let cell = |task: &Task, arm: &Arm| match verdicts::beside(task, &arm.name, BASE) {
        Some(test) => verdict(&test).below(format!(
            "{}\u{a0}[{};\u{a0}{}]",
            table::change(test.difference),
            table::change(test.interval.low),
            table::change(test.interval.high)
        )),
        None => Cell::text(ABSENT),
    };
    let row = |arm: &&Arm| {
        let parameters = if arm.parameters_are_estimated { "≈\u{a0}" } else { "" };
        let parameters = Cell::number(format!("{parameters}{}", table::count(arm.trainable_parameters)));
        let verdicts = tasks.iter().map(|task| match idle(arm) {
            Some(state) => Cell::text(format!("не сравнивается: {state}")).class("open"),
            None => cell(task, arm),
        });
        [Cell::text(&arm.title), parameters].into_iter().chain(verdicts).collect()
    };
    let note = if left_out == 0 {
        String::new()
    } else {
        format!("Ещё адаптеров: {left_out}; они — в разделах задач.")
    };
    Some(Table {
        caption: "Адаптеры против базовой модели".to_owned(),
        headers,
        rows: arms.iter().take(MOST).map(row).collect(),
        note,
    })
}

fn idle(arm: &Arm) -> Option<&'static str> {
    let certificate = arm.certificate.as_ref()?;
    (!verdicts::is_effective(arm)).then(|| verdicts::effect(certificate.state))
}
