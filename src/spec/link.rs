//! References → edges: steps, cells and outputs looked up, ports counted, cycles told as a sentence.
//! It does not know parameters.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::Value;

use crate::error::{Path, Problem};
use crate::expression::{Expression, of_cell};
use crate::step::{ANY_NAME, AnyKind, Arity, Input};

use super::draft::{Draft, Table};
use super::node::type_name;
use super::pipeline::Edge;
use super::problems::{Finding, Findings, Focus};
use super::reference::{self, Reference, equal, id};
use super::substitute::Outcome;
use super::suggest;

/// More edges than this in one pipeline are taken for a mistake.
const MOST_EDGES: usize = 1_000_000;

/// Connects every draft; what is wrong goes into the draft's outcome.
pub(super) fn connect(drafts: &mut [Draft], table: &Table) {
    let mut budget = MOST_EDGES;
    for at in 0..drafts.len() {
        let Some(kind) = drafts[at].kind else { continue };
        let path = drafts[at].path.key("in");
        let mut outcome = std::mem::take(&mut drafts[at].outcome);
        let mut edges = BTreeMap::new();
        for (port, value) in &drafts[at].inputs {
            let path = path.key(port);
            let Some(input) = Input::find(kind.inputs(), port) else {
                let names = kind.inputs().iter().map(|input| input.name);
                let problem = Problem::new(format!("`{}` has no input `{port}`", kind.name()))
                    .expected("an input of this kind")
                    .help(suggest::help(port, names, "the inputs are", "this kind takes no inputs"));
                push(&mut outcome, Focus::Key, problem, &path);
                continue;
            };
            if input.name == ANY_NAME && !reference::is_name(port) {
                let problem = Problem::new(format!("`{port}` cannot be the name of an input"))
                    .expected("letters, digits, `_` and `-`");
                push(&mut outcome, Focus::Key, problem, &path);
                continue;
            }
            let before = outcome.findings.len() + outcome.missing.len();
            let found = producers(drafts, table, at, value, &path, &mut outcome, &mut budget);
            if outcome.findings.len() + outcome.missing.len() == before {
                count(kind, input, &found, value, &path, drafts, &mut outcome);
            }
            if !found.is_empty() {
                edges.insert(port.clone(), found);
            }
        }
        for input in kind.inputs().iter().filter(|input| matches!(input.arity, Arity::One | Arity::Many)) {
            if !drafts[at].inputs.iter().any(|(port, _)| port == input.name) {
                let problem = Problem::new(format!(
                    "nothing is connected to the input `{}` of `{}`",
                    input.name, drafts[at].name
                ))
                .expected(format!("`in: {{ {}: … }}`", input.name))
                .help(format!("`{}` takes {}", input.name, lower(input.doc)));
                push(&mut outcome, Focus::Key, problem, &path);
            }
        }
        drafts[at].outcome = outcome;
        drafts[at].edges = edges;
    }
}

/// Finds the steps whose figures expectations name: a step without a matrix, or one cell.
pub(super) fn gates(drafts: &mut [Draft], table: &Table) {
    for at in 0..drafts.len() {
        let names: BTreeSet<String> = drafts[at].policy.expect.iter().flat_map(Expression::names).collect();
        for name in names {
            if name.contains('[') {
                let path = drafts[at].path.key("expect");
                match cell_of(drafts, table, &name) {
                    // It need not wait for itself.
                    Ok((cell, step)) if step != at => {
                        drafts[at].after.insert(cell, step);
                    }
                    Ok(_) | Err(None) => {}
                    Err(Some((focus, problem))) => push(&mut drafts[at].outcome, focus, problem, &path),
                }
                continue;
            }
            let Some((step, _)) = name.split_once('.') else { continue };
            // Anything else is a figure of its own, such as `dev.documents`.
            let Some(range) = table.get(step).filter(|_| step != drafts[at].name) else { continue };
            match drafts[range.clone()].first().filter(|first| first.cell.is_empty()) {
                Some(_) => {
                    drafts[at].after.insert(step.to_owned(), range.start);
                }
                None => {
                    let path = drafts[at].path.key("expect");
                    let problem = Problem::new(format!("`{step}` is a matrix, and `{name}` would be many figures"));
                    let ids: Vec<&str> = drafts[range.clone()].iter().map(|draft| draft.id.as_str()).collect();
                    let figure = name[step.len()..].to_owned();
                    let problem = match ids.first() {
                        Some(id) => problem.help(format!("name one cell: `{id}{figure}`")),
                        None => problem,
                    };
                    push(&mut drafts[at].outcome, Focus::Value, problem, &path);
                }
            }
        }
    }
}

/// The cell in the name of a figure such as `lora[rank=4].f1`: as it is written, and its position. `Err(None)` if its
/// step is broken itself.
fn cell_of(drafts: &[Draft], table: &Table, name: &str) -> Result<(String, usize), Option<(Focus, Problem)>> {
    let Some((cell, _)) = of_cell(name) else {
        let problem = Problem::new(format!("`{name}` names a cell, and none of its figures"));
        return Err(Some((Focus::Value, problem.help(format!("write `{name}.f1`, or whichever figure is meant")))));
    };
    let reference = reference::parse(cell).map_err(|problem| Some((Focus::Value, problem)))?;
    match select(drafts, table, &reference)?.as_slice() {
        [one] => Ok((cell.to_owned(), *one)),
        many => {
            let ids: Vec<String> = many.iter().take(3).map(|step| format!("`{}`", drafts[*step].id)).collect();
            let problem = Problem::new(format!("`{cell}` is {} cells, and `{name}` would be many figures", many.len()));
            Err(Some((Focus::Value, problem.help(format!("name one of them, such as {}", ids.join(", "))))))
        }
    }
}

/// The steps that must be done before one, and the port that leads there; none where an expectation does.
fn needs(draft: &Draft) -> impl Iterator<Item = (Option<&String>, usize)> {
    let inputs = draft.edges.iter().flat_map(|(port, edges)| edges.iter().map(move |edge| (Some(port), edge.step)));
    inputs.chain(draft.after.values().map(|step| (None, *step)))
}

/// Where it is said that a step needs another one.
fn place(draft: &Draft, port: Option<&String>) -> Path {
    port.map_or_else(|| draft.path.key("expect"), |port| draft.path.key("in").key(port))
}

/// A sentence of a port's documentation as the tail of another.
fn lower(doc: &str) -> String {
    let mut chars = doc.chars();
    let first = chars.next().map(|c| c.to_lowercase().to_string()).unwrap_or_default();
    format!("{first}{}", chars.as_str()).trim_end_matches('.').to_owned()
}

fn push(outcome: &mut Outcome, focus: Focus, problem: Problem, path: &Path) {
    outcome.findings.push(Finding { problem: problem.at(path.clone()), focus });
}

/// The producers that the value of a port names.
fn producers(
    drafts: &[Draft],
    table: &Table,
    at: usize,
    value: &Value,
    path: &Path,
    outcome: &mut Outcome,
    budget: &mut usize,
) -> Vec<Edge> {
    let mut edges = Vec::new();
    let items: Vec<(Path, &Value)> = match value {
        Value::Null => Vec::new(),
        Value::Array(items) => items.iter().enumerate().map(|(i, item)| (path.index(i), item)).collect(),
        other => vec![(path.clone(), other)],
    };
    for (path, item) in items {
        let Value::String(text) = item else {
            let problem =
                Problem::new(format!("an input is {}", type_name(item))).expected("a step, or a list of steps");
            push(outcome, Focus::Value, problem, &path);
            continue;
        };
        match resolve(drafts, table, &drafts[at].name, text) {
            Ok(found) if found.len() > *budget => {
                let problem = Problem::new(format!("this pipeline has more than {MOST_EDGES} connections"));
                push(outcome, Focus::Value, problem.help("use smaller matrices"), &path);
                return Vec::new();
            }
            Ok(found) => {
                *budget -= found.len();
                let listed = value.is_array();
                edges.extend(found.into_iter().map(|edge| Edge { listed: edge.listed || listed, ..edge }));
            }
            Err(None) => {}
            Err(Some((focus, problem))) => push(outcome, focus, problem, &path),
        }
    }
    edges
}

/// What a reference leads to. `Err(None)` if it leads to a step that is broken itself.
fn resolve(drafts: &[Draft], table: &Table, needs: &str, text: &str) -> Result<Vec<Edge>, Option<(Focus, Problem)>> {
    let reference = reference::parse(text).map_err(|problem| Some((Focus::Value, problem)))?;
    let cells = select(drafts, table, &reference).map_err(|problem| {
        problem.map(|(focus, mut problem)| {
            if matches!(&focus, Focus::Within(part) if *part == reference.step) {
                problem.what = format!("step `{needs}` needs `{}`, which does not exist", reference.step);
            }
            (focus, problem)
        })
    })?;
    let mut edges = Vec::with_capacity(cells.len());
    for step in cells {
        let kind = drafts[step].kind.ok_or(None)?;
        let outputs = drafts[step].outputs.as_deref().ok_or(None)?;
        let by_step = kind.outputs().iter().any(|output| output.name == ANY_NAME);
        if by_step && reference.output.is_none() && outputs.len() > 1 {
            let names: Vec<String> = outputs.iter().map(|o| format!("`{}.{}`", reference.step, o.name)).collect();
            let problem = Problem::new(format!("`{}` has {} outputs", reference.step, outputs.len()))
                .expected("one of them")
                .help(format!("name it: {}", names.join(", ")));
            return Err(Some((Focus::Value, problem)));
        }
        let output = match &reference.output {
            None if outputs.is_empty() => None,
            None => Some(0),
            Some(name) => outputs.iter().position(|output| output.name == name.as_str()),
        };
        let Some(output) = output else {
            let name = reference.output.as_deref().unwrap_or_default();
            let names = outputs.iter().map(|output| output.name.as_ref());
            let whose = if by_step { &reference.step } else { kind.name() };
            let problem = Problem::new(format!("`{}` has no output `{name}`", reference.step))
                .expected(format!("an output of `{whose}`"))
                .help(suggest::help(name, names, "the outputs are", "this kind has no outputs"));
            return Err(Some((Focus::Within(name.to_owned()), problem)));
        };
        let listed = reference.cell.is_none() && !drafts[step].cell.is_empty();
        edges.push(Edge { step, output, listed });
    }
    Ok(edges)
}

/// The cells that a reference means.
pub(super) fn select(
    drafts: &[Draft],
    table: &Table,
    reference: &Reference,
) -> Result<Vec<usize>, Option<(Focus, Problem)>> {
    let Some(range) = table.get(&reference.step) else {
        let names = table.keys().map(String::as_str);
        let problem = Problem::new(format!("there is no step `{}`", reference.step))
            .expected("the name of a step")
            .help(suggest::help(&reference.step, names, "the steps are", "there are no steps"));
        return Err(Some((Focus::Within(reference.step.clone()), problem)));
    };
    if range.is_empty() {
        return Err(None);
    }
    let Some(wanted) = &reference.cell else { return Ok(range.clone().collect()) };
    let axes = &drafts[range.start].cell;
    if axes.is_empty() {
        let problem = Problem::new(format!("`{}` has no matrix", reference.step))
            .help(format!("write `{}` without brackets", reference.step));
        return Err(Some((Focus::Value, problem)));
    }
    for (axis, _) in wanted {
        if !axes.iter().any(|(known, _)| known == axis) {
            let names = axes.iter().map(|(known, _)| known.as_str());
            let problem = Problem::new(format!("the matrix of `{}` has no axis `{axis}`", reference.step))
                .help(suggest::help(axis, names, "the axes are", ""));
            return Err(Some((Focus::Within(axis.clone()), problem)));
        }
    }
    let fits = |step: &usize| {
        wanted.iter().all(|(axis, value)| drafts[*step].cell.iter().any(|(known, v)| known == axis && equal(v, value)))
    };
    let found: Vec<usize> = range.clone().filter(fits).collect();
    if found.is_empty() {
        let wrong = id(&reference.step, wanted);
        let ids = range.clone().map(|step| drafts[step].id.as_str());
        let problem = Problem::new(format!("there is no cell `{wrong}`"))
            .expected("a cell of this matrix")
            .help(suggest::help(&wrong, ids, "the cells are", ""));
        return Err(Some((Focus::Value, problem)));
    }
    Ok(found)
}

/// Holds the number of producers against what the port takes.
fn count(
    kind: &'static dyn AnyKind,
    input: &Input,
    found: &[Edge],
    value: &Value,
    path: &Path,
    drafts: &[Draft],
    outcome: &mut Outcome,
) {
    let needs_one = matches!(input.arity, Arity::One | Arity::Many);
    let at_most_one = matches!(input.arity, Arity::One | Arity::Optional);
    if found.is_empty() && needs_one {
        // Broken producers are told where they are broken.
        if !(value.is_null() || value.as_array().is_some_and(Vec::is_empty)) {
            return;
        }
        let problem = Problem::new(format!("nothing is connected to the input `{}` of `{}`", input.name, kind.name()))
            .expected("a step")
            .at(path.clone());
        let finding = Finding { problem, focus: Focus::Value };
        if outcome.nulls.contains(path) { outcome.missing.push(finding) } else { outcome.findings.push(finding) }
    }
    let listed = found.iter().any(|edge| edge.listed);
    let mut seen = BTreeSet::new();
    if input.names(listed)
        && let Some(twice) = found.iter().find(|edge| !seen.insert(edge.step))
    {
        let id = &drafts[twice.step].id;
        let problem = Problem::new(format!("`{id}` stands in this list twice"))
            .expected("each step once, because the entries bear the names of their steps")
            .help("connect a second result of a step to an input of its own");
        push(outcome, Focus::Value, problem, path);
    }
    if found.len() > 1 && at_most_one {
        let first = &drafts[found[0].step];
        let problem = Problem::new(format!(
            "the input `{}` of `{}` takes one step, not {}",
            input.name,
            kind.name(),
            found.len()
        ))
        .expected("one step");
        let problem = if first.cell.is_empty() {
            problem.help("connect one of them")
        } else {
            problem.help(format!("`{}` is a matrix: name one of its cells, as in `{}`", first.name, first.id))
        };
        push(outcome, Focus::Value, problem, path);
    }
}

/// The steps that `targets` need, themselves included.
pub(super) fn cone(drafts: &[Draft], targets: &[usize]) -> BTreeSet<usize> {
    let mut seen: BTreeSet<usize> = targets.iter().copied().collect();
    let mut queue: Vec<usize> = targets.to_vec();
    while let Some(at) = queue.pop() {
        for (_, step) in needs(&drafts[at]) {
            if seen.insert(step) {
                queue.push(step);
            }
        }
    }
    seen
}

/// Tells each knot of steps that need each other once, by a shortest way around.
pub(super) fn cycles(drafts: &[Draft], findings: &mut Findings) {
    let mut graph = petgraph::graph::DiGraph::<(), ()>::new();
    let nodes: Vec<_> = drafts.iter().map(|_| graph.add_node(())).collect();
    for (at, draft) in drafts.iter().enumerate() {
        let needs: BTreeSet<usize> = needs(draft).map(|(_, step)| step).collect();
        for step in needs {
            graph.add_edge(nodes[at], nodes[step], ());
        }
    }
    for knot in petgraph::algo::kosaraju_scc(&graph) {
        let knot: BTreeSet<usize> = knot.into_iter().map(petgraph::graph::NodeIndex::index).collect();
        let Some(&start) = knot.first() else { continue };
        let Some(way) = around(drafts, &knot, start) else { continue };
        let mut sentence = format!("`{}` needs ", drafts[start].id);
        for (i, &(_, step)) in way.iter().enumerate() {
            let and = if i + 1 == way.len() { "" } else { ", which needs " };
            let itself = way.len() == 1;
            sentence.push_str(&if itself { "itself".to_owned() } else { format!("`{}`{and}", drafts[step].id) });
        }
        let path = way.first().map(|(path, _)| path.clone()).unwrap_or_default();
        let problem = Problem::new(sentence).help("cut the circle at one of them");
        findings.value(&path, problem);
    }
}

/// A shortest way from `start` back to it: the place that each step was reached by, and the step.
fn around(drafts: &[Draft], knot: &BTreeSet<usize>, start: usize) -> Option<Vec<(Path, usize)>> {
    let mut came: BTreeMap<usize, (usize, Path)> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(at) = queue.pop_front() {
        for (port, step) in needs(&drafts[at]).filter(|(_, step)| knot.contains(step)) {
            let place = place(&drafts[at], port);
            if step == start {
                let mut way = vec![(place, start)];
                let mut back = at;
                while back != start {
                    let (before, place) = came[&back].clone();
                    way.push((place, back));
                    back = before;
                }
                way.reverse();
                return Some(way);
            }
            if let std::collections::btree_map::Entry::Vacant(entry) = came.entry(step) {
                entry.insert((at, place));
                queue.push_back(step);
            }
        }
    }
    None
}
