//! Where a long step leaves its state on the way, and finds it again after a crash or once it is to go on for longer.
//! It does not know what a state is, nor where it is kept.

use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use crate::error::Result;

/// A state that was left earlier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// How far the work was, in the units of the step kind.
    pub position: u64,
    /// The files of the state, in a folder of the running step's own.
    pub folder: PathBuf,
    /// The run that left it.
    pub run: String,
}

/// The states of one piece of work.
///
/// Whoever goes on from a state must end with the bytes of one who never stopped: the state holds all that the rest of
/// the work depends on, randomness included.
pub trait Checkpoints {
    /// The furthest state that is at most `most` far; one that is damaged is passed over.
    fn latest(&self, most: u64) -> Result<Option<Restored>>;

    /// How long the work took until the state was left that it goes on from.
    fn spent(&self) -> Duration;

    /// True once it is time to leave a state; with `finished`, if the state at the end is wanted.
    fn due(&self, finished: bool) -> bool;

    /// Leaves a state: `write` writes its files, at least one, into a fresh folder. Whatever happens on the way, earlier
    /// states stay.
    fn save(&self, position: u64, finished: bool, write: &mut dyn FnMut(&FilePath) -> Result<()>) -> Result<()>;
}
