//! The frozen base of a step: loaded once in a process, in the precision that the step asks for.
//! It does not know what the step does with it.

use crate::error::Result;
use crate::ml::config::ModelConfig;
use crate::ml::device::{self, Dtype, Precision};
use crate::ml::models::{self, Model};
use crate::step::{Artifact, Context};

/// Loads a base, and says what `dtype: auto` became and why.
pub fn load(base: &Artifact, config: &ModelConfig, dtype: Dtype, cx: &Context) -> Result<(Box<dyn Model>, Precision)> {
    let machine = cx.machine();
    let (precision, why) = dtype.choose(&machine.device, machine.bf16, config.hidden_size);
    if let Some(why) = why {
        cx.note(format!("the base computes in {} on {} (`dtype: auto`: {why})", precision.name(), machine.device));
    }
    let model = models::load(&base.path, device::torch_device(&machine.device), precision.kind())?;
    Ok((model, precision))
}
