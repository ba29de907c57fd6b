//! Dropout masks from a seeded stream of the caller, because libtorch's generator is one per process.
//! It does not know where in a model it is called; the order of calls decides.

use std::cell::RefCell;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use tch::{Kind, Tensor};

/// The masks of one training step.
#[derive(Debug)]
pub struct Dropout(RefCell<ChaCha8Rng>);

impl Dropout {
    /// Masks that depend on nothing but `seed` and `step`.
    pub fn new(seed: u64, step: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(step);
        Self(RefCell::new(rng))
    }

    /// How many masks were drawn so far, for [`Dropout::rewind`].
    pub fn drawn(&self) -> u128 {
        self.0.borrow().get_word_pos()
    }

    /// The next masks are those that followed when [`Dropout::drawn`] gave this.
    pub fn rewind(&self, drawn: u128) {
        self.0.borrow_mut().set_word_pos(drawn);
    }

    /// `x` with each element zeroed with probability `p`, in steps of 1/65536, and the others divided by `1 - p`.
    pub fn apply(&self, x: &Tensor, p: f64) -> Tensor {
        let dropped = (p * 65536.0).round().clamp(0.0, 65535.0);
        if dropped == 0.0 {
            return x.shallow_clone();
        }
        let mut bytes = vec![0u8; x.numel() * 2];
        self.0.borrow_mut().fill_bytes(&mut bytes);
        let draws = Tensor::from_data_size(&bytes, &x.size(), Kind::Int16);
        let keep = draws.ge(dropped as i64 - 32768).to_device(x.device()).to_kind(x.kind());
        x * keep * (1.0 / (1.0 - dropped / 65536.0))
    }
}
