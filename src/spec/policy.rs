//! How a step is run, beside what it does: `resources`, `retries`, `timeout`, `checkpoint`, `extends`, `expect`. Nothing
//! of it enters the key.
//! It does not know who keeps to it.

use std::time::Duration;

use serde_json::Value;

use crate::error::{Path, Problem};
use crate::expression::Expression;
use crate::step::{AnyKind, AnyStep};

use super::node::type_name;
use super::problems::{Finding, Focus};
use super::substitute::Outcome;
use super::{suggest, unit};

/// How a step is run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Slots for cores; by default what the kind asks for.
    pub cpu: Option<usize>,
    /// Bytes of memory that it is expected to hold.
    pub memory: Option<u64>,
    /// GPUs that it wants for itself; by default one for a kind that computes on the GPU.
    pub gpus: Option<usize>,
    /// How often it is tried again after a failure.
    pub retries: u32,
    /// How long to wait before it is tried again; twice as long each time.
    pub backoff: Duration,
    /// How long an attempt may take.
    pub timeout: Option<Duration>,
    /// How often it leaves a checkpoint, where nothing else is said [`CHECKPOINT`].
    pub checkpoint: Option<Duration>,
    /// The parameter that says how long the work is: a run with a larger value goes on from the end of this one.
    pub extends: Option<String>,
    /// What must hold of its figures, or else its result is not kept.
    pub expect: Vec<Expression>,
}

/// The first wait before another attempt, where nothing else is said.
const BACKOFF: Duration = Duration::from_secs(1);

/// How often a step leaves a checkpoint, where nothing else is said: what a crash may cost.
pub const CHECKPOINT: Duration = Duration::from_secs(60);

/// The keys of a step that make its policy.
pub(super) const KEYS: [&str; 6] = ["resources", "retries", "timeout", "checkpoint", "extends", "expect"];

/// Reads one of [`KEYS`] into the policy; its value is substituted already.
pub(super) fn read(policy: &mut Policy, key: &str, value: &Value, path: &Path, outcome: &mut Outcome) {
    // Null is as if the key were not there: a parameter may say so.
    if value.is_null() {
        return;
    }
    match key {
        "resources" => {
            for (name, value) in entries(value, &["cpu", "memory", "gpu"], "`resources`", path, outcome) {
                let path = path.key(name);
                match name {
                    "cpu" => policy.cpu = count(value, 1, &path, outcome),
                    "gpu" => policy.gpus = count(value, 0, &path, outcome),
                    _ => policy.memory = memory(value, &path, outcome),
                }
            }
        }
        "retries" => {
            policy.backoff = BACKOFF;
            if value.is_object() {
                for (name, value) in entries(value, &["times", "backoff"], "`retries`", path, outcome) {
                    let path = path.key(name);
                    match name {
                        "times" => policy.retries = retries(value, &path, outcome),
                        _ => policy.backoff = time(value, &path, outcome).unwrap_or_default(),
                    }
                }
            } else {
                policy.retries = retries(value, path, outcome);
            }
        }
        "timeout" => policy.timeout = time(value, path, outcome),
        "checkpoint" => policy.checkpoint = time(value, path, outcome),
        "extends" => match value {
            Value::String(name) => policy.extends = Some(name.clone()),
            other => {
                let problem = Problem::new(format!("this is {}", shown(other)));
                wrong(outcome, path, problem.expected("the name of a parameter, such as `steps`"));
            }
        },
        _ => {
            let all = match value {
                Value::Array(items) => items.iter().enumerate().map(|(i, item)| (path.index(i), item)).collect(),
                one => vec![(path.clone(), one)],
            };
            policy.expect = all.into_iter().filter_map(|(path, text)| expression(text, &path, outcome)).collect();
        }
    }
}

/// What is wrong with asking a step to leave checkpoints, or to go on from a shorter run.
pub(super) fn check(policy: &Policy, kind: &dyn AnyKind, action: &dyn AnyStep, path: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut refuse = |key: &str, problem: Problem| {
        findings.push(Finding { problem: problem.at(path.key(key)), focus: Focus::Value });
    };
    let lengths = kind.lengths();
    if policy.checkpoint.is_some() && lengths.is_empty() {
        refuse("checkpoint", Problem::new(format!("the step kind `{}` leaves no checkpoints", kind.name())));
    }
    let Some(length) = &policy.extends else { return findings };
    if lengths.is_empty() {
        let what = format!("a step of the kind `{}` cannot go on from a shorter one", kind.name());
        refuse("extends", Problem::new(what));
    } else if !lengths.contains(&length.as_str()) {
        let what = format!("`{length}` does not say how long a step of the kind `{}` is", kind.name());
        let help = suggest::help(length, lengths.iter().copied(), "what does is", "");
        refuse("extends", Problem::new(what).help(help));
    } else if let Some(problem) = action.fixed(length) {
        refuse("extends", problem);
    }
    findings
}

/// Keys and values as [`Written::policy`] has them.
///
/// [`Written::policy`]: super::pipeline::Written::policy
pub(super) fn written(keys: &[(&str, Value)]) -> Box<str> {
    if keys.is_empty() { Box::default() } else { serde_json::json!(keys).to_string().into() }
}

/// The policy that was written so; `None` if it is none.
pub(super) fn read_written(text: &str) -> Option<Policy> {
    let (mut policy, mut outcome) = (Policy::default(), Outcome::default());
    if !text.is_empty() {
        for (key, value) in serde_json::from_str::<Vec<(String, Value)>>(text).ok()? {
            read(&mut policy, &key, &value, &Path::root(), &mut outcome);
        }
    }
    (outcome.findings.is_empty() && outcome.missing.is_empty()).then_some(policy)
}

/// An expression as it stands in the file.
pub(super) fn expression(value: &Value, path: &Path, outcome: &mut Outcome) -> Option<Expression> {
    let Value::String(text) = value else {
        let problem = Problem::new(format!("an expression is {}", type_name(value)));
        wrong(outcome, path, problem.expected("text, such as `\"f1 >= 0.5\"`"));
        return None;
    };
    Expression::parse(text).map_err(|problem| wrong(outcome, path, problem)).ok()
}

fn wrong(outcome: &mut Outcome, path: &Path, problem: Problem) {
    outcome.findings.push(Finding { problem: problem.at(path.clone()), focus: Focus::Value });
}

/// The entries of a mapping that may have these.
fn entries<'a>(
    value: &'a Value,
    known: &[&str],
    what: &str,
    path: &Path,
    outcome: &mut Outcome,
) -> Vec<(&'a str, &'a Value)> {
    let Value::Object(map) = value else {
        let problem = Problem::new(format!("{what} is {}", type_name(value)));
        wrong(outcome, path, problem.expected(format!("a mapping with `{}`", known.join("`, `"))));
        return Vec::new();
    };
    let mut found = Vec::new();
    for (name, value) in map {
        if known.contains(&name.as_str()) {
            found.push((name.as_str(), value));
            continue;
        }
        let help = suggest::help(name, known.iter().copied(), "there is", "");
        let problem = Problem::new(format!("{what} has no key `{name}`")).help(help).at(path.key(name));
        outcome.findings.push(Finding { problem, focus: Focus::Key });
    }
    found
}

fn count(value: &Value, least: u64, path: &Path, outcome: &mut Outcome) -> Option<usize> {
    let number = value.as_u64().filter(|number| (least..=4096).contains(number));
    if number.is_none() {
        let problem = Problem::new(format!("this is {}", shown(value)));
        wrong(outcome, path, problem.expected(format!("a whole number from {least} to 4096")));
    }
    number.and_then(|number| usize::try_from(number).ok())
}

fn retries(value: &Value, path: &Path, outcome: &mut Outcome) -> u32 {
    let number = value.as_u64().filter(|number| *number <= 100);
    if number.is_none() {
        let problem = Problem::new(format!("this is {}", shown(value)));
        wrong(outcome, path, problem.expected("a whole number from 0 to 100, or `{ times: 2, backoff: 10s }`"));
    }
    number.and_then(|number| u32::try_from(number).ok()).unwrap_or_default()
}

fn memory(value: &Value, path: &Path, outcome: &mut Outcome) -> Option<u64> {
    let bytes = text_of(value).and_then(|text| unit::bytes(&text));
    if bytes.is_none() {
        let problem = Problem::new(format!("this is {}", shown(value)));
        wrong(outcome, path, problem.expected("an amount of memory, such as `512MB` or `8GB`"));
    }
    bytes
}

fn time(value: &Value, path: &Path, outcome: &mut Outcome) -> Option<Duration> {
    let time = text_of(value).and_then(|text| unit::duration(&text));
    if time.is_none() {
        let problem = Problem::new(format!("this is {}", shown(value)));
        wrong(outcome, path, problem.expected("a length of time, such as `90s`, `30m` or `1h30m`"));
    }
    time
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("`{text}`"),
        Value::Number(number) => number.to_string(),
        other => type_name(other).to_owned(),
    }
}
