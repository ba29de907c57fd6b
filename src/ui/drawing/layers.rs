//! In which column of a picture a node stands, and in which order those of a column stand there.
//! It does not know how large nodes are.

use std::collections::BTreeSet;

/// The columns of a picture.
pub(super) struct Layers {
    /// From left to right, each from top to bottom: positions in `items`.
    pub columns: Vec<Vec<usize>>,
    /// The node of an item; `None` where an arrow only passes through its column.
    pub items: Vec<Option<usize>>,
    /// Items that an arrow leads over, one for each column from its beginning to its end.
    pub ways: Vec<Vec<usize>>,
    /// Neighbours of each item to the left and to the right.
    pub left: Vec<Vec<usize>>,
    /// See `left`.
    pub right: Vec<Vec<usize>>,
}

/// How often the columns are sorted, there and back.
const SWEEPS: usize = 12;

impl Layers {
    /// Columns by the longest way from the left, ordered so that few arrows cross.
    pub fn new(nodes: usize, arrows: &[(usize, usize)]) -> Self {
        let arrows = forward(nodes, arrows);
        let column = columns(nodes, &arrows);
        let mut layers = Self {
            columns: vec![Vec::new(); column.iter().max().map_or(0, |last| last + 1)],
            items: (0..nodes).map(Some).collect(),
            ways: Vec::new(),
            left: vec![Vec::new(); nodes],
            right: vec![Vec::new(); nodes],
        };
        for (node, &column) in column.iter().enumerate() {
            layers.columns[column].push(node);
        }
        for &(from, to) in &arrows {
            let mut way = vec![from];
            for between in column[from] + 1..column[to] {
                layers.columns[between].push(layers.items.len());
                way.push(layers.items.len());
                layers.items.push(None);
                layers.left.push(Vec::new());
                layers.right.push(Vec::new());
            }
            way.push(to);
            for pair in way.windows(2) {
                layers.right[pair[0]].push(pair[1]);
                layers.left[pair[1]].push(pair[0]);
            }
            layers.ways.push(way);
        }
        layers.sort();
        layers
    }

    /// Sorts each column by where the neighbours stand on average, and keeps the best that came up.
    fn sort(&mut self) {
        let mut best = (self.crossings(), self.columns.clone());
        for sweep in 0..SWEEPS {
            let last = self.columns.len().saturating_sub(1);
            for step in 1..=last {
                if sweep % 2 == 0 { self.sort_by(step, step - 1) } else { self.sort_by(last - step, last - step + 1) }
            }
            let crossings = self.crossings();
            if crossings < best.0 {
                best = (crossings, self.columns.clone());
            }
        }
        self.columns = best.1;
    }

    fn sort_by(&mut self, column: usize, other: usize) {
        let mut place = vec![0.0; self.items.len()];
        self.columns[other].iter().enumerate().for_each(|(i, &item)| place[item] = i as f64);
        let neighbours = if other < column { &self.left } else { &self.right };
        let mut keyed: Vec<(f64, usize)> = Vec::with_capacity(self.columns[column].len());
        for (i, &item) in self.columns[column].iter().enumerate() {
            let near = &neighbours[item];
            let sum: f64 = near.iter().map(|&item| place[item]).sum();
            // Who has no neighbour there stays where it is.
            keyed.push((if near.is_empty() { i as f64 } else { sum / near.len() as f64 }, item));
        }
        keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
        self.columns[column] = keyed.into_iter().map(|(_, item)| item).collect();
    }

    /// How often arrows cross between neighbouring columns.
    fn crossings(&self) -> usize {
        self.columns.windows(2).map(|pair| self.crossings_between(&pair[0], &pair[1])).sum()
    }

    fn crossings_between(&self, left: &[usize], right: &[usize]) -> usize {
        let mut place = vec![0; self.items.len()];
        right.iter().enumerate().for_each(|(i, &item)| place[item] = i);
        // A Fenwick tree of where earlier arrows end: those that end further down are crossed.
        let (mut tree, mut seen, mut crossings) = (vec![0; right.len() + 1], 0, 0);
        for &item in left {
            let mut ends: Vec<usize> = self.right[item].iter().map(|&to| place[to]).collect();
            ends.sort_unstable();
            for &end in &ends {
                let (mut i, mut above) = (end + 1, 0);
                while i > 0 {
                    above += tree[i];
                    i &= i - 1;
                }
                crossings += seen - above;
            }
            for end in ends {
                let mut i = end + 1;
                while i < tree.len() {
                    tree[i] += 1;
                    i += i & i.wrapping_neg();
                }
                seen += 1;
            }
        }
        crossings
    }
}

/// The arrows, all of them in the direction of one order of the nodes. Where several steps are drawn as one node there
/// may be a cycle; its last arrow is laid out as if it led the other way.
fn forward(nodes: usize, arrows: &[(usize, usize)]) -> Vec<(usize, usize)> {
    let arrows: BTreeSet<(usize, usize)> = arrows.iter().copied().filter(|(from, to)| from != to).collect();
    let mut missing = vec![0_usize; nodes];
    let mut to = vec![Vec::new(); nodes];
    for &(a, b) in &arrows {
        missing[b] += 1;
        to[a].push(b);
    }
    let mut open: BTreeSet<(usize, usize)> = missing.iter().copied().enumerate().map(|(i, n)| (n, i)).collect();
    let mut rank = vec![usize::MAX; nodes];
    let mut next = 0;
    while let Some((_, node)) = open.pop_first() {
        rank[node] = next;
        next += 1;
        for &consumer in &to[node] {
            if open.remove(&(missing[consumer], consumer)) {
                missing[consumer] -= 1;
                open.insert((missing[consumer], consumer));
            }
        }
    }
    let mut turned: Vec<(usize, usize)> =
        arrows.into_iter().map(|(a, b)| if rank[a] < rank[b] { (a, b) } else { (b, a) }).collect();
    turned.sort_by_key(|&(a, b)| (rank[a], rank[b]));
    turned.dedup();
    turned
}

/// The column of each node: the longest way to it; then as far to the right as shortens its arrows.
fn columns(nodes: usize, arrows: &[(usize, usize)]) -> Vec<usize> {
    let mut column = vec![0_usize; nodes];
    // They are sorted by where they begin, so that each beginning is final when it is read.
    for &(from, to) in arrows {
        column[to] = column[to].max(column[from] + 1);
    }
    let (mut outgoing, mut incoming) = (vec![Vec::new(); nodes], vec![0_usize; nodes]);
    for &(from, to) in arrows {
        outgoing[from].push(to);
        incoming[to] += 1;
    }
    let mut beginnings: Vec<usize> = arrows.iter().rev().map(|&(from, _)| from).collect();
    beginnings.dedup();
    for node in beginnings {
        let nearest = outgoing[node].iter().map(|&to| column[to]).min();
        if let Some(nearest) = nearest.filter(|_| incoming[node] < outgoing[node].len()) {
            column[node] = nearest - 1;
        }
    }
    column
}
