//! Runs that need not work out again what the one before them did: they hold its receipt against the world.
//! It does not know how a receipt is written down, nor who asks.
//!
//! A receipt says: of this pipeline text, on this machine, with these files, the steps have these keys; under these keys
//! the store has these records, with these outputs. Each of that is looked at before it is used, and what does not hold
//! any more makes the steps concerned be decided as if there were no receipt (`check`). If all of it holds, the run is
//! told at once (`tell`); else the loop takes from it the steps whose sources are the same and whose producers have the
//! outputs that they had (`Known::hit`). At the end of a run that ended well a new one is kept (`keep`).

mod basis;
mod check;
mod compiled;
mod gather;
mod keep;
mod tell;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use check::check;
pub use compiled::compiled;
pub use tell::{Told, tell};

pub(super) use gather::Gathered;

use super::Run;
use crate::digest::Digest;
use crate::graph::Graph;
use crate::spec::Pipeline;
use crate::store::{Receipt, Record, Store};

/// What a run asks for: runs that ask for the same have the same receipt.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The name of the receipt: a digest of all that the user said that may change what is run or what is told of it.
    pub name: Digest,
    /// The text of the pipeline file.
    pub text: Digest,
    /// Where `pipe.lock` lies, if there is one.
    pub lock: PathBuf,
}

/// A receipt, and what of it holds.
#[derive(Debug)]
pub struct Found {
    receipt: Receipt,
    /// The files whose content is the same.
    files: Vec<bool>,
    /// The folders whose entries are.
    folders: Vec<bool>,
    /// The steps whose results are in the store.
    there: Vec<bool>,
    /// The steps whose results people find through the right links.
    linked: Vec<bool>,
    /// True if more is known now of how files look.
    better: bool,
}

impl Found {
    /// True if every step is there and everything that it depends on is the same.
    pub fn whole(&self) -> bool {
        [&self.files, &self.folders, &self.there].into_iter().flatten().all(|holds| *holds)
    }

    /// True if nothing that the step itself depends on has changed; of its inputs nothing is said.
    fn holds(&self, at: usize) -> bool {
        let step = &self.receipt.steps[at];
        self.there[at]
            && step.files.iter().all(|&file| self.files[file])
            && step.folders.iter().all(|&folder| self.folders[folder])
    }
}

/// What a run takes from a receipt, and keeps for the next.
pub struct Recall {
    /// What it asks for.
    pub asked: Asked,
    /// The receipt of the last one that did.
    pub found: Option<Found>,
    /// True if the pipeline lies compiled beside it.
    pub compiled: bool,
}

/// A receipt beside a pipeline.
pub(super) struct Known<'a> {
    found: &'a Found,
    /// By position in the pipeline: where the step stands in the receipt.
    at: BTreeMap<usize, usize>,
    /// By place in the receipt: whether the step has been done with the outputs that it had.
    same: Vec<bool>,
    /// By place in the receipt: whether the step was taken from it.
    hits: Vec<bool>,
    /// True if the keys of such steps need not be written down.
    noted: bool,
}

impl<'a> Known<'a> {
    /// `None` if the receipt is not of these steps.
    pub fn of(found: &'a Found, store: &Store, pipeline: &Pipeline, order: &[usize]) -> Option<Self> {
        let steps = &found.receipt.steps;
        let fits = steps.len() == order.len()
            && steps
                .iter()
                .zip(order)
                .all(|(known, &step)| known.position == step && known.id == pipeline.steps[step].id);
        let at = order.iter().enumerate().map(|(at, &step)| (step, at)).collect();
        let none = || vec![false; steps.len()];
        fits.then(|| Self { found, at, same: none(), hits: none(), noted: found.receipt.noted(store) })
    }

    /// The record of a step whose producers are done, if it is certain without looking further.
    pub fn hit(&mut self, step: usize, graph: &Graph) -> Option<Record> {
        let at = *self.at.get(&step)?;
        let same = |producer: &usize| self.at.get(producer).is_some_and(|&at| self.same[at]);
        if !self.found.holds(at) || !graph.producers(step).iter().all(same) {
            return None;
        }
        self.hits[at] = true;
        Some(self.found.receipt.steps[at].record())
    }

    /// A step is done.
    pub fn done(&mut self, step: usize, record: &Record) {
        let Some(&at) = self.at.get(&step) else { return };
        let known = &self.found.receipt.steps[at].outputs;
        let same =
            |output: &crate::store::receipt::KnownOutput| record.outputs.get(&output.name) == Some(&output.object);
        self.same[at] = known.len() == record.outputs.len() && known.iter().all(same);
    }

    /// True if the key of a step need not be written down, because it was taken from the receipt.
    pub fn noted(&self, step: usize) -> bool {
        self.noted && self.at.get(&step).is_some_and(|&at| self.hits[at])
    }

    /// True if the links to the results of a step are as they should be, because it was taken from the receipt.
    pub fn linked(&self, step: usize) -> bool {
        self.at.get(&step).is_some_and(|&at| self.hits[at] && self.found.linked[at])
    }
}

impl Run<'_> {
    /// The record of a step as the receipt knows it, unless it has to run anyway.
    pub(super) fn recalled(&mut self, step: usize) -> Option<Record> {
        if self.options.choice.forced.contains(&step) {
            return None;
        }
        self.known.as_mut()?.hit(step, &self.graph)
    }
}
