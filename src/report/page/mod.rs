//! What the HTML page shows beyond the other reports: tables with intervals, charts, certificates, examples.
//! It does not know how a page is laid out.

mod adapters;
mod examples;
mod spans;
mod summary;
mod table;
mod tasks;
mod tested;

use serde::Serialize;

pub use self::adapters::{Budgets, Certificates, Sites};
pub use self::examples::{Examples, Flip, Given};
pub use self::spans::Piece;
pub use self::table::{Cell, Plotted, Table};
pub use self::tasks::{Remark, TaskPage};

use super::chart::{self, Chart};
use super::comparison::{BASE, Comparison};
use super::wording::enumerate;

/// A page as data.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Page {
    /// Its title.
    pub title: String,
    /// What was compared, in a line: tasks with their sizes.
    pub subtitle: String,
    /// The verdicts at a glance; none without tests.
    pub overview: Option<Table>,
    /// What supports the decision.
    pub points: Vec<String>,
    /// What each adapter does; none where that is not known.
    pub certificates: Option<Certificates>,
    /// What each training was given; none where that is not known.
    pub budgets: Option<Budgets>,
    /// Each task.
    pub tasks: Vec<TaskPage>,
    /// The learning curves.
    pub learning: Option<Chart>,
    /// Data and environment; none where that is not known.
    pub provenance: Vec<Table>,
}

/// Computes it. Titles must be on one line.
pub fn page(comparison: &Comparison) -> Page {
    Page {
        title: title(comparison),
        subtitle: subtitle(comparison),
        overview: summary::overview(comparison),
        points: summary::points(comparison),
        certificates: adapters::certificates(comparison),
        budgets: adapters::budgets(comparison),
        tasks: comparison.tasks.iter().map(|task| tasks::task(comparison, task)).collect(),
        learning: chart::learning(comparison).map(|plot| plot.draw()),
        provenance: provenance(comparison),
    }
}

fn title(comparison: &Comparison) -> String {
    let titles: Vec<&str> = comparison.adapted().map(|arm| arm.title.as_str()).collect();
    let length: usize = titles.iter().map(|title| title.chars().count()).sum();
    match titles.as_slice() {
        [] => "Оценка базовой модели".to_owned(),
        [one] if length <= 80 => format!("{one} и базовая модель"),
        several if several.len() <= 3 && length <= 80 => format!("Сравнение адаптеров: {}", enumerate(several, "и")),
        many => format!("Сравнение адаптеров: вариантов {}", many.len()),
    }
}

fn subtitle(comparison: &Comparison) -> String {
    let size = |n: Option<u64>| n.map_or_else(String::new, |n| format!(" (n = {})", table::count(n)));
    let tasks: Vec<String> = comparison.tasks.iter().map(|task| format!("{}{}", task.title, size(task.n))).collect();
    enumerate(&tasks, "и")
}

fn provenance(comparison: &Comparison) -> Vec<Table> {
    let Some(provenance) = &comparison.provenance else { return Vec::new() };
    let rows = |values: &std::collections::BTreeMap<String, String>, class: &str| {
        values.iter().map(|(name, value)| vec![Cell::text(name), Cell::text(value).class(class)]).collect::<Vec<_>>()
    };
    let table = |caption: &str, headers: [&str; 2], rows: Vec<Vec<Cell>>| Table {
        caption: caption.to_owned(),
        headers: headers.map(str::to_owned).to_vec(),
        rows,
        note: String::new(),
    };
    let tables = [
        table("Данные и хэши их содержимого", ["Данные", "Хэш"], rows(&provenance.data, "hash")),
        table("Среда, от которой зависят ответы", ["Что", "Значение"], rows(&provenance.environment, "")),
    ];
    tables.into_iter().filter(|table| !table.rows.is_empty()).collect()
}

/// The title of an arm, or its name where it has none.
fn title_of<'a>(comparison: &'a Comparison, name: &'a str) -> &'a str {
    comparison.arms.iter().find(|arm| arm.name == name).map_or(name, |arm| arm.title.as_str())
}

/// All arms, the base first.
fn arms(comparison: &Comparison) -> impl Iterator<Item = &super::comparison::Arm> {
    comparison.base().into_iter().chain(comparison.arms.iter().filter(|arm| arm.name != BASE))
}
