//! First weights of a model that is trained from nothing.
//! It does not know how it is trained; which tensors there are, the architecture says.

use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

use crate::error::{Problem, Result};
use crate::ml::config::{ModelConfig, NormKind, Positions, Start};
use crate::ml::random::normal;
use crate::ml::weights::{Shapes, Tensors};

/// Standard deviation of `Start::Normal`, and of embeddings: transformers' `initializer_range`.
const NORMAL: f64 = 0.02;
/// Norm of an embedding in `Start::Induction`, and of what the first block adds.
const EMBEDDING: f64 = 1.0;
/// Norm of what the second block adds: more than the id itself has in the stream, or the model would repeat that.
const COPY: f64 = 4.0;
/// The induction head's logit where its word stood before, about.
const MATCH: f64 = 14.0;
/// Size of the biases that look at the id before, and on how many of the fastest rotary frequencies: the logit one
/// position further is smaller by about 4.
const BEFORE: (f32, usize) = (6.0, 4);
/// Rotary angles per position above this blur a match some fifty ids away.
const SLOW: f64 = 0.03;

/// The tensors of `shapes` with their first values, f32 on the CPU.
pub fn start(how: Start, config: &ModelConfig, shapes: &Shapes, rng: &mut ChaCha8Rng) -> Result<Tensors> {
    // The weight of a norm that does nothing yet.
    let neutral = if config.norm.kind == NormKind::RmsPlusOne { 0.0 } else { 1.0 };
    let mut tensors = Tensors::new();
    for (name, shape) in shapes {
        let constant = |value: f64| Tensor::full(shape.as_slice(), value, (Kind::Float, Device::Cpu));
        let tensor = if name.ends_with(".bias") {
            constant(0.0)
        } else if shape.len() == 1 {
            constant(neutral)
        } else {
            normal(rng, shape, NORMAL)
        };
        tensors.insert(name.clone(), tensor);
    }
    match (how, &config.positions) {
        (Start::Normal, _) => {}
        (Start::Induction, Positions::Rotary { rope, .. }) if config.model_type == "llama" => {
            induction(&mut tensors, config, &rope.inverse_frequencies(), rng);
        }
        (Start::Induction, _) => {
            return Err(Problem::new(format!("an induction head cannot be written into a `{}`", config.model_type))
                .expected("a `llama`"));
        }
    }
    Ok(tensors)
}

/// ```text
/// block 0, all heads:  look one id back (biases and rotary angles alone), write R · what stood there
/// block 1, all heads:  ask for ids whose left neighbour is this id (keys read R · neighbour), write what stands there
/// ```
/// R is a rotation, so that an id and its neighbour do not get mixed up in the residual stream.
fn induction(tensors: &mut Tensors, config: &ModelConfig, frequencies: &[f64], rng: &mut ChaCha8Rng) {
    let (h, d, heads) = (config.hidden_size, config.head_dim, config.num_attention_heads);
    let root = (h as f64).sqrt();
    let name = |layer: i64, module: &str| format!("model.layers.{layer}.self_attn.{module}.weight");
    let mut orthogonal = |rows: i64, columns: i64| {
        let (tall, wide) = (rows.max(columns), rows.min(columns));
        let q = Tensor::linalg_qr(&normal(rng, &[tall, wide], 1.0), "reduced").0;
        if rows == tall { q } else { q.transpose(0, 1).contiguous() }
    };
    let rotation = orthogonal(h, h);

    // What a block reads has norm √H; the output undoes the values and scales them to the size that is wanted.
    for (layer, turned, size) in [(0, true, EMBEDDING), (1, false, COPY)] {
        let values = orthogonal(heads * d, h);
        let undone = values.transpose(0, 1) * (size / root);
        let output = if turned { rotation.matmul(&undone) } else { undone };
        tensors.insert(name(layer, "v_proj"), values);
        tensors.insert(name(layer, "o_proj"), output.contiguous());
    }

    let half = frequencies.len();
    let (mut query, mut key) = (vec![0_f32; 2 * half], vec![0_f32; 2 * half]);
    for (i, frequency) in frequencies.iter().enumerate().take(BEFORE.1) {
        query[i] = BEFORE.0;
        key[i] = BEFORE.0 * frequency.cos() as f32;
        key[i + half] = BEFORE.0 * frequency.sin() as f32;
    }
    for (module, bias) in [("q_proj", query), ("k_proj", key)] {
        let bias = Tensor::from_slice(&bias).repeat([heads]);
        tensors.insert(name(0, module).replace(".weight", ".bias"), bias);
    }

    // Two of the stream's parts, id and neighbour, have norm √(H / 2) each after the norm; a head has `slow` · 2 of
    // its dimensions for the match: logit = 2 · slow · (σ √(H / 2))² / √D.
    let slow = frequencies.iter().filter(|&&frequency| frequency < SLOW).count().max(1);
    let sigma = (MATCH * (d as f64).sqrt() / (2 * slow) as f64 * 2.0 / h as f64).sqrt();
    let kept: Vec<f32> = (0..2 * half).map(|i| if frequencies[i % half] < SLOW { 1.0 } else { 0.0 }).collect();
    let kept = Tensor::from_slice(&kept).repeat([heads]).unsqueeze(1);
    let asks = orthogonal(heads * d, h) * (sigma * root) * kept;
    tensors.insert(name(1, "k_proj"), asks.matmul(&rotation.transpose(0, 1)).contiguous());
    tensors.insert(name(1, "q_proj"), asks);
    let embedding = normal(rng, &[config.vocab_size, h], EMBEDDING / root);
    tensors.insert("model.embed_tokens.weight".to_owned(), embedding);
}

#[cfg(test)]
mod tests {
    use rand::Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;
    use crate::ml::adapters::Arm;
    use crate::ml::models::{Input, fresh};

    /// Share of the second half of a list of ids, read twice, whose ids are the likeliest at their places.
    fn repeated(how: Start) -> f64 {
        let config = ModelConfig::from_value(&serde_json::json!({
            "model_type": "llama", "vocab_size": 768, "hidden_size": 128, "intermediate_size": 256,
            "num_hidden_layers": 3, "num_attention_heads": 4, "attention_bias": true, "tie_word_embeddings": true}))
        .unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let model = fresh(&config, how, &mut rng, Device::Cpu).unwrap();
        let once: Vec<i64> = (0..30).map(|_| i64::from(rng.next_u32() % 768)).collect();
        let ids = Tensor::from_slice(&[once.clone(), once.clone()].concat()).unsqueeze(0);
        let hidden = model.hidden(&Input::of(&ids), &Arm::none(), None);
        let best = Vec::<i64>::try_from(model.logits(&hidden).argmax(-1, false).squeeze()).unwrap();
        let right = (30..59).filter(|&t| best[t] == once[t - 29]).count();
        right as f64 / 29.0
    }

    #[test]
    fn an_induction_head_repeats_what_it_has_read_before_any_training() {
        let (induction, normal) = (repeated(Start::Induction), repeated(Start::Normal));
        assert!(induction > 0.4, "{induction}");
        assert!(normal < 0.1, "{normal}");
    }
}
