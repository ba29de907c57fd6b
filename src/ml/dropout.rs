//! Dropout masks from a seeded stream of the caller, because libtorch's generator is one per process.
//! It does not know where in a model it is called; the order of calls decides.

use std::cell::{Cell, RefCell};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use tch::{Kind, Tensor};

/// So many words of the stream belong to a micro-batch.
const WORDS: u128 = 1 << 48;

/// The masks of one training step.
#[derive(Debug)]
pub struct Dropout {
    rng: RefCell<ChaCha8Rng>,
    /// No masks are drawn for what stands behind so many places of a row.
    width: Cell<i64>,
}

impl Dropout {
    /// Masks that depend on nothing but `seed` and `step`.
    pub fn new(seed: u64, step: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(step);
        Self { rng: RefCell::new(rng), width: Cell::new(i64::MAX) }
    }

    /// The masks of another micro-batch of the step than its first: they do not depend on how many were drawn before.
    pub fn of(self, micro: usize) -> Self {
        self.rewind(micro as u128 * WORDS);
        self
    }

    /// From here on only the first so many places of a row [B, T, ..] get masks: those behind them are padding that
    /// came later, and must not take numbers from the stream.
    pub fn within(&self, width: i64) {
        self.width.set(width);
    }

    /// How many masks were drawn so far, for [`Dropout::rewind`].
    pub fn drawn(&self) -> u128 {
        self.rng.borrow().get_word_pos()
    }

    /// The next masks are those that followed when [`Dropout::drawn`] gave this.
    pub fn rewind(&self, drawn: u128) {
        self.rng.borrow_mut().set_word_pos(drawn);
    }

    /// `x` with each element zeroed with probability `p`, in steps of 1/65536, and the others divided by `1 - p`.
    pub fn apply(&self, x: &Tensor, p: f64) -> Tensor {
        let dropped = (p * 65536.0).round().clamp(0.0, 65535.0);
        if dropped == 0.0 {
            return x.shallow_clone();
        }
        let mut size = x.size();
        let padding = if let [_, width, _] = size[..] { (width - self.width.get()).max(0) } else { 0 };
        if padding > 0 {
            size[1] -= padding;
        }
        let mut bytes = vec![0u8; size.iter().product::<i64>() as usize * 2];
        self.rng.borrow_mut().fill_bytes(&mut bytes);
        let draws = Tensor::from_data_size(&bytes, &size, Kind::Int16);
        let keep = draws.ge(dropped as i64 - 32768).to_device(x.device()).to_kind(x.kind());
        let keep = if padding > 0 { keep.constant_pad_nd([0, 0, 0, padding]) } else { keep };
        x * keep * (1.0 / (1.0 - dropped / 65536.0))
    }
}
