//! Which steps may do their work together, in one go over what they share.
//! It does not know how they are chosen, nor what they do.

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
