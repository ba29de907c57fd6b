//! Arms over one base that answer the same: each is attached, tried and put to work, together with others where they
//! share some of the work. It does not know what they are asked.

use super::loaded::{Loaded, Trial};
use super::result::Arm;
use crate::error::Result;
use crate::ml::adapters::Arm as Adapters;
use crate::ml::device::Dtype;
use crate::ml::score;
use crate::step::{Context, Ended};

/// An arm that is ready to answer.
pub struct Ready {
    /// Whose it is: its place among the members.
    pub at: usize,
    /// What is attached to the base.
    pub adapters: Adapters,
    /// What a comparison is told of it.
    pub arm: Arm,
}

/// What several arms of these members make together: a result for each, in their order.
pub type Work<'w, P> = dyn FnMut(&mut [(&P, &mut Context)], Vec<Ready>) -> Vec<Result<()>> + 'w;

/// Lets every member that is `open` answer. Those that share blocks work together if work is `shared`; the others one
/// after the other, so that the result of each is kept before the next begins.
pub fn each<P>(
    loaded: &Loaded,
    (dtype, trial): (Dtype, &Trial),
    members: &mut [(&P, &mut Context)],
    open: &[bool],
    shared: bool,
    ended: &mut Ended<'_>,
    work: &mut Work<'_, P>,
) {
    let shared = shared && open.iter().filter(|open| **open).count() > 1;
    let mut together = Vec::new();
    for at in (0..members.len()).filter(|&at| open[at]) {
        let cx = &mut *members[at].1;
        let attached = cx.check_cancelled().and_then(|()| {
            let adapters = loaded.attach(dtype, cx)?;
            let arm = loaded.arm(cx, &adapters, trial)?;
            Ok(Ready { at, adapters, arm })
        });
        match attached {
            Err(problem) => ended(vec![(at, cx, Err(problem))]),
            Ok(ready) if shared && score::shares_blocks(loaded.model.as_ref(), &ready.adapters) => {
                together.push(ready);
            }
            Ok(ready) => at_work(members, vec![ready], ended, work),
        }
    }
    if !together.is_empty() {
        at_work(members, together, ended, work);
    }
}

fn at_work<P>(members: &mut [(&P, &mut Context)], arms: Vec<Ready>, ended: &mut Ended<'_>, work: &mut Work<'_, P>) {
    let places: Vec<usize> = arms.iter().map(|ready| ready.at).collect();
    let mut results = work(members, arms).into_iter();
    // Places rise, as they were gone through.
    let ends = members.iter_mut().enumerate().filter(|(at, _)| places.contains(at));
    let ends = ends.filter_map(|(at, (_, cx))| Some((at, &mut **cx, results.next()?)));
    ended(ends.collect());
}
