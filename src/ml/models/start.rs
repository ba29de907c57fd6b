//! First weights of a model that is trained from nothing.
//! It does not know how it is trained; which tensors there are, the architecture says.

use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

use crate::ml::config::{ModelConfig, Start};
use crate::ml::random::normal;
use crate::ml::weights::{Shapes, Tensors};

/// Standard deviation of `Start::Normal`.
const NORMAL: f64 = 0.02;
/// Standard deviation of what enters a block in `Start::Mimetic`, times the root of the width.
const ENTERING: f64 = 0.9;
/// What leaves a block is so much smaller, so that it does not drown the embedding.
const LEAVING: f64 = 0.1;
/// Size of the biases that look at the id before, and on how many of the fastest rotary frequencies.
const BEFORE: (f32, i64) = (5.0, 4);

/// The tensors of `shapes` with their first values, f32 on the CPU.
pub fn start(how: Start, config: &ModelConfig, shapes: &Shapes, rng: &mut ChaCha8Rng) -> Tensors {
    let std = match how {
        Start::Normal => NORMAL,
        Start::Mimetic => ENTERING / (config.hidden_size as f64).sqrt(),
    };
    let mut tensors = Tensors::new();
    for (name, shape) in shapes {
        let tensor = if name.ends_with("norm.weight") {
            Tensor::ones(shape.as_slice(), (Kind::Float, Device::Cpu))
        } else if name.ends_with(".bias") {
            Tensor::zeros(shape.as_slice(), (Kind::Float, Device::Cpu))
        } else {
            normal(rng, shape, std)
        };
        tensors.insert(name.clone(), tensor);
    }
    if how == Start::Mimetic {
        for layer in 0..config.num_hidden_layers {
            mimic(&mut tensors, &format!("model.layers.{layer}"), config);
        }
        look_before(&mut tensors, config);
    }
    tensors
}

/// Keys equal queries of their group, outputs are the transpose of values.
fn mimic(tensors: &mut Tensors, block: &str, config: &ModelConfig) {
    let (heads, groups) = (config.num_attention_heads, config.num_attention_heads / config.num_key_value_heads);
    let (d, h) = (config.head_dim, config.hidden_size);
    let at = |module: &str| format!("{block}.{module}.weight");
    // [key heads, D, H]: the first query head of each group.
    let queries = tensors[&at("self_attn.q_proj")].view([heads / groups, groups, d, h]).select(1, 0);
    tensors.insert(at("self_attn.k_proj"), queries.reshape([-1, h]).copy());
    let values = tensors[&at("self_attn.v_proj")].view([heads / groups, 1, d, h]);
    let values = values.expand([heads / groups, groups, d, h], false).reshape([heads * d, h]);
    tensors.insert(at("self_attn.o_proj"), (values.transpose(0, 1) * LEAVING / groups as f64).contiguous());
    let down = &tensors[&at("mlp.down_proj")] * LEAVING;
    tensors.insert(at("mlp.down_proj"), down);
}

/// Biases by which half of the first block's heads look at the id before: a query at angle 0 and a key turned by one
/// step meet where the key stands one position earlier.
fn look_before(tensors: &mut Tensors, config: &ModelConfig) {
    let (q, k) = ("model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj");
    if !config.attention_bias || config.num_attention_heads != config.num_key_value_heads {
        return;
    }
    let (size, fastest) = BEFORE;
    let d = config.head_dim as usize;
    let frequencies = config.rope.inverse_frequencies(config.head_dim);
    let (mut query, mut key) = (vec![0_f32; d], vec![0_f32; d]);
    for (i, frequency) in frequencies.iter().enumerate().take(fastest as usize) {
        query[i] = size;
        key[i] = size * frequency.cos() as f32;
        key[i + d / 2] = size * frequency.sin() as f32;
    }
    let looking = config.num_attention_heads.div_euclid(2).max(1);
    for (module, bias) in [(q, query), (k, key)] {
        let bias = Tensor::from_slice(&bias);
        let rows = looking * config.head_dim;
        tensors[&format!("{module}.bias")].narrow(0, 0, rows).copy_(&bias.repeat([looking]));
        // What the word is shall not disturb where it stands.
        let mut weight = tensors[&format!("{module}.weight")].narrow(0, 0, rows);
        weight *= LEAVING;
    }
}
