//! Why a step runs: the fields in which its manifest differs from an earlier one, and who changed them.
//! It decides nothing; a wrong explanation could never make a wrong result.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::decide::{Decider, Decision};
use super::plan::{Planned, Verdict};
use crate::digest::Digest;
use crate::graph::Graph;
use crate::key::{self, Difference};
use crate::spec::Edge;
use crate::step::Input;
use crate::store::{Lookup, Record};

/// A step further up that makes another one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Its position in the pipeline.
    pub position: usize,
    /// Its id.
    pub step: String,
    /// What changed there.
    pub why: Vec<String>,
    /// The same as fields, as far as it is fields.
    pub differences: Vec<Difference>,
}

/// The earlier result that a manifest is compared with.
#[derive(Debug, Clone)]
pub struct Nearest {
    /// What is known of it.
    pub record: Record,
    /// What differs from it, from then to now.
    pub differences: Vec<Difference>,
    /// True if the step itself had it in this pipeline; else it is of another step of the same kind.
    pub own: bool,
}

/// More records of a cache are not looked through for a step that never ran.
const MOST_RECORDS: usize = 20_000;

impl Decider<'_> {
    /// Why a step runs, a sentence or a field each; not empty for a miss.
    pub fn why(&self, position: usize, decision: &Decision) -> Vec<String> {
        let Lookup::Miss(damage) = &decision.found else { return Vec::new() };
        if let Some(damage) = damage {
            return vec![damage.clone()];
        }
        let step = &self.pipeline.steps[position];
        if self.store.keys(&self.pipeline.name, &step.id).is_none() {
            return vec!["never run before".to_owned()];
        }
        if self.knows(position, &decision.key) {
            return vec!["its record is gone from the cache".to_owned()];
        }
        match self.nearest(position, decision) {
            None => vec!["its last record is gone from the cache, so what changed is not known".to_owned()],
            Some(nearest) => match self.lines(position, &nearest.differences) {
                same if same.is_empty() => vec!["the same fields lie in each other in another way".to_owned()],
                lines => lines,
            },
        }
    }

    /// True if the step had this key in this pipeline already.
    pub fn knows(&self, position: usize, key: &Digest) -> bool {
        let keys = self.store.keys(&self.pipeline.name, &self.pipeline.steps[position].id);
        keys.is_some_and(|keys| keys.all().any(|known| known == key))
    }

    /// Of the results that the step had in this pipeline the one whose manifest differs in the fewest fields; among
    /// such the latest.
    pub fn nearest(&self, position: usize, decision: &Decision) -> Option<Nearest> {
        let step = &self.pipeline.steps[position];
        let keys = self.store.keys(&self.pipeline.name, &step.id)?;
        let others = keys.all().filter(|key| **key != decision.key);
        let mut best: Option<Nearest> = None;
        for record in others.filter_map(|key| self.store.record(key)) {
            let differences = key::diff(&record.manifest, &decision.manifest);
            let few = differences.len();
            if best.as_ref().is_none_or(|best| few < best.differences.len()) {
                best = Some(Nearest { record, differences, own: true });
            }
            // Nothing can be nearer: the others need not be read.
            if few <= 1 {
                break;
            }
        }
        best
    }

    /// The same among all results of this kind in the cache: for a step that never ran, say a new cell of a matrix.
    pub fn nearest_of_kind(&self, position: usize, decision: &Decision) -> Option<Nearest> {
        let step = &self.pipeline.steps[position];
        let mut best: Option<Nearest> = None;
        let rank = |record: &Record, few: usize| {
            // A cell of the same matrix is what a reader compares with; the name of a run begins with its time.
            let sibling = record.step.split('[').next() == Some(step.name.as_str());
            (few, !sibling, std::cmp::Reverse(record.run.clone()), record.step.clone())
        };
        self.store.records_of(step.kind.name(), MOST_RECORDS, |record| {
            if record.key == decision.key {
                return;
            }
            let differences = key::diff(&record.manifest, &decision.manifest);
            let mine = rank(&record, differences.len());
            if best.as_ref().is_none_or(|best| mine < rank(&best.record, best.differences.len())) {
                best = Some(Nearest { record, differences, own: false });
            }
        });
        best
    }

    /// What differs from the manifest that the step had last, whether or not there is a result for it already.
    pub fn changes(&self, position: usize, manifest: &Value) -> Vec<Difference> {
        let step = &self.pipeline.steps[position];
        let last = self.store.keys(&self.pipeline.name, &step.id).and_then(|keys| self.store.record(keys.last()));
        last.map(|last| key::diff(&last.manifest, manifest)).unwrap_or_default()
    }

    fn lines(&self, position: usize, differences: &[Difference]) -> Vec<String> {
        differences.iter().map(|difference| self.line(position, difference)).collect()
    }

    /// A field as a person reads it: with the step behind an input, and the file behind a source.
    pub fn line(&self, position: usize, difference: &Difference) -> String {
        if let Some(id) = self.unnamed_producer(position, difference) {
            return format!("{difference} (from step {id})");
        }
        if difference.path == "environment.dtype" {
            return format!("{difference} (what `dtype: auto` is, as measured on this machine)");
        }
        match self.source(position, difference) {
            Some(file) => format!("{difference} ({file})"),
            None => difference.to_string(),
        }
    }

    /// The file behind a field of `sources`, unless its name says that already.
    fn source(&self, position: usize, difference: &Difference) -> Option<String> {
        let name = difference.path.strip_prefix("sources.")?;
        let root = &self.pipeline.root;
        let sources = self.pipeline.steps[position].action.sources(root);
        let source = sources.into_iter().find(|source| source.name == name)?;
        let file = source.path.strip_prefix(root).unwrap_or(&source.path).display().to_string();
        (!name.ends_with(&file)).then_some(file)
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
        let Some(port) = difference.port() else { return Vec::new() };
        let Some(edges) = step.inputs.get(port).filter(|_| difference.new.is_some()) else { return Vec::new() };
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
        let before = keys.all().nth(1)?;
        let (new, old) = (self.store.record(keys.last())?, self.store.record(before)?);
        (new.key == *key).then(|| key::diff(&old.manifest, &new.manifest))
    }
}

/// Where the changes of a step's inputs come from: the steps further up that changed by themselves, that is,
/// by a parameter, a source or a version. Steps that only pass on what they read are left out.
pub fn causes(decider: &Decider, planned: &BTreeMap<usize, Planned>, position: usize) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut seen = BTreeSet::from([position]);
    let mut open: Vec<usize> = changed_producers(decider, planned, position);
    while let Some(step) = open.pop() {
        if !seen.insert(step) {
            continue;
        }
        let Some(plan) = planned.get(&step) else { continue };
        let mut differences = differences(decider, step, plan);
        let above = differences.iter().flat_map(|difference| decider.producers(step, difference)).collect::<Vec<_>>();
        differences.retain(|difference| difference.port().is_none());
        let why = match &plan.verdict {
            Verdict::Depends(_) => Vec::new(),
            // What is damaged or never ran has a sentence, not fields.
            Verdict::Run | Verdict::Fail(_) if differences.is_empty() && above.is_empty() => plan.why.clone(),
            _ => decider.lines(step, &differences),
        };
        if !why.is_empty() {
            causes.push(Cause { position: step, step: decider.pipeline.steps[step].id.clone(), why, differences });
        }
        open.extend(above);
        open.extend(plan.after());
    }
    causes.sort_by(|a, b| a.step.cmp(&b.step));
    causes
}

/// The producers whose results are new to a step, or not known yet.
fn changed_producers(decider: &Decider, planned: &BTreeMap<usize, Planned>, position: usize) -> Vec<usize> {
    let Some(plan) = planned.get(&position) else { return Vec::new() };
    let changed = differences(decider, position, plan);
    let above = changed.iter().flat_map(|difference| decider.producers(position, difference));
    above.chain(plan.after().iter().copied()).collect()
}

fn differences(decider: &Decider, position: usize, plan: &Planned) -> Vec<Difference> {
    match (&plan.verdict, &plan.decision) {
        (Verdict::Reuse(record), _) => decider.last_change(position, &record.key).unwrap_or_default(),
        (_, Some(decision)) if matches!(decision.found, Lookup::Miss(None)) => {
            decider.nearest(position, decision).map(|nearest| nearest.differences).unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

/// The steps that may run again if the result of this one changes, in the order of the file.
pub fn downstream(decider: &Decider, position: usize) -> BTreeSet<usize> {
    let graph = Graph::of(decider.pipeline);
    let (mut found, mut open) = (BTreeSet::new(), vec![position]);
    while let Some(step) = open.pop() {
        open.extend(graph.consumers(step).into_iter().filter(|&consumer| found.insert(consumer)));
    }
    found
}
