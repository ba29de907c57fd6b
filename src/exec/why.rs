//! Why a step runs: the fields in which its manifest differs from its last one, and who changed them.
//! It decides nothing; a wrong explanation could never make a wrong result.

use std::collections::BTreeMap;

use super::decide::{Decider, Decision};
use super::plan::{Planned, Verdict};
use crate::digest::Digest;
use crate::key::{self, Difference};
use crate::store::Lookup;

/// A step further up that makes another one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Its id.
    pub step: String,
    /// What changed there.
    pub why: Vec<String>,
}

impl Decider<'_> {
    /// Why a step runs, a sentence or a field each; not empty for a miss.
    pub fn why(&self, position: usize, decision: &Decision) -> Vec<String> {
        let Lookup::Miss(damage) = &decision.found else { return Vec::new() };
        if let Some(damage) = damage {
            return vec![damage.clone()];
        }
        let step = &self.pipeline.steps[position];
        let Some(keys) = self.store.keys(&self.pipeline.name, &step.id) else {
            return vec!["never run before".to_owned()];
        };
        if keys.last == decision.key {
            return vec!["its record is gone from the cache".to_owned()];
        }
        match self.store.record(&keys.last) {
            None => vec!["its last record is gone from the cache, so what changed is not known".to_owned()],
            Some(last) => self.differences(position, &last.manifest, decision),
        }
    }

    /// What differs from the manifest that the step had last, whether or not there is a result for it already.
    pub fn changes(&self, position: usize, decision: &Decision) -> Vec<String> {
        let step = &self.pipeline.steps[position];
        let last = self.store.keys(&self.pipeline.name, &step.id).and_then(|keys| self.store.record(&keys.last));
        last.map(|last| self.differences(position, &last.manifest, decision)).unwrap_or_default()
    }

    fn differences(&self, position: usize, old: &serde_json::Value, decision: &Decision) -> Vec<String> {
        let line = |difference: Difference| match self.producer(position, &difference) {
            Some(id) => format!("{difference} (from step {id})"),
            None => difference.to_string(),
        };
        key::diff(old, &decision.manifest).into_iter().map(line).collect()
    }

    /// The id of the step behind a field of `inputs`; of an entry that is told by name, the name says it already.
    fn producer(&self, position: usize, difference: &Difference) -> Option<String> {
        let edges = self.pipeline.steps[position].inputs.get(difference.port()?)?;
        let index = match difference.path.rsplit_once('[') {
            None if edges.len() == 1 => 0,
            None => return None,
            Some((_, tail)) => tail.strip_suffix(']')?.parse().ok()?,
        };
        edges.get(index).map(|edge| self.pipeline.steps[edge.step].id.clone())
    }

    /// What last changed in a step that is up to date: its last two manifests compared.
    fn last_change(&self, position: usize, key: &Digest) -> Option<Vec<String>> {
        let step = &self.pipeline.steps[position];
        let keys = self.store.keys(&self.pipeline.name, &step.id)?;
        let (new, old) = (self.store.record(&keys.last)?, self.store.record(&keys.before?)?);
        (new.key == *key).then(|| key::diff(&old.manifest, &new.manifest).iter().map(ToString::to_string).collect())
    }
}

/// Where the changes of a step's inputs come from: the steps further up that changed by themselves, that is,
/// by a parameter, a source or a version. Steps that only pass on what they read are left out.
pub fn causes(decider: &Decider, planned: &BTreeMap<usize, Planned>, position: usize) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut seen = vec![position];
    let mut open: Vec<usize> = changed_producers(decider, planned, position);
    while let Some(step) = open.pop() {
        if seen.contains(&step) {
            continue;
        }
        seen.push(step);
        let Some(plan) = planned.get(&step) else { continue };
        let why = match &plan.verdict {
            Verdict::Reuse(record) => decider.last_change(step, &record.key).unwrap_or_default(),
            Verdict::Depends(_) => Vec::new(),
            Verdict::Run | Verdict::Fail(_) => plan.why.clone(),
        };
        let own: Vec<String> = why.into_iter().filter(|line| !line.starts_with("inputs.")).collect();
        if !own.is_empty() {
            causes.push(Cause { step: decider.pipeline.steps[step].id.clone(), why: own });
        }
        open.extend(changed_producers(decider, planned, step));
    }
    causes.sort_by(|a, b| a.step.cmp(&b.step));
    causes
}

/// The producers whose results are new to a step, or not known yet.
fn changed_producers(decider: &Decider, planned: &BTreeMap<usize, Planned>, position: usize) -> Vec<usize> {
    let Some(plan) = planned.get(&position) else { return Vec::new() };
    let step = &decider.pipeline.steps[position];
    if let Verdict::Depends(on) = &plan.verdict {
        return on.clone();
    }
    let why = match &plan.verdict {
        Verdict::Reuse(record) => decider.last_change(position, &record.key).unwrap_or_default(),
        _ => plan.why.clone(),
    };
    let ports = why.iter().filter_map(|line| {
        Difference { path: line.split(": ").next()?.to_owned(), old: None, new: None }.port().map(str::to_owned)
    });
    ports.flat_map(|port| step.inputs.get(&port).into_iter().flatten().map(|edge| edge.step)).collect()
}
