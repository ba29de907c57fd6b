//! Random tensors from a seeded stream of our own, so that they do not depend on torch's global generator.
//! It does not know what they are for.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

/// N(0, std), f32, by the Box-Muller transform.
pub fn normal(rng: &mut ChaCha8Rng, shape: &[i64], std: f64) -> Tensor {
    let count = shape.iter().product::<i64>() as usize;
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        // u in (0, 1], so that its logarithm is finite.
        let u = 1.0 - unit(rng);
        let angle = 2.0 * std::f64::consts::PI * unit(rng);
        let radius = (-2.0 * u.ln()).sqrt() * std;
        values.push((radius * angle.cos()) as f32);
        values.push((radius * angle.sin()) as f32);
    }
    values.truncate(count);
    Tensor::from_slice(&values).view(shape)
}

/// N(0, std) drawn again until it lies within so many standard deviations, f32.
pub fn truncated_normal(rng: &mut ChaCha8Rng, shape: &[i64], std: f64, within: f64) -> Tensor {
    let count = shape.iter().product::<i64>() as usize;
    let mut values = Vec::with_capacity(count);
    while values.len() < count {
        let u = 1.0 - unit(rng);
        let number = (-2.0 * u.ln()).sqrt() * (2.0 * std::f64::consts::PI * unit(rng)).cos();
        if number.abs() <= within {
            values.push((number * std) as f32);
        }
    }
    Tensor::from_slice(&values).view(shape)
}

/// U(-bound, bound), f32.
pub fn uniform(rng: &mut ChaCha8Rng, shape: &[i64], bound: f64) -> Tensor {
    let count = shape.iter().product::<i64>() as usize;
    let values: Vec<f32> = (0..count).map(|_| ((2.0 * unit(rng) - 1.0) * bound) as f32).collect();
    Tensor::from_slice(&values).view(shape)
}

/// Uniform over [0, 1) in steps of 2⁻⁵³.
fn unit(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 * (0.5_f64).powi(53)
}
