//! Which steps may do their work together, in one go over what they share.
//! It does not know how they are chosen, nor what they do.

use super::Context;
use crate::error::Result;

/// What a step kind says of steps with certain parameters and inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Together {
    /// Those with the same text may do their work together.
    pub with: String,
    /// At most so many at once.
    pub most: usize,
    /// True if that was measured to be faster, and the results are those of steps that work alone, to the byte.
    pub pays: bool,
}

/// A step that has ended beside others: which of them it is, what it touched, and how it ended.
pub type End<'a> = (usize, &'a mut Context, Result<()>);

/// Who hears of steps that end at the same time. A result is kept then, whatever becomes of the others.
pub type Ended<'e> = dyn FnMut(Vec<End<'_>>) + 'e;
