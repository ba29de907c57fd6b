//! What is plotted of a comparison: forests of tests, learning curves, heat maps and lines over a matrix.
//! It does not know how anything is drawn.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Mark, Plot, Series, Shape};
use crate::report::comparison::{Arm, BASE, Comparison, Task};
use crate::report::evidence::Training;
use crate::report::{title, wording};

/// Everything, in the order of the page.
pub fn plots(comparison: &Comparison) -> Vec<Plot> {
    let mut plots = Vec::new();
    for task in &comparison.tasks {
        plots.extend(forest(comparison, task));
        plots.extend(grids(comparison, task));
    }
    plots.extend(learning(comparison));
    plots
}

/// Every tested arm beside the base; none where nothing was tested.
pub fn forest(comparison: &Comparison, task: &Task) -> Option<Plot> {
    let row = |arm: &Arm| {
        let test = crate::report::verdicts::beside(task, &arm.name, BASE)?;
        let mark = Mark {
            x: BASE.to_owned(),
            at: 0.0,
            y: test.difference,
            low: Some(test.interval.low),
            high: Some(test.interval.high),
            verdict: Some(test.verdict),
            arm: arm.name.clone(),
        };
        Some(Series { name: arm.name.clone(), title: arm.title.clone(), marks: vec![mark] })
    };
    let series: Vec<Series> = comparison.adapted().filter_map(row).collect();
    let margin = task.tests.first()?.equivalence.margin;
    (!series.is_empty()).then(|| Plot {
        id: format!("forest.{}", task.id),
        shape: Shape::Forest,
        title: format!("{}: разница с базовой моделью по {}", task.title, wording::metric(&task.metric)),
        x: "against".to_owned(),
        y: task.metric.clone(),
        rows: String::new(),
        lower_is_better: task.lower_is_better,
        series,
        margin: Some(margin),
        base: None,
    })
}

/// The loss over the steps, a line for each arm; over several seeds the mean and the band from least to largest.
pub fn learning(comparison: &Comparison) -> Option<Plot> {
    let line = |arm: &Arm| {
        let marks = mean_curve(&arm.name, &arm.training);
        (!marks.is_empty()).then(|| Series { name: arm.name.clone(), title: arm.title.clone(), marks })
    };
    let series: Vec<Series> = comparison.adapted().filter_map(line).collect();
    (!series.is_empty()).then(|| Plot {
        id: "learning".to_owned(),
        shape: Shape::Curves,
        title: "Потери при обучении, нат на токен".to_owned(),
        x: "step".to_owned(),
        y: "loss".to_owned(),
        rows: String::new(),
        lower_is_better: true,
        series,
        margin: None,
        base: None,
    })
}

/// The steps that all seeds have; the first seed alone where they have none in common.
fn mean_curve(arm: &str, training: &[Training]) -> Vec<Mark> {
    let mut at: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    let curves: Vec<&Training> = training.iter().filter(|one| !one.curve.is_empty()).collect();
    for point in curves.iter().flat_map(|one| &one.curve) {
        at.entry(point.step).or_default().push(point.loss);
    }
    let mut common: Vec<(u64, Vec<f64>)> = at.into_iter().filter(|(_, values)| values.len() == curves.len()).collect();
    if common.is_empty() {
        common = curves
            .first()
            .map_or_else(Vec::new, |first| first.curve.iter().map(|point| (point.step, vec![point.loss])).collect());
    }
    common.into_iter().map(|(step, values)| mark(arm, step.to_string(), step as f64, &values)).collect()
}

/// The mean of values, and their extent where there are several.
fn mark(arm: &str, x: String, at: f64, values: &[f64]) -> Mark {
    let mean = values.iter().map(|value| value / values.len() as f64).sum();
    let (low, high) =
        values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)));
    let several = values.len() > 1;
    Mark {
        x,
        at,
        y: mean,
        low: several.then_some(low),
        high: several.then_some(high),
        verdict: None,
        arm: arm.to_owned(),
    }
}

/// The cells of each matrix step: a heat map over each pair of axes, a line over each axis of numbers.
pub fn grids(comparison: &Comparison, task: &Task) -> Vec<Plot> {
    let mut steps: BTreeMap<&str, Vec<&Arm>> = BTreeMap::new();
    for arm in comparison.adapted().filter(|arm| !arm.coordinates.is_empty()) {
        if task.figure(&arm.name, &task.metric).is_some() {
            steps.entry(arm.name.split('[').next().unwrap_or(&arm.name)).or_default().push(arm);
        }
    }
    let mut plots = Vec::new();
    for (step, arms) in steps {
        let grid = Grid { task, step, arms: &arms };
        let axes: Vec<&String> = grid.axes();
        for (i, rows) in axes.iter().enumerate() {
            for columns in &axes[i + 1..] {
                plots.extend(grid.heat(columns, rows));
            }
        }
        plots.extend(axes.iter().filter_map(|axis| grid.line(axis, comparison)));
    }
    plots
}

/// The arms that are cells of one step.
struct Grid<'a> {
    task: &'a Task,
    step: &'a str,
    arms: &'a [&'a Arm],
}

/// Rests of coordinates that get a heat map of their own.
const MOST_SLICES: usize = 6;

impl<'a> Grid<'a> {
    /// The axes along which cells differ.
    fn axes(&self) -> Vec<&'a String> {
        let all: BTreeSet<&String> = self.arms.iter().flat_map(|arm| arm.coordinates.keys()).collect();
        all.into_iter().filter(|axis| self.values(axis).len() > 1).collect()
    }

    /// The values on an axis, numbers by size.
    fn values(&self, axis: &str) -> Vec<&'a Value> {
        let mut values: Vec<&Value> = self.arms.iter().filter_map(|arm| arm.coordinates.get(axis)).collect();
        values.sort_by(|a, b| match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            _ => a.to_string().cmp(&b.to_string()),
        });
        values.dedup();
        values
    }

    /// Its name for people: what its cells' titles begin with, before the coordinates.
    fn title(&self) -> String {
        let title = self.arms.first().map_or("", |arm| arm.title.as_str());
        let before = title.split_once('=').and_then(|(before, _)| before.rsplit_once(' ')).map(|(before, _)| before);
        before.filter(|before| !before.is_empty()).unwrap_or(self.step).to_owned()
    }

    fn plot(&self, shape: Shape, id: String, title: String, x: &str, rows: &str, series: Vec<Series>) -> Plot {
        Plot {
            id,
            shape,
            title,
            x: x.to_owned(),
            y: self.task.metric.clone(),
            rows: rows.to_owned(),
            lower_is_better: self.task.lower_is_better,
            series,
            margin: None,
            base: None,
        }
    }

    fn mark(&self, arm: &Arm, axis: &str, at: f64) -> Option<Mark> {
        let value = self.task.figure(&arm.name, &self.task.metric)?;
        let seeds: Vec<f64> =
            self.task.by_seed.get(&arm.name).map_or_else(Vec::new, |by| by.values().copied().collect());
        let x = plain(arm.coordinates.get(axis)?);
        Some(Mark { y: value, ..mark(&arm.name, x, at, if seeds.is_empty() { &[0.0][..] } else { &seeds }) })
    }

    /// A heat map for each rest of the coordinates that has more than one row and column.
    fn heat(&self, columns: &str, rows: &str) -> Vec<Plot> {
        let mut slices: BTreeMap<String, Vec<&Arm>> = BTreeMap::new();
        for arm in self.arms.iter().filter(|arm| arm.coordinates.contains_key(columns)) {
            slices.entry(rest(arm, &[columns, rows])).or_default().push(arm);
        }
        let (xs, ys) = (self.values(columns), self.values(rows));
        let mut plots = Vec::new();
        for (slice, arms) in slices.into_iter().take(MOST_SLICES) {
            let series: Vec<Series> = ys
                .iter()
                .map(|y| {
                    let of_row = arms.iter().filter(|arm| arm.coordinates.get(rows) == Some(*y));
                    let marks = of_row.filter_map(|arm| {
                        let at = xs.iter().position(|x| arm.coordinates.get(columns) == Some(*x))?;
                        self.mark(arm, columns, at as f64)
                    });
                    Series { name: format!("{rows}={}", plain(y)), title: plain(y), marks: marks.collect() }
                })
                .filter(|series| !series.marks.is_empty())
                .collect();
            let wide: BTreeSet<&str> = series.iter().flat_map(|s| &s.marks).map(|mark| mark.x.as_str()).collect();
            if series.len() < 2 || wide.len() < 2 {
                continue;
            }
            let (tail, words) = if slice.is_empty() {
                (String::new(), String::new())
            } else {
                (format!(".{slice}"), format!(", {slice}"))
            };
            let title = format!(
                "{}, {}: {} по осям {} и {}{words}",
                self.task.title,
                self.title(),
                wording::metric(&self.task.metric),
                super::axis(columns),
                super::axis(rows)
            );
            let id = format!("heat.{}.{}.{columns}.{rows}{tail}", self.task.id, self.step);
            plots.push(self.plot(Shape::Heat, id, title, columns, rows, series));
        }
        plots
    }

    /// A line for each rest of the coordinates over an axis of numbers.
    fn line(&self, axis: &str, comparison: &Comparison) -> Option<Plot> {
        let mut series: Vec<Series> = Vec::new();
        let mut arms: Vec<&Arm> = self.arms.to_vec();
        // Lines in the order of the other axes, numbers by size.
        let others: Vec<&String> = self.axes().into_iter().filter(|other| *other != axis).collect();
        arms.sort_by_key(|arm| {
            let place = |other: &&String| {
                self.values(other).iter().position(|value| arm.coordinates.get(*other) == Some(*value))
            };
            others.iter().map(place).collect::<Vec<_>>()
        });
        for arm in arms {
            let Some(at) = arm.coordinates.get(axis).and_then(Value::as_f64) else { continue };
            let rest = rest(arm, &[axis]);
            let (name, title) =
                if rest.is_empty() { (self.step.to_owned(), self.title()) } else { (rest, told_rest(arm, &[axis])) };
            let marks = self.mark(arm, axis, at);
            match series.iter_mut().find(|series| series.name == name) {
                Some(known) => known.marks.extend(marks),
                None => series.push(Series { name, title, marks: marks.into_iter().collect() }),
            }
        }
        for one in &mut series {
            one.marks.sort_by(|a, b| a.at.total_cmp(&b.at));
        }
        let values: BTreeSet<&str> = series.iter().flat_map(|s| &s.marks).map(|mark| mark.x.as_str()).collect();
        if values.len() < 2 {
            return None;
        }
        let title = format!(
            "{}, {}: {} и {}",
            self.task.title,
            self.title(),
            wording::metric(&self.task.metric),
            super::axis(axis)
        );
        let base = comparison.base().and_then(|base| self.task.figure(&base.name, &self.task.metric));
        let id = format!("curves.{}.{}.{axis}", self.task.id, self.step);
        Some(Plot { base, ..self.plot(Shape::Curves, id, title, axis, "", series) })
    }
}

/// The coordinates but these: `alpha=8, rank=4`.
fn rest(arm: &Arm, without: &[&str]) -> String {
    let others = arm.coordinates.iter().filter(|(axis, _)| !without.contains(&axis.as_str()));
    let parts: Vec<String> =
        others.map(|(axis, value)| format!("{}={}", axis.rsplit('.').next().unwrap_or(axis), plain(value))).collect();
    wording::one_line(&parts.join(", "))
}

/// The same as papers write it: `α=8, r=4`.
fn told_rest(arm: &Arm, without: &[&str]) -> String {
    let others = arm.coordinates.iter().filter(|(axis, _)| !without.contains(&axis.as_str()));
    let parts: Vec<String> = others.map(|(axis, value)| format!("{}={}", title::short(axis), plain(value))).collect();
    wording::one_line(&parts.join(", "))
}

fn plain(value: &Value) -> String {
    wording::one_line(&value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}
