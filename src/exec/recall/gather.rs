//! Which files outside the store the steps of a run were decided with.
//! It does not know what the files are for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::exec::sources::Sources;

/// The files by number, and the numbers of each step's.
#[derive(Default)]
pub(in crate::exec) struct Gathered {
    numbers: BTreeMap<PathBuf, usize>,
    files: Vec<(PathBuf, Digest)>,
    steps: BTreeMap<usize, Vec<usize>>,
    /// True if a file had one content for one step and another for another one: nothing can be said of it then.
    torn: bool,
}

impl Gathered {
    /// The sources that a step is decided with.
    pub fn add(&mut self, step: usize, sources: &Sources) {
        let numbers = sources.iter().map(|(source, digest)| match self.numbers.get(&source.path) {
            Some(&number) => {
                self.torn |= self.files[number].1 != *digest;
                number
            }
            None => {
                self.files.push((source.path.clone(), digest.clone()));
                self.numbers.insert(source.path.clone(), self.files.len() - 1);
                self.files.len() - 1
            }
        });
        let numbers = numbers.collect();
        self.steps.insert(step, numbers);
    }

    /// True if each file had one content for all steps.
    pub fn is_sound(&self) -> bool {
        !self.torn
    }

    /// The file of a number, and its digest.
    pub fn file(&self, number: usize) -> (&Path, &Digest) {
        let (path, digest) = &self.files[number];
        (path, digest)
    }

    /// The numbers of a step's files, in the order in which the step has its sources.
    pub fn of(&self, step: usize) -> &[usize] {
        self.steps.get(&step).map_or(&[], Vec::as_slice)
    }
}
