//! What a run would do, as far as it can be known without running anything.
//! It writes nothing, so that it works on a cache that is read-only or not there.

use std::collections::BTreeMap;

use super::decide::{Decider, Decision};
use super::{Records, sources};
use crate::error::Problem;
use crate::event::Say;
use crate::graph::Graph;
use crate::lockfile;
use crate::spec::Step;
use crate::step::Outlook;
use crate::store::{Lookup, Record};

/// What would become of a step.
pub enum Verdict {
    /// Its result is in the cache.
    Reuse(Box<Record>),
    /// It runs.
    Run,
    /// Not known before these steps have run: they may make the bytes that it has seen before.
    Depends(Vec<usize>),
    /// It cannot run.
    Fail(Problem),
}

/// The plan for one step.
pub struct Planned {
    /// What would become of it.
    pub verdict: Verdict,
    /// Why it runs; for a step that depends on others, which.
    pub why: Vec<String>,
    /// Its manifest and key, if its inputs are known.
    pub decision: Option<Decision>,
    /// What can be said of its result already.
    pub outlook: Outlook,
}

impl Planned {
    fn new(verdict: Verdict, why: Vec<String>, decision: Option<Decision>) -> Self {
        Self { verdict, why, decision, outlook: Outlook::default() }
    }

    /// The steps that must run before it can be planned.
    pub fn after(&self) -> &[usize] {
        match &self.verdict {
            Verdict::Depends(on) => on,
            _ => &[],
        }
    }
}

/// The plan for everything that the targets need, by position in the pipeline, and the order of the steps. Sources
/// are read, and what they are is told by `say`; nothing else is.
pub fn plan(decider: &Decider, say: &dyn Fn(&str, Say)) -> (Vec<usize>, BTreeMap<usize, Planned>) {
    let graph = Graph::of(decider.pipeline);
    let order = graph.order(&decider.pipeline.targets);
    let mut records = Records::new();
    let (mut planned, mut outlooks) = (BTreeMap::new(), BTreeMap::new());
    for &step in &order {
        let unknown: Vec<usize> =
            graph.producers(step).into_iter().filter(|producer| !records.contains_key(producer)).collect();
        let mut plan = if unknown.is_empty() {
            decide(decider, step, &mut records, say)
        } else {
            let ids: Vec<&str> = unknown.iter().map(|&step| decider.pipeline.steps[step].id.as_str()).collect();
            let why = vec![unknown_until(&ids)];
            Planned::new(Verdict::Depends(unknown), why, None)
        };
        plan.outlook = decider.outlook(step, &outlooks, records.get(&step).map(AsRef::as_ref));
        outlooks.insert(step, plan.outlook.clone());
        planned.insert(step, plan);
    }
    (order, planned)
}

/// The first of many are enough to see where to look.
fn unknown_until(ids: &[&str]) -> String {
    match ids {
        [] => "unknown".to_owned(),
        [one] => format!("unknown until {one} has run"),
        [one, two] => format!("unknown until {one} and {two} have run"),
        [one, rest @ ..] => format!("unknown until {one} and {} more have run", rest.len()),
    }
}

fn decide(decider: &Decider, step: usize, records: &mut Records, say: &dyn Fn(&str, Say)) -> Planned {
    if let Some(address) = decider.unfetched(step) {
        return Planned::new(Verdict::Run, vec![format!("{address} is not in {} yet", lockfile::NAME)], None);
    }
    let Step { id, action, .. } = &decider.pipeline.steps[step];
    let (say, never) = (|said| say(id, said), || false);
    let read = sources::read(
        decider.store,
        action.sources(&decider.pipeline.root),
        &mut sources::told("reading its sources", &say, &never),
    );
    match read.and_then(|sources| decider.decide(step, records, sources)) {
        Err(problem) => {
            let why = vec![problem.to_string()];
            Planned::new(Verdict::Fail(problem), why, None)
        }
        Ok(decision) => {
            let mut why = decider.why(step, &decision);
            let verdict = match &decision.found {
                Lookup::Hit(record) => {
                    records.insert(step, record.clone());
                    Verdict::Reuse(record.clone())
                }
                Lookup::Miss(_) => {
                    let policy = &decider.pipeline.steps[step].policy;
                    why.extend(decision.resumes(decider.store, policy).map(|at| format!("goes on from step {at}")));
                    Verdict::Run
                }
            };
            Planned::new(verdict, why, Some(decision))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::unknown_until;

    #[test]
    fn many_producers_are_counted() {
        assert_eq!(unknown_until(&["a"]), "unknown until a has run");
        assert_eq!(unknown_until(&["a", "b"]), "unknown until a and b have run");
        assert_eq!(unknown_until(&["a", "b", "c", "d"]), "unknown until a and 3 more have run");
    }
}
