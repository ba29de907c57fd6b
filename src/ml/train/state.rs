//! The state of a run between two steps, as files: from it the rest of the run comes out as if it had never stopped.
//! It does not know where the files are kept, nor how often.
//!
//! Everything else that a step depends on follows from its number: the rows of its batch, the masks of its dropout, and
//! its learning rate. So `state.safetensors` holds the parameters and AdamW's moments, `[N]` in f32 each, and the curve
//! so far, `[steps, 6]` in f64, whose rows are the columns of `curve.csv`. Its whole numbers stay below 2⁵³.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::adamw::AdamW;
use super::curve::{Curve, Point};
use crate::error::{Problem, Result};
use crate::ml::weights;

const FILE: &str = "state.safetensors";
/// Values of a point.
const COLUMNS: i64 = 6;

/// Writes the state after the steps of `curve`.
pub fn write(folder: &Path, adamw: &AdamW, curve: &Curve) -> Result<()> {
    let values: Vec<f64> = curve.points.iter().flat_map(row).collect();
    let points = Tensor::from_slice(&values).view([-1, COLUMNS]);
    let mut tensors = Vec::from(adamw.state());
    tensors.push(("curve".to_owned(), points));
    weights::write_file(&folder.join(FILE), &tensors)
}

/// Puts a state back: the steps so far, and into `adamw` what they had made.
pub fn read(folder: &Path, adamw: &mut AdamW) -> Result<Curve> {
    let path = folder.join(FILE);
    let mut tensors = weights::read_file(&path, None, Device::Cpu)?;
    let points = tensors.remove("curve").filter(|curve| curve.kind() == Kind::Double);
    let points = points.filter(|curve| matches!(curve.size()[..], [_, COLUMNS]));
    let points = points.ok_or_else(|| Problem::new(format!("{} holds no curve", path.display())))?;
    let values = Vec::<f64>::try_from(points.reshape([-1]))
        .map_err(|error| Problem::new(format!("cannot read {}: {error}", path.display())))?;
    let curve = Curve { points: values.chunks_exact(COLUMNS as usize).map(point).collect() };
    let updates = i32::try_from(curve.points.len());
    let updates = updates.map_err(|_| Problem::new(format!("{} has too many steps", path.display())))?;
    adamw.restore(&tensors, updates).map_err(|problem| problem.in_file(path.display().to_string(), None))?;
    Ok(curve)
}

fn row(point: &Point) -> [f64; COLUMNS as usize] {
    let Point { step, loss, lr, grad_norm, tokens, target_tokens } = *point;
    [step as f64, loss, lr, grad_norm, tokens as f64, target_tokens as f64]
}

fn point(row: &[f64]) -> Point {
    let [step, tokens, target_tokens] = [0, 4, 5].map(|at| row[at] as u64);
    Point { step, loss: row[1], lr: row[2], grad_norm: row[3], tokens, target_tokens }
}
