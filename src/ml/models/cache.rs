//! Keys and values of what was read, in place, so that a new id costs one query and no copy.
//! It does not know how they are computed, nor what is generated with them.

mod part;

use tch::{Device, Kind, Tensor};

use self::part::Part;
use super::Input;
use super::uneven::Order;

/// Keys and values of a batch. Its rows stand in parts, one after the other: the rows of a part began equally long, and
/// stay so unless they go on by unlike many ids; those of another part may have read more or less.
#[derive(Default)]
pub struct KvCache {
    pub(super) parts: Vec<Part>,
    /// Of the pass that is under way, if not each id is a query.
    pub(super) order: Option<Order>,
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

impl KvCache {
    /// With room for so many places, so that nothing is moved until they are full.
    pub fn with_room(places: usize) -> Self {
        Self { room: i64::try_from(places).unwrap_or(i64::MAX), ..Self::default() }
    }

    /// The same keys and values, which are not copied, for another thread that only reads them.
    pub fn share(&self) -> Self {
        Self { parts: self.parts.iter().map(Part::share).collect(), order: None, room: self.room }
    }

    /// How many places its first rows have read.
    pub(super) fn places(&self) -> i64 {
        self.parts.first().map_or(0, Part::longest)
    }

    /// Keys and values of its only row in a layer, [1, heads, S, head width].
    pub(super) fn only(&self, layer: usize) -> Option<(Tensor, Tensor)> {
        let part = self.parts.first()?;
        let (keys, values) = part.layers.get(layer)?;
        Some((keys.narrow(2, 0, part.longest()), values.narrow(2, 0, part.longest())))
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

    /// Makes room for what goes in behind what each row has read. A cache that holds nothing takes all rows of the batch,
    /// and begins with what stands before them.
    pub(super) fn open(&mut self, layout: Layout, input: &Input) {
        let (rows, new) = input.ids.size2().unwrap_or_default();
        if self.parts.is_empty() {
            let before = input.after.map_or(0, Self::places);
            let mut part = Part::new(layout, rows, self.room.max(before + new));
            if let Some(after) = input.after {
                part.begin(after);
            }
            self.parts.push(part);
        }
        let mut first = 0;
        for part in &mut self.parts {
            match input.counts {
                Some(counts) => part.part_ways(&counts[first as usize..(first + part.rows) as usize]),
                None => {
                    part.reserve(part.longest() + new);
                    part.note(new, input.mask.map(|mask| mask.narrow(0, first, part.rows)).as_ref());
                }
            }
            first += part.rows;
        }
        let uneven = self.parts.iter().filter_map(|part| part.uneven.as_ref());
        self.order = Order::of(uneven, rows * new, layout.device);
    }

    /// The places that a pass opened are read.
    pub(super) fn close(&mut self, new: i64) {
        self.order = None;
        for part in &mut self.parts {
            let uneven = part.uneven.take();
            let counts = uneven.map_or_else(|| vec![new; part.past.len()], |uneven| uneven.counts);
            part.past.iter_mut().zip(counts).for_each(|(past, new)| *past += new);
        }
    }

    /// Takes back so many of the last ids of each row; rows must have gone on by counts.
    pub fn forget(&mut self, ids: &[i64]) {
        let mut first = 0;
        for part in &mut self.parts {
            let ids = &ids[first..first + part.past.len()];
            first += ids.len();
            part.past.iter_mut().zip(ids).for_each(|(past, ids)| *past -= ids);
            part.read_more(&ids.iter().map(|ids| -ids).collect::<Vec<_>>());
        }
    }
}
