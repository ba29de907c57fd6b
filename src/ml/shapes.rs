//! Names and shapes of a checkpoint's tensors.
//! It does not know architectures, files or libtorch.

use std::collections::BTreeMap;

/// Shapes of tensors by their names.
pub type Shapes = BTreeMap<String, Vec<i64>>;

/// How many numbers there are in tensors of these shapes.
pub fn count(shapes: &Shapes) -> u128 {
    shapes.values().map(|shape| shape.iter().map(|&n| u128::from(n.unsigned_abs())).product::<u128>()).sum()
}
