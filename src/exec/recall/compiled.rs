//! The pipeline of the last run of a kind, as it lies beside its receipt: read without its YAML.
//! It does not know how a pipeline is written down.

use std::path::Path;

use super::{Asked, Recall, basis};
use crate::spec::{self, Pipeline};
use crate::step::AnyKind;
use crate::store::Store;

/// The pipeline that is asked for, if it lies there: the file has the same text, and the same build has read it.
pub fn compiled(store: &Store, asked: &Asked, file: &Path, kinds: &'static [&'static dyn AnyKind]) -> Option<Pipeline> {
    let text = store.compiled(&asked.name, &basis::compiled(&asked.text))?;
    spec::compiled::read(&text, file, &asked.text, kinds)
}

impl Recall {
    /// Lays the pipeline beside the receipt, unless it lies there.
    pub(in crate::exec) fn keep_compiled(&self, store: &Store, pipeline: &Pipeline) {
        if self.compiled || pipeline.text != self.asked.text {
            return;
        }
        if let Some(text) = spec::compiled::write(pipeline) {
            // Without it the next run takes longer, and that is all.
            let _ = store.keep_compiled(&self.asked.name, &basis::compiled(&self.asked.text), &text);
        }
    }
}
