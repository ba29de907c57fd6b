//! What the model reads to score items: a context once, with everything that may follow it in branches behind it.
//! It does not know models, batches or probabilities.

use std::collections::BTreeMap;

/// A context and what may follow it, neither empty.
pub type Item = (Vec<i64>, Vec<i64>);

/// Branches stand in one row while it is no longer than this: what sees what is a square of it.
const LONGEST: usize = 2048;

/// A context with branches.
#[derive(Debug)]
pub struct Row {
    context: usize,
    /// The ids of the context and of each branch.
    pub ids: Vec<i64>,
    /// Where each branch begins and ends in `ids`, and the items that read it.
    branches: Vec<(usize, usize, Vec<usize>)>,
}

/// An id that is predicted: at which place of the row, for which item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The place that predicts it.
    pub place: usize,
    /// The item.
    pub item: usize,
    /// The id.
    pub id: i64,
}

impl Row {
    /// The rows of these items, sorted by [`Row::kind`]. What a row holds depends on the items alone that share its
    /// context, not on their order.
    pub fn of(items: &[Item]) -> Vec<Self> {
        // The last id is only predicted.
        let mut contexts: BTreeMap<&[i64], BTreeMap<&[i64], Vec<usize>>> = BTreeMap::new();
        for (i, (context, continuation)) in items.iter().enumerate() {
            let read = &continuation[..continuation.len() - 1];
            contexts.entry(context).or_default().entry(read).or_default().push(i);
        }
        let mut rows = Vec::new();
        for (context, readers) in contexts {
            let mut row = Self::new(context);
            for (read, owners) in readers {
                // Another row costs the context once more; a longer one costs every branch the sight of the others.
                let whole = row.ids.len() + read.len();
                if row.ids.len() > context.len() && whole > LONGEST.min(2 * context.len()) {
                    rows.push(std::mem::replace(&mut row, Self::new(context)));
                }
                let from = row.ids.len();
                row.ids.extend(read);
                row.branches.push((from, row.ids.len(), owners));
            }
            rows.push(row);
        }
        rows.sort_by_key(Self::kind);
        rows
    }

    fn new(context: &[i64]) -> Self {
        Self { context: context.len(), ids: context.to_vec(), branches: Vec::new() }
    }

    /// Rows of one kind may share a batch: whether it forks, and how long it is.
    pub fn kind(&self) -> (bool, usize) {
        (self.forks(), self.ids.len())
    }

    /// True if it holds several texts.
    pub fn forks(&self) -> bool {
        self.branches.iter().filter(|(from, to, _)| from < to).count() > 1
    }

    /// How many items it answers.
    pub fn items(&self) -> usize {
        self.branches.iter().map(|(_, _, owners)| owners.len()).sum()
    }

    /// Everything that is predicted, by place; an item's ids come in their order.
    pub fn targets(&self, items: &[Item]) -> Vec<Target> {
        let mut targets = Vec::new();
        for (from, _, owners) in &self.branches {
            for &item in owners {
                for (k, &id) in items[item].1.iter().enumerate() {
                    let place = if k == 0 { self.context - 1 } else { from + k - 1 };
                    targets.push(Target { place, item, id });
                }
            }
        }
        targets.sort_unstable();
        targets
    }

    /// The place of each id in its own text.
    pub fn positions(&self) -> impl Iterator<Item = usize> {
        let branches = self.branches.iter().flat_map(|&(from, to, _)| self.context..self.context + to - from);
        (0..self.context).chain(branches)
    }

    /// Writes which ids each id sees, a square of `width` that is false.
    pub fn sees(&self, width: usize, square: &mut [bool]) {
        for place in 0..width {
            // What fills the row up sees itself: a place that sees nothing is not a number.
            square[place * width + place] = true;
        }
        for place in 0..self.context {
            square[place * width..=place * width + place].fill(true);
        }
        for &(from, to, _) in &self.branches {
            for place in from..to {
                square[place * width..place * width + self.context].fill(true);
                square[place * width + from..=place * width + place].fill(true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_read_once() {
        let items = [
            (vec![1, 2, 3], vec![7, 8]),
            (vec![1, 2, 3], vec![7, 9]),
            (vec![1, 2, 3], vec![4]),
            (vec![1, 2, 3], vec![5, 6, 0]),
            (vec![9], vec![1, 2, 3]),
        ];
        let rows = Row::of(&items);
        assert_eq!(rows.iter().map(|row| row.ids.clone()).collect::<Vec<_>>(), [vec![9, 1, 2], vec![1, 2, 3, 5, 6, 7]]);
        assert_eq!(rows.iter().map(Row::kind).collect::<Vec<_>>(), [(false, 3), (true, 6)]);
        assert_eq!(rows.iter().map(Row::items).sum::<usize>(), items.len());
        let forked = &rows[1];
        let target = |place, item, id| Target { place, item, id };
        let right = [
            target(2, 0, 7),
            target(2, 1, 7),
            target(2, 2, 4),
            target(2, 3, 5),
            target(3, 3, 6),
            target(4, 3, 0),
            target(5, 0, 8),
            target(5, 1, 9),
        ];
        assert_eq!(forked.targets(&items), right);
        assert_eq!(forked.positions().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 3]);
        let mut square = vec![false; 49];
        forked.sees(7, &mut square);
        let drawn: Vec<String> =
            square.chunks(7).map(|row| row.iter().map(|&sees| if sees { 'x' } else { '.' }).collect()).collect();
        assert_eq!(drawn, ["x......", "xx.....", "xxx....", "xxxx...", "xxxxx..", "xxx..x.", "......x"]);
    }

    #[test]
    fn short_contexts_are_not_drowned_in_branches() {
        let items: Vec<Item> = (0..40).map(|i| (vec![1], vec![i, i + 1, i + 2, 3])).collect();
        assert!(Row::of(&items).iter().all(|row| !row.forks()));
        let items: Vec<Item> = (0..40).map(|i| (vec![1; 20], vec![i, i + 1, i + 2, 3])).collect();
        let rows = Row::of(&items);
        assert!(rows.iter().all(|row| row.ids.len() <= 40));
        assert_eq!(rows.len(), 7);
    }
}
