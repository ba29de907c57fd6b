//! Shapes in which what is computed of a row does not depend on the rows beside it: bit for bit, on the CPU in f32.
//! It does not know tasks, nor how models compute.
//!
//! Measured with libtorch 2.11 and MKL on AVX-512: a row of a product is the same in every product whose number of rows
//! is a multiple of 8 for each thread, and 16 at least (with fewer, a thread is left with so few rows that another kernel
//! takes them: of 256 and more inputs 8 rows are multiplied in another order than 16 on some processors);
//! attention is the same for any number of rows, but not for any number of keys, which are added up 16 at a time. So
//! sequences are padded by their own length alone, up to a multiple of 16, only those of one padded length share a
//! batch, and rows are repeated up to a full number of them. Other devices and precisions promise nothing of the kind
//! and are not slowed down.

use tch::{Device, Kind};

use super::models::Model;

/// Keys that are added up together.
pub(super) const KEYS: usize = 16;
/// Rows of a product that each thread takes at once.
const ROWS: usize = 8;
/// Rows that any product has at least.
const FEWEST: usize = 16;

/// How shapes are rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steady {
    keys: usize,
    rows: usize,
    /// No sequence is padded beyond it: the model has no places there.
    limit: usize,
}

impl Steady {
    /// For a model; `room` is left behind every sequence.
    pub fn of(model: &dyn Model, room: usize) -> Self {
        if model.device() == Device::Cpu && model.kind() == Kind::Float {
            let limit = model.config().longest().map_or(usize::MAX, |(limit, _)| limit.max(0) as usize);
            let rows = ROWS * usize::try_from(tch::get_num_threads()).unwrap_or(1).max(1);
            Self { keys: KEYS, rows, limit: limit.saturating_sub(room) }
        } else {
            Self { keys: 1, rows: 1, limit: usize::MAX }
        }
    }

    /// True if results do not depend on what shares a batch.
    pub fn holds(self) -> bool {
        self.keys > 1
    }

    /// The length up to which a sequence is padded.
    pub fn length(self, length: usize) -> usize {
        length.next_multiple_of(self.keys).min(self.limit).max(length)
    }

    /// The number of places up to which keys are read.
    pub fn places(self, places: usize) -> usize {
        places.next_multiple_of(self.keys)
    }

    /// The number of sequences, of so many ids each, up to which a batch is filled.
    pub fn sequences(self, count: usize, length: usize) -> usize {
        let mut count = count;
        while count * length != self.rows(count * length) {
            count += 1;
        }
        count
    }

    /// The number of rows up to which a product is filled.
    pub fn rows(self, count: usize) -> usize {
        let fewest = if self.holds() { FEWEST } else { 0 };
        count.max(fewest).next_multiple_of(self.rows)
    }

    /// True if two sequences may share a batch.
    pub fn together(self, one: usize, other: usize) -> bool {
        !self.holds() || self.length(one) == self.length(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_rounded_where_that_helps() {
        let steady = Steady { keys: 16, rows: 64, limit: 40 };
        assert_eq!((steady.length(1), steady.length(16), steady.length(17)), (16, 16, 32));
        assert_eq!((steady.length(33), steady.length(41)), (40, 41));
        assert_eq!((steady.sequences(1, 16), steady.sequences(5, 16), steady.sequences(3, 1)), (4, 8, 64));
        assert_eq!((steady.rows(1), steady.rows(65)), (64, 128));
        assert!(steady.together(17, 32) && !steady.together(16, 17));
        let alone = Steady { keys: 16, rows: 8, limit: 40 };
        assert_eq!([1, 16, 17].map(|count| alone.rows(count)), [16, 16, 24]);
        assert_eq!((alone.sequences(1, 8), alone.sequences(1, 16)), (2, 1));
        let free = Steady { keys: 1, rows: 1, limit: usize::MAX };
        assert_eq!((free.length(17), free.sequences(3, 17), free.rows(5)), (17, 3, 5));
        assert!(free.together(1, 100));
    }
}
