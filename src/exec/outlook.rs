//! What can be said of results before they are there.
//! It does not know what is said: the step kinds do.

use std::collections::BTreeMap;

use super::decide::Decider;
use crate::spec::Edge;
use crate::step::Outlook;
use crate::store::Record;

impl Decider<'_> {
    /// What can be said of a step's result; its producers' outlooks are known.
    pub(super) fn outlook(
        &self,
        position: usize,
        outlooks: &BTreeMap<usize, Outlook>,
        record: Option<&Record>,
    ) -> Outlook {
        let step = &self.pipeline.steps[position];
        let of = |edge: &Edge| outlooks.get(&edge.step).cloned().unwrap_or_default();
        let inputs = step.inputs.iter().map(|(port, edges)| (port.clone(), edges.iter().map(of).collect())).collect();
        let first = step.outputs.first().and_then(|output| record?.outputs.get(output.name.as_ref()));
        let made = first.map(|object| self.store.object(&object.digest));
        step.action.outlook(&inputs, made.as_deref())
    }
}
