//! Decoders: what every architecture offers, and the list of them.
//! It does not know adapters beyond the `Arm` that it hands on to its sites.

pub mod llama;
pub mod start;

use std::path::Path;

use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

use super::adapters::Arm;
use super::config::{ModelConfig, Start};
use super::dropout::Dropout;
use super::weights::{self, Shapes, Tensors};
use crate::error::{Problem, Result};

/// A place where an adapter may attach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The checkpoint's name of the module: `model.layers.0.self_attn.q_proj`, or `model.layers.0.mlp`.
    pub name: String,
    /// The block it belongs to.
    pub layer: i64,
    /// What happens there.
    pub point: Point,
}

/// What happens at a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// y = W x: [.., inputs] → [.., outputs].
    Linear {
        /// Width of x.
        inputs: i64,
        /// Width of y.
        outputs: i64,
        /// True if the checkpoint's weight is [inputs, outputs]: transformers' `Conv1D`; the word is PEFT's.
        fan_in_fan_out: bool,
    },
    /// residual + attention, [.., hidden].
    AfterAttention {
        /// Width of the residual stream.
        hidden: i64,
    },
    /// residual + feed-forward, [.., hidden].
    AfterFeedForward {
        /// Width of the residual stream.
        hidden: i64,
    },
}

/// What goes into a model.
pub struct Input<'a> {
    /// Token ids, i64 [B, T].
    pub ids: &'a Tensor,
    /// True where a key is a real token, bool [B, S] with S = cached + T. `None`: no padding, or padding on the
    /// right whose outputs nobody reads, which a causal model cannot see.
    pub mask: Option<&'a Tensor>,
    /// Draws dropout masks in training; `None` in evaluation.
    pub dropout: Option<&'a Dropout>,
}

/// Keys and values of what was read so far, [B, heads, S, head width] by layer.
#[derive(Default)]
pub struct KvCache {
    /// Keys and values by layer.
    pub layers: Vec<(Tensor, Tensor)>,
}

impl KvCache {
    /// How many positions it holds.
    pub fn len(&self) -> i64 {
        self.layers.first().map_or(0, |(keys, _)| keys.size()[2])
    }

    /// True if it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps only these rows of the batch.
    pub fn keep(&mut self, rows: &Tensor) {
        for (keys, values) in &mut self.layers {
            *keys = keys.index_select(0, rows);
            *values = values.index_select(0, rows);
        }
    }
}

/// A decoder.
pub trait Model: Send {
    /// Its shape.
    fn config(&self) -> &ModelConfig;
    /// Where adapters may attach; an adapter knows a site by its position here.
    fn sites(&self) -> &[Site];
    /// ids [B, T] → hidden states after the final norm, [B, T, H], in the model's dtype.
    fn hidden(&self, input: &Input, arm: &Arm, cache: Option<&mut KvCache>) -> Tensor {
        self.states(input, arm, cache, &mut |_| {})
    }
    /// The same; `see` is shown the hidden states as transformers' `output_hidden_states` has them: after the
    /// embedding and after each block but the last, then after the final norm.
    fn states(&self, input: &Input, arm: &Arm, cache: Option<&mut KvCache>, see: &mut dyn FnMut(&Tensor)) -> Tensor;
    /// rows [.., H] → logits [.., V] in f32.
    fn logits(&self, hidden: &Tensor) -> Tensor;
    /// Every weight by its checkpoint name.
    fn weights(&self) -> Tensors;
    /// The device of its weights.
    fn device(&self) -> Device;
}

/// An architecture: one file each, and one entry of `MODELS`.
pub struct Architecture {
    /// `model_type` of its configurations.
    pub name: &'static str,
    /// Its tensors.
    pub shapes: fn(&ModelConfig) -> Shapes,
    /// Extra tensors of its checkpoints that carry nothing.
    pub ignored: fn(&ModelConfig, &str) -> bool,
    /// Builds it from exactly its tensors.
    pub build: fn(&ModelConfig, Tensors) -> Box<dyn Model>,
}

/// Every architecture.
pub static MODELS: &[Architecture] = &[llama::ARCHITECTURE];

fn find(config: &ModelConfig) -> Result<&'static Architecture> {
    MODELS.iter().find(|model| model.name == config.model_type).ok_or_else(|| {
        let names: Vec<&str> = MODELS.iter().map(|model| model.name).collect();
        Problem::new(format!("the architecture `{}` is not supported", config.model_type)).expected(names.join(", "))
    })
}

/// Loads a checkpoint folder in Hugging Face layout with frozen weights.
pub fn load(folder: &Path, device: Device, dtype: Kind) -> Result<Box<dyn Model>> {
    let config = ModelConfig::read(folder)?;
    load_as(folder, &config, device, dtype)
}

/// The same with a configuration that was read before.
pub fn load_as(folder: &Path, config: &ModelConfig, device: Device, dtype: Kind) -> Result<Box<dyn Model>> {
    let model = find(config)?;
    let ignored = |name: &str| (model.ignored)(config, name);
    let tensors = weights::read_checkpoint(folder, &(model.shapes)(config), ignored, dtype, device)?;
    Ok((model.build)(config, tensors))
}

/// A model of names and shapes alone, whose weights are all zero and take no memory.
pub fn hollow(config: &ModelConfig) -> Result<Box<dyn Model>> {
    let model = find(config)?;
    let zero = Tensor::zeros([1], (Kind::Float, Device::Cpu));
    let tensors = (model.shapes)(config).into_iter().map(|(name, shape)| (name, zero.expand(shape, false))).collect();
    Ok((model.build)(config, tensors))
}

/// Fails unless every id is a row of the model's embedding: libtorch panics at others.
pub fn check_ids<'a>(model: &dyn Model, ids: impl IntoIterator<Item = &'a i64>) -> Result<()> {
    let vocab_size = model.config().vocab_size;
    match ids.into_iter().find(|&&id| id < 0 || id >= vocab_size) {
        None => Ok(()),
        Some(id) => Err(Problem::new(format!("the token id {id} is not in the model's vocabulary of {vocab_size}"))
            .help("the tokenizer must be the model's own")),
    }
}

/// A model with f32 weights to be trained from nothing.
pub fn fresh(config: &ModelConfig, how: Start, rng: &mut ChaCha8Rng, device: Device) -> Result<Box<dyn Model>> {
    let model = find(config)?;
    let tensors = start::start(how, config, &(model.shapes)(config), rng);
    let tensors = tensors.into_iter().map(|(name, tensor)| (name, tensor.to_device(device))).collect();
    Ok((model.build)(config, tensors))
}
