//! Everything that a report shows, computed from a comparison: what templates see.
//! It does not know how it is laid out.

use serde::Serialize;

use super::comparison::{Arm, BASE, Comparison, Task};
use super::conclusion::{Conclusion, conclusions};
use super::decision::{Decision, decision};
use super::delta::{figure, signed};
use super::overview::{self, MOST_COLUMNS};
use super::page::{Page, page};
use super::recommendation::{Recommendation, budgets, recommendations};
use super::reliability::{Section, reliability};
use super::sheet::Sheet;
use super::verdicts::Standing;
use super::wording::{self, enumerate};

/// A report as data.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct View {
    /// The title in capitals.
    pub heading: String,
    /// When it was made, if the data says so.
    pub date: Option<String>,
    /// True if the data was made by the step `generate`.
    pub generated: bool,
    /// True if the figures come from per-item records.
    pub has_records: bool,
    /// The adapters side by side.
    pub adapters: Sheet,
    /// Each task.
    pub tasks: Vec<TaskView>,
    /// All arms in one table, where there are many or they are cells of a matrix.
    pub grid_table: Option<GridView>,
    /// What a reader must know about the data.
    pub notes: Vec<String>,
    /// What follows.
    pub conclusions: Vec<Conclusion>,
    /// What to do.
    pub recommendations: Vec<Recommendation>,
    /// Which adapter to take, and how sure that is; none without tests.
    pub summary: Option<Decision>,
    /// What stands behind the figures, by subject; empty without records.
    pub reliability: Vec<Section>,
    /// What the HTML page shows beyond the rest.
    pub page: Page,
}

/// A task as data.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskView {
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Its title as it stands in a heading.
    pub heading: String,
    /// What it stands for.
    pub role: String,
    /// Evaluated items, where that is known.
    pub n: Option<u64>,
    /// Every figure.
    pub table: Sheet,
    /// Lines below the table.
    pub notes: Vec<String>,
}

/// All arms in one table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GridView {
    /// Coordinates, size, main figures.
    pub table: Sheet,
    /// The best arm of each task.
    pub best: Vec<String>,
}

/// Computes the view. Titles come out on one line, whatever is in them.
pub fn view(comparison: &Comparison) -> View {
    let comparison = &tidied(comparison);
    let adapted: Vec<&Arm> = comparison.adapted().collect();
    let conclusions = conclusions(comparison);
    let is_grid = adapted.len() > MOST_COLUMNS || comparison.arms.iter().any(|arm| !arm.coordinates.is_empty());
    View {
        heading: heading(&adapted),
        date: comparison.date.clone(),
        generated: comparison.generated,
        has_records: comparison.has_records(),
        adapters: overview::adapters(comparison),
        tasks: comparison.tasks.iter().map(|task| task_view(comparison, task)).collect(),
        grid_table: is_grid
            .then(|| GridView { table: overview::grid(comparison), best: best(comparison, &conclusions) }),
        notes: notes(comparison),
        recommendations: recommendations(comparison, &conclusions),
        summary: decision(comparison),
        reliability: reliability(comparison),
        page: page(comparison),
        conclusions,
    }
}

/// The same comparison with every text that is printed on one line.
fn tidied(comparison: &Comparison) -> Comparison {
    let mut tidied = comparison.clone();
    tidied.date = tidied.date.map(|date| wording::one_line(&date));
    for arm in &mut tidied.arms {
        arm.title = wording::one_line(&arm.title);
        if let Some(certificate) = &mut arm.certificate {
            certificate.reason = wording::one_line(&certificate.reason);
        }
        for modules in arm.adapters.iter_mut().filter_map(|adapter| adapter.target_modules.as_mut()) {
            modules.iter_mut().for_each(|module| *module = wording::one_line(module));
        }
    }
    for task in &mut tidied.tasks {
        task.title = wording::one_line(&task.title);
        task.average = task.average.as_deref().map(wording::one_line);
        for finding in &mut task.findings {
            finding.text = wording::one_line(&finding.text);
        }
        for shortcut in &mut task.shortcuts {
            shortcut.title = wording::one_line(&shortcut.title);
        }
        for variant in &mut task.variants {
            variant.name = wording::one_line(&variant.name);
        }
    }
    tidied
}

fn heading(adapted: &[&Arm]) -> String {
    let titles: Vec<&str> = adapted.iter().map(|arm| arm.title.as_str()).collect();
    match titles.as_slice() {
        [] => "ОЦЕНКА БАЗОВОЙ МОДЕЛИ".to_owned(),
        [one] => format!("СРАВНЕНИЕ АДАПТЕРА {one} С БАЗОВОЙ МОДЕЛЬЮ"),
        several if several.len() <= MOST_COLUMNS => format!("СРАВНЕНИЕ АДАПТЕРОВ {}", enumerate(several, "И")),
        many => format!("СРАВНЕНИЕ АДАПТЕРОВ (ВАРИАНТОВ: {})", many.len()),
    }
}

fn task_view(comparison: &Comparison, task: &Task) -> TaskView {
    TaskView {
        id: task.id.clone(),
        title: task.title.clone(),
        heading: wording::heading(&task.title),
        role: wording::role(task.role).to_owned(),
        n: task.n,
        table: overview::task(comparison, task),
        notes: task_notes(comparison, task),
    }
}

fn task_notes(comparison: &Comparison, task: &Task) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(n) = task.n {
        let mut line = format!("n = {n}");
        if let Some(documents) = task.documents {
            line.push_str(&format!("; документов: {documents}"));
        }
        let classes = task.classes.iter().map(|(class, count)| format!("{} {count}", wording::one_line(class)));
        let classes: Vec<String> = classes.collect();
        if !classes.is_empty() {
            line.push_str(&format!("; эталон: {}", classes.join(", ")));
        }
        notes.push(line);
    }
    match (&task.average, task.n) {
        (Some(average), _) => notes.push(format!("Усреднение — {}", wording::average(average))),
        (None, Some(_)) => notes.push("Усреднение не названо".to_owned()),
        (None, None) => {}
    }
    let arms = || comparison.arms.iter();
    if comparison.adapted().count() <= MOST_COLUMNS {
        let metric = wording::metric(&task.metric);
        for (average, results) in &task.averages {
            let value =
                |arm: &Arm| Some(format!("{} {}", arm.title, figure(*results.get(&arm.name)?.get(&task.metric)?)));
            let values: Vec<String> = arms().filter_map(value).collect();
            if !values.is_empty() {
                notes.push(format!("{metric} при усреднении {}: {}", wording::one_line(average), values.join(", ")));
            }
        }
    }
    for arm in arms() {
        let Some(states) = task.parse.get(&arm.name) else { continue };
        if states.iter().any(|(state, count)| state != "valid" && *count > 0) {
            let mut counted: Vec<(&String, &u64)> = states.iter().filter(|(_, count)| **count > 0).collect();
            counted.sort_by_key(|(state, _)| *state != "valid");
            let words = counted
                .iter()
                .map(|(state, count)| format!("{} {count}", wording::one_line(wording::parse_state(state))));
            notes.push(format!("Разбор ответов, {}: {}", arm.title, words.collect::<Vec<_>>().join(", ")));
        }
    }
    notes
}

fn notes(comparison: &Comparison) -> Vec<String> {
    let mut notes = Vec::new();
    if comparison.generated {
        notes.push("Данные сгенерированы шагом generate: выводы относятся к ним, а не к настоящим текстам.".to_owned());
    }
    for task in &comparison.tasks {
        let absent = comparison.adapted().filter(|arm| !task.results.contains_key(&arm.name));
        let absent: Vec<&str> = absent.map(|arm| arm.title.as_str()).collect();
        if !absent.is_empty() {
            notes.push(format!("На датасете {} нет результатов: {}.", task.title, absent.join(", ")));
        }
    }
    if comparison.has_records() {
        notes.extend(budget_note(comparison));
        let sizes = comparison.tasks.iter().filter_map(|task| Some(format!("{} на {}", task.n?, task.title)));
        let sizes: Vec<String> = sizes.collect();
        if comparison.tasks.iter().all(|task| task.tests.is_empty()) {
            notes.push(format!(
                "Статистическая значимость различий не проверялась; число примеров: {}.",
                enumerate(&sizes, "и")
            ));
        }
    }
    notes
}

fn budget_note(comparison: &Comparison) -> Option<String> {
    let budgets = budgets(comparison);
    let (least, most) = (*budgets.first()?, *budgets.last()?);
    if least == most {
        return None;
    }
    let ratio = if least == 0 { String::new() } else { format!(" (в {:.1} раза)", most as f64 / least as f64) };
    let who = |count: u64| {
        let arms = comparison.adapted().filter(|arm| arm.trainable_parameters == count);
        format!("{count} — {}", arms.map(|arm| arm.title.as_str()).collect::<Vec<_>>().join(", "))
    };
    Some(format!("Бюджеты адаптеров различаются{ratio}: обучаемых параметров от {} до {}.", who(least), who(most)))
}

/// The arm with the best figure of each task, and whether the tests tell it from the others.
fn best(comparison: &Comparison, conclusions: &[Conclusion]) -> Vec<String> {
    let arms: Vec<&Arm> = comparison.adapted().collect();
    let line = |task: &Task| {
        let metric = wording::metric(&task.metric);
        let to_base = |value: f64| {
            let base = task.figure(BASE, &task.metric);
            base.map_or_else(String::new, |base| format!(", {} к базовой модели", signed(value - base, 4)))
        };
        if !task.tests.is_empty() {
            let (most, (arm, value)) = extreme(task, &arms)?;
            let told = match Standing::of(comparison, task).winner {
                Some(winner) if winner.name == arm.name => "по тестам лучше всех остальных",
                _ => "лучшим тестами не признан",
            };
            return Some(format!(
                "{}: {most} {metric} — {}: {}{}; {told}",
                task.title,
                arm.title,
                figure(value),
                to_base(value)
            ));
        }
        let ranking = &conclusions.iter().find(|conclusion| conclusion.subject == task.id)?.ranking;
        let value = ranking.best?;
        let names = super::conclusion::titles(&arms, &ranking.leaders).join(", ");
        let who = if ranking.leaders.len() == 1 {
            "лучший вариант"
        } else {
            "лучшие варианты (поровну)"
        };
        Some(format!("{}: {who} — {names}: {metric} {}{}", task.title, figure(value), to_base(value)))
    };
    comparison.tasks.iter().filter_map(line).collect()
}

/// The arm with the best figure, and what that is called.
fn extreme<'a>(task: &Task, arms: &[&'a Arm]) -> Option<(&'static str, (&'a Arm, f64))> {
    let values = arms.iter().filter_map(|arm| Some((*arm, task.figure(&arm.name, &task.metric)?)));
    if task.lower_is_better {
        values.min_by(|a, b| a.1.total_cmp(&b.1)).map(|found| ("наименьшее значение", found))
    } else {
        // Of equal ones the first.
        values.rev().max_by(|a, b| a.1.total_cmp(&b.1)).map(|found| ("наибольшее значение", found))
    }
}
