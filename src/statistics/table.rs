//! What is resampled: a row of sums for each cluster of items, and figures as functions of added rows.
//! It does not know what the columns are.

use crate::error::{Problem, Result};

/// Rows of equal width; a row is what one cluster (a premise, a document) adds to every figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    cells: Vec<f64>,
    width: usize,
    rows: usize,
}

impl Table {
    /// Of these rows.
    ///
    /// # Errors
    /// If rows differ in width.
    pub fn new(rows: &[Vec<f64>]) -> Result<Self> {
        let width = rows.first().map_or(0, Vec::len);
        if rows.iter().any(|row| row.len() != width) {
            return Err(Problem::new("rows of sums differ in width"));
        }
        Ok(Self { cells: rows.concat(), width, rows: rows.len() })
    }

    /// How many clusters.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// One cluster.
    pub fn row(&self, at: usize) -> &[f64] {
        &self.cells[at * self.width..(at + 1) * self.width]
    }

    /// All rows added up.
    pub fn total(&self) -> Vec<f64> {
        self.weighted((0..self.rows).map(|at| (at, 1.0)))
    }

    /// Rows added up, each with a weight.
    pub fn weighted(&self, rows: impl Iterator<Item = (usize, f64)>) -> Vec<f64> {
        let mut sum = vec![0.0; self.width];
        for (at, weight) in rows {
            sum.iter_mut().zip(self.row(at)).for_each(|(sum, cell)| *sum += weight * cell);
        }
        sum
    }
}
