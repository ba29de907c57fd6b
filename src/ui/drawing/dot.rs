//! A graph in the language of Graphviz.
//! It does not know where nodes will lie.

use std::fmt::Write;

use super::{Drawing, State, plain};

/// The graph as a `digraph` for `dot`.
pub fn dot(drawing: &Drawing) -> String {
    let mut text = format!("digraph \"{}\" {{\n  rankdir=LR;\n", escaped(&drawing.title));
    text.push_str("  node [shape=box, style=\"rounded,filled\", fontname=\"sans-serif\", fontsize=11];\n");
    text.push_str("  edge [color=\"#8a919e\", arrowsize=0.7];\n");
    for (i, node) in drawing.nodes.iter().enumerate() {
        let (colors, dashed) = (node.state.light(), if node.state == State::Depends { ",dashed" } else { "" });
        let _ = writeln!(
            text,
            "  n{i} [label=\"{}\\n{}\", tooltip=\"{}\", style=\"rounded,filled{dashed}\", fillcolor=\"{}\", color=\"{}\", fontcolor=\"{}\"];",
            escaped(&node.name),
            escaped(&node.detail),
            escaped(&node.more),
            colors.fill,
            colors.line,
            colors.text
        );
    }
    for (from, to) in &drawing.arrows {
        let _ = writeln!(text, "  n{from} -> n{to};");
    }
    text.push_str("}\n");
    text
}

/// Inside quotes a backslash begins an escape of Graphviz's own, and `&` an entity.
fn escaped(text: &str) -> String {
    plain(text).replace('\\', "\\\\").replace('"', "\\\"").replace('&', "&amp;")
}
