//! Adapters whose figures are the base's to every printed digit: as if they were not there.
//! It does not know whether they were not trained, not loaded or disabled.

use super::shown;
use crate::audit::Defect;
use crate::audit::layout::{Report, Task};
use crate::audit::statements::{Statement, statements};

/// What a report says that has looked at the answers of an arm to a task.
const ANSWERS: [&str; 4] = ["ответы различаются в", "ответов те же", "все ответы совпали", "исправлено"];
/// What it says that has looked at the adapter.
const ADAPTER: [&str; 5] = ["не обучен", "не загружен", "отключён", "без эффекта", "действует —"];

/// Arms that equal the base on every task that has both.
pub fn identical(report: &Report) -> Vec<Defect> {
    let Some(first) = report.tasks.first() else { return Vec::new() };
    let told = statements(report);
    let mut defects = Vec::new();
    for arm in first.arms.iter().skip(1) {
        let of_arm = || told.iter().filter(|one| one.is_of(arm));
        let is_known = of_arm().any(|one| one.has(&ADAPTER));
        let answered = || of_arm().filter(|one| one.has(&ANSWERS));
        let tasks: Vec<(&Task, usize)> = report
            .tasks
            .iter()
            .filter_map(|task| Some((task, task.arms.iter().position(|name| name == arm)?)))
            .collect();
        let figures: usize = tasks.iter().map(|(task, _)| task.shares().count()).sum();
        // One figure may agree by chance.
        if figures < 3 || !tasks.iter().all(|(task, at)| equals_base(task, *at)) {
            let open = tasks.iter().filter(|(task, _)| !is_known && !answered().any(|one| is_about(one, task)));
            defects.extend(open.filter_map(|(task, at)| on_one_task(task, *at)));
            continue;
        }
        if is_known || answered().next().is_some() {
            continue;
        }
        let shown_figures: Vec<String> = tasks
            .iter()
            .map(|(task, at)| {
                let all = task.shares().filter_map(|row| row.figures[*at]).map(shown);
                format!("{}: {}", task.title, all.collect::<Vec<_>>().join(", "))
            })
            .collect();
        defects.push(Defect {
            rule: "no_effect",
            line: first.line,
            text: format!(
                "{arm} совпадает с базовой моделью во всех цифрах: адаптер не подействовал, и об этом не сказано"
            ),
            proof: format!("{} — те же числа у базовой модели ({} из {})", shown_figures.join("; "), figures, figures),
        });
    }
    defects
}

/// A sentence under no task is about all of them.
fn is_about(one: &Statement, task: &Task) -> bool {
    one.about.is_none_or(|about| about.line == task.line)
}

/// An arm that equals the base on one task alone, in several figures.
fn on_one_task(task: &Task, arm: usize) -> Option<Defect> {
    let count = task.shares().count();
    (count >= 3 && equals_base(task, arm)).then(|| Defect {
        rule: "no_effect_on_task",
        line: task.line,
        text: format!(
            "{}: {} совпадает с базовой моделью во всех цифрах, и не сказано, те же ли ответы",
            task.title, task.arms[arm]
        ),
        proof: task.shares().filter_map(|row| row.figures[arm]).map(shown).collect::<Vec<_>>().join(", "),
    })
}

fn equals_base(task: &Task, arm: usize) -> bool {
    let mut rows = task.shares().peekable();
    rows.peek().is_some() && rows.all(|row| row.figures[arm].is_some() && row.figures[arm] == row.figures[0])
}
