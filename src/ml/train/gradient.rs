//! The gradient of a step, added up in one piece for all trainable tensors.
//! It does not know what is made of it.

use tch::{Tensor, no_grad};

/// What was added up so far.
pub struct Gradient {
    parameters: Vec<Tensor>,
    flat: Tensor, // [N], f32
}

impl Gradient {
    /// Nothing yet, of these tensors: `[N]` values in all.
    pub(super) fn new(parameters: Vec<Tensor>, zeros: Tensor) -> Self {
        Self { parameters, flat: zeros }
    }

    /// Nothing yet, of the same tensors, which are not copied, for another thread.
    pub(super) fn share(&self) -> Self {
        let parameters = self.parameters.iter().map(Tensor::shallow_clone).collect();
        Self { parameters, flat: self.flat.zeros_like() }
    }

    /// The trainable tensors.
    pub(super) fn parameters(&self) -> &[Tensor] {
        &self.parameters
    }

    /// The same, to be changed.
    pub(super) fn parameters_mut(&mut self) -> &mut [Tensor] {
        &mut self.parameters
    }

    /// The values of all tensors one after the other, `[N]`.
    pub(super) fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// Adds the gradient of a scalar. With `rows`, also gives the scalar's gradient there.
    pub fn backward(&mut self, scalar: &Tensor, rows: Option<&Tensor>) -> Option<Tensor> {
        let inputs: Vec<&Tensor> = self.parameters.iter().chain(rows).collect();
        let mut gradients = Tensor::run_backward(&[scalar], &inputs, false, false);
        let at_rows = rows.and_then(|_| gradients.pop());
        self.add(&gradients);
        at_rows
    }

    /// Adds gradients of the tensors, in their order.
    pub fn add(&mut self, gradients: &[Tensor]) {
        no_grad(|| {
            if gradients.iter().all(Tensor::defined) {
                let pieces: Vec<Tensor> = gradients.iter().map(|gradient| gradient.reshape([-1])).collect();
                let _ = self.flat.g_add_(&Tensor::cat(&pieces, 0));
                return;
            }
            // A tensor that the scalar does not depend on has no gradient.
            let mut at = 0;
            for (parameter, gradient) in self.parameters.iter().zip(gradients) {
                let count = parameter.numel() as i64;
                if gradient.defined() {
                    let _ = self.flat.narrow(0, at, count).g_add_(&gradient.reshape([-1]));
                }
                at += count;
            }
        });
    }

    /// Adds what another thread added up of the same tensors.
    pub(super) fn join(&mut self, other: &Tensor) {
        no_grad(|| {
            let _ = self.flat.g_add_(other);
        });
    }

    /// What was added up, which is nothing from here on.
    pub(super) fn take(&mut self) -> Tensor {
        let zeros = self.flat.zeros_like();
        std::mem::replace(&mut self.flat, zeros)
    }
}
