//! Which keys a query may look at: those before it, those that are no padding, those within a window.
//! It does not know scores. A mask is built only where the kernel's own causal one does not do.

use tch::{Device, Kind, Tensor};

use crate::ml::models::Branches;

/// What the queries of a pass see, the same for all blocks of a kind.
pub struct Sight {
    /// Added to scores: 0 where a query may look, else -∞, [B or 1, 1, T, S]; `None`: everything, but for `causal`.
    pub mask: Option<Tensor>,
    /// True if a query sees the keys up to its own place.
    pub causal: bool,
    /// Only so many keys, the last ones, are seen at all.
    pub last: Option<i64>,
    /// True if queries stand in the order of the keys, the last one at the last: none sees what stands behind its own place.
    pub in_order: bool,
}

/// The queries of a pass: `new` places behind `past` ones.
pub struct Queries<'a> {
    pub past: i64,
    pub new: i64,
    /// Where each query stands, i64 [B, T], if not one behind the other; keys may be more than what any of them sees.
    pub stand: Option<&'a Tensor>,
    /// True where a key is a token, bool [B, S]; `None`: everywhere.
    pub real: Option<&'a Tensor>,
    /// True if some of the new places may be padding.
    pub padded: bool,
    /// Texts that share their beginning.
    pub branches: Option<&'a Branches>,
    pub device: Device,
    /// The dtype of scores.
    pub kind: Kind,
}

impl Queries<'_> {
    /// What they see: everything before, or `window` places, their own included. With `explicit`, the mask is built
    /// even where `causal` would do.
    pub fn sight(&self, window: Option<i64>, explicit: bool) -> Sight {
        let (t, s) = (self.new, self.past + self.new);
        let window = window.filter(|&window| window < s);
        let masked = |seen: &Tensor| {
            let in_order = self.stand.is_none();
            Sight { mask: Some(self.added(seen)), causal: false, last: None, in_order }
        };
        if let Some(branches) = self.branches {
            let (rows, _) = branches.positions.size2().unwrap_or_default();
            let before = Tensor::ones([rows, t, self.past], (Kind::Bool, self.device));
            let sees = Tensor::cat(&[&before, &branches.sees], 2); // [B, T, S]
            let Some(window) = window else { return masked(&sees.unsqueeze(1)) };
            let queries = &branches.positions + self.past;
            let before = Tensor::arange(self.past, (Kind::Int64, self.device)).expand([rows, self.past], false);
            let keys = Tensor::cat(&[&before, &queries], 1);
            let near = (queries.unsqueeze(2) - keys.unsqueeze(1)).lt(window);
            return masked(&sees.logical_and(&near).unsqueeze(1));
        }
        if let Some(stand) = self.stand {
            let (stand, keys) = (stand.unsqueeze(2), Tensor::arange(s, (Kind::Int64, self.device)));
            let seen = keys.le_tensor(&stand); // [B, T, S]
            let seen = match window {
                Some(window) => seen.logical_and(&keys.gt_tensor(&(stand - window))),
                None => seen,
            };
            let seen = self.real.map_or(seen.shallow_clone(), |real| seen.logical_and(&real.unsqueeze(1)));
            return masked(&seen.unsqueeze(1));
        }
        if t == 1 {
            // One query, the last place: all keys, or the last few.
            let mask = self.real.map(|real| {
                let from = window.map_or(0, |window| s - window);
                let seen = real.narrow(1, from, s - from);
                let seen = if self.padded { seen.logical_or(&self.itself().narrow(1, from, s - from)) } else { seen };
                self.added(&seen.unsqueeze(1).unsqueeze(1))
            });
            return Sight { mask, causal: false, last: window, in_order: true };
        }
        // The kernel's own mask starts at the first key: it is right where nothing is before.
        if self.real.is_none() && window.is_none() && self.past == 0 && !explicit {
            return Sight { mask: None, causal: true, last: None, in_order: true };
        }
        let mut before = Tensor::ones([t, s], (Kind::Bool, self.device)).tril(self.past);
        if let Some(window) = window {
            before = before.triu(self.past - window + 1);
        }
        match self.real {
            None => masked(&before.unsqueeze(0).unsqueeze(0)),
            // A padded query sees itself: a row that sees nothing would be NaN and spoil the values of others.
            Some(real) => masked(&real.unsqueeze(1).logical_and(&before).logical_or(&self.itself()).unsqueeze(1)),
        }
    }

    fn added(&self, seen: &Tensor) -> Tensor {
        let nothing = Tensor::zeros(seen.size(), (self.kind, self.device));
        nothing.masked_fill(&seen.logical_not(), f64::NEG_INFINITY)
    }

    /// bool [T, S], true at each query's own place.
    fn itself(&self) -> Tensor {
        Tensor::eye_m(self.new, self.past + self.new, (Kind::Bool, self.device)).roll([self.past], [1])
    }
}
