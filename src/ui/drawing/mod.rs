//! Pictures of a graph for other programs: Mermaid, Graphviz, SVG.
//! It does not know what the nodes are: it gets names, words and arrows.

mod dot;
mod layers;
mod mermaid;
mod place;
mod style;
mod svg;

pub use dot::dot;
pub use mermaid::mermaid;
pub use style::State;
pub use svg::svg;

/// A graph to be drawn.
#[derive(Debug, Clone, Default)]
pub struct Drawing {
    /// What stands above it.
    pub title: String,
    /// Its nodes; an order in which producers come first makes the best picture.
    pub nodes: Vec<Node>,
    /// From producer to consumer, positions in `nodes`.
    pub arrows: Vec<(usize, usize)>,
}

/// One node.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name, as the user wrote it.
    pub name: String,
    /// What stands under the name.
    pub detail: String,
    /// What is told of it where there is room for more, such as under the mouse.
    pub more: String,
    /// How it is coloured.
    pub state: State,
}

impl Drawing {
    /// The states that occur, and how often.
    fn states(&self) -> impl Iterator<Item = (State, usize)> {
        let count = |state: State| self.nodes.iter().filter(|node| node.state == state).count();
        State::ALL.into_iter().map(move |state| (state, count(state))).filter(|(_, count)| *count > 0)
    }
}

/// A text on one line, without characters that no format can hold.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests;
