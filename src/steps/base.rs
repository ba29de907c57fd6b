//! The frozen base of a step: loaded once in a process, in the precision that the step asks for.
//! It does not know what the step does with it.

use crate::error::Result;
use crate::ml::config::ModelConfig;
use crate::ml::device::{self, Dtype, Precision};
use crate::ml::models::{self, Model};
use crate::ml::tally;
use crate::step::{Artifact, Context, Work};
use crate::steps::precision::choose;

/// What `dtype` is, and why if it is `auto`.
pub fn chosen(config: &ModelConfig, dtype: Dtype, cx: &Context) -> (Precision, Option<String>) {
    choose(dtype, config, cx.machine(), cx.threads())
}

/// Says what `dtype: auto` became and why.
pub fn precision(config: &ModelConfig, dtype: Dtype, cx: &Context) -> Precision {
    let machine = cx.machine();
    let (precision, why) = chosen(config, dtype, cx);
    if let Some(why) = why {
        cx.note(format!("the base computes in {} on {} (`dtype: auto`: {why})", precision.name(), machine.device));
    }
    precision
}

/// Loads a base in this precision.
pub fn load_in(base: &Artifact, precision: Precision, cx: &Context) -> Result<Box<dyn Model>> {
    let model = models::load(&base.path, device::torch_device(&cx.machine().device), precision.kind())?;
    worked(cx);
    Ok(model)
}

/// The same, to read with.
pub fn load_to_read(base: &Artifact, precision: Precision, cx: &Context) -> Result<Box<dyn Model>> {
    let model = models::load_to_read(&base.path, device::torch_device(&cx.machine().device), precision.kind())?;
    worked(cx);
    Ok(model)
}

/// Says what models have computed on this thread since it was last said.
pub fn worked(cx: &Context) {
    cx.work(|| {
        device::wait(device::torch_device(&cx.machine().device));
        let tally::Work { ids, padding, flop } = tally::take();
        Work { ids, padding, flop }
    });
}
