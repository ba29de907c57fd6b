//! Sentences of the conclusions that the tables contradict: changes, balances, recommendations.
//! It does not know who leads by tests.

use crate::audit::Defect;
use crate::audit::layout::{Report, Task};

/// `X: изменение F1 -8.18% относительно базовой модели`, below a sentence about a task.
pub fn changes(report: &Report) -> Vec<Defect> {
    let mut defects = Vec::new();
    let mut about: Option<&Task> = None;
    for (line, text) in &report.lines {
        let lower = text.to_lowercase();
        if lower.contains("на датасете") {
            about = report.tasks.iter().find(|task| lower.contains(&task.title.to_lowercase()));
        }
        let (Some(task), Some((name, told))) = (about, told(text, "изменение F1")) else { continue };
        let Some(arm) = task.arms.iter().position(|arm| *arm == name) else { continue };
        let Some((low, high)) = change(task, arm) else { continue };
        if told < low || told > high {
            defects.push(Defect {
                rule: "change",
                line: *line,
                text: format!("{}: изменение F1 варианта {name} не следует из таблицы", task.title),
                proof: format!("из значений таблицы — от {low:+.2} до {high:+.2} %, а напечатано {told:+.2} %"),
            });
        }
    }
    defects
}

/// `X: общий баланс +22.55`.
pub fn balances(report: &Report) -> Vec<Defect> {
    let mut defects = Vec::new();
    for (line, text) in &report.lines {
        let Some((name, told)) = told(text, "общий баланс") else { continue };
        let Some((low, high)) = balance(report, &name) else { continue };
        if told < low || told > high {
            defects.push(Defect {
                rule: "balance",
                line: *line,
                text: format!("общий баланс варианта {name} не следует из таблиц"),
                proof: format!("сумма изменений F1 — от {low:+.2} до {high:+.2}, а напечатано {told:+.2}"),
            });
        }
    }
    defects
}

/// `Рекомендуется использовать X`, though by the report's own balance another one leads.
pub fn recommendations(report: &Report) -> Vec<Defect> {
    const WORDS: &str = "рекомендуется использовать";
    if !report.prose().contains("баланс") {
        return Vec::new();
    }
    let Some(first) = report.tasks.first() else { return Vec::new() };
    let mut defects = Vec::new();
    for (line, text) in &report.lines {
        let lower = text.to_lowercase();
        let Some(tail) = lower.split(WORDS).nth(1) else { continue };
        let named = first.arms.iter().skip(1).filter(|arm| tail.contains(&arm.to_lowercase()));
        // Of names that contain one another, the longest is meant.
        let Some(arm) = named.max_by_key(|arm| arm.len()) else { continue };
        let Some((_, most)) = balance(report, arm) else { continue };
        let ahead = first.arms.iter().skip(1).filter(|other| *other != arm);
        let ahead = ahead.filter_map(|other| Some((other, balance(report, other)?.0)));
        if let Some((other, least)) = ahead.filter(|(_, least)| *least > most).max_by(|a, b| a.1.total_cmp(&b.1)) {
            defects.push(Defect {
                rule: "recommended_not_leading",
                line: *line,
                text: format!("рекомендуется {arm}, хотя по таблицам впереди {other}"),
                proof: format!("сумма изменений F1: {arm} — не больше {most:+.2}, {other} — не меньше {least:+.2}"),
            });
        }
    }
    defects
}

/// The name before the colon, and the signed number after these words.
fn told(text: &str, words: &str) -> Option<(String, f64)> {
    let (before, after) = text.split_once(words)?;
    let name = before.trim().trim_start_matches(['-', '*', '•']).trim().strip_suffix(':')?.trim().to_owned();
    let number: String = after
        .trim()
        .chars()
        .map(|c| match c {
            ',' => '.',
            '−' => '-',
            other => other,
        })
        .take_while(|c| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'))
        .collect();
    number.trim_start_matches('+').parse().ok().map(|value| (name.replace('\\', ""), value))
}

/// The least and the largest relative change of F1 in percent that the printed figures leave open.
fn change(task: &Task, arm: usize) -> Option<(f64, f64)> {
    let (value, base) = task.figure("f1", arm).zip(task.figure("f1", 0))?;
    if base <= 2.0 * task.half {
        return None;
    }
    let ends = [value - task.half, value + task.half];
    let all = ends.iter().flat_map(|v| [base - task.half, base + task.half].map(|b| 100.0 * (v - b) / b));
    let (low, high) = all.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
    Some((low - task.half_percent, high + task.half_percent))
}

/// The same for the sum over all tasks.
fn balance(report: &Report, name: &str) -> Option<(f64, f64)> {
    if report.tasks.len() < 2 {
        return None;
    }
    report.tasks.iter().filter(|task| task.row("f1").is_some()).try_fold((0.0, 0.0), |(low, high), task| {
        let (l, h) = change(task, task.arms.iter().position(|arm| arm == name)?)?;
        Some((low + l, high + h))
    })
}
