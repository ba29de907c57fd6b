//! Figures that no data can give: outside of 0..1, or no share of n.
//! It does not know averages.

use super::shown;
use crate::audit::Defect;
use crate::audit::layout::{Report, Task};
use crate::audit::statements::statements;

/// Of more runs every figure is a mean.
const MOST_RUNS: u64 = 100;

/// Shares below 0 or above 1.
pub fn outside(report: &Report) -> Vec<Defect> {
    let mut defects = Vec::new();
    for task in &report.tasks {
        for row in task.shares() {
            for (arm, value) in row.figures.iter().enumerate() {
                if let Some(value) = value.filter(|value| !(-task.half..=1.0 + task.half).contains(value)) {
                    defects.push(Defect {
                        rule: "out_of_range",
                        line: row.line,
                        text: format!("{}: {} варианта {} не может быть таким", task.title, row.metric, task.arms[arm]),
                        proof: format!("{} не лежит между 0 и 1", shown(value)),
                    });
                }
            }
        }
    }
    defects
}

/// Accuracies that are no k / n, where n is named; nor means of several runs, where a report names their number.
pub fn counts(report: &Report) -> Vec<Defect> {
    let mut defects = Vec::new();
    let runs = runs(report);
    for task in &report.tasks {
        let (Some(n), Some(row)) = (items(task), task.row("accuracy")) else { continue };
        for (arm, value) in row.figures.iter().enumerate() {
            let Some(value) = *value else { continue };
            let right = (value * n as f64).round();
            let is_mean = |runs: &u64| {
                let all = (n * runs) as f64;
                ((value * all).round() / all - value).abs() <= task.half
            };
            if (right / n as f64 - value).abs() > task.half && !runs.iter().any(is_mean) {
                defects.push(Defect {
                    rule: "not_a_share",
                    line: row.line,
                    text: format!("{}: accuracy варианта {} невозможна при n = {n}", task.title, task.arms[arm]),
                    proof: format!(
                        "{} · {n} = {:.3}; ближайшие доли — {}",
                        shown(value),
                        value * n as f64,
                        shown(right / n as f64)
                    ),
                });
            }
        }
    }
    defects
}

/// `запусков 3`, `запусков от 2 до 4`: how many runs figures may be means of.
fn runs(report: &Report) -> Vec<u64> {
    let told = statements(report);
    let numbers = told.iter().flat_map(|one| one.text.split("запусков").skip(1)).flat_map(|rest| {
        let near = rest.split([';', ',', '.']).next().unwrap_or_default();
        let found: Vec<u64> = near.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
        found.iter().min().copied().unwrap_or(1)..=found.iter().max().copied().unwrap_or(1).min(MOST_RUNS)
    });
    let mut runs: Vec<u64> = numbers.filter(|runs| *runs > 1).collect();
    runs.sort_unstable();
    runs.dedup();
    runs
}

/// `n = 307` below the table.
fn items(task: &Task) -> Option<u64> {
    let prose = task.prose();
    let after = prose.split("n = ").nth(1)?;
    digits(after).parse().ok().filter(|n| *n > 0)
}

/// The digits at the beginning, those of `1 000` too.
fn digits(text: &str) -> String {
    let mut digits = String::new();
    let mut rest = text;
    loop {
        let group: String = rest.chars().take_while(char::is_ascii_digit).collect();
        if group.is_empty() || (!digits.is_empty() && group.len() != 3) {
            return digits;
        }
        rest = &rest[group.len()..];
        digits.push_str(&group);
        match rest.strip_prefix([' ', '\u{a0}', '\u{202f}']) {
            Some(after) => rest = after,
            None => return digits,
        }
    }
}
