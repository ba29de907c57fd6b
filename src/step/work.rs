//! What a step says of the work that it did, for whoever measures it.
//! It does not know who that is: without anybody nothing is even counted together.

use std::ops::AddAssign;

/// What was computed since the step last said so. It enters no result, no record and no key: a step can say it, and
/// nothing can ask for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Ids that were really read or made: padding is none, and one that serves several answers counts once.
    pub ids: u64,
    /// Ids beside them that only filled up a batch.
    pub padding: u64,
    /// Floating-point operations of a model on those ids; see `ml::tally`.
    pub flop: u64,
}

impl AddAssign for Work {
    fn add_assign(&mut self, more: Self) {
        self.ids += more.ids;
        self.padding += more.padding;
        self.flop += more.flop;
    }
}
