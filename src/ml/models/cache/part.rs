//! Rows of a cache that began equally long: their keys and values, which of them are tokens, how far each row has read.
//! It does not know other rows of the batch.

use tch::{Kind, Tensor};

use super::{KvCache, Layout};
use crate::ml::models::uneven::{Run, Uneven};

/// Rows that began equally long.
pub(in crate::ml::models) struct Part {
    pub rows: i64,
    /// Places that each row has read before this pass.
    pub(super) past: Vec<i64>,
    room: i64,
    /// So many places hold numbers, be it nought; what is masked must not be none.
    clean: i64,
    /// How the ids of this pass lie, if not as many in each row.
    pub(super) uneven: Option<Uneven>,
    /// True where a key is a token, bool [rows, room]; `None`: everywhere.
    real: Option<Tensor>,
    /// Tokens that each row has read, i64 [rows, 1], where some places are padding.
    read: Option<Tensor>,
    /// Keys and values by layer, [rows, heads, room, head width].
    pub(super) layers: Vec<(Tensor, Tensor)>,
}

impl Part {
    pub(super) fn new(layout: Layout, rows: i64, room: i64) -> Self {
        let empty = || Tensor::empty([rows, layout.heads, room, layout.head_dim], (layout.kind, layout.device));
        let layers = (0..layout.layers).map(|_| (empty(), empty())).collect();
        let past = vec![0; rows as usize];
        Self { rows, past, room, clean: 0, uneven: None, real: None, read: None, layers }
    }

    pub(super) fn share(&self) -> Self {
        let kept = |of: &Option<Tensor>| of.as_ref().map(Tensor::shallow_clone);
        let layers = self.layers.iter().map(|(keys, values)| (keys.shallow_clone(), values.shallow_clone()));
        Self {
            rows: self.rows,
            past: self.past.clone(),
            room: self.room,
            clean: self.clean,
            uneven: None,
            real: kept(&self.real),
            read: kept(&self.read),
            layers: layers.collect(),
        }
    }

    /// Places that its longest row has read before this pass.
    pub fn longest(&self) -> i64 {
        self.past.iter().copied().max().unwrap_or(0)
    }

    /// Puts what one row has read at the beginning of all.
    pub(super) fn begin(&mut self, after: &KvCache) {
        let past = after.places();
        self.past.fill(past);
        for (layer, kept) in self.layers.iter().enumerate() {
            let Some((keys, values)) = after.only(layer) else { continue };
            for (to, from) in [(&kept.0, keys), (&kept.1, values)] {
                to.narrow(2, 0, past).copy_(&from);
            }
        }
    }

    pub(super) fn reserve(&mut self, places: i64) {
        if places <= self.room {
            return;
        }
        let (room, past) = (places.max(self.room * 2), self.longest());
        // Where nothing is noted, a key is a token.
        let wider = |old: &Tensor, dim: i64| {
            let mut size = old.size();
            size[dim as usize] = room;
            let new = Tensor::ones(size, (old.kind(), old.device()));
            new.narrow(dim, 0, past).copy_(&old.narrow(dim, 0, past));
            new
        };
        for (keys, values) in &mut self.layers {
            (*keys, *values) = (wider(keys, 2), wider(values, 2));
        }
        self.real = self.real.as_ref().map(|real| wider(real, 1));
        self.room = room;
    }

    /// Lays out a pass in which each row goes on by its own number of ids.
    pub(super) fn part_ways(&mut self, counts: &[i64]) {
        let uneven = Uneven::new(&self.past, counts, self.layers[0].0.device());
        let keys = uneven.keys();
        self.reserve(keys);
        // A place that nobody has written may hold what is no number, and so may what is made of it under any mask.
        let from = self.clean.max(self.past.iter().copied().min().unwrap_or(0));
        if from < keys {
            for kept in self.layers.iter().flat_map(|(keys, values)| [keys, values]) {
                let _ = kept.narrow(2, from, keys - from).zero_();
            }
            self.clean = keys;
        }
        self.read_more(counts);
        self.uneven = Some(uneven);
    }

    pub(super) fn read_more(&mut self, ids: &[i64]) {
        if let Some(read) = self.read.as_mut().filter(|_| ids.iter().any(|&ids| ids != 0)) {
            *read = &*read + Tensor::from_slice(ids).unsqueeze(1).to_device(read.device());
        }
    }

    /// Remembers which of the next places are tokens.
    pub(super) fn note(&mut self, new: i64, mask: Option<&Tensor>) {
        let device = self.layers[0].0.device();
        if mask.is_none() && self.real.is_none() {
            return;
        }
        let past = self.longest();
        let real = self.real.get_or_insert_with(|| Tensor::ones([self.rows, self.room], (Kind::Bool, device)));
        let read = self.read.get_or_insert_with(|| Tensor::full([self.rows, 1], past, (Kind::Int64, device)));
        match mask {
            Some(mask) => {
                real.narrow(1, past, new).copy_(mask);
                *read = &*read + mask.sum_dim_intlist(1, true, Kind::Int64);
            }
            None => *read = &*read + new,
        }
    }

    /// The places of the tokens that a pass opened, i64 [rows, new], or [new] where all rows have the same: transformers'
    /// `cumsum(mask) - 1`, so that padding on the left does not count. Where rows go on by counts, [ids, 1].
    pub fn positions(&self, new: i64, mask: Option<&Tensor>) -> Tensor {
        let past = self.longest();
        match (&self.uneven, &self.read, mask) {
            (Some(uneven), read, _) => uneven.positions(read.as_ref()),
            (None, None, _) => {
                let device = self.layers[0].0.device();
                Tensor::arange_start(past, past + new, (Kind::Int64, device))
            }
            (None, Some(read), None) => read - new + Tensor::arange(new, (Kind::Int64, read.device())),
            (None, Some(read), Some(mask)) => {
                let before = read - mask.sum_dim_intlist(1, true, Kind::Int64);
                (before + mask.cumsum(-1, Kind::Int64) - 1).clamp_min(0)
            }
        }
    }

    /// How many rows of the batch are its own in this pass.
    pub fn in_batch(&self) -> i64 {
        self.uneven.as_ref().map_or(self.rows, |uneven| uneven.counts.iter().sum())
    }

    /// Rows that have equally many queries, [rows, new] of them if all have.
    pub fn runs(&self, new: i64) -> Vec<Run> {
        match &self.uneven {
            Some(uneven) => uneven.runs.clone(),
            None => vec![Run::whole(self.rows, new, self.longest() + new)],
        }
    }

    /// Where each query of a run stands, i64 [rows, queries]; `None`: one behind the other, behind what was read.
    pub fn stand(&self, run: &Run) -> Option<Tensor> {
        self.uneven.as_ref().map(|uneven| uneven.stand(run))
    }

    /// Which keys of a run are tokens, bool [rows, keys]; `None`: all.
    pub fn real(&self, run: &Run) -> Option<Tensor> {
        self.real.as_ref().map(|real| real.narrow(0, run.first, run.rows).narrow(1, 0, run.keys))
    }

    /// Keeps keys and values of the new places, [ids, heads, head width].
    pub fn put(&mut self, layer: usize, keys: &Tensor, values: &Tensor) {
        let (rows, past) = (self.rows, self.longest());
        let (kept_keys, kept_values) = &mut self.layers[layer];
        for (kept, what) in [(kept_keys, keys), (kept_values, values)] {
            match &self.uneven {
                Some(uneven) => uneven.put(kept, what),
                None => {
                    let (ids, heads, width) = what.size3().unwrap_or_default();
                    let what = what.view([rows, ids / rows, heads, width]).transpose(1, 2);
                    kept.narrow(2, past, ids / rows).copy_(&what);
                }
            }
        }
    }

    /// Keys and values that a run sees, [rows, heads, keys, head width].
    pub fn kept(&self, layer: usize, run: &Run) -> (Tensor, Tensor) {
        // One view instead of two, for each run of each block. The first row is where the memory begins.
        let seen = |kept: &Tensor| {
            let (_, heads, _, width) = kept.size4().unwrap_or_default();
            let strides = kept.stride();
            kept.as_strided([run.rows, heads, run.keys, width], &strides, run.first * strides[0])
        };
        let (keys, values) = &self.layers[layer];
        (seen(keys), seen(values))
    }

    pub(super) fn copy_row(&mut self, from: i64, to: i64) {
        let copy = |of: &Tensor| of.get(to).copy_(&of.get(from));
        for kept in self.layers.iter().flat_map(|(keys, values)| [keys, values]) {
            copy(&kept.narrow(2, 0, self.past[from as usize]));
        }
        self.past[to as usize] = self.past[from as usize];
        self.real.iter().chain(&self.read).for_each(copy);
    }

    pub(super) fn shrink(&mut self, rows: i64) {
        if rows == self.rows {
            return;
        }
        let first = |of: &Tensor| of.narrow(0, 0, rows);
        self.layers.iter_mut().for_each(|(keys, values)| (*keys, *values) = (first(keys), first(values)));
        (self.real, self.read) = (self.real.as_ref().map(first), self.read.as_ref().map(first));
        self.past.truncate(rows as usize);
        self.rows = rows;
    }
}
