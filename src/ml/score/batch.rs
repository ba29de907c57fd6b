//! Rows of one kind as a batch that the model reads, and what it says of them.
//! It does not know which batches there are, nor who reads them.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::Score;
use super::rows::{Item, Row, Target};
use crate::error::{Problem, Result};
use crate::ml::adapters::Arm;
use crate::ml::models::{Branches, Input, Model};
use crate::ml::steady::Steady;
use crate::ml::tally;

/// Logits that are held at once, 16 MiB of f32.
const LOGITS_AT_ONCE: usize = 1 << 22;
/// They are computed for a multiple of so many positions, which full batches of a few threads are.
const POSITIONS: usize = 64;

/// Rows of one kind, ready for the model.
pub(super) struct Batch {
    ids: Tensor, // [B, T]
    branches: Option<Branches>,
    /// Positions in B · T that predict something, and what fills them up; N in all.
    wanted: Tensor,
    /// Everything that is predicted, and at which of the positions.
    targets: Vec<(usize, Target)>,
    /// How many of the ids fill it up.
    pub padding: usize,
}

impl Batch {
    pub fn new(model: &dyn Model, items: &[Item], rows: &[Row], steady: Steady) -> Self {
        let device = model.device();
        let width = steady.length(rows.iter().map(|row| row.ids.len()).max().unwrap_or(0));
        let count = steady.sequences(rows.len(), width);
        let mut ids = Vec::with_capacity(count * width);
        let (mut positions, mut targets) = (Vec::new(), Vec::new());
        for (b, row) in rows.iter().enumerate() {
            ids.extend(&row.ids);
            // Padding on the right is seen by padding alone.
            ids.resize((b + 1) * width, 0);
            for target in row.targets(items) {
                let position = (b * width + target.place) as i64;
                if positions.last() != Some(&position) {
                    positions.push(position);
                }
                targets.push((positions.len() - 1, target));
            }
        }
        // What fills the batch, and the positions below, is read by nobody.
        ids.resize(count * width, 0);
        positions.resize(steady.rows(positions.len()), positions[0]);
        Self {
            ids: Tensor::from_slice(&ids).view([count as i64, width as i64]).to_device(device),
            branches: rows[0].forks().then(|| branches(rows, count, width, device)),
            wanted: Tensor::from_slice(&positions).to_device(device),
            targets,
            padding: count * width - rows.iter().map(|row| row.ids.len()).sum::<usize>(),
        }
    }

    pub fn input(&self) -> Input<'_> {
        Input { branches: self.branches.as_ref(), wanted: Some(&self.wanted), ..Input::of(&self.ids) }
    }

    /// What an arm says of its items, by their numbers.
    pub fn score(&self, model: &dyn Model, arm: &Arm, input: &Input) -> Result<BTreeMap<usize, Score>> {
        tally::padding(self.padding);
        let mut scores: BTreeMap<usize, Score> = BTreeMap::new();
        let ends = model.hidden(input, arm, None); // [N, H]
        let count = ends.size()[0] as usize;
        let vocabulary = model.config().vocab_size.max(1);
        let at_once = (LOGITS_AT_ONCE / vocabulary as usize).max(1).next_multiple_of(POSITIONS);
        let mut targets = self.targets.as_slice();
        for from in (0..count).step_by(at_once) {
            let length = at_once.min(count - from);
            let log_p = model.logits(&ends.narrow(0, from as i64, length as i64)).log_softmax(-1, Kind::Float); // [n, V]
            let best = log_p.argmax(-1, false);
            let (here, later) = targets.split_at(targets.partition_point(|(at, _)| *at < from + length));
            targets = later;
            let flat: Vec<i64> = here.iter().map(|(at, target)| (at - from) as i64 * vocabulary + target.id).collect();
            let picked = log_p.reshape([-1]).index_select(0, &Tensor::from_slice(&flat).to_device(ends.device()));
            let unreadable = |e| Problem::new(format!("cannot read the log-likelihoods: {e}"));
            let picked = Vec::<f64>::try_from(picked.to_kind(Kind::Double)).map_err(unreadable)?;
            let best = Vec::<i64>::try_from(best).map_err(unreadable)?;
            if picked.iter().any(|p| p.is_nan()) {
                return Err(Problem::new("the model's log-likelihoods are not numbers")
                    .help("its weights or its adapter's hold NaN or infinity, or overflow"));
            }
            for ((at, target), log_p) in here.iter().zip(picked) {
                let score = scores.entry(target.item).or_default();
                score.is_greedy &= best[at - from] == target.id;
                score.tokens.push(log_p);
                score.sum += log_p;
            }
        }
        Ok(scores)
    }
}

/// What sees what in rows that fork.
fn branches(rows: &[Row], count: usize, width: usize, device: Device) -> Branches {
    let mut positions = vec![0_i64; count * width];
    let mut sees = vec![false; count * width * width];
    for (b, square) in sees.chunks_mut(width * width).enumerate() {
        // What fills the batch is like its first row.
        let row = rows.get(b).unwrap_or(&rows[0]);
        row.sees(width, square);
        for (place, position) in positions[b * width..].iter_mut().zip(row.positions()) {
            *place = position as i64;
        }
    }
    let (b, t) = (count as i64, width as i64);
    Branches {
        positions: Tensor::from_slice(&positions).view([b, t]).to_device(device),
        sees: Tensor::from_slice(&sees).view([b, t, t]).to_device(device),
    }
}
