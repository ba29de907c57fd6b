//! The tree of a file → its parts: params, profiles, targets and steps as they are written.
//! It does not know step kinds, and replaces nothing.

use serde_json::Value;

use crate::error::{Path, Problem};

use super::node::Node;
use super::overrides::refuse_names;
use super::policy;
use super::problems::Findings;
use super::reference::is_name;
use super::suggest;

/// The parts of a pipeline file.
#[derive(Debug)]
pub(super) struct Document {
    pub name: Option<String>,
    /// A mapping.
    pub params: Value,
    /// Mappings, in the order of the file.
    pub profiles: Vec<(String, Value)>,
    pub targets: Option<Vec<String>>,
    pub steps: Vec<RawStep>,
}

/// A step as it is written.
#[derive(Debug)]
pub(super) struct RawStep {
    pub name: String,
    /// `None` if it is missing or no text, which is told already.
    pub uses: Option<Node>,
    /// Ports and what is connected to them.
    pub inputs: Vec<(String, Node)>,
    /// A mapping, or a text that stands for one.
    pub with: Node,
    pub matrix: Option<Node>,
    /// Which cells there are.
    pub when: Option<Node>,
    /// How it is run: [`policy::KEYS`] and what is written there.
    pub policy: Vec<(&'static str, Node)>,
}

const TOP: &[&str] = &["name", "params", "profiles", "targets", "steps"];
const STEP: [&str; 5] = ["uses", "in", "with", "matrix", "when"];

/// Takes the tree apart.
pub(super) fn read(root: Node, findings: &mut Findings) -> Document {
    let mut document = Document {
        name: None,
        params: Value::Object(Default::default()),
        profiles: Vec::new(),
        targets: None,
        steps: Vec::new(),
    };
    let top = Path::root();
    let entries = match root {
        Node::Map(entries) => entries,
        Node::Null => {
            findings.nowhere(Problem::new("the file is empty").help("start with `name:` and `steps:`"));
            return document;
        }
        other => {
            let problem = Problem::new(format!("the file is {}", other.type_name()));
            findings.value(&top, problem.expected("a mapping with `name` and `steps`"));
            return document;
        }
    };
    let mut has_steps = false;
    for (key, node) in entries {
        let path = top.key(&key);
        match (key.as_str(), node) {
            ("name", Node::Text(name)) if !name.trim().is_empty() => document.name = Some(name),
            ("name", other) => expect(&path, "the name", &other, "text", findings),
            ("params", node @ Node::Map(_)) => {
                document.params = node.to_json();
                refuse_names(&document.params, &path, findings);
            }
            ("profiles", Node::Map(profiles)) => {
                for (name, node) in profiles {
                    let path = path.key(&name);
                    match node {
                        Node::Map(_) => {
                            let profile = node.to_json();
                            refuse_names(&profile, &path, findings);
                            document.profiles.push((name, profile));
                        }
                        Node::Null => document.profiles.push((name, Value::Object(Default::default()))),
                        other => expect(&path, "a profile", &other, "a mapping of parameters", findings),
                    }
                }
            }
            ("params" | "profiles", Node::Null) => {}
            ("params", other) => expect(&path, "`params`", &other, "a mapping of parameters", findings),
            ("profiles", other) => expect(&path, "`profiles`", &other, "a mapping of names to parameters", findings),
            ("targets", node) => document.targets = Some(texts(node, &path, findings)),
            ("steps", Node::Map(steps)) if !steps.is_empty() => {
                has_steps = true;
                for (name, node) in steps {
                    let path = path.key(&name);
                    if !is_name(&name) {
                        let problem = Problem::new(format!("`{name}` cannot be the name of a step"));
                        findings.key(&path, problem.expected("letters, digits, `_` and `-`"));
                    }
                    document.steps.push(step(name, node, &path, findings));
                }
            }
            ("steps", other) => {
                has_steps = true;
                expect(&path, "`steps`", &other, "a mapping of names to steps", findings);
            }
            _ => unknown(&key, &path, TOP, "a pipeline", findings),
        }
    }
    if !has_steps {
        findings.nowhere(Problem::new("the file has no `steps`").help("add `steps:` with at least one step"));
    }
    document
}

fn step(name: String, node: Node, path: &Path, findings: &mut Findings) -> RawStep {
    let mut step = RawStep {
        name,
        uses: None,
        inputs: Vec::new(),
        with: Node::Map(Vec::new()),
        matrix: None,
        when: None,
        policy: Vec::new(),
    };
    let Node::Map(entries) = node else {
        expect(path, "a step", &node, "a mapping with `uses`", findings);
        return step;
    };
    let mut has_uses = false;
    for (key, node) in entries {
        let path = path.key(&key);
        match (key.as_str(), node) {
            ("uses", node) => {
                has_uses = true;
                match node {
                    Node::Text(_) => step.uses = Some(node),
                    other => expect(&path, "`uses`", &other, "the name of a step kind", findings),
                }
            }
            ("in" | "with", Node::Null) => {}
            ("in", Node::Map(inputs)) => step.inputs = inputs,
            ("in", other) => expect(&path, "`in`", &other, "a mapping of inputs to steps", findings),
            ("with", node @ (Node::Map(_) | Node::Text(_))) => step.with = node,
            ("with", other) => expect(&path, "`with`", &other, "a mapping of parameters", findings),
            ("matrix", node) => step.matrix = Some(node),
            ("when", node) => step.when = Some(node),
            (key, node) => match policy::KEYS.iter().find(|known| **known == key) {
                Some(known) => step.policy.push((known, node)),
                None => unknown(key, &path, &[&STEP[..], &policy::KEYS].concat(), "a step", findings),
            },
        }
    }
    if !has_uses {
        let problem =
            Problem::new(format!("the step `{}` has no `uses`", step.name)).expected("`uses:` with a step kind");
        findings.key(path, problem);
    }
    step
}

fn texts(node: Node, path: &Path, findings: &mut Findings) -> Vec<String> {
    const EXPECTED: &str = "a list of step names";
    match node {
        Node::Text(text) => vec![text],
        Node::List(items) if !items.is_empty() => {
            let mut texts = Vec::new();
            for (i, item) in items.into_iter().enumerate() {
                match item {
                    Node::Text(text) => texts.push(text),
                    other => expect(&path.index(i), "a target", &other, "the name of a step", findings),
                }
            }
            texts
        }
        other => {
            expect(path, "`targets`", &other, EXPECTED, findings);
            Vec::new()
        }
    }
}

fn expect(path: &Path, what: &str, found: &Node, expected: &str, findings: &mut Findings) {
    let found = match found {
        Node::Text(text) if text.trim().is_empty() => "empty",
        Node::List(items) if items.is_empty() => "an empty list",
        Node::Map(entries) if entries.is_empty() => "an empty mapping",
        other => other.type_name(),
    };
    findings.value(path, Problem::new(format!("{what} is {found}")).expected(expected));
}

fn unknown(key: &str, path: &Path, known: &[&str], what: &str, findings: &mut Findings) {
    let problem = Problem::new(format!("{what} has no key `{key}`")).help(suggest::help(
        key,
        known.iter().copied(),
        "the keys are",
        "",
    ));
    findings.key(path, problem);
}
