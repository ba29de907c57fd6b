//! AdamW over one flat buffer: the parameters are views of it, so a step is a handful of operations however many
//! tensors there are. It does not know models, losses or schedules.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor, no_grad};

use super::gradient::Gradient;
use crate::error::{Problem, Result};

/// What AdamW is told once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWOptions {
    /// Decay of the mean of the gradients and of their squares.
    pub betas: (f64, f64),
    /// Added to the root of the squares.
    pub eps: f64,
    /// Share of a weight that is taken away each step, times the learning rate (decoupled).
    pub weight_decay: f64,
}

/// Trainable tensors and their moments.
pub struct AdamW {
    options: AdamWOptions,
    /// Of the tensors, decayed ones first; each shares its memory with `flat`.
    gradient: Gradient,
    names: Vec<String>,
    flat: Tensor, // [N]
    /// `flat` in the dtype that the tensors are seen in, if that is another one, `[N]`.
    rounded: Option<Tensor>,
    mean: Tensor,   // [N]
    square: Tensor, // [N]
    /// The first so many elements have weight decay.
    decayed: i64,
    updates: i32,
}

impl AdamW {
    /// Takes over these tensors: they become trainable views of one buffer, their values unchanged. `decays` says
    /// which of them have weight decay.
    pub fn new(
        named: &[(String, Tensor)],
        options: AdamWOptions,
        decays: impl Fn(&str, &Tensor) -> bool,
    ) -> Result<Self> {
        let (with, without): (Vec<_>, Vec<_>) = named.iter().partition(|(name, tensor)| decays(name, tensor));
        let decayed = with.iter().map(|(_, tensor)| tensor.numel() as i64).sum();
        let ordered: Vec<&(String, Tensor)> = with.into_iter().chain(without).collect();
        let Some((_, first)) = ordered.first() else {
            return Err(Problem::new("there is nothing to train: no tensor of the model or adapter is trainable"));
        };
        let device = first.device();
        if let Some((name, tensor)) = ordered.iter().find(|(_, t)| t.kind() != Kind::Float || t.device() != device) {
            let what = format!("`{name}` is {:?} on {:?}", tensor.kind(), tensor.device());
            return Err(Problem::new(what).expected(format!("f32 on {device:?} like every trainable tensor")));
        }
        let values: Vec<Tensor> = ordered.iter().map(|(_, tensor)| tensor.detach().reshape([-1])).collect();
        let flat = no_grad(|| Tensor::cat(&values, 0));
        let names = ordered.iter().map(|(name, _)| name.clone()).collect();
        let mut parameters: Vec<Tensor> = ordered.iter().map(|(_, tensor)| tensor.shallow_clone()).collect();
        show(&mut parameters, &flat);
        let parameters = parameters.into_iter().map(|tensor| tensor.set_requires_grad(true)).collect();
        let zeros = || flat.zeros_like();
        let (gradient, mean, square) = (Gradient::new(parameters, zeros()), zeros(), zeros());
        Ok(Self { options, gradient, names, flat, rounded: None, mean, square, decayed, updates: 0 })
    }

    /// From here on the tensors are seen rounded to a dtype, and have gradients in it, until this is dropped; what is
    /// updated and saved stays f32. One rounding of all instead of one wherever a tensor is multiplied by.
    pub fn round_to(&mut self, kind: Kind) {
        if kind != Kind::Float {
            let rounded = no_grad(|| self.flat.to_kind(kind));
            show(self.gradient.parameters_mut(), &rounded);
            self.rounded = Some(rounded);
        }
    }

    fn round(&mut self) {
        if let Some(rounded) = &mut self.rounded {
            no_grad(|| rounded.copy_(&self.flat));
        }
    }

    /// Number of trainable values.
    pub fn count(&self) -> u64 {
        self.flat.numel() as u64
    }

    /// Where the parameters live.
    pub fn device(&self) -> Device {
        self.flat.device()
    }

    /// What a run goes on from: the parameters and both moments, `[N]` each. They are not copied.
    pub fn state(&self) -> [(String, Tensor); 3] {
        let named = [("parameters", &self.flat), ("mean", &self.mean), ("square", &self.square)];
        named.map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone()))
    }

    /// Puts back what [`Self::state`] gave after so many updates; if it does not fit, nothing is changed.
    pub fn restore(&mut self, state: &BTreeMap<String, Tensor>, updates: i32) -> Result<()> {
        let mut pairs = Vec::new();
        for (name, tensor) in self.state() {
            let saved = state.get(&name).filter(|saved| saved.kind() == Kind::Float && saved.size() == tensor.size());
            let saved = saved
                .ok_or_else(|| Problem::new(format!("the state has no `{name}` of {} f32 numbers", tensor.numel())))?;
            pairs.push((tensor, saved));
        }
        no_grad(|| pairs.into_iter().for_each(|(mut tensor, saved)| tensor.copy_(saved)));
        self.round();
        self.updates = updates;
        Ok(())
    }

    /// The gradient of this step so far.
    pub fn gradient(&mut self) -> &mut Gradient {
        &mut self.gradient
    }

    /// The trainable tensors, in an order of its own.
    pub fn parameters(&self) -> &[Tensor] {
        self.gradient.parameters()
    }

    /// A copy of the gradient of each tensor in this step so far.
    pub fn gradients(&self) -> BTreeMap<String, Tensor> {
        let mut at = 0;
        let slice = |(name, parameter): (&String, &Tensor)| {
            let count = parameter.numel() as i64;
            at += count;
            (name.clone(), self.gradient.flat().narrow(0, at - count, count).view_(parameter.size()).copy())
        };
        self.names.iter().zip(self.parameters()).map(slice).collect()
    }

    /// Scales the gradient down to the norm `limit`, as torch's `clip_grad_norm_`, and gives its norm before that
    /// (a scalar that is not read back here).
    pub fn clip(&mut self, limit: Option<f64>) -> Tensor {
        no_grad(|| {
            let mut gradient = self.gradient.flat().shallow_clone();
            let norm = gradient.norm();
            if let Some(limit) = limit {
                let _ = gradient.g_mul_(&(limit / (&norm + 1e-6)).clamp_max(1.0));
            }
            norm
        })
    }

    /// One update with the gradient of this step, which is then zero again. The formula of torch's `AdamW`:
    /// `w ← w (1 - lr λ) - lr / (1 - β₁ᵗ) · m / (√v / √(1 - β₂ᵗ) + ε)`.
    pub fn step(&mut self, lr: f64) {
        let AdamWOptions { betas: (beta1, beta2), eps, weight_decay } = self.options;
        self.updates += 1;
        let correction1 = 1.0 - beta1.powi(self.updates);
        let correction2 = (1.0 - beta2.powi(self.updates)).sqrt();
        no_grad(|| {
            if weight_decay != 0.0 {
                let _ = self.flat.narrow(0, 0, self.decayed).g_mul_scalar_(1.0 - lr * weight_decay);
            }
            let mut gradient = self.gradient.flat().shallow_clone();
            let _ = self.mean.lerp_(&gradient, 1.0 - beta1);
            let _ = self.square.g_mul_scalar_(beta2);
            let _ = self.square.addcmul_(&gradient, &(&gradient * (1.0 - beta2)));
            let mut root = self.square.sqrt();
            let _ = root.g_div_scalar_(correction2).g_add_scalar_(eps);
            let _ = self.flat.addcdiv_(&(&self.mean * (-lr / correction1)), &root);
            let _ = gradient.zero_();
        });
        self.round();
    }
}

impl Drop for AdamW {
    fn drop(&mut self) {
        if self.rounded.is_some() {
            show(self.gradient.parameters_mut(), &self.flat);
        }
    }
}

/// Makes these tensors views of a buffer that holds the values of all, one after the other.
fn show(tensors: &mut [Tensor], buffer: &Tensor) {
    let mut at = 0;
    for tensor in tensors {
        let count = tensor.numel() as i64;
        tensor.set_data(&buffer.narrow(0, at, count).view_(tensor.size()));
        at += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The formula in plain f64, one number at a time.
    fn plain(weight: &mut [f64], gradients: &[Vec<f64>], lr: f64, o: AdamWOptions, decays: impl Fn(usize) -> bool) {
        let (mut m, mut v) = (vec![0.0; weight.len()], vec![0.0; weight.len()]);
        for (t, gradient) in gradients.iter().enumerate() {
            let t = t as i32 + 1;
            for i in 0..weight.len() {
                if decays(i) {
                    weight[i] -= lr * o.weight_decay * weight[i];
                }
                m[i] = o.betas.0 * m[i] + (1.0 - o.betas.0) * gradient[i];
                v[i] = o.betas.1 * v[i] + (1.0 - o.betas.1) * gradient[i] * gradient[i];
                let (m, v) = (m[i] / (1.0 - o.betas.0.powi(t)), v[i] / (1.0 - o.betas.1.powi(t)));
                weight[i] -= lr * m / (v.sqrt() + o.eps);
            }
        }
    }

    #[test]
    fn it_is_the_plain_formula() {
        let options = AdamWOptions { betas: (0.9, 0.99), eps: 1e-3, weight_decay: 0.1 };
        let start = [0.5, -1.0, 2.0, 0.25, 3.0];
        let tensor = |values: &[f64]| Tensor::from_slice(values).to_kind(Kind::Float);
        let named = [("bias".to_owned(), tensor(&start[..2])), ("weight".to_owned(), tensor(&start[2..]))];
        let mut adamw = AdamW::new(&named, options, |name, _| name == "weight").unwrap();
        let slopes = [[0.3, -0.2, 0.0, 1.5, -4.0], [0.1, 0.4, -0.7, 0.0, 2.0], [-0.9, 0.0, 0.2, 0.6, 0.1]];
        for slope in slopes {
            let loss = (&named[0].1 * tensor(&slope[..2])).sum(Kind::Float)
                + (&named[1].1 * tensor(&slope[2..])).sum(Kind::Float);
            adamw.gradient().backward(&loss, None);
            adamw.step(0.05);
        }
        let mut expected = start;
        plain(&mut expected, &slopes.map(|slope| slope.to_vec()), 0.05, options, |i| i >= 2);
        let ours = Vec::<f64>::try_from(Tensor::cat(&[&named[0].1, &named[1].1], 0).to_kind(Kind::Double)).unwrap();
        for (ours, expected) in ours.iter().zip(expected) {
            assert!((ours - expected).abs() < 1e-6, "{ours} {expected}");
        }
    }

    #[test]
    fn rounded_tensors_are_updated_in_f32() {
        let options = AdamWOptions { betas: (0.9, 0.99), eps: 1e-3, weight_decay: 0.1 };
        let slopes = Tensor::from_slice(&[0.25f32, -2.0, 0.5]);
        let trained = |kind: Kind| {
            let named = [
                ("a".to_owned(), Tensor::from_slice(&[1.003f32])),
                ("b".to_owned(), Tensor::from_slice(&[-3f32, 0.3])),
            ];
            let mut adamw = AdamW::new(&named, options, |_, _| true).unwrap();
            adamw.round_to(kind);
            for _ in 0..3 {
                assert!(named.iter().all(|(_, tensor)| tensor.kind() == kind));
                let both = Tensor::cat(&[&named[0].1, &named[1].1], 0).to_kind(Kind::Float);
                adamw.gradient().backward(&(both * &slopes).sum(Kind::Float), None);
                adamw.step(1e-3);
            }
            let seen = Tensor::cat(&[&named[0].1, &named[1].1], 0);
            let [(_, flat), ..] = adamw.state();
            assert!(seen.equal(&flat.to_kind(kind)));
            drop(adamw);
            assert!(named.iter().all(|(_, tensor)| tensor.kind() == Kind::Float && tensor.requires_grad()));
            Tensor::cat(&[&named[0].1, &named[1].1], 0)
        };
        // The slopes are numbers of bf16, so that nothing but the rounding of what is seen could make a difference.
        assert!(trained(Kind::Float).equal(&trained(Kind::BFloat16)));
    }

    #[test]
    fn clipping_scales_to_the_limit_and_never_up() {
        let named = [("w".to_owned(), Tensor::from_slice(&[0f32, 0.0]))];
        let options = AdamWOptions { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0 };
        for (limit, expected) in [(None, 5.0), (Some(1.0), 1.0), (Some(9.0), 5.0)] {
            let mut adamw = AdamW::new(&named, options, |_, _| true).unwrap();
            adamw.gradient().backward(&(&named[0].1 * Tensor::from_slice(&[3f32, 4.0])).sum(Kind::Float), None);
            assert_eq!(adamw.clip(limit).double_value(&[]), 5.0);
            let norm = adamw.gradients()["w"].norm().double_value(&[]);
            assert!((norm - expected).abs() < 1e-5, "{norm}");
        }
    }

    #[test]
    fn a_tensor_outside_the_loss_stays_and_other_types_are_refused() {
        let named = [("a".to_owned(), Tensor::from_slice(&[1f32])), ("b".to_owned(), Tensor::from_slice(&[2f32]))];
        let options = AdamWOptions { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0 };
        let mut adamw = AdamW::new(&named, options, |_, _| true).unwrap();
        adamw.gradient().backward(&named[0].1.sum(Kind::Float), None);
        adamw.step(0.5);
        assert!((named[0].1.double_value(&[0]) - 0.5).abs() < 1e-6);
        assert_eq!(named[1].1.double_value(&[0]), 2.0);
        let half = [("h".to_owned(), Tensor::from_slice(&[1f32]).to_kind(Kind::BFloat16))];
        assert!(AdamW::new(&half, options, |_, _| true).is_err());
        assert!(AdamW::new(&[], options, |_, _| true).is_err());
    }
}
