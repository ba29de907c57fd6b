//! A graph as Mermaid, which README pages and notebooks draw.
//! It does not know where nodes will lie.

use std::fmt::Write;

use super::{Drawing, State, plain};

/// The graph as a Mermaid flowchart.
pub fn mermaid(drawing: &Drawing) -> String {
    let mut text = "flowchart LR\n".to_owned();
    for (i, node) in drawing.nodes.iter().enumerate() {
        let label = format!("{}<br/>{}", escaped(&node.name), escaped(&node.detail));
        let _ = writeln!(text, "  n{i}(\"{label}\"):::{}", node.state.class());
    }
    for (from, to) in &drawing.arrows {
        let _ = writeln!(text, "  n{from} --> n{to}");
    }
    for (state, _) in drawing.states() {
        let colors = state.light();
        let dashed = if state == State::Depends { ",stroke-dasharray:4 3" } else { "" };
        let _ = writeln!(
            text,
            "  classDef {} fill:{},stroke:{},color:{}{dashed}",
            state.class(),
            colors.fill,
            colors.line,
            colors.text
        );
    }
    text
}

/// Mermaid has no quoting but entities by number; all that is not a letter, a digit or harmless becomes one.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in plain(text).chars() {
        if c.is_alphanumeric() || " _-.,:=/".contains(c) {
            escaped.push(c);
        } else {
            let _ = write!(escaped, "#{};", u32::from(c));
        }
    }
    escaped
}
