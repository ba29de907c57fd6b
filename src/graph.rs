//! Which steps are needed, and in which order they can run.
//! It does not know what steps do, nor whether their results are already there.

use std::collections::BTreeSet;

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::{Dfs, Reversed};

use crate::spec::Pipeline;

/// The steps of a pipeline as nodes, with an arrow from each producer to each consumer.
pub struct Graph(DiGraph<(), ()>);

impl Graph {
    /// The graph of a pipeline; nodes are positions in [`Pipeline::steps`].
    pub fn of(pipeline: &Pipeline) -> Self {
        let edges = pipeline.steps.iter().enumerate().flat_map(|(consumer, step)| {
            let inputs = step.inputs.values().flatten().map(|edge| edge.step);
            inputs.chain(step.after.values().copied()).map(move |producer| (producer, consumer))
        });
        Self::new(pipeline.steps.len(), edges)
    }

    /// The graph of so many nodes with these arrows.
    pub(crate) fn new(nodes: usize, edges: impl Iterator<Item = (usize, usize)>) -> Self {
        let mut graph = DiGraph::new();
        for _ in 0..nodes {
            graph.add_node(());
        }
        // Two outputs of one producer are still one arrow.
        for (producer, consumer) in edges.collect::<BTreeSet<_>>() {
            graph.add_edge(NodeIndex::new(producer), NodeIndex::new(consumer), ());
        }
        Self(graph)
    }

    /// The steps that a step reads from or whose figures it is held against, in order of the file.
    pub fn producers(&self, step: usize) -> BTreeSet<usize> {
        self.neighbours(step, Direction::Incoming)
    }

    /// The steps that read from a step, in order of the file.
    pub fn consumers(&self, step: usize) -> BTreeSet<usize> {
        self.neighbours(step, Direction::Outgoing)
    }

    /// The same, one after the other, for walks over all steps.
    pub fn each_consumer(&self, step: usize) -> impl Iterator<Item = usize> {
        self.0.neighbors_directed(NodeIndex::new(step), Direction::Outgoing).map(NodeIndex::index)
    }

    /// How many steps there are.
    pub fn count(&self) -> usize {
        self.0.node_count()
    }

    /// True if no step reads from this one.
    pub fn is_last(&self, step: usize) -> bool {
        self.each_consumer(step).next().is_none()
    }

    fn neighbours(&self, step: usize, direction: Direction) -> BTreeSet<usize> {
        self.0.neighbors_directed(NodeIndex::new(step), direction).map(NodeIndex::index).collect()
    }

    /// What the targets need, themselves included, in an order in which producers come first. Among the steps
    /// that could come next, the earliest of the file does, so that the order is always the same.
    pub fn order(&self, targets: &[usize]) -> Vec<usize> {
        // How many producers of each needed step have no place yet. One search for all targets: what one of them has
        // seen, the others need not see again.
        let mut missing: Vec<Option<usize>> = vec![None; self.0.node_count()];
        let mut search = Dfs::empty(Reversed(&self.0));
        for &target in targets {
            search.move_to(NodeIndex::new(target));
            while let Some(node) = search.next(Reversed(&self.0)) {
                missing[node.index()] = Some(self.0.neighbors_directed(node, Direction::Incoming).count());
            }
        }
        let mut ready: BTreeSet<usize> = (0..missing.len()).filter(|&step| missing[step] == Some(0)).collect();
        let mut order = Vec::new();
        while let Some(step) = ready.pop_first() {
            order.push(step);
            for consumer in self.0.neighbors_directed(NodeIndex::new(step), Direction::Outgoing) {
                if let Some(count) = &mut missing[consumer.index()] {
                    *count -= 1;
                    if *count == 0 {
                        ready.insert(consumer.index());
                    }
                }
            }
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_order_follows_the_file_where_it_can() {
        //  0 ─▶ 3 ─▶ 4      1, 2 stand alone
        let graph = Graph::new(5, [(0, 3), (3, 4), (3, 4)].into_iter());
        assert_eq!(graph.order(&[0, 1, 2, 3, 4]), [0, 1, 2, 3, 4]);
        assert_eq!(graph.order(&[4]), [0, 3, 4]);
        assert_eq!(graph.order(&[1, 3]), [0, 1, 3]);
        assert_eq!(graph.consumers(3), BTreeSet::from([4]));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

        #[test]
        fn any_graph_runs_in_a_legal_order(
            pairs in prop::collection::vec((0usize..20, 0usize..20), 0..60),
            names in Just((0..20usize).collect::<Vec<_>>()).prop_shuffle(),
            target in 0usize..20,
        ) {
            // Arrows from lower to higher make no cycle; the shuffle takes the file's order away.
            let edges: Vec<(usize, usize)> =
                pairs.into_iter().filter(|(a, b)| a < b).map(|(a, b)| (names[a], names[b])).collect();
            let graph = Graph::new(20, edges.iter().copied());
            let order = graph.order(&[target]);
            prop_assert!(order.contains(&target));
            for (i, &step) in order.iter().enumerate() {
                for producer in graph.producers(step) {
                    prop_assert!(order[..i].contains(&producer));
                }
            }
            let all: Vec<usize> = (0..20).collect();
            prop_assert_eq!(graph.order(&all).len(), 20);
        }
    }
}
