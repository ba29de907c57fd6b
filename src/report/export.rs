//! Figures and their differences as CSV, unrounded, one row each.
//! It does not know sentences.

use std::collections::BTreeSet;

use serde_json::Value;

use super::comparison::{Adapter, Arm, BASE, Comparison, Figures, Task};
use super::delta::Delta;
use crate::error::{Problem, Result};

/// `differences.csv`: every metric of every pair of arms, by every average that is known.
pub fn differences(comparison: &Comparison) -> Result<String> {
    let mut rows = vec![
        ["task", "metric", "average", "arm", "against", "value", "against_value", "difference", "relative_percent"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let adapted: Vec<&Arm> = comparison.adapted().collect();
    let mut pairs: Vec<(&str, &str)> = adapted.iter().map(|arm| (arm.name.as_str(), BASE)).collect();
    for (i, against) in adapted.iter().enumerate() {
        pairs.extend(adapted[i + 1..].iter().map(|arm| (arm.name.as_str(), against.name.as_str())));
    }
    for task in &comparison.tasks {
        for column in columns(task) {
            for (arm, against) in &pairs {
                let Some((value, other)) = column.figure(task, arm).zip(column.figure(task, against)) else { continue };
                let delta = Delta::of(value, other);
                rows.push(vec![
                    task.id.clone(),
                    column.metric.clone(),
                    column.average.clone().unwrap_or_default(),
                    (*arm).to_owned(),
                    (*against).to_owned(),
                    value.to_string(),
                    other.to_string(),
                    delta.difference.to_string(),
                    delta.percent.map_or_else(String::new, |percent| percent.to_string()),
                ]);
            }
        }
    }
    csv_text(&rows)
}

/// `grid.csv`: a row for each arm with its coordinates, its adapters' parameters and every figure.
pub fn grid(comparison: &Comparison) -> Result<String> {
    let axes: BTreeSet<&String> = comparison.arms.iter().flat_map(|arm| arm.coordinates.keys()).collect();
    let columns: Vec<(&Task, Column)> =
        comparison.tasks.iter().flat_map(|task| columns(task).into_iter().map(move |column| (task, column))).collect();
    let mut header = vec!["arm".to_owned(), "title".to_owned()];
    header.extend(axes.iter().map(|axis| format!("axis.{axis}")));
    header.push("trainable_parameters".to_owned());
    header.extend(FIELDS.iter().map(|(name, _)| (*name).to_owned()));
    header.extend(columns.iter().map(|(task, column)| column.name(task)));
    let mut rows = vec![header];
    for arm in comparison.base().into_iter().chain(comparison.adapted()) {
        let mut row = vec![arm.name.clone(), arm.title.clone()];
        row.extend(axes.iter().map(|axis| arm.coordinates.get(*axis).map_or_else(String::new, plain)));
        row.push(arm.trainable_parameters.to_string());
        row.extend(
            FIELDS.iter().map(|(_, field)| arm.adapters.iter().filter_map(field).collect::<Vec<_>>().join(" / ")),
        );
        row.extend(
            columns.iter().map(|(task, column)| {
                column.figure(task, &arm.name).map_or_else(String::new, |value| value.to_string())
            }),
        );
        rows.push(row);
    }
    csv_text(&rows)
}

/// A parameter of adapters and how it is written.
type Field = (&'static str, fn(&Adapter) -> Option<String>);

const FIELDS: [Field; 7] = [
    ("adapters", |adapter| Some(adapter.kind.clone())),
    ("rank", |adapter| adapter.rank.map(|rank| rank.to_string())),
    ("alpha", |adapter| adapter.alpha.map(|alpha| alpha.to_string())),
    ("hidden_size", |adapter| adapter.hidden_size.map(|size| size.to_string())),
    ("layers", |adapter| {
        adapter.layers.as_ref().map(|layers| layers.iter().map(u64::to_string).collect::<Vec<_>>().join(" "))
    }),
    ("target_modules", |adapter| adapter.target_modules.as_ref().map(|modules| modules.join(" "))),
    ("dropout", |adapter| adapter.dropout.map(|dropout| dropout.to_string())),
];

/// A metric by one average of a task.
struct Column {
    metric: String,
    average: Option<String>,
    /// True if it stands in the main table.
    main: bool,
}

impl Column {
    fn figure(&self, task: &Task, arm: &str) -> Option<f64> {
        if self.main {
            return task.figure(arm, &self.metric);
        }
        task.averages.get(self.average.as_ref()?)?.get(arm)?.get(&self.metric).copied()
    }

    /// `nerus.f1.micro`.
    fn name(&self, task: &Task) -> String {
        let average = self.average.as_ref().map_or_else(String::new, |average| format!(".{average}"));
        format!("{}.{}{average}", task.id, self.metric)
    }
}

fn columns(task: &Task) -> Vec<Column> {
    let main = task.metrics().into_iter();
    let mut columns: Vec<Column> =
        main.map(|metric| Column { average: task.average_of(&metric), metric, main: true }).collect();
    for (average, results) in &task.averages {
        let metrics: BTreeSet<&String> = results.values().flat_map(Figures::keys).collect();
        let other = |metric: &String| Column { metric: metric.clone(), average: Some(average.clone()), main: false };
        columns.extend(metrics.into_iter().map(other));
    }
    columns
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn csv_text(rows: &[Vec<String>]) -> Result<String> {
    let broken = |what: String| Problem::new(format!("cannot write CSV: {what}"));
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.write_record(row).map_err(|error| broken(error.to_string()))?;
    }
    let bytes = writer.into_inner().map_err(|error| broken(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| broken(error.to_string()))
}
