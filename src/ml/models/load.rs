//! From a checkpoint folder, or from nothing, to a decoder; and what it may be asked to read.
//! It does not know architectures: the configuration says which tensors there are.

use std::collections::BTreeSet;
use std::path::Path;

use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

use super::decoder::Decoder;
use super::{Model, start, tensors};
use crate::error::{Problem, Result};
use crate::ml::config::{ModelConfig, Start};
use crate::ml::weights::{self, Tensors};
use crate::ml::{memory, shapes};

/// Loads a checkpoint folder in Hugging Face layout with frozen weights.
pub fn load(folder: &Path, device: Device, dtype: Kind) -> Result<Box<dyn Model>> {
    let config = ModelConfig::read(folder)?;
    load_as(folder, &config, device, dtype)
}

/// The same with a configuration that was read before.
pub fn load_as(folder: &Path, config: &ModelConfig, device: Device, dtype: Kind) -> Result<Box<dyn Model>> {
    Ok(Box::new(Decoder::new(config, read(folder, config, device, dtype)?)))
}

fn read(folder: &Path, config: &ModelConfig, device: Device, dtype: Kind) -> Result<Tensors> {
    let ignored = |name: &str| tensors::ignored(config, name);
    weights::read_checkpoint(folder, &tensors::shapes(config), config.names.base, ignored, dtype, device)
}

/// The same, to read with: on a processor in f32, projections and the head lie the other way round in memory. Products have
/// the same bits either way, and MKL, which packs a matrix anew for each product, packs it faster so: a product takes .7 of
/// the time with 16 rows, .85 with 64, .91 with 128, .98 with 2048. A training would wait for it and get little back.
pub fn load_to_read(folder: &Path, device: Device, dtype: Kind) -> Result<Box<dyn Model>> {
    let config = ModelConfig::read(folder)?;
    let read = read(folder, &config, device, dtype)?;
    let mut products = BTreeSet::new();
    if device == Device::Cpu && dtype == Kind::Float {
        let layers = 0..if config.fan_in_fan_out { 0 } else { config.num_hidden_layers };
        let modules = layers.flat_map(|layer| config.block.iter().map(move |of| (layer, of.module)));
        products.extend(modules.map(|(layer, module)| format!("{}.weight", config.module(layer, module))));
        if !config.tie_word_embeddings {
            products.insert(format!("{}.weight", config.names.head));
        }
    }
    Ok(Box::new(Decoder::new(&config, weights::turned(read, |name| products.contains(name)))))
}

/// A model with f32 weights to be trained from nothing. Fails if they do not fit into memory.
pub fn fresh(config: &ModelConfig, how: Start, rng: &mut ChaCha8Rng, device: Device) -> Result<Box<dyn Model>> {
    let shapes = tensors::shapes(config);
    memory::check("the weights of the model", shapes::count(&shapes), 4)?;
    let drawn = start::start(how, config, &shapes, rng)?;
    let drawn = drawn.into_iter().map(|(name, tensor)| (name, tensor.to_device(device))).collect();
    Ok(Box::new(Decoder::new(config, drawn)))
}

/// A model of names and shapes alone, whose weights are all zero and take no memory.
pub fn hollow(config: &ModelConfig) -> Box<dyn Model> {
    let zero = Tensor::zeros([1], (Kind::Float, Device::Cpu));
    let tensors = tensors::shapes(config).into_iter().map(|(name, shape)| (name, zero.expand(shape, false)));
    Box::new(Decoder::new(config, tensors.collect()))
}

/// Fails unless every id is a row of the model's embedding: libtorch panics at others.
pub fn check_ids(model: &dyn Model, ids: impl IntoIterator<Item = i64>) -> Result<()> {
    let vocab_size = model.config().vocab_size;
    match ids.into_iter().find(|&id| id < 0 || id >= vocab_size) {
        None => Ok(()),
        Some(id) => Err(Problem::new(format!("the token id {id} is not in the model's vocabulary of {vocab_size}"))
            .help("the tokenizer must be the model's own")),
    }
}

/// Fails if the model cannot take a text of so many ids: it has no more places, or what it computes would change.
pub fn check_length(model: &dyn Model, longest: usize) -> Result<()> {
    match model.config().longest() {
        Some((limit, option)) if longest as i64 > limit => Err(Problem::new(format!(
            "a text of {longest} ids is longer than the model's {limit} (`{option}`)"
        ))
        .help("cut the texts: `max_length` where they are tokenized, `max_new_tokens` where they are continued")),
        _ => Ok(()),
    }
}
