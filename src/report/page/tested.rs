//! Tables of tests: adapters beside the base and among themselves, with their verdicts.
//! It does not know figures, nor how tests were made.

use super::table::{self, ABSENT, Cell, Table};
use super::title_of;
use crate::report::chart::{self, Plot};
use crate::report::comparison::{BASE, Comparison, Task};
use crate::report::evidence::Test;
use crate::report::verdicts;

/// Rows of tests among adapters that a table has room for.
const MOST_TESTS: usize = 60;

/// Every adapter beside the base; none where nothing was tested.
pub fn tests(comparison: &Comparison, task: &Task, plot: Option<&Plot>) -> Option<Table> {
    let found = comparison.adapted().filter_map(|arm| Some((arm, verdicts::beside(task, &arm.name, BASE)?)));
    let rows: Vec<(String, Test, bool)> = found.map(|(arm, test)| (arm.title.clone(), test, true)).collect();
    test_table(format!("{}: адаптеры против базовой модели", task.title), rows, plot)
}

/// Adapters among themselves; none where nothing was tested.
pub fn pairs(comparison: &Comparison, task: &Task) -> Option<Table> {
    let among = task.tests.iter().filter(|test| test.against != BASE && test.arm != BASE);
    let mut rows: Vec<(String, Test, bool)> = among
        .map(|test| {
            let title = format!("{} против {}", title_of(comparison, &test.arm), title_of(comparison, &test.against));
            (title, test.clone(), false)
        })
        .collect();
    let left_out = rows.len().saturating_sub(MOST_TESTS);
    if left_out > 0 {
        // The clearest first.
        rows.sort_by(|a, b| a.1.p_holm.total_cmp(&b.1.p_holm));
        rows.truncate(MOST_TESTS);
    }
    let mut table = test_table(format!("{}: адаптеры между собой", task.title), rows, None)?;
    // The table of the base has said it.
    table.note = String::new();
    if left_out > 0 {
        table.note = format!("Показаны {MOST_TESTS} пар с наименьшим p; ещё {left_out} — в comparison.json.");
    }
    Some(table)
}

fn test_table(caption: String, tests: Vec<(String, Test, bool)>, plot: Option<&Plot>) -> Option<Table> {
    if tests.is_empty() {
        return None;
    }
    let has_pairs = tests.iter().any(|(_, test, _)| test.discordant.is_some());
    let has_seeds = tests.iter().any(|(_, test, _)| test.probability_ahead.is_some());
    let mut headers = vec![
        "Вариант",
        "Вердикт",
        "Разница, интервал",
        "p по\u{a0}Холму; без\u{a0}поправки",
        "p эквива\u{ad}лентности",
    ];
    if has_pairs {
        headers.extend(["Исправлено / испорчено", "Обнаружимая разница"]);
    }
    if has_seeds {
        headers.push("Доля перевыборок впереди");
    }
    let row = |(title, test, plotted): &(String, Test, bool)| {
        let plot = plot.filter(|_| *plotted);
        let interval = format!("[{}; {}]", table::change(test.interval.low), table::change(test.interval.high));
        let difference = Cell::number(table::change(test.difference)).below(interval);
        let mut cells = vec![
            Cell::text(title),
            verdict(test),
            difference.plotted(plot, &test.arm, "interval"),
            Cell::number(verdicts::p_value(test.p_holm)).below(verdicts::p_value(test.p)),
            Cell::number(verdicts::p_value(test.equivalence.p)),
        ];
        if has_pairs {
            cells.extend(discordant(test));
        }
        if has_seeds {
            let share = test.probability_ahead.map_or_else(|| ABSENT.to_owned(), |share| format!("{share:.3}"));
            cells.push(Cell::number(share));
        }
        cells
    };
    let note = if has_pairs {
        "Исправлено / испорчено — сколько ответов верны только у варианта и только у того, с кем он сравнивается; \
         ниже — точный критерий Макнемара. Обнаружимая разница долей верных ответов — наименьшая, которую при таком n \
         нашли бы в четырёх случаях из пяти."
    } else {
        ""
    };
    Some(Table {
        caption,
        headers: headers.into_iter().map(str::to_owned).collect(),
        rows: tests.iter().map(row).collect(),
        note: note.to_owned(),
    })
}

/// The word of a verdict with its sign.
pub fn verdict(test: &Test) -> Cell {
    use crate::report::evidence::Verdict;
    let sign = match test.verdict {
        Verdict::Better => "▲",
        Verdict::Worse => "▼",
        Verdict::Equivalent => "◆",
        Verdict::Indistinguishable => "○",
    };
    let class = format!("verdict {}", chart::class(test.verdict));
    Cell::text(format!("{sign}\u{a0}{}", verdicts::word(test.verdict))).class(&class)
}

fn discordant(test: &Test) -> [Cell; 2] {
    match test.discordant {
        Some(pair) => [
            Cell::number(format!("{} / {}", table::count(pair.fixed), table::count(pair.broken)))
                .below(format!("p\u{a0}{}", verdicts::p_value(pair.exact_p))),
            Cell::number(pair.detectable.map_or_else(|| "нет".to_owned(), |least| format!("{least:.3}"))),
        ],
        None => [Cell::number(ABSENT), Cell::number(ABSENT)],
    }
}
