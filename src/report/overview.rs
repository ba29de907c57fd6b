//! The tables of a report: what the adapters are, every figure of a task, and all cells of a grid.
//! It does not know sentences, nor how tables are drawn.

use std::collections::BTreeSet;

use serde_json::Value;

use super::comparison::{Adapter, Arm, BASE, Comparison, Task};
use super::delta::{Delta, figure};
use super::number::Format;
use super::sheet::Sheet;
use super::wording;

/// With more adapters than this, tables have a row for each arm, not a column.
pub const MOST_COLUMNS: usize = 3;

const ABSENT: &str = "N/A";

/// A row of the table of adapters: its title, and the value that an adapter has there.
type Field = (&'static str, fn(&Adapter) -> Option<String>);

const FIELDS: [Field; 7] = [
    ("Ранг (r)", |adapter| adapter.rank.map(|rank| rank.to_string())),
    ("Alpha (α)", |adapter| adapter.alpha.map(plain)),
    ("Скрытый размер", |adapter| adapter.hidden_size.map(|size| size.to_string())),
    ("Количество слоев", |adapter| adapter.layers.as_ref().map(|layers| layers.len().to_string())),
    ("Целевые модули", |adapter| adapter.target_modules.as_ref().map(|modules| modules.join(", "))),
    ("Слои для адаптации", |adapter| adapter.layers.as_ref().map(|layers| numbers(layers))),
    ("Dropout", |adapter| adapter.dropout.map(plain)),
];

/// The adapters side by side; parameters that none of them has are left out.
pub fn adapters(comparison: &Comparison) -> Sheet {
    let arms: Vec<&Arm> = comparison.adapted().collect();
    let mut headers = vec!["Параметр".to_owned()];
    headers.extend(arms.iter().map(|arm| arm.title.clone()));
    let mut rows = vec![vec![Value::from("Обучаемые параметры")]];
    rows[0].extend(arms.iter().map(|arm| parameters(arm)));
    for (title, field) in FIELDS {
        let values: Vec<Option<String>> = arms.iter().map(|arm| joined(arm, field)).collect();
        if values.iter().any(Option::is_some) {
            let cells = values.into_iter().map(|value| Value::from(value.unwrap_or_else(|| ABSENT.to_owned())));
            rows.push(std::iter::once(Value::from(title)).chain(cells).collect());
        }
    }
    let sheet = Sheet { headers, rows };
    if arms.len() > MOST_COLUMNS { sheet.transposed("Вариант") } else { sheet }
}

/// Every figure of a task: arms as columns with their differences to the base and to each other, or, for many
/// arms, a row each with the difference of the main metric.
pub fn task(comparison: &Comparison, task: &Task) -> Sheet {
    let adapted: Vec<&Arm> = comparison.adapted().collect();
    if adapted.len() > MOST_COLUMNS { by_rows(comparison, task) } else { by_columns(comparison, &adapted, task) }
}

fn by_columns(comparison: &Comparison, adapted: &[&Arm], task: &Task) -> Sheet {
    let arms: Vec<&Arm> = comparison.base().into_iter().chain(adapted.iter().copied()).collect();
    let mut pairs: Vec<(&Arm, Option<&Arm>)> = adapted.iter().map(|arm| (*arm, None)).collect();
    for (i, against) in adapted.iter().enumerate() {
        pairs.extend(adapted[i + 1..].iter().map(|arm| (*arm, Some(*against))));
    }
    let mut headers = vec!["Метрика".to_owned()];
    headers.extend(arms.iter().map(|arm| arm.title.clone()));
    headers.extend(pairs.iter().map(|(arm, against)| versus(arm, *against)));
    let row = |metric: &String| {
        let figures = arms.iter().map(|arm| cell(task.figure(&arm.name, metric)));
        let deltas = pairs.iter().map(|(arm, against)| {
            let against = against.map_or(BASE, |arm| arm.name.as_str());
            delta(task, &arm.name, against, metric)
        });
        std::iter::once(Value::from(wording::metric(metric))).chain(figures).chain(deltas).collect()
    };
    Sheet { headers, rows: task.metrics().iter().map(row).collect() }
}

fn by_rows(comparison: &Comparison, task: &Task) -> Sheet {
    let metrics = task.metrics();
    let mut headers = vec!["Вариант".to_owned()];
    headers.extend(metrics.iter().map(|metric| wording::metric(metric)));
    headers.push(format!("{} vs Base", wording::metric(&task.metric)));
    let row = |arm: &Arm| {
        let mut cells = vec![Value::from(arm.title.as_str())];
        cells.extend(metrics.iter().map(|metric| cell(task.figure(&arm.name, metric))));
        cells.push(to_base(task, arm));
        cells
    };
    Sheet { headers, rows: comparison.base().into_iter().chain(comparison.adapted()).map(row).collect() }
}

/// Every arm with its coordinates, its size and its main figure on each task.
pub fn grid(comparison: &Comparison) -> Sheet {
    let axes: BTreeSet<&String> = comparison.arms.iter().flat_map(|arm| arm.coordinates.keys()).collect();
    let mut headers = vec!["Вариант".to_owned()];
    headers.extend(axes.iter().map(|axis| wording::one_line(axis)));
    headers.push("Обучаемые параметры".to_owned());
    for task in &comparison.tasks {
        headers.push(format!("{} {}", task.title, wording::metric(&task.metric)));
        headers.push("vs Base".to_owned());
    }
    let row = |arm: &Arm| {
        let mut cells = vec![Value::from(arm.title.as_str())];
        cells.extend(axes.iter().map(|axis| arm.coordinates.get(*axis).map_or(Value::Null, coordinate)));
        cells.push(parameters(arm));
        for task in &comparison.tasks {
            cells.push(cell(task.figure(&arm.name, &task.metric)));
            cells.push(to_base(task, arm));
        }
        cells
    };
    Sheet { headers, rows: comparison.base().into_iter().chain(comparison.adapted()).map(row).collect() }
}

/// A coordinate as a cell: numbers and texts as they are, anything else as JSON.
fn coordinate(value: &Value) -> Value {
    match value {
        Value::Number(_) => value.clone(),
        Value::String(text) => Value::from(wording::one_line(text)),
        other => Value::from(other.to_string()),
    }
}

fn versus(arm: &Arm, against: Option<&Arm>) -> String {
    format!("{} vs {}", arm.title, against.map_or("Base", |arm| arm.title.as_str()))
}

fn cell(value: Option<f64>) -> Value {
    value.map_or(Value::Null, |value| Value::from(figure(value)))
}

fn delta(task: &Task, arm: &str, against: &str, metric: &str) -> Value {
    let pair = task.figure(arm, metric).zip(task.figure(against, metric));
    pair.map_or(Value::Null, |(value, against)| Value::from(Delta::of(value, against).text()))
}

/// How the main figure stands to the base's; a dash for the base itself.
fn to_base(task: &Task, arm: &Arm) -> Value {
    if arm.name == BASE { Value::from("—") } else { delta(task, &arm.name, BASE, &task.metric) }
}

fn parameters(arm: &Arm) -> Value {
    Value::from(wording::parameters(arm.trainable_parameters, arm.parameters_are_estimated))
}

/// One value where the adapters of an arm agree, all of them otherwise.
fn joined(arm: &Arm, field: fn(&Adapter) -> Option<String>) -> Option<String> {
    let mut values: Vec<String> = arm.adapters.iter().filter_map(field).collect();
    values.dedup();
    (!values.is_empty()).then(|| values.join(" / "))
}

/// `0, 6, 12`; three and more that follow each other as `0–31`.
fn numbers(list: &[u64]) -> String {
    let runs = list.chunk_by(|a, b| b.checked_sub(*a) == Some(1));
    let run = |run: &[u64]| match run {
        [first, _, .., last] => format!("{first}–{last}"),
        few => few.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
    };
    runs.map(run).collect::<Vec<_>>().join(", ")
}

/// `8`, `0.05`: a number without needless digits.
fn plain(value: f64) -> String {
    Format::parse("g").and_then(|format| format.float(value)).unwrap_or_else(|| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_that_follow_each_other_are_drawn_together() {
        assert_eq!(numbers(&[0, 6, 12, 18]), "0, 6, 12, 18");
        assert_eq!(numbers(&[0, 1, 2, 3]), "0–3");
        assert_eq!(numbers(&[0, 1, 4, 5, 6, 9]), "0, 1, 4–6, 9");
        assert_eq!(numbers(&[u64::MAX, 0]), format!("{}, 0", u64::MAX));
        assert_eq!(numbers(&[]), "");
    }
}
