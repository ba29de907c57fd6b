//! How far down in its column each item of a picture stands.
//! It does not know what is drawn there.

use super::layers::Layers;

/// How often items are drawn towards their neighbours.
const SWEEPS: usize = 24;

/// The middle of each item, from the top; `height` tells how much room an item takes.
pub(super) fn place(layers: &Layers, height: impl Fn(usize) -> f64) -> Vec<f64> {
    let mut y = vec![0.0; layers.items.len()];
    for column in &layers.columns {
        let whole: f64 = column.iter().map(|&item| height(item)).sum();
        let mut top = -whole / 2.0;
        for &item in column {
            y[item] = top + height(item) / 2.0;
            top += height(item);
        }
    }
    for sweep in 0..SWEEPS {
        let count = layers.columns.len();
        for i in 0..count {
            let column = &layers.columns[if sweep % 2 == 0 { i } else { count - 1 - i }];
            let last = sweep + 2 >= SWEEPS;
            let wanted: Vec<f64> = column
                .iter()
                .map(|&item| {
                    let (left, right) = (&layers.left[item], &layers.right[item]);
                    // At first one side leads and then the other; at last both, so that arrows are straight.
                    let near: Vec<usize> = match (last, sweep % 2 == 0) {
                        (true, _) => left.iter().chain(right).copied().collect(),
                        (false, true) => left.clone(),
                        (false, false) => right.clone(),
                    };
                    let sum: f64 = near.iter().map(|&item| y[item]).sum();
                    if near.is_empty() { y[item] } else { sum / near.len() as f64 }
                })
                .collect();
            settle(column, &wanted, &height, |item| if layers.items[item].is_none() { 4.0 } else { 1.0 }, &mut y);
        }
    }
    let top = |item: usize| y[item] - height(item) / 2.0;
    let least = (0..y.len()).map(top).fold(f64::INFINITY, f64::min);
    y.iter().map(|y| y - least).collect()
}

/// Puts the items of a column as near to where they want to be as they can without overlapping: the least sum of
/// squares, found by joining neighbours that push each other into blocks.
fn settle(
    column: &[usize],
    wanted: &[f64],
    height: impl Fn(usize) -> f64,
    weight: impl Fn(usize) -> f64,
    y: &mut [f64],
) {
    // Distances from the first item, if all stood close together.
    let mut offset = 0.0;
    let offsets: Vec<f64> = column
        .iter()
        .enumerate()
        .map(|(i, &item)| {
            if i > 0 {
                offset += (height(column[i - 1]) + height(item)) / 2.0;
            }
            offset
        })
        .collect();
    // Blocks of items that stand close together: how many, their weight, and where the first would be.
    let mut blocks: Vec<(usize, f64, f64)> = Vec::new();
    for (i, &item) in column.iter().enumerate() {
        let mut block = (1, weight(item), wanted[i] - offsets[i]);
        while let Some(above) = blocks.pop_if(|above| above.2 >= block.2) {
            let both = above.1 + block.1;
            block = (above.0 + block.0, both, (above.1 * above.2 + block.1 * block.2) / both);
        }
        blocks.push(block);
    }
    let mut items = column.iter().zip(offsets);
    for (count, _, start) in blocks {
        for (&item, offset) in items.by_ref().take(count) {
            y[item] = start + offset;
        }
    }
}
