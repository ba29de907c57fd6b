//! `--grid`: combinations of parameter values, and the table over their figures.
//! It does not know whether a parameter exists: each combination is a list of `--set`.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Problem, Result};
use crate::exec::Records;
use crate::graph::Graph;
use crate::spec::Pipeline;
use crate::ui;

/// A parameter and the values that it takes in turn, as they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Axis {
    name: String,
    values: Vec<String>,
}

/// Reads `--grid name=v1,v2` options. A comma inside brackets, braces or quotes belongs to a value.
pub fn axes(options: &[String]) -> Result<Vec<Axis>> {
    let mut axes: Vec<Axis> = Vec::new();
    for option in options {
        let wrong =
            |what: &str| Problem::new(format!("`--grid {option}`: {what}")).help("write `--grid lora.rank=2,4,8`");
        let (name, text) = option.split_once('=').ok_or_else(|| wrong("there is no `=`"))?;
        let values = split(text);
        if name.trim().is_empty() || values.iter().any(String::is_empty) {
            return Err(wrong("a name or a value is empty"));
        }
        let distinct: BTreeSet<&String> = values.iter().collect();
        if distinct.len() < values.len() {
            return Err(wrong("a value stands there twice"));
        }
        if axes.iter().any(|axis| axis.name == name.trim()) {
            return Err(wrong("this parameter has a `--grid` already"));
        }
        axes.push(Axis { name: name.trim().to_owned(), values });
    }
    Ok(axes)
}

fn split(text: &str) -> Vec<String> {
    let (mut values, mut depth, mut quote) = (vec![String::new()], 0usize, None);
    for c in text.chars() {
        match (quote, c) {
            (Some(open), _) if open == c => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 => {
                values.push(String::new());
                continue;
            }
            _ => {}
        }
        values.last_mut().expect("never empty").push(c);
    }
    values.into_iter().map(|value| value.trim().to_owned()).collect()
}

/// All combinations as lists of settings, the last axis running fastest; without axes, one without settings.
pub fn combinations(axes: &[Axis]) -> Vec<Vec<String>> {
    axes.iter().fold(vec![Vec::new()], |sofar, axis| {
        let longer = |sets: &Vec<String>| {
            let each = axis.values.iter().map(|value| format!("{}={value}", axis.name));
            each.map(|set| sets.iter().cloned().chain([set]).collect()).collect::<Vec<_>>()
        };
        sofar.iter().flat_map(longer).collect()
    })
}

/// The figures that stand nearest to the targets: those of the targets themselves, or else of the steps that
/// they read from, and so on. Figures of several steps are told apart by the steps' ids.
pub fn figures(pipeline: &Pipeline, records: &Records) -> BTreeMap<String, f64> {
    let graph = Graph::of(pipeline);
    let mut level: BTreeSet<usize> = pipeline.targets.iter().copied().collect();
    // A target that another one reads is not what the run ends with.
    let ends: BTreeSet<usize> =
        level.iter().copied().filter(|step| graph.consumers(*step).is_disjoint(&level)).collect();
    level = ends;
    let mut seen = BTreeSet::new();
    while !level.is_empty() {
        let with: Vec<usize> =
            level.iter().copied().filter(|step| records.get(step).is_some_and(|r| !r.figures.is_empty())).collect();
        if !with.is_empty() {
            let name = |step: usize, figure: &str| match with.len() {
                1 => figure.to_owned(),
                _ => format!("{}.{figure}", pipeline.steps[step].id),
            };
            let all = with.iter().flat_map(|&step| records[&step].figures.iter().map(move |(k, v)| (step, k, *v)));
            return all.map(|(step, figure, value)| (name(step, figure), value)).collect();
        }
        seen.extend(level.iter().copied());
        level = level.iter().flat_map(|&step| graph.producers(step)).filter(|step| !seen.contains(step)).collect();
    }
    BTreeMap::new()
}

/// One row per combination: the values of the axes, then the figures.
pub struct Table {
    head: Vec<String>,
    rows: Vec<(Vec<String>, Vec<Option<f64>>)>,
}

impl Table {
    /// The table; a combination that has not a figure leaves its cell empty.
    pub fn new(axes: &[Axis], combinations: &[Vec<String>], figures: Vec<BTreeMap<String, f64>>) -> Self {
        let columns: BTreeSet<String> = figures.iter().flat_map(|row| row.keys().cloned()).collect();
        let rows = combinations.iter().zip(&figures).map(|(sets, figures)| {
            let value = |set: &String| set.split_once('=').map_or(String::new(), |(_, value)| value.to_owned());
            let cells = columns.iter().map(|column| figures.get(column).copied()).collect();
            (sets.iter().map(value).collect(), cells)
        });
        let rows = rows.collect();
        Self { head: axes.iter().map(|axis| axis.name.clone()).chain(columns).collect(), rows }
    }

    fn cells(&self, number: impl Fn(f64) -> String) -> Vec<Vec<String>> {
        let row = |(values, figures): &(Vec<String>, Vec<Option<f64>>)| {
            let figures = figures.iter().map(|figure| figure.map(&number).unwrap_or_default());
            values.iter().cloned().chain(figures).collect()
        };
        self.rows.iter().map(row).collect()
    }

    /// For a person, figures with four decimals.
    pub fn text(&self) -> String {
        ui::table(&self.head, &self.cells(|value| format!("{value:.4}")))
    }

    /// For a program, figures in full.
    pub fn csv(&self) -> String {
        let mut writer = csv::Writer::from_writer(Vec::new());
        for row in std::iter::once(self.head.clone()).chain(self.cells(|value| value.to_string())) {
            writer.write_record(&row).expect("rows are of one length, and memory takes them");
        }
        String::from_utf8(writer.into_inner().expect("memory takes it")).expect("made of text")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn combinations_run_through_the_last_axis_first() {
        let axes = axes(&texts(&["lora.rank=2, 4", "layers=[0,6],[0]"])).unwrap();
        assert_eq!(
            combinations(&axes),
            [
                texts(&["lora.rank=2", "layers=[0,6]"]),
                texts(&["lora.rank=2", "layers=[0]"]),
                texts(&["lora.rank=4", "layers=[0,6]"]),
                texts(&["lora.rank=4", "layers=[0]"]),
            ]
        );
        assert_eq!(combinations(&[]), [Vec::<String>::new()]);
        assert_eq!(split(r#"{a: 1, b: 2},"x,y",'z'"#), [r#"{a: 1, b: 2}"#, r#""x,y""#, "'z'"]);
    }

    #[test]
    fn a_wrong_grid_is_refused() {
        for (options, word) in [
            (vec!["rank"], "no `=`"),
            (vec!["rank=2,,4"], "empty"),
            (vec!["rank=2,2"], "twice"),
            (vec!["rank=2", "rank=4"], "already"),
        ] {
            let problem = axes(&texts(&options)).unwrap_err();
            assert!(problem.what.contains(word), "{problem}");
        }
    }

    #[test]
    fn the_table_has_a_row_for_each_combination() {
        let axes = axes(&texts(&["rank=2,16"])).unwrap();
        let figures = vec![BTreeMap::from([("f1".to_owned(), 0.5)]), BTreeMap::new()];
        let table = Table::new(&axes, &combinations(&axes), figures);
        assert_eq!(table.text(), "rank      f1\n   2  0.5000\n  16");
        assert_eq!(table.csv(), "rank,f1\n2,0.5\n16,\n");
    }
}
