//! What a run would do, as far as it can be known without running anything.
//! It writes nothing, so that it works on a cache that is read-only or not there.

use std::collections::BTreeMap;

use super::decide::{Decider, Decision};
use crate::error::Problem;
use crate::graph::Graph;
use crate::lockfile;
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

/// The plan for everything that the targets need, by position in the pipeline, and the order of the steps.
pub fn plan(decider: &Decider) -> (Vec<usize>, BTreeMap<usize, Planned>) {
    let graph = Graph::of(decider.pipeline);
    let order = graph.order(&decider.pipeline.targets);
    let mut records: BTreeMap<usize, Record> = BTreeMap::new();
    let (mut planned, mut outlooks) = (BTreeMap::new(), BTreeMap::new());
    for &step in &order {
        let unknown: Vec<usize> =
            graph.producers(step).into_iter().filter(|producer| !records.contains_key(producer)).collect();
        let mut plan = if unknown.is_empty() {
            decide(decider, step, &mut records)
        } else {
            let ids: Vec<&str> = unknown.iter().map(|&step| decider.pipeline.steps[step].id.as_str()).collect();
            let why = vec![format!("unknown until {} has run", ids.join(", "))];
            Planned { verdict: Verdict::Depends(unknown), why, decision: None, outlook: Outlook::default() }
        };
        plan.outlook = decider.outlook(step, &outlooks, records.get(&step));
        outlooks.insert(step, plan.outlook.clone());
        planned.insert(step, plan);
    }
    (order, planned)
}

fn decide(decider: &Decider, step: usize, records: &mut BTreeMap<usize, Record>) -> Planned {
    if let Some(address) = decider.unfetched(step) {
        let why = vec![format!("{address} is not in {} yet", lockfile::NAME)];
        return Planned { verdict: Verdict::Run, why, decision: None, outlook: Outlook::default() };
    }
    match decider.decide(step, records) {
        Err(problem) => Planned {
            why: vec![problem.to_string()],
            verdict: Verdict::Fail(problem),
            decision: None,
            outlook: Outlook::default(),
        },
        Ok(decision) => {
            let why = decider.why(step, &decision);
            let verdict = match &decision.found {
                Lookup::Hit(record) => {
                    records.insert(step, (**record).clone());
                    Verdict::Reuse(record.clone())
                }
                Lookup::Miss(_) => Verdict::Run,
            };
            Planned { verdict, why, decision: Some(decision), outlook: Outlook::default() }
        }
    }
}
