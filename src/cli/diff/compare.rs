//! What two runs differ in, worked out from their logs and from the records of their results.
//! It does not print.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::Made;
use crate::key::{self, Difference};
use crate::run::{Fate, Story};
use crate::store::Store;

/// All that two runs differ in.
pub(super) struct Comparison<'a> {
    pub(super) settings: Vec<Difference>,
    /// The steps that both have.
    pub(super) steps: Vec<Both<'a>>,
    pub(super) only_a: Vec<&'a str>,
    pub(super) only_b: Vec<&'a str>,
}

/// A step of both runs.
pub(super) struct Both<'a> {
    pub(super) step: &'a str,
    pub(super) a: &'a Fate,
    pub(super) b: &'a Fate,
    /// The fields of the manifest that differ, each with the step of B that made an input, where that is known.
    pub(super) fields: Vec<(Difference, Option<&'a str>)>,
    /// What is said without fields.
    pub(super) remark: Option<String>,
    pub(super) figures: Vec<Figure<'a>>,
}

pub(super) struct Figure<'a> {
    pub(super) name: &'a str,
    pub(super) a: Option<f64>,
    pub(super) b: Option<f64>,
}

impl Figure<'_> {
    pub(super) fn differs(&self) -> bool {
        self.a != self.b
    }

    pub(super) fn difference(&self) -> Option<f64> {
        Some(self.b? - self.a?)
    }
}

impl Both<'_> {
    pub(super) fn differs(&self) -> bool {
        self.is_told() || self.figures.iter().any(Figure::differs)
    }

    /// Whether there is more to say than figures.
    pub(super) fn is_told(&self) -> bool {
        let lost = self.a.result().is_some() != self.b.result().is_some();
        lost || !self.fields.is_empty() || self.remark.is_some()
    }
}

impl<'a> Comparison<'a> {
    pub(super) fn of(store: &Store, a: &'a Story, b: &'a Story) -> Self {
        let by_id = |story: &'a Story| -> BTreeMap<&'a str, &'a Fate> {
            story.steps.iter().map(|told| (told.step.as_str(), &told.fate)).collect()
        };
        let (in_a, in_b) = (by_id(a), by_id(b));
        // The digests of fields are cut to what a reader can compare; so are these.
        let mut makers = BTreeMap::<String, BTreeSet<&str>>::new();
        for told in &b.steps {
            for made in told.fate.result().into_iter().flat_map(|result| result.outputs.values()) {
                makers.entry(key::short(&made.digest)).or_default().insert(&told.step);
            }
        }
        let both = |(step, a): (&'a str, &'a Fate)| {
            let b = *in_b.get(step)?;
            let (fields, remark) = fields(store, a, b);
            let maker = |difference: &Difference| {
                difference.port()?;
                let makers = makers.get(difference.new.as_ref()?)?;
                // Of the same content from several steps it is not known which one was read.
                if makers.len() == 1 { makers.first().copied() } else { None }
            };
            let fields = fields.into_iter().map(|difference| (maker(&difference), difference));
            let fields = fields.map(|(maker, difference)| (difference, maker)).collect();
            Some(Both { step, a, b, fields, remark, figures: figures(a, b) })
        };
        let ids = |story: &'a Story| story.steps.iter().map(|told| (told.step.as_str(), &told.fate));
        let without = |story: &'a Story, other: &BTreeMap<&str, &Fate>| {
            ids(story).map(|(step, _)| step).filter(|step| !other.contains_key(step)).collect()
        };
        Self {
            settings: settings(a, b),
            steps: ids(a).filter_map(both).collect(),
            only_a: without(a, &in_b),
            only_b: without(b, &in_a),
        }
    }
}

/// What differs in the manifests, or a sentence where that cannot be told.
fn fields(store: &Store, a: &Fate, b: &Fate) -> (Vec<Difference>, Option<String>) {
    let (Some(of_a), Some(of_b)) = (a.result(), b.result()) else {
        let failed = [("A", a), ("B", b)].into_iter().filter_map(|(run, fate)| match fate {
            Fate::Failed(what) => Some(format!("{run}: {}", what.lines().next().unwrap_or_default())),
            _ => None,
        });
        let failed: Vec<String> = failed.collect();
        return (Vec::new(), (!failed.is_empty()).then(|| failed.join("; ")));
    };
    if of_a.key == of_b.key {
        let names: BTreeSet<&String> = of_a.outputs.keys().chain(of_b.outputs.keys()).collect();
        let digest = |outputs: &BTreeMap<String, Made>, name: &str| outputs.get(name).map(|made| made.digest.clone());
        let changed = names.into_iter().filter(|name| digest(&of_a.outputs, name) != digest(&of_b.outputs, name));
        let changed: Vec<String> = changed.map(|name| format!("`{name}`")).collect();
        let remark = (!changed.is_empty())
            .then(|| format!("the key is the same, but not what came out: {}", changed.join(", ")));
        return (Vec::new(), remark);
    }
    match (store.record(&of_a.key), store.record(&of_b.key)) {
        (Some(a), Some(b)) => (key::diff(&a.manifest, &b.manifest), None),
        (a, b) => {
            let gone = match (a, b) {
                (None, None) => "the records of both are",
                (None, _) => "the record of A is",
                _ => "the record of B is",
            };
            (Vec::new(), Some(format!("something differs, but {gone} not in the cache any more")))
        }
    }
}

fn figures<'a>(a: &'a Fate, b: &'a Fate) -> Vec<Figure<'a>> {
    let figures = |fate: &'a Fate| fate.result().map(|result| &result.figures);
    let (a, b) = (figures(a), figures(b));
    let names: BTreeSet<&String> = a.into_iter().chain(b).flat_map(BTreeMap::keys).collect();
    let value = |figures: Option<&BTreeMap<String, f64>>, name: &str| figures?.get(name).copied();
    names.into_iter().map(|name| Figure { name, a: value(a, name), b: value(b, name) }).collect()
}

/// What was set differently; of a name that was set twice, the last value counted.
fn settings(a: &Story, b: &Story) -> Vec<Difference> {
    let values = |story: &Story| -> BTreeMap<String, String> {
        let sets = story.begun.iter().flat_map(|begun| &begun.sets);
        let pair = |set: &String| set.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        sets.filter_map(pair).collect()
    };
    let (a, b) = (values(a), values(b));
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let changed = names.into_iter().filter(|name| a.get(*name) != b.get(*name));
    changed
        .map(|name| Difference { path: name.clone(), old: a.get(name).cloned(), new: b.get(name).cloned() })
        .collect()
}
