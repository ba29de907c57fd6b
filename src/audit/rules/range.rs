//! Figures that no data can give: outside of 0..1, or no share of n.
//! It does not know averages.

use super::shown;
use crate::audit::Defect;
use crate::audit::layout::{Report, Task};

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

/// Accuracies that are no k / n, where n is named.
pub fn counts(report: &Report) -> Vec<Defect> {
    let mut defects = Vec::new();
    for task in &report.tasks {
        let (Some(n), Some(row)) = (items(task), task.row("accuracy")) else { continue };
        for (arm, value) in row.figures.iter().enumerate() {
            let Some(value) = *value else { continue };
            let right = (value * n as f64).round();
            if (right / n as f64 - value).abs() > task.half {
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
