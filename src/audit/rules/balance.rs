//! Relative changes of different metrics, added up into one number.
//! It does not know what would be better; two numbers would.

use crate::audit::Defect;
use crate::audit::layout::Report;
use crate::audit::statements::statements;

/// What a report says of the balance, or of the sum, that knows what it is.
const LABELS: [&str; 3] = ["складываются разные величины", "по ней ничего не решается", "лишь ориентир"];

/// Sums of percentages that are not labelled as such.
pub fn added(report: &Report) -> Vec<Defect> {
    if statements(report).iter().any(|one| one.has(&LABELS) && one.has(&["баланс", "сумм"])) {
        return Vec::new();
    }
    let Some((line, _)) = report.lines.iter().find(|(_, text)| text.to_lowercase().contains("баланс")) else {
        return Vec::new();
    };
    let Some(first) = report.tasks.first().filter(|_| report.tasks.len() > 1) else { return Vec::new() };
    let sums = (1..first.arms.len()).filter_map(|arm| {
        let changes: Option<Vec<f64>> = report
            .tasks
            .iter()
            .map(|task| {
                let at = task.arms.iter().position(|name| *name == first.arms[arm])?;
                let (value, base) = task.figure("f1", at).zip(task.figure("f1", 0))?;
                (base > 0.0).then(|| 100.0 * (value - base) / base)
            })
            .collect();
        let changes = changes?;
        let parts: Vec<String> = changes.iter().map(|change| format!("{change:+.2}")).collect();
        Some(format!("{}: {} = {:+.2}", first.arms[arm], parts.join(" "), changes.iter().sum::<f64>()))
    });
    let sums: Vec<String> = sums.collect();
    let titles: Vec<&str> = report.tasks.iter().map(|task| task.title.as_str()).collect();
    vec![Defect {
        rule: "added_percentages",
        line: *line,
        text: "«баланс» складывает относительные проценты разных метрик: такая сумма ничего не измеряет".to_owned(),
        proof: format!("проценты F1 на {} — разных единиц: {}", titles.join(" и "), sums.join("; ")),
    }]
}
