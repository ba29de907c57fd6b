//! How many items, and how sure: without n and an interval a difference says nothing.
//! It does not know n; it tries likely ones.

use crate::audit::Defect;
use crate::audit::layout::{Report, Task};
use crate::audit::statements::statements;
use crate::statistics::mcnemar::least_p;

/// Before a number of items.
const ITEMS: [&str; 5] = ["n =", "n=", "число примеров", "примеров:", "примерах"];
/// Before a number that says how sure a figure is.
const DOUBT: [&str; 7] = ["интервал", "значимост", "p =", "p=", "p <", "p<", "±"];
/// What says without a number that nothing is sure.
const OPEN: [&str; 3] = ["не различим", "значимость различий не проверялась", "разница не значима"];

/// True if a number follows one of the words.
fn numbered(text: &str, words: &[&str]) -> bool {
    words.iter().any(|word| text.split(word).skip(1).any(|rest| rest.contains(|c: char| c.is_ascii_digit())))
}

/// Sizes that are tried where none is named.
const SIZES: [u64; 3] = [100, 200, 300];

/// Reports that name neither n nor any uncertainty.
pub fn unknown(report: &Report) -> Vec<Defect> {
    let told = statements(report);
    let named_n = report.tasks.iter().all(|task| {
        let title = task.title.to_lowercase();
        let own = task.notes.iter().any(|note| numbered(&note.to_lowercase(), &ITEMS));
        // `число примеров: 307 на TERRa и 100 на Nerus`
        own || told.iter().any(|one| one.text.contains(&title) && numbered(&one.text, &ITEMS))
            || (report.tasks.len() == 1 && told.iter().any(|one| numbered(&one.text, &ITEMS)))
    });
    let named_doubt = told.iter().any(|one| numbered(&one.text, &DOUBT) || one.has(&OPEN));
    let missing = match (named_n, named_doubt) {
        (true, true) => return Vec::new(),
        (false, false) => "нет ни числа примеров, ни интервалов, ни проверки различий",
        (false, true) => "нет числа примеров",
        (true, false) => "нет ни интервалов, ни проверки различий",
    };
    let gaps = report.tasks.iter().filter_map(widest);
    let proof = gaps.map(|(title, gap)| {
        let p = |n: &u64| {
            let items = (gap * *n as f64).round() as u64;
            format!("n = {n}: {items} : 0, p ≥ {:.4}", least_p(items))
        };
        format!(
            "{title}: наибольшая разность accuracy {gap:.4}; в лучшем случае (точный критерий Макнемара) {}",
            SIZES.iter().map(p).collect::<Vec<_>>().join("; ")
        )
    });
    let proof: Vec<String> = proof.collect();
    let proof = if proof.is_empty() {
        "ни одна строка отчёта не называет n".to_owned()
    } else {
        proof.join("; ")
    };
    let line = report.tasks.first().map_or(1, |task| task.line);
    vec![Defect {
        rule: "no_sample_size",
        line,
        text: format!("насколько можно верить различиям, неизвестно: {missing}"),
        proof,
    }]
}

/// The widest gap of accuracies on a task, if arms differ.
fn widest(task: &Task) -> Option<(&str, f64)> {
    let values: Vec<f64> = task.row("accuracy")?.figures.iter().flatten().copied().collect();
    let (low, high) =
        values.iter().fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(*value), high.max(*value)));
    (high > low).then_some((task.title.as_str(), high - low))
}
