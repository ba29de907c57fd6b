//! A task on the page: figures with intervals, tests, charts, and everything that limits what they say.
//! It does not know adapters' own properties.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::arms;
use super::examples::{Examples, examples};
use super::table::{self, Cell, Table};
use super::tested::{pairs, tests};
use crate::report::chart::{self, Chart, Plot};
use crate::report::comparison::{Arm, Comparison, Task};
use crate::report::evidence::{Finding, Leaks};
use crate::report::reliability::reorders;
use crate::report::wording;

/// Columns of prompts that a table has room for.
const MOST_VARIANTS: usize = 8;

/// A task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskPage {
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// What it stands for.
    pub role: String,
    /// What its figures are: metric, average, direction.
    pub measure: String,
    /// Figures of every arm.
    pub figures: Table,
    /// How tests were made; empty without them.
    pub method: String,
    /// Every adapter beside the base.
    pub tests: Option<Table>,
    /// Adapters among themselves.
    pub pairs: Option<Table>,
    /// The differences as a picture.
    pub forest: Option<Chart>,
    /// Heat maps and lines over a matrix.
    pub grids: Vec<Chart>,
    /// Rules without a model, beside the arms.
    pub shortcuts: Option<Table>,
    /// What evaluation and training data share.
    pub leaks: Option<Remark>,
    /// Other prompts.
    pub variants: Option<Remark>,
    /// What became of generated answers.
    pub ledger: Option<Table>,
    /// The share of probability on the labels.
    pub mass: Option<Table>,
    /// What was found about the data.
    pub findings: Vec<Finding>,
    /// Items that arms answer differently.
    pub examples: Option<Examples>,
}

/// A sentence, and the table behind it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Remark {
    /// The sentence.
    pub text: String,
    /// The table.
    pub table: Table,
}

/// Computes it.
pub fn task(comparison: &Comparison, task: &Task) -> TaskPage {
    let forest = chart::forest(comparison, task);
    let grids = chart::grids(comparison, task);
    TaskPage {
        id: task.id.clone(),
        title: task.title.clone(),
        role: wording::role(task.role).to_owned(),
        measure: measure(task),
        figures: figures(comparison, task, &grids),
        method: method(comparison, task),
        tests: tests(comparison, task, forest.as_ref()),
        pairs: pairs(comparison, task),
        forest: forest.map(|plot| plot.draw()),
        grids: grids.iter().map(Plot::draw).collect(),
        shortcuts: shortcuts(comparison, task),
        leaks: task.leaks.as_ref().map(|found| leaks(comparison, task, found)),
        variants: variants(comparison, task),
        ledger: ledger(comparison, task),
        mass: mass(comparison, task),
        findings: task.findings.clone(),
        examples: examples(comparison, task),
    }
}

fn measure(task: &Task) -> String {
    let direction = if task.lower_is_better { "меньше — лучше" } else { "больше — лучше" };
    let mut parts = vec![format!("сравнение по {} ({direction})", wording::metric(&task.metric))];
    parts.extend(task.average.as_ref().map(|average| format!("усреднение {}", wording::average(average))));
    parts.extend(task.n.map(|n| format!("n = {}", table::count(n))));
    parts.extend(task.documents.map(|documents| format!("документов {}", table::count(documents))));
    let classes: Vec<String> = task
        .classes
        .iter()
        .map(|(class, count)| format!("{} {}", wording::one_line(class), table::count(*count)))
        .collect();
    if !classes.is_empty() {
        parts.push(format!("эталон: {}", classes.join(", ")));
    }
    chart::sentence(&parts.join("; "))
}

fn figures(comparison: &Comparison, task: &Task, grids: &[Plot]) -> Table {
    let mut metrics = task.metrics();
    // What arms are ranked by stands first.
    metrics.sort_by_key(|metric| *metric != task.metric);
    let has_intervals = !task.intervals.is_empty();
    let row = |arm: &Arm| {
        let cells = metrics.iter().map(|metric| {
            let mut cell = Cell::figure(task.figure(&arm.name, metric));
            if let Some(found) = task.intervals.get(&arm.name).and_then(|all| all.get(metric)) {
                cell = cell.below(table::interval(found.low, found.high));
            }
            if *metric == task.metric {
                let plot = grids.iter().find(|plot| plot.mark_of(&arm.name).is_some());
                cell = cell.plotted(plot, &arm.name, "y").class("main");
            }
            cell
        });
        let seeds = task.by_seed.values().next().map(|_| match task.by_seed.get(&arm.name) {
            Some(values) if values.len() > 1 => {
                let (low, high) = extent(values.values());
                Cell::number(values.len().to_string()).below(format!("{}…{}", table::plain(low), table::plain(high)))
            }
            _ => Cell::number("1"),
        });
        std::iter::once(Cell::text(&arm.title)).chain(cells).chain(seeds).collect::<Vec<_>>()
    };
    let mut headers = vec!["Вариант".to_owned()];
    headers.extend(metrics.iter().map(|metric| wording::metric(metric)));
    if !task.by_seed.is_empty() {
        headers.push("Запусков".to_owned());
    }
    let mut notes = Vec::new();
    if let Some(settings) = comparison.settings.as_ref().filter(|_| has_intervals) {
        notes.push(format!("В скобках — интервал {:.0}\u{a0}%.", 100.0 * (1.0 - settings.alpha)));
    }
    if !task.by_seed.is_empty() {
        notes.push("При нескольких запусках показано среднее; под числом запусков — размах.".to_owned());
    }
    Table {
        caption: format!("{}: значения метрик", task.title),
        headers,
        rows: arms(comparison).filter(|arm| task.results.contains_key(&arm.name)).map(row).collect(),
        note: notes.join(" "),
    }
}

fn extent<'a>(values: impl Iterator<Item = &'a f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)))
}

fn method(comparison: &Comparison, task: &Task) -> String {
    let (Some(settings), Some(test)) = (&comparison.settings, task.tests.first()) else { return String::new() };
    let unit = match &task.clusters {
        Some((what, count)) => {
            let by = match what.as_str() {
                "document" => "документы",
                "premise" => "посылки",
                _ => "примеры",
            };
            format!(", единица — {by} ({})", table::count(*count))
        }
        None => String::new(),
    };
    format!(
        "Интервалы и проверки — по {} перевыборкам{unit}; уровень значимости {} на семейство, поправка Холма; \
         эквивалентными считаются варианты, чья разница меньше ±{}.",
        table::count(settings.resamples),
        settings.alpha,
        test.equivalence.margin
    )
}

fn shortcuts(comparison: &Comparison, task: &Task) -> Option<Table> {
    if task.shortcuts.is_empty() {
        return None;
    }
    let known: BTreeSet<&String> = task.shortcuts.iter().flat_map(|shortcut| shortcut.figures.keys()).collect();
    let metrics: Vec<String> = task.metrics().into_iter().filter(|metric| known.contains(metric)).collect();
    let mut headers = vec!["Правило или вариант".to_owned(), "n".to_owned()];
    headers.extend(metrics.iter().map(|metric| wording::metric(metric)));
    let row = |title: &str, n: Option<u64>, figures: &BTreeMap<String, f64>| {
        let cells = metrics.iter().map(|metric| Cell::figure(figures.get(metric).copied()));
        [Cell::text(title), Cell::count(n)].into_iter().chain(cells).collect::<Vec<_>>()
    };
    let mut rows: Vec<Vec<Cell>> =
        task.shortcuts.iter().map(|one| row(&format!("Правило: {}", one.title), Some(one.n), &one.figures)).collect();
    let (beside, left_out) = beside(comparison, task);
    rows.extend(beside.into_iter().filter_map(|arm| Some(row(&arm.title, task.n, task.results.get(&arm.name)?))));
    let mut note = "Правило не понимает текст. Вариант, который его не превосходит, ничего не показал.".to_owned();
    if left_out > 0 {
        note.push_str(&format!(" Показаны базовая модель и лучшие варианты; остальных {left_out}."));
    }
    Some(Table {
        caption: format!("{}: правила без модели рядом с вариантами", task.title), headers, rows, note
    })
}

/// The base and the best adapters, and how many have no room.
fn beside<'a>(comparison: &'a Comparison, task: &Task) -> (Vec<&'a Arm>, usize) {
    const MOST: usize = 6;
    let value = |arm: &Arm| task.figure(&arm.name, &task.metric);
    let mut adapted: Vec<&Arm> = comparison.adapted().filter(|arm| value(arm).is_some()).collect();
    let left_out = adapted.len().saturating_sub(MOST);
    if left_out > 0 {
        let better = |a: &&Arm, b: &&Arm| {
            let order = value(b).unwrap_or(0.0).total_cmp(&value(a).unwrap_or(0.0));
            if task.lower_is_better { order.reverse() } else { order }
        };
        adapted.sort_by(better);
        adapted.truncate(MOST);
    }
    (comparison.base().into_iter().chain(adapted).collect(), left_out)
}

fn leaks(comparison: &Comparison, task: &Task, leaks: &Leaks) -> Remark {
    let what = if leaks.what == "premise" { "посылка" } else { "предложение" };
    let rest = leaks.total.saturating_sub(leaks.shared);
    let metrics: Vec<String> = task
        .metrics()
        .into_iter()
        .filter(|m| leaks.leak_free.values().any(|figures| figures.contains_key(m)))
        .collect();
    let mut headers = vec!["Вариант".to_owned()];
    for metric in &metrics {
        headers.push(format!("{}: все", wording::metric(metric)));
        headers.push(format!("{}: без общих", wording::metric(metric)));
    }
    let row = |arm: &Arm| {
        let found = leaks.leak_free.get(&arm.name)?;
        let cells = metrics.iter().flat_map(|metric| {
            [Cell::figure(task.figure(&arm.name, metric)), Cell::figure(found.get(metric).copied())]
        });
        Some(std::iter::once(Cell::text(&arm.title)).chain(cells).collect::<Vec<_>>())
    };
    Remark {
        text: format!(
            "У {} из {} примеров {what} есть и в обучающих данных. Остальных примеров {}.",
            table::count(leaks.shared),
            table::count(leaks.total),
            table::count(rest)
        ),
        table: Table {
            caption: format!("{}: все примеры и примеры без общего с обучением", task.title),
            headers,
            // Nothing in common: the figures are those of the main table.
            rows: arms(comparison).filter(|_| leaks.shared > 0).filter_map(row).collect(),
            note: String::new(),
        },
    }
}

fn variants(comparison: &Comparison, task: &Task) -> Option<Remark> {
    if task.variants.is_empty() {
        return None;
    }
    let shown = if task.variants.len() > MOST_VARIANTS { &[][..] } else { task.variants.as_slice() };
    let mut headers = vec!["Вариант".to_owned()];
    headers.extend(shown.iter().map(|variant| variant.name.clone()));
    headers.extend(["В худшем случае", "В среднем", "Размах"].map(str::to_owned));
    let row = |arm: &Arm| {
        let values: Vec<f64> =
            task.variants.iter().filter_map(|variant| variant.values.get(&arm.name)).copied().collect();
        let (low, high) = extent(values.iter());
        if values.is_empty() {
            return None;
        }
        let mean = values.iter().map(|value| value / values.len() as f64).sum();
        let mut cells = vec![Cell::text(&arm.title)];
        cells.extend(shown.iter().map(|variant| Cell::figure(variant.values.get(&arm.name).copied())));
        cells.push(Cell::figure(Some(if task.lower_is_better { high } else { low })).class("main"));
        cells.push(Cell::figure(Some(mean)));
        cells.push(Cell::figure(Some(high - low)));
        Some(cells)
    };
    let changes = if reorders(task) {
        "порядок вариантов от неё зависит"
    } else {
        "порядок вариантов от неё не зависит"
    };
    Some(Remark {
        text: format!("Формулировок запроса {}; {changes}.", task.variants.len()),
        table: Table {
            caption: format!("{}: {} при разных формулировках запроса", task.title, wording::metric(&task.metric)),
            headers,
            rows: arms(comparison).filter_map(row).collect(),
            note: String::new(),
        },
    })
}

fn ledger(comparison: &Comparison, task: &Task) -> Option<Table> {
    let known: BTreeSet<&String> = task.parse.values().flat_map(BTreeMap::keys).collect();
    let mut states: Vec<&String> = known.into_iter().collect();
    states.sort_by_key(|state| *state != "valid");
    let mut headers = vec!["Вариант".to_owned()];
    headers.extend(states.iter().map(|state| wording::one_line(wording::parse_state(state))));
    let row = |arm: &Arm| {
        let counts = task.parse.get(&arm.name)?;
        let cells = states.iter().map(|state| Cell::count(counts.get(*state).copied()));
        Some(std::iter::once(Cell::text(&arm.title)).chain(cells).collect::<Vec<_>>())
    };
    let rows: Vec<Vec<Cell>> = arms(comparison).filter_map(row).collect();
    // Scored answers are all valid, and nothing has to be read.
    let all_valid = task.parse.values().flatten().all(|(state, count)| state == "valid" || *count == 0);
    (!all_valid && !states.is_empty() && !rows.is_empty()).then(|| Table {
        caption: format!("{}: как прочитаны сгенерированные ответы", task.title),
        headers,
        rows,
        note: String::new(),
    })
}

fn mass(comparison: &Comparison, task: &Task) -> Option<Table> {
    let row = |arm: &Arm| {
        let mass = task.label_mass.get(&arm.name)?;
        Some(vec![Cell::text(&arm.title), Cell::number(table::plain(*mass))])
    };
    let rows: Vec<Vec<Cell>> = arms(comparison).filter_map(row).collect();
    (!rows.is_empty()).then(|| Table {
        caption: format!("{}: доля вероятности на вариантах ответа", task.title),
        headers: vec!["Вариант".to_owned(), "Средняя доля".to_owned()],
        rows,
        note: "Чем она меньше, тем дальше выбор между вариантами ответа от того, что модель сказала бы сама."
            .to_owned(),
    })
}
