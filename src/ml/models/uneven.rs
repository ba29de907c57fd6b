//! A pass in which rows go on by unlike many ids: where each id stands, and which rows attend together.
//! It does not know why rows differ. Nothing of a row depends on the rows beside it but what is masked.

use tch::{Device, Tensor};

use crate::ml::steady::KEYS;

/// A row that goes on by several ids has a multiple of so many queries: attention takes another kernel by their number,
/// and bits with it.
const QUERIES: i64 = 8;

/// Neighbouring rows with equally many queries.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// Its first row, and how many there are.
    pub first: i64,
    pub rows: i64,
    /// How many queries each row has.
    pub queries: i64,
    /// How many of all of them are ids.
    pub ids: i64,
    /// How many queries come before, of other runs.
    pub before: i64,
    /// How many places its rows look at.
    pub keys: i64,
}

impl Run {
    /// All rows with as many ids.
    pub fn whole(rows: i64, new: i64, keys: i64) -> Self {
        Self { first: 0, rows, queries: new, ids: rows * new, before: 0, keys }
    }

    /// How many queries it has.
    pub fn count(&self) -> i64 {
        self.rows * self.queries
    }

    /// Its queries of those of the batch, of which so many come before, [queries, heads, D] → [rows, heads, queries of a
    /// row, D].
    pub fn queries(&self, of_all: &Tensor, before: i64) -> Tensor {
        let (_, heads, width) = of_all.size3().unwrap_or_default();
        let mine = of_all.narrow(0, before, self.count());
        if self.queries == 1 {
            return mine.view([self.rows, heads, 1, width]);
        }
        mine.view([self.rows, self.queries, heads, width]).transpose(1, 2)
    }

    /// What they saw, [rows, heads, queries of a row, D] → [queries, heads · D].
    pub fn joined(&self, saw: &Tensor) -> Tensor {
        let (rows, heads, queries, width) = saw.size4().unwrap_or_default();
        let shape = [rows * queries, heads * width];
        if queries == 1 { saw.reshape(shape) } else { saw.transpose(1, 2).reshape(shape) }
    }
}

/// Which ids are the queries of the runs of a batch, and the way back.
pub struct Order {
    queries: Tensor, // i64 [queries]
    ids: Tensor,     // i64 [ids]
}

impl Order {
    /// Of a batch of so many ids, some of which may belong to no part; `None` if each id is a query and no other.
    pub fn of<'a>(parts: impl Iterator<Item = &'a Uneven>, ids: i64, device: Device) -> Option<Self> {
        let (mut to_queries, mut to_ids) = (Vec::new(), Vec::new());
        for part in parts {
            let (ids, queries) = (to_ids.len() as i64, to_queries.len() as i64);
            to_queries.extend(part.to_queries.iter().map(|id| ids + id));
            to_ids.extend(part.to_ids.iter().map(|query| queries + query));
        }
        if to_queries.len() == to_ids.len() {
            return None;
        }
        // Nobody listens to what belongs to no part.
        to_ids.resize(ids as usize, 0);
        let tensor = |numbers: &[i64]| Tensor::from_slice(numbers).to_device(device);
        Some(Self { queries: tensor(&to_queries), ids: tensor(&to_ids) })
    }

    /// What belongs to the ids, [ids, ..], as the runs' queries need it, [queries of all runs, ..].
    pub fn queries(&self, of_ids: &Tensor) -> Tensor {
        of_ids.index_select(0, &self.queries)
    }

    /// The way back.
    pub fn ids(&self, of_queries: &Tensor) -> Tensor {
        of_queries.index_select(0, &self.ids)
    }
}

/// Ids of such a pass in one part of the batch, those of a row behind each other.
pub struct Uneven {
    /// How many each row has.
    pub counts: Vec<i64>,
    pub runs: Vec<Run>,
    /// The id of each query; what is left over in a row is its last once more.
    to_queries: Vec<i64>,
    /// The query of each id.
    to_ids: Vec<i64>,
    /// Where each query stands, [queries].
    stand: Tensor,
    /// The row and the place of each id, [ids].
    rows: Tensor,
    places: Tensor,
    /// The place of all ids, if each row has one and they are the same.
    place: Option<i64>,
    /// The place behind the last of each row, [rows, 1].
    ends: Tensor,
}

impl Uneven {
    /// Of rows that have read `past` and go on by `counts`.
    pub fn new(past: &[i64], counts: &[i64], device: Device) -> Self {
        let (mut rows, mut places) = (Vec::new(), Vec::new());
        let (mut to_queries, mut to_ids, mut stand) = (Vec::new(), Vec::new(), Vec::new());
        let mut runs: Vec<Run> = Vec::new();
        for (row, (&past, &count)) in (0..).zip(past.iter().zip(counts)) {
            let queries = if count == 1 { 1 } else { rounded(count, QUERIES) };
            let (ids, before) = (rows.len() as i64, stand.len() as i64);
            rows.extend((0..count).map(|_| row));
            places.extend(past..past + count);
            to_ids.extend(before..before + count);
            let at = |query: i64| query.min(count - 1);
            to_queries.extend((0..queries).map(|query| ids + at(query)));
            stand.extend((0..queries).map(|query| past + at(query)));
            let keys = rounded(past + count, KEYS as i64);
            match runs.last_mut() {
                Some(run) if run.queries == queries => {
                    (run.rows, run.ids, run.keys) = (run.rows + 1, run.ids + count, run.keys.max(keys));
                }
                _ => runs.push(Run { first: row, rows: 1, queries, ids: count, before, keys }),
            }
        }
        let ends: Vec<i64> = past.iter().zip(counts).map(|(past, count)| past + count).collect();
        let tensor = |numbers: &[i64]| Tensor::from_slice(numbers).to_device(device);
        let single = counts.iter().all(|&count| count == 1);
        Self {
            counts: counts.to_vec(),
            runs,
            place: places.first().copied().filter(|first| single && places.iter().all(|place| place == first)),
            to_queries,
            to_ids,
            stand: tensor(&stand),
            rows: tensor(&rows),
            places: tensor(&places),
            ends: tensor(&ends).unsqueeze(1),
        }
    }

    /// How many places any row looks at.
    pub fn keys(&self) -> i64 {
        self.runs.iter().map(|run| run.keys).max().unwrap_or(0)
    }

    /// The places of the ids without padding, [ids, 1]; `read` are the tokens of each row with them, [rows, 1].
    pub fn positions(&self, read: Option<&Tensor>) -> Tensor {
        let places = self.places.unsqueeze(1);
        match read {
            Some(read) => places - (&self.ends - read).index_select(0, &self.rows),
            None => places,
        }
    }

    /// Where each query of a run stands, [rows, queries].
    pub fn stand(&self, run: &Run) -> Tensor {
        self.stand.narrow(0, run.before, run.count()).view([run.rows, run.queries])
    }

    /// Puts what belongs to the ids, [ids, heads, width], to their places, [rows, heads, places, width].
    pub fn put(&self, kept: &mut Tensor, what: &Tensor) {
        if let Some(place) = self.place {
            kept.select(2, place).copy_(what);
            return;
        }
        let _ = kept.index_put_(&[Some(&self.rows), None, Some(&self.places)], what, false);
    }
}

/// The next multiple.
fn rounded(number: i64, step: i64) -> i64 {
    (number + step - 1) / step * step
}
