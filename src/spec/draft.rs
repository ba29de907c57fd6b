//! Steps as they are written → drafts: one per cell, names substituted, kind found, parameters read.
//! It does not know how drafts are connected (`link`).

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value;

use crate::error::{Path, Place, Problem};
use crate::step::{ANY_NAME, AnyKind, AnyStep, Product};

use super::document::RawStep;
use super::load::Options;
use super::matrix::{self, Cell, MOST_CELLS};
use super::node::{Node, type_name};
use super::pipeline::{Edge, Written};
use super::policy::{self, Policy};
use super::problems::{Finding, Findings, Focus};
use super::substitute::{Outcome, Scope};
use super::{fit, reference, suggest};

/// A cell on its way to become a step; all its places are below `path`.
pub(super) struct Draft {
    pub id: String,
    pub name: String,
    pub path: Path,
    pub cell: Cell,
    /// `None` if the kind is unknown, which is told already.
    pub kind: Option<&'static dyn AnyKind>,
    /// `in:` after substitution.
    pub inputs: Vec<(String, Value)>,
    pub outcome: Outcome,
    /// Steps whose figures its expectations name, by their names.
    pub after: BTreeMap<String, usize>,
    pub policy: Policy,
    pub written: Written,
    pub edges: BTreeMap<String, Vec<Edge>>,
    pub action: Option<Box<dyn AnyStep>>,
    /// `None` if that depends on parameters that are broken, which is told already.
    pub outputs: Option<Vec<Product>>,
}

/// Where the cells of each step lie among the drafts; empty for a step whose matrix is broken.
pub(super) type Table = BTreeMap<String, Range<usize>>;

/// Schemas of the kinds that were met: the cells of a matrix share one.
type Schemas = BTreeMap<&'static str, Value>;

/// Every cell of every step, with its kind, parameters and inputs. Each step as it is written is dropped when its cells
/// are there: thousands of both would fill the memory.
pub(super) fn all(
    steps: Vec<RawStep>,
    params: &Value,
    options: &Options,
    findings: &mut Findings,
) -> (Vec<Draft>, Table) {
    let mut drafts = Vec::new();
    let mut table = Table::new();
    let mut schemas = Schemas::new();
    for raw in steps {
        let path = Path::root().key("steps").key(&raw.name);
        let start = drafts.len();
        match &raw.matrix {
            None if start >= MOST_CELLS => {
                let problem = Problem::new(format!("the pipeline has more than {MOST_CELLS} steps"));
                findings.key(&path, problem.help("make several pipelines of it"));
                break;
            }
            None => {
                if raw.when.is_some() {
                    let problem = Problem::new(format!("the step `{}` has `when`, but no `matrix`", raw.name));
                    let help = "`when` chooses cells of a matrix; what a run is for is said by `targets`";
                    findings.key(&path.key("when"), problem.help(help));
                }
                drafts.push(draft(&raw, &path, None, params, options, &mut schemas));
            }
            Some(node) => {
                let mut outcome = Outcome::default();
                let mut cells = matrix::cells(node, &path.key("matrix"), params, &mut outcome);
                if let Some(when) = raw.when.as_ref().filter(|_| outcome.findings.is_empty()) {
                    matrix::keep(&mut cells, when, &path.key("when"), params, &mut outcome);
                }
                for finding in outcome.findings.drain(..).chain(outcome.missing.drain(..)) {
                    findings.push(finding);
                }
                if start + cells.len() > MOST_CELLS {
                    let problem =
                        Problem::new(format!("the pipeline has more than {MOST_CELLS} steps with this matrix"));
                    findings.key(&path.key("matrix"), problem.help("use fewer values"));
                } else {
                    drafts.extend(
                        cells.into_iter().map(|cell| draft(&raw, &path, Some(cell), params, options, &mut schemas)),
                    );
                }
            }
        }
        table.insert(raw.name, start..drafts.len());
    }
    (drafts, table)
}

fn draft(
    raw: &RawStep,
    path: &Path,
    cell: Option<Cell>,
    params: &Value,
    options: &Options,
    schemas: &mut Schemas,
) -> Draft {
    let mut outcome = Outcome::default();
    let scope = Scope { params, cell: cell.as_deref() };
    let kind = raw.uses.as_ref().and_then(|uses| kind(uses, &path.key("uses"), &scope, options, &mut outcome));
    let inputs = raw
        .inputs
        .iter()
        .map(|(port, node)| (port.clone(), scope.apply(node, &path.key("in").key(port), &mut outcome)))
        .collect();
    let (mut policy, mut keys) = (Policy::default(), Vec::new());
    for (key, node) in &raw.policy {
        let path = path.key(*key);
        let before = outcome.findings.len();
        let value = scope.apply(node, &path, &mut outcome);
        if outcome.findings.len() == before {
            policy::read(&mut policy, key, &value, &path, &mut outcome);
            keys.push((*key, value));
        }
    }
    let mut written = Written { policy: policy::written(&keys), ..Written::default() };
    let action = match kind {
        Some(kind) => {
            let schema = schemas.entry(kind.name()).or_insert_with(|| kind.schema().to_value());
            action(kind, schema, &raw.with, &path.key("with"), &scope, &mut outcome, &mut written)
        }
        None => {
            scope.apply(&raw.with, &path.key("with"), &mut outcome);
            None
        }
    };
    if let (Some(kind), Some(action)) = (kind, &action) {
        outcome.findings.extend(policy::check(&policy, kind, action.as_ref(), path));
    }
    let outputs = match (&action, kind) {
        (Some(action), _) => Some(action.outputs()),
        (None, Some(kind)) if kind.outputs().iter().all(|output| output.name != ANY_NAME) => {
            Some(kind.outputs().iter().map(Product::from).collect())
        }
        (None, _) => None,
    };
    let cell = cell.unwrap_or_default();
    Draft {
        id: reference::id(&raw.name, &cell),
        name: raw.name.clone(),
        path: path.clone(),
        cell,
        kind,
        inputs,
        outcome,
        edges: BTreeMap::new(),
        after: BTreeMap::new(),
        policy,
        written,
        action,
        outputs,
    }
}

fn kind(
    uses: &Node,
    path: &Path,
    scope: &Scope,
    options: &Options,
    outcome: &mut Outcome,
) -> Option<&'static dyn AnyKind> {
    let before = outcome.findings.len();
    let value = scope.apply(uses, path, outcome);
    if outcome.findings.len() > before {
        return None;
    }
    let problem = match &value {
        Value::String(name) => match options.kinds.iter().find(|kind| kind.name() == name) {
            Some(kind) => return Some(*kind),
            None => {
                let names = options.kinds.iter().map(|kind| kind.name());
                Problem::new(format!("there is no step kind `{name}`")).expected("a step kind").help(suggest::help(
                    name,
                    names,
                    "the kinds are",
                    "this program has no step kinds",
                ))
            }
        },
        other => Problem::new(format!("`uses` is {}", type_name(other))).expected("the name of a step kind"),
    };
    let finding = Finding { problem: problem.at(path.clone()), focus: Focus::Value };
    if value.is_null() {
        outcome.missing.push(finding);
    } else {
        outcome.findings.push(finding);
    }
    None
}

/// Reads `with:`; what is wrong because a parameter is null is kept apart.
fn action(
    kind: &'static dyn AnyKind,
    schema: &Value,
    with: &Node,
    path: &Path,
    scope: &Scope,
    outcome: &mut Outcome,
    written: &mut Written,
) -> Option<Box<dyn AnyStep>> {
    let before = outcome.findings.len() + outcome.missing.len();
    let value = scope.apply(with, path, outcome);
    let sound = outcome.findings.len() + outcome.missing.len() == before;
    let mut found = fit::check(schema, &value, path);
    // A place that is wrong already holds a null; its type is not worth a second sentence.
    found.retain(|finding| sound || !about(&finding.problem, &outcome.nulls));
    if sound && found.is_empty() {
        match kind.parse(&value) {
            Ok(action) => {
                written.with = value.to_string().into();
                return Some(action);
            }
            Err(problems) => found.extend(problems.into_iter().map(|mut problem| {
                let tail = match &problem.place {
                    Place::Spec(tail) => tail.clone(),
                    _ => Path::root(),
                };
                problem.place = Place::Spec(path.join(&tail));
                Finding { problem, focus: if tail.0.is_empty() { Focus::Key } else { Focus::Value } }
            })),
        }
    }
    for finding in found {
        if about(&finding.problem, &outcome.nulls) {
            outcome.missing.push(finding);
        } else {
            outcome.findings.push(finding);
        }
    }
    None
}

fn about(problem: &Problem, nulls: &[Path]) -> bool {
    matches!(&problem.place, Place::Spec(path) if nulls.contains(path))
}
