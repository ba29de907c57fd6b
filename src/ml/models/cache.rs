//! Keys and values of what was read, in place, so that a new id costs one query and no copy.
//! It does not know how they are computed, nor what is generated with them.

use tch::{Device, Kind, Tensor};

/// Keys and values of a batch. Its rows stand in parts, one after the other: the rows of a part are equally long, those
/// of another part may have read more or less.
#[derive(Default)]
pub struct KvCache {
    pub(super) parts: Vec<Part>,
    room: i64,
}

/// What a cache needs to know of the model.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub layers: usize,
    pub heads: i64,
    pub head_dim: i64,
    pub kind: Kind,
    pub device: Device,
}

/// Rows that are equally long.
pub(super) struct Part {
    pub rows: i64,
    /// Places that were read before this pass.
    pub past: i64,
    room: i64,
    /// True where a key is a token, bool [rows, room]; `None`: everywhere.
    real: Option<Tensor>,
    /// Tokens that each row has read, i64 [rows, 1], where some places are padding.
    read: Option<Tensor>,
    /// Keys and values by layer, [rows, heads, room, head width].
    layers: Vec<(Tensor, Tensor)>,
}

impl KvCache {
    /// With room for so many places, so that nothing is moved until they are full.
    pub fn with_room(places: usize) -> Self {
        Self { parts: Vec::new(), room: i64::try_from(places).unwrap_or(i64::MAX) }
    }

    /// How many places its first rows have read.
    pub(super) fn places(&self) -> i64 {
        self.parts.first().map_or(0, |part| part.past)
    }

    /// Keys and values of its only row in a layer, [1, heads, S, head width].
    pub(super) fn only(&self, layer: usize) -> Option<(Tensor, Tensor)> {
        let part = self.parts.first()?;
        let (keys, values) = part.layers.get(layer)?;
        Some((keys.narrow(2, 0, part.past), values.narrow(2, 0, part.past)))
    }

    /// The number of its rows.
    pub fn rows(&self) -> usize {
        self.parts.iter().map(|part| part.rows as usize).sum()
    }

    /// Puts the rows of another cache of the same model behind its own.
    pub fn append(&mut self, other: Self) {
        self.parts.extend(other.parts);
    }

    /// Drops rows, given by their positions in rising order. The last rows of a part take the places of those that it
    /// loses; the answer tells for each row that is left where it was.
    pub fn remove(&mut self, dead: &[usize]) -> Vec<usize> {
        let mut places = Vec::with_capacity(self.rows());
        let mut first = 0;
        for part in &mut self.parts {
            let rows = part.rows as usize;
            let end = first + rows;
            let mine: Vec<usize> =
                dead.iter().filter(|row| (first..end).contains(row)).map(|row| row - first).collect();
            let left = rows - mine.len();
            let mut order: Vec<usize> = (0..left).collect();
            let mut movers = (left..rows).filter(|row| !mine.contains(row));
            for &hole in mine.iter().filter(|&&hole| hole < left) {
                // As many rows behind `left` live as rows before it are dead.
                order[hole] = movers.next().unwrap_or(hole);
                part.copy_row(order[hole] as i64, hole as i64);
            }
            part.shrink(left as i64);
            places.extend(order.into_iter().map(|row| first + row));
            first = end;
        }
        self.parts.retain(|part| part.rows > 0);
        places
    }

    /// Makes room for `new` places behind what each row has read; `mask` says which of them are tokens, bool [rows,
    /// new]. A cache that holds nothing takes all `rows` of the batch, and begins with what stands before them.
    pub(super) fn open(&mut self, layout: Layout, rows: i64, new: i64, mask: Option<&Tensor>, after: Option<&Self>) {
        if self.parts.is_empty() {
            let before = after.map_or(0, Self::places);
            let mut part = Part::new(layout, rows, self.room.max(before + new));
            if let Some(after) = after {
                part.begin(after);
            }
            self.parts.push(part);
        }
        let mut first = 0;
        for part in &mut self.parts {
            part.reserve(part.past + new);
            part.note(new, mask.map(|mask| mask.narrow(0, first, part.rows)).as_ref());
            first += part.rows;
        }
    }

    /// The places that a pass opened are read.
    pub(super) fn close(&mut self, new: i64) {
        self.parts.iter_mut().for_each(|part| part.past += new);
    }
}

impl Part {
    fn new(layout: Layout, rows: i64, room: i64) -> Self {
        let empty = || Tensor::empty([rows, layout.heads, room, layout.head_dim], (layout.kind, layout.device));
        let layers = (0..layout.layers).map(|_| (empty(), empty())).collect();
        Self { rows, past: 0, room, real: None, read: None, layers }
    }

    /// Puts what one row has read at the beginning of all.
    fn begin(&mut self, after: &KvCache) {
        self.past = after.places();
        for (layer, kept) in self.layers.iter().enumerate() {
            let Some((keys, values)) = after.only(layer) else { continue };
            for (to, from) in [(&kept.0, keys), (&kept.1, values)] {
                to.narrow(2, 0, self.past).copy_(&from);
            }
        }
    }

    fn reserve(&mut self, places: i64) {
        if places <= self.room {
            return;
        }
        let room = places.max(self.room * 2);
        // Where nothing is noted, a key is a token.
        let wider = |old: &Tensor, dim: i64| {
            let mut size = old.size();
            size[dim as usize] = room;
            let new = Tensor::ones(size, (old.kind(), old.device()));
            new.narrow(dim, 0, self.past).copy_(&old.narrow(dim, 0, self.past));
            new
        };
        for (keys, values) in &mut self.layers {
            (*keys, *values) = (wider(keys, 2), wider(values, 2));
        }
        self.real = self.real.as_ref().map(|real| wider(real, 1));
        self.room = room;
    }

    /// Remembers which of the next places are tokens.
    fn note(&mut self, new: i64, mask: Option<&Tensor>) {
        let device = self.layers[0].0.device();
        if mask.is_none() && self.real.is_none() {
            return;
        }
        let real = self.real.get_or_insert_with(|| Tensor::ones([self.rows, self.room], (Kind::Bool, device)));
        let read = self.read.get_or_insert_with(|| Tensor::full([self.rows, 1], self.past, (Kind::Int64, device)));
        match mask {
            Some(mask) => {
                real.narrow(1, self.past, new).copy_(mask);
                *read = &*read + mask.sum_dim_intlist(1, true, Kind::Int64);
            }
            None => *read = &*read + new,
        }
    }

    /// The places of the tokens that a pass opened, i64 [rows, new], or [new] where all rows have the same: transformers'
    /// `cumsum(mask) - 1`, so that padding on the left does not count.
    pub fn positions(&self, new: i64, mask: Option<&Tensor>) -> Tensor {
        match (&self.read, mask) {
            (None, _) => {
                let device = self.layers[0].0.device();
                Tensor::arange_start(self.past, self.past + new, (Kind::Int64, device))
            }
            (Some(read), None) => read - new + Tensor::arange(new, (Kind::Int64, read.device())),
            (Some(read), Some(mask)) => {
                let before = read - mask.sum_dim_intlist(1, true, Kind::Int64);
                (before + mask.cumsum(-1, Kind::Int64) - 1).clamp_min(0)
            }
        }
    }

    /// Which keys are tokens, bool [rows, past + new]; `None`: all.
    pub fn real(&self, new: i64) -> Option<Tensor> {
        self.real.as_ref().map(|real| real.narrow(1, 0, self.past + new))
    }

    /// Keeps keys and values of the new places, [rows, heads, new, head width], and gives all so far.
    pub fn put(&mut self, layer: usize, keys: &Tensor, values: &Tensor) -> (Tensor, Tensor) {
        let new = keys.size()[2];
        let put = |kept: &Tensor, what: &Tensor| {
            kept.narrow(2, self.past, new).copy_(what);
            kept.narrow(2, 0, self.past + new)
        };
        let (kept_keys, kept_values) = &self.layers[layer];
        (put(kept_keys, keys), put(kept_values, values))
    }

    fn copy_row(&mut self, from: i64, to: i64) {
        let copy = |of: &Tensor| of.get(to).copy_(&of.get(from));
        for kept in self.layers.iter().flat_map(|(keys, values)| [keys, values]) {
            copy(&kept.narrow(2, 0, self.past));
        }
        self.real.iter().chain(&self.read).for_each(copy);
    }

    fn shrink(&mut self, rows: i64) {
        if rows == self.rows {
            return;
        }
        let first = |of: &Tensor| of.narrow(0, 0, rows);
        self.layers.iter_mut().for_each(|(keys, values)| (*keys, *values) = (first(keys), first(values)));
        (self.real, self.read) = (self.real.as_ref().map(first), self.read.as_ref().map(first));
        self.rows = rows;
    }
}
