//! `matrix:` of a step → its cells: every combination of the axes, less `exclude`, and `include`.
//! It does not know what the cells are used for.

use serde_json::{Map, Value, json};

use crate::error::{Path, Problem};
use crate::expression::Values;

use super::node::{Node, type_name};
use super::policy;
use super::problems::{Finding, Focus};
use super::reference::{equal, id, is_name};
use super::substitute::{Outcome, Scope};
use super::suggest;

/// The coordinates of one cell, axes in the order of the file.
pub(super) type Cell = Vec<(String, Value)>;

/// More cells than this in one pipeline are taken for a mistake.
pub(super) const MOST_CELLS: usize = 10_000;

/// The cells of a matrix in order: the last axis changes fastest, then those of `include`.
pub(super) fn cells(matrix: &Node, path: &Path, params: &Value, outcome: &mut Outcome) -> Vec<Cell> {
    let Node::Map(entries) = matrix else {
        wrong(
            outcome,
            path,
            Focus::Value,
            Problem::new(format!("`matrix` is {}", matrix.type_name()))
                .expected("a mapping of axes to lists of values"),
        );
        return Vec::new();
    };
    let scope = Scope { params, cell: None };
    let mut axes: Vec<(String, Vec<Value>)> = Vec::new();
    let (mut include, mut exclude) = (Vec::new(), Vec::new());
    for (name, node) in entries {
        let path = path.key(name);
        let before = outcome.findings.len();
        let value = scope.apply(node, &path, outcome);
        if outcome.findings.len() > before {
            continue;
        }
        match name.as_str() {
            "include" => include = rows(value, &path, outcome),
            "exclude" => exclude = rows(value, &path, outcome),
            _ => {
                if let Some(problem) = not_an_axis(name, &value) {
                    wrong(outcome, &path, Focus::Key, problem);
                    continue;
                }
                if !is_name(name) {
                    let problem = Problem::new(format!("`{name}` cannot be the name of an axis"))
                        .expected("letters, digits, `_` and `-`");
                    wrong(outcome, &path, Focus::Key, problem);
                }
                axes.push((name.clone(), axis(value, &path, outcome)));
            }
        }
    }
    if !outcome.findings.is_empty() {
        return Vec::new();
    }
    let count = axes.iter().try_fold(1_usize, |count, (_, values)| count.checked_mul(values.len()));
    if count.is_none_or(|count| count > MOST_CELLS) {
        let problem = Problem::new(format!("this matrix has more than {MOST_CELLS} cells")).help("use fewer values");
        wrong(outcome, path, Focus::Key, problem);
        return Vec::new();
    }
    if axes.is_empty() {
        let problem = Problem::new("this matrix has no axes").expected("an axis: `rank: [2, 4, 8]`");
        wrong(outcome, path, Focus::Key, problem);
        return Vec::new();
    }
    let mut cells: Vec<Cell> = vec![Vec::new()];
    for (name, values) in &axes {
        cells = cells
            .into_iter()
            .flat_map(|cell| {
                values.iter().map(move |value| {
                    let mut cell = cell.clone();
                    cell.push((name.clone(), value.clone()));
                    cell
                })
            })
            .collect();
    }
    for (i, row) in exclude.iter().enumerate() {
        drop_excluded(&mut cells, row, &axes, &path.key("exclude").index(i), outcome);
    }
    for (i, row) in include.iter().enumerate() {
        add_included(&mut cells, row, &axes, &path.key("include").index(i), outcome);
    }
    if cells.is_empty() && outcome.findings.is_empty() {
        let problem = Problem::new("nothing is left of this matrix after `exclude`").help("exclude less");
        wrong(outcome, &path.key("exclude"), Focus::Key, problem);
    }
    cells
}

/// Keeps the cells for which `when:` holds, an expression over `matrix.…` and `params.…`.
pub(super) fn keep(cells: &mut Vec<Cell>, when: &Node, path: &Path, params: &Value, outcome: &mut Outcome) {
    let value = Scope { params, cell: None }.apply(when, path, outcome);
    let Some(expression) = policy::expression(&value, path, outcome) else { return };
    for name in expression.names() {
        let head = name.split('.').next().unwrap_or_default();
        if !["matrix", "params"].contains(&head) {
            let problem = Problem::new(format!("`when` knows nothing called `{name}`"))
                .help(format!("write `matrix.{name}` for the axis, or `params.{name}` for the parameter"));
            wrong(outcome, path, Focus::Value, problem);
            return;
        }
        let axes = || cells.iter().flatten().map(|(axis, _)| axis.as_str());
        let axis = name.strip_prefix("matrix.").map(|rest| rest.split('.').next().unwrap_or(rest));
        if let Some(axis) = axis.filter(|axis| axes().all(|known| known != *axis)) {
            let known: std::collections::BTreeSet<&str> = axes().collect();
            let help = suggest::help(axis, known, "the axes are", "");
            wrong(outcome, path, Focus::Value, Problem::new(format!("the matrix has no axis `{axis}`")).help(help));
            return;
        }
    }
    let only_numbers = expression.multiplies();
    let params = if only_numbers { numbers(params) } else { params.clone() };
    let mut kept = Vec::new();
    for cell in std::mem::take(cells) {
        let matrix: Map<String, Value> =
            cell.iter().filter(|(_, value)| !only_numbers || value.is_number()).cloned().collect();
        match expression.holds(&Values::from(&json!({ "matrix": matrix, "params": params }))) {
            Ok(true) => kept.push(cell),
            Ok(false) => {}
            Err(problem) => return wrong(outcome, path, Focus::Value, problem),
        }
    }
    if kept.is_empty() {
        let problem = Problem::new("`when` holds for no cell of this matrix").help("choose more");
        wrong(outcome, path, Focus::Value, problem);
    }
    *cells = kept;
}

/// A value without all that is no number.
fn numbers(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let entries = map.iter().filter(|(_, value)| value.is_number() || value.is_object());
            entries.map(|(name, value)| (name.clone(), numbers(value))).collect()
        }
        other => other.clone(),
    }
}

/// What is written like an axis and cannot be one: a word of the language that is misspelt or in the wrong place.
fn not_an_axis(name: &str, value: &Value) -> Option<Problem> {
    if name == "when" {
        return Some(Problem::new("`when` is no axis").help("write it beside `matrix`, not in it"));
    }
    let items = value.as_array()?;
    let meant = suggest::nearest(name, ["include", "exclude"])?;
    items
        .iter()
        .any(Value::is_object)
        .then(|| Problem::new(format!("the matrix has no key `{name}`")).help(format!("did you mean `{meant}`?")))
}

fn wrong(outcome: &mut Outcome, path: &Path, focus: Focus, problem: Problem) {
    outcome.findings.push(Finding { problem: problem.at(path.clone()), focus });
}

fn is_scalar(value: &Value) -> bool {
    matches!(value, Value::String(_) | Value::Number(_) | Value::Bool(_))
}

fn axis(value: Value, path: &Path, outcome: &mut Outcome) -> Vec<Value> {
    let Value::Array(values) = value else {
        let problem = Problem::new(format!("this axis is {}", type_name(&value))).expected("a list of values");
        wrong(outcome, path, Focus::Value, problem);
        return Vec::new();
    };
    if values.is_empty() {
        wrong(outcome, path, Focus::Value, Problem::new("this axis has no values").expected("at least one value"));
    }
    for (i, value) in values.iter().enumerate() {
        let path = path.index(i);
        if !is_scalar(value) {
            let problem = Problem::new(format!("{} cannot be a coordinate", type_name(value)))
                .expected("text, a number or a truth value");
            wrong(outcome, &path, Focus::Value, problem);
        } else if values[..i].iter().any(|earlier| equal(earlier, value)) {
            wrong(outcome, &path, Focus::Value, Problem::new(format!("{value} stands twice on this axis")));
        }
    }
    values
}

fn rows(value: Value, path: &Path, outcome: &mut Outcome) -> Vec<Map<String, Value>> {
    let Value::Array(items) = value else {
        let problem =
            Problem::new(format!("this is {}", type_name(&value))).expected("a list of mappings: `- { rank: 4 }`");
        wrong(outcome, path, Focus::Value, problem);
        return Vec::new();
    };
    let mut rows = Vec::new();
    for (i, item) in items.into_iter().enumerate() {
        match item {
            Value::Object(row) if !row.is_empty() => rows.push(row),
            other => {
                let problem = Problem::new(format!("this is {}", type_name(&other)))
                    .expected("a mapping of axes to values: `{ rank: 4 }`");
                wrong(outcome, &path.index(i), Focus::Value, problem);
            }
        }
    }
    rows
}

fn unknown_axis(name: &str, axes: &[(String, Vec<Value>)]) -> Problem {
    Problem::new(format!("the matrix has no axis `{name}`")).expected("an axis of this matrix").help(suggest::help(
        name,
        axes.iter().map(|(known, _)| known.as_str()),
        "the axes are",
        "add the axis",
    ))
}

fn drop_excluded(
    cells: &mut Vec<Cell>,
    row: &Map<String, Value>,
    axes: &[(String, Vec<Value>)],
    path: &Path,
    outcome: &mut Outcome,
) {
    let mut sound = true;
    for (name, value) in row {
        let path = path.key(name);
        match axes.iter().find(|(known, _)| known == name) {
            None => {
                wrong(outcome, &path, Focus::Key, unknown_axis(name, axes));
                sound = false;
            }
            Some((_, values)) if !values.iter().any(|known| equal(known, value)) => {
                let list: Vec<String> = values.iter().map(Value::to_string).collect();
                let problem = Problem::new(format!("the axis `{name}` has no value {value}"))
                    .expected(format!("one of {}", list.join(", ")));
                wrong(outcome, &path, Focus::Value, problem);
                sound = false;
            }
            Some(_) => {}
        }
    }
    if sound {
        cells.retain(|cell| {
            !row.iter().all(|(name, value)| cell.iter().any(|(axis, known)| axis == name && equal(known, value)))
        });
    }
}

fn add_included(
    cells: &mut Vec<Cell>,
    row: &Map<String, Value>,
    axes: &[(String, Vec<Value>)],
    path: &Path,
    outcome: &mut Outcome,
) {
    let before = outcome.findings.len();
    for (name, value) in row {
        if !axes.iter().any(|(known, _)| known == name) {
            wrong(outcome, &path.key(name), Focus::Key, unknown_axis(name, axes));
        } else if !is_scalar(value) {
            let problem = Problem::new(format!("{} cannot be a coordinate", type_name(value)))
                .expected("text, a number or a truth value");
            wrong(outcome, &path.key(name), Focus::Value, problem);
        }
    }
    let missing: Vec<String> =
        axes.iter().filter(|(name, _)| !row.contains_key(name)).map(|(name, _)| format!("`{name}`")).collect();
    if !missing.is_empty() {
        let problem =
            Problem::new(format!("this cell has no {}", missing.join(", "))).expected("a value for every axis");
        wrong(outcome, path, Focus::Value, problem);
    }
    if outcome.findings.len() > before {
        return;
    }
    let cell: Cell = axes.iter().map(|(name, _)| (name.clone(), row[name].clone())).collect();
    let same = |other: &Cell| other.iter().zip(&cell).all(|((_, a), (_, b))| equal(a, b));
    if cells.iter().any(same) {
        let problem = Problem::new(format!("the cell `{}` is already there", id("", &cell))).help("remove it here");
        wrong(outcome, path, Focus::Value, problem);
    } else if cells.len() < MOST_CELLS {
        cells.push(cell);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::node::parse;
    use crate::spec::problems::Findings;
    use serde_json::json;

    fn ids(yaml: &str) -> Result<Vec<String>, Vec<String>> {
        let node = parse(yaml, &mut Findings::default()).expect("YAML");
        let mut outcome = Outcome::default();
        let cells = cells(&node, &Path::root(), &json!({ "ranks": [1, 2] }), &mut outcome);
        if outcome.findings.is_empty() {
            Ok(cells.iter().map(|cell| id("s", cell)).collect())
        } else {
            Err(outcome.findings.into_iter().map(|finding| finding.problem.to_string()).collect())
        }
    }

    #[test]
    fn axes_keep_the_order_of_the_file() {
        let all = ids("{ z: [1, 2], a: [x, y] }").unwrap();
        assert_eq!(all, ["s[z=1,a=x]", "s[z=1,a=y]", "s[z=2,a=x]", "s[z=2,a=y]"]);
        assert_eq!(ids("{ r: \"${params.ranks}\" }").unwrap(), ["s[r=1]", "s[r=2]"]);
    }

    #[test]
    fn exclude_takes_away_and_include_adds() {
        let all = ids("{ r: [1, 2], a: [x, y], exclude: [{ r: 1 }, { r: 2, a: y }], include: [{ r: 9, a: x }] }");
        assert_eq!(all.unwrap(), ["s[r=2,a=x]", "s[r=9,a=x]"]);
    }

    #[test]
    fn mistakes_are_refused() {
        let one = |yaml: &str, words: &str| {
            let problems = ids(yaml).unwrap_err();
            assert!(problems.len() == 1 && problems[0].contains(words), "{yaml}: {problems:?}");
        };
        one("{ r: [1, 1.0] }", "twice");
        one("{ r: 1 }", "a list of values");
        one("{ r: [[1]] }", "cannot be a coordinate");
        one("{ r: [1], exclude: [{ q: 1 }] }", "no axis `q`");
        one("{ r: [1, 2], exclude: [{ r: 3 }] }", "no value 3");
        one("{ r: [1], exclude: { r: 1 } }", "a list of mappings");
        one("{ r: [1], exclude: [{ r: 1 }] }", "nothing is left");
        one("{ r: [1], a: [1], include: [{ r: 2 }] }", "no `a`");
        one("{ r: [1], include: [{ r: 1 }] }", "already there");
        one("{ include: [{ r: 1 }] }", "no axes");
    }
}
