//! Why a step runs: the fields in which its manifest differs from its last one, and who changed them.
//! It decides nothing; a wrong explanation could never make a wrong result.

use std::collections::BTreeMap;

use super::decide::{Decider, Decision};
use super::plan::{Planned, Verdict};
use crate::digest::Digest;
use crate::key::{self, Difference};
use crate::spec::Edge;
use crate::step::Input;
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
            Some(last) => match self.lines(position, &key::diff(&last.manifest, &decision.manifest)) {
                same if same.is_empty() => vec!["its inputs stand in another order".to_owned()],
                lines => lines,
            },
        }
    }

    /// What differs from the manifest that the step had last, whether or not there is a result for it already.
    pub fn changes(&self, position: usize, decision: &Decision) -> Vec<String> {
        self.lines(position, &self.changed(position, decision))
    }

    fn changed(&self, position: usize, decision: &Decision) -> Vec<Difference> {
        let step = &self.pipeline.steps[position];
        let last = self.store.keys(&self.pipeline.name, &step.id).and_then(|keys| self.store.record(&keys.last));
        last.map(|last| key::diff(&last.manifest, &decision.manifest)).unwrap_or_default()
    }

    fn lines(&self, position: usize, differences: &[Difference]) -> Vec<String> {
        let line = |difference: &Difference| match self.unnamed_producer(position, difference) {
            Some(id) => format!("{difference} (from step {id})"),
            None => difference.to_string(),
        };
        differences.iter().map(line).collect()
    }

    /// The id of the step behind a field of `inputs`; of an entry that is told by name, the name says it already.
    fn unnamed_producer(&self, position: usize, difference: &Difference) -> Option<&str> {
        if self.is_named(position, difference.port()?) {
            return None;
        }
        match self.producers(position, difference).as_slice() {
            [only] => Some(&self.pipeline.steps[*only].id),
            _ => None,
        }
    }

    fn is_named(&self, position: usize, port: &str) -> bool {
        let step = &self.pipeline.steps[position];
        let listed = step.inputs.get(port).is_some_and(|edges| edges.iter().any(|edge| edge.listed));
        Input::find(step.kind.inputs(), port).is_some_and(|input| input.names(listed))
    }

    /// The steps that a field of `inputs` comes from: that of the entry, or those of the whole port. What is gone
    /// comes from none.
    fn producers(&self, position: usize, difference: &Difference) -> Vec<usize> {
        let step = &self.pipeline.steps[position];
        let Some((port, edges)) = difference.port().and_then(|port| step.inputs.get_key_value(port)) else {
            return Vec::new();
        };
        if difference.new.is_none() {
            return Vec::new();
        }
        let whole = format!("inputs.{port}");
        let named = self.is_named(position, port);
        let entry = |(i, edge): (usize, &Edge)| {
            let name = if named { self.pipeline.steps[edge.step].id.clone() } else { i.to_string() };
            let of_entry = difference.path.strip_prefix(&format!("{whole}[{name}]"));
            let is_it =
                difference.path == whole || of_entry.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
            is_it.then_some(edge.step)
        };
        // A port of one named entry has its fields without brackets.
        match edges.as_slice() {
            [only] => vec![only.step],
            several => several.iter().enumerate().filter_map(entry).collect(),
        }
    }

    /// What last changed in a step that is up to date: its last two manifests compared.
    fn last_change(&self, position: usize, key: &Digest) -> Option<Vec<Difference>> {
        let step = &self.pipeline.steps[position];
        let keys = self.store.keys(&self.pipeline.name, &step.id)?;
        let (new, old) = (self.store.record(&keys.last)?, self.store.record(&keys.before?)?);
        (new.key == *key).then(|| key::diff(&old.manifest, &new.manifest))
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
            Verdict::Reuse(record) => {
                decider.last_change(step, &record.key).iter().flatten().map(ToString::to_string).collect()
            }
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
    let differences = match (&plan.verdict, &plan.decision) {
        (Verdict::Depends(on), _) => return on.clone(),
        (Verdict::Reuse(record), _) => decider.last_change(position, &record.key).unwrap_or_default(),
        (_, Some(decision)) => decider.changed(position, decision),
        (_, None) => Vec::new(),
    };
    differences.iter().flat_map(|difference| decider.producers(position, difference)).collect()
}
