//! The queries of the last block, where only some positions go on: the other positions are keys and values alone.
//! It does not know projections, caches, or why a position goes on.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::rotary::Rotary;
use super::sight::Sight;

/// Rows have a multiple of so many queries: attention takes another kernel by their number, and bits with it.
const QUERIES: usize = 8;

/// Positions in B · T that go on, as queries of their rows.
pub struct Asked {
    /// The positions, i64 [N].
    wanted: Tensor,
    /// Queries of each row: where each stands in N, [B · Q], and in B · T.
    slots: Tensor,
    places: Tensor,
    /// Which query each position is, [N].
    queries: Tensor,
    /// B and Q.
    shape: [i64; 2],
}

impl Asked {
    /// Of a batch of `rows` of `width` ids; `None` if none goes on, or too many for that to save anything.
    pub fn new(wanted: &Tensor, rows: i64, width: i64) -> Option<Self> {
        let positions = Vec::<i64>::try_from(wanted).ok()?;
        let mut of_rows: Vec<Vec<(usize, i64)>> = vec![Vec::new(); usize::try_from(rows).ok()?];
        let mut known = BTreeMap::new();
        for (at, &position) in positions.iter().enumerate() {
            known.entry(position).or_insert_with(|| {
                let row = &mut of_rows[(position / width) as usize];
                row.push((at, position));
                row.len() - 1
            });
        }
        let most = of_rows.iter().map(Vec::len).max().unwrap_or(0).max(1).next_multiple_of(QUERIES);
        if positions.is_empty() || 2 * most > usize::try_from(width).ok()? {
            return None;
        }
        let (mut slots, mut places) = (Vec::new(), Vec::new());
        for (row, own) in (0..).zip(&of_rows) {
            let nobody = (0, row * width);
            for (at, place) in own.iter().chain(std::iter::repeat(&nobody)).take(most) {
                slots.push(*at as i64);
                places.push(*place);
            }
        }
        let most = most as i64;
        let queries = positions.iter().map(|position| position / width * most + known[position] as i64);
        let device = wanted.device();
        let tensor = |numbers: &[i64]| Tensor::from_slice(numbers).to_device(device);
        Some(Self {
            wanted: wanted.shallow_clone(),
            slots: tensor(&slots),
            places: tensor(&places),
            queries: tensor(&queries.collect::<Vec<_>>()),
            shape: [rows, most],
        })
    }

    /// N.
    pub fn count(&self) -> i64 {
        self.wanted.size()[0]
    }

    /// x [B, T, width] → [N, 1, width].
    pub fn pick(&self, x: &Tensor) -> Tensor {
        x.flatten(0, 1).index_select(0, &self.wanted).unsqueeze(1)
    }

    /// The angles of the positions, for [N, 1, heads, D].
    pub fn rotary(&self, of_all: &Rotary) -> Rotary {
        of_all.picked(&self.wanted, self.shape[0])
    }

    /// Queries [N, 1, heads, D] → [B, heads, Q, D].
    pub fn by_rows(&self, q: &Tensor) -> Tensor {
        let (_, _, heads, width) = q.size4().unwrap_or_default();
        let [rows, queries] = self.shape;
        q.squeeze_dim(1).index_select(0, &self.slots).view([rows, queries, heads, width]).transpose(1, 2)
    }

    /// What the queries see of what all of a row see, whose T positions are the last of `keys`.
    pub fn sight(&self, of_all: &Sight, width: i64, keys: i64, kind: Kind) -> Sight {
        let [rows, queries] = self.shape;
        let mask = match &of_all.mask {
            Some(mask) => mask.expand([rows, 1, width, keys], false).reshape([-1, keys]).index_select(0, &self.places),
            None => {
                let device = self.places.device();
                let own = self.places.remainder(width).unsqueeze(1) + (keys - width);
                let behind = Tensor::arange(keys, (Kind::Int64, device)).gt_tensor(&own);
                Tensor::zeros([rows * queries, keys], (kind, device)).masked_fill(&behind, f64::NEG_INFINITY)
            }
        };
        Sight { mask: Some(mask.view([rows, 1, queries, keys])), causal: false, last: of_all.last, in_order: false }
    }

    /// [B, heads, Q, D] → [N, heads · D].
    pub fn by_positions(&self, x: &Tensor) -> Tensor {
        x.transpose(1, 2).flatten(2, 3).flatten(0, 1).index_select(0, &self.queries)
    }
}
