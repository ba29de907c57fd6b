//! Stands where the computing part of a step kind would be, in a binary that was built without libtorch.
//! It does not know which kind that is.

use crate::error::{Problem, Result};
use crate::step::{Context, Ended};

/// Why a step that computes cannot run in this binary.
pub fn problem() -> Problem {
    Problem::new("this binary was built without libtorch").help("build with the default features")
}

/// Refuses to run.
pub fn run<P>(_params: &P, _cx: &mut Context) -> Result<()> {
    Err(problem())
}

/// Refuses to answer questions.
pub fn answer<P, Q, A>(
    _members: &mut [(&P, &mut Context)],
    _questions: &Q,
    _about: A,
    _ended: &mut Ended<'_>,
) -> Result<()> {
    Err(problem())
}

/// Refuses to read.
pub fn read<P>(_members: &mut [(&P, &mut Context)], _ended: &mut Ended<'_>) -> Result<()> {
    Err(problem())
}

/// The same for several.
pub fn run_together<P>(_members: &mut [(&P, &mut Context)], _exact: bool, _ended: &mut Ended<'_>) -> Result<()> {
    Err(problem())
}
