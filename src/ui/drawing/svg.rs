//! A graph as one SVG file that needs nothing else, by day and by night.
//! It does not know in which order things stand: `layers` and `place` do.

use std::fmt::Write;

use super::layers::Layers;
use super::place::place;
use super::{Drawing, Node, State, plain};
use crate::ui::text::cut;

/// Sizes in pixels.
const MARGIN: f64 = 24.0;
const HEAD: f64 = 40.0;
const NODE: f64 = 44.0;
const GAP: f64 = 16.0;
const THROUGH: f64 = 14.0;
const BETWEEN: f64 = 64.0;
const LETTER: f64 = 8.2;
const SMALL: f64 = 6.4;
const FOOT: f64 = 44.0;
/// Longer names are cut; the whole name shows under the mouse.
const MOST_LETTERS: usize = 40;

/// The graph as an SVG.
pub fn svg(drawing: &Drawing) -> String {
    let layers = Layers::new(drawing.nodes.len(), &drawing.arrows);
    let height = |item: usize| if layers.items[item].is_some() { NODE + GAP } else { THROUGH };
    let y: Vec<f64> = place(&layers, height).iter().map(|y| y + MARGIN + HEAD).collect();
    let (x, widths, right) = across(drawing, &layers);
    let bottom = (0..y.len()).map(|item| y[item] + height(item) / 2.0).fold(MARGIN + HEAD, f64::max);
    let title = cut(&plain(&drawing.title), 2 * MOST_LETTERS);
    let legend: Vec<(State, String)> =
        drawing.states().map(|(state, count)| (state, format!("{} {}", count, state.word()))).collect();
    let legend_width: f64 = legend.iter().map(|(_, text)| room(text, SMALL) + 34.0).sum();
    let width = right.max(legend_width).max(room(&title, 9.0)) + 2.0 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {whole:.0}\" width=\"{width:.0}\" height=\"{whole:.0}\" role=\"img\">\n<title>{}</title>\n{}\n<rect class=\"page\" width=\"100%\" height=\"100%\"/>\n",
        escaped(&drawing.title),
        style(drawing),
        whole = bottom + FOOT,
    );
    svg.push_str("<defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" orient=\"auto-start-reverse\"><path class=\"tip\" d=\"M0 1 L7 4 L0 7 z\"/></marker></defs>\n");
    let _ = writeln!(svg, "<text class=\"head\" x=\"{MARGIN}\" y=\"{}\">{}</text>", MARGIN + 14.0, escaped(&title));
    for way in &layers.ways {
        let _ = writeln!(svg, "<path class=\"arrow\" {}/>", arrow(drawing, &layers, way, &x, &widths, &y));
    }
    for (i, node) in drawing.nodes.iter().enumerate() {
        let text = box_of(node, x[i], y[i] - NODE / 2.0, widths[i]);
        svg.push_str(&text);
    }
    let mut left = MARGIN;
    for (state, text) in legend {
        let (class, y) = (state.class(), bottom + 14.0);
        let _ = writeln!(
            svg,
            "<rect class=\"node {class}\" x=\"{left:.1}\" y=\"{:.1}\" width=\"14\" height=\"14\" rx=\"4\"/><text class=\"foot\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            y - 11.0,
            left + 20.0,
            y,
            escaped(&text)
        );
        left += room(&text, SMALL) + 34.0;
    }
    svg.push_str("</svg>\n");
    svg
}

/// The left edge and the width of each item, and how far everything reaches.
fn across(drawing: &Drawing, layers: &Layers) -> (Vec<f64>, Vec<f64>, f64) {
    let (mut x, mut widths) = (vec![0.0; layers.items.len()], vec![0.0; layers.items.len()]);
    let mut left = MARGIN;
    for column in &layers.columns {
        let nodes = column.iter().filter_map(|&item| layers.items[item]);
        let width = nodes.map(|node| width(&drawing.nodes[node])).fold(0.0, f64::max);
        for &item in column {
            (x[item], widths[item]) = (left, width);
        }
        left += width + BETWEEN;
    }
    (x, widths, (left - BETWEEN - MARGIN).max(0.0))
}

fn width(node: &Node) -> f64 {
    let name = room(&cut(&plain(&node.name), MOST_LETTERS), LETTER);
    let detail = room(&cut(&plain(&node.detail), MOST_LETTERS), SMALL);
    (name.max(detail) + 24.0).max(84.0)
}

/// About how wide a text is.
fn room(text: &str, letter: f64) -> f64 {
    console::measure_text_width(text) as f64 * letter
}

/// A curve between columns, and straight on where a column is only passed.
fn arrow(drawing: &Drawing, layers: &Layers, way: &[usize], x: &[f64], widths: &[f64], y: &[f64]) -> String {
    let mut path = String::new();
    for (i, pair) in way.windows(2).enumerate() {
        let (from, to) = (pair[0], pair[1]);
        let (start, end) = (x[from] + widths[from], x[to]);
        if i == 0 {
            let _ = write!(path, "M{start:.1} {:.1}", y[from]);
        } else {
            let _ = write!(path, " L{start:.1} {:.1}", y[from]);
        }
        let middle = f64::midpoint(start, end);
        let _ = write!(path, " C{middle:.1} {:.1} {middle:.1} {:.1} {end:.1} {:.1}", y[from], y[to], y[to]);
    }
    // Where it was turned for the layout, its tip is at its beginning.
    let node = |item: Option<&usize>| item.and_then(|&item| layers.items[item]);
    let ends = node(way.first()).zip(node(way.last()));
    let (forward, back) = ends.map_or((true, false), |(from, to)| {
        (drawing.arrows.contains(&(from, to)), drawing.arrows.contains(&(to, from)))
    });
    let tip = |here: bool, name: &str| if here { format!(" marker-{name}=\"url(#tip)\"") } else { String::new() };
    format!("d=\"{path}\"{}{}", tip(forward, "end"), tip(back, "start"))
}

fn box_of(node: &Node, x: f64, top: f64, width: f64) -> String {
    let (class, middle) = (node.state.class(), x + width / 2.0);
    let lines = [("name", &node.name, 19.0), ("detail", &node.detail, 34.0)].map(|(class, text, down)| {
        let text = escaped(&cut(&plain(text), MOST_LETTERS));
        format!("<text class=\"{class}\" x=\"{middle:.1}\" y=\"{:.1}\">{text}</text>", top + down)
    });
    format!(
        "<g class=\"{class}\"><title>{}: {}</title><rect class=\"node {class}\" x=\"{x:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{NODE}\" rx=\"9\"/>{}</g>\n",
        escaped(&node.name),
        escaped(&node.more),
        lines.concat()
    )
}

fn style(drawing: &Drawing) -> String {
    let rule = |state: State, dark: bool| {
        let (colors, class) = (if dark { state.dark() } else { state.light() }, state.class());
        format!(".node.{class}{{fill:{};stroke:{}}}.{class} text{{fill:{}}}", colors.fill, colors.line, colors.text)
    };
    let rules = |dark: bool| drawing.states().map(|(state, _)| rule(state, dark)).collect::<String>();
    format!(
        "<style>\ntext{{font-family:system-ui,-apple-system,\"Segoe UI\",\"DejaVu Sans\",sans-serif}}.head{{font-size:16px;font-weight:600}}.name{{font-size:13px;font-weight:600;text-anchor:middle}}.detail{{font-size:11px;text-anchor:middle;opacity:.75}}.foot{{font-size:11px}}.node{{stroke-width:1.3}}.node.depends{{stroke-dasharray:4 3}}.arrow{{fill:none;stroke-width:1.3}}\n.page{{fill:#fff}}.head{{fill:#1f2328}}.foot{{fill:#57606a}}.arrow{{stroke:#9aa3b0}}.tip{{fill:#9aa3b0}}{}\n@media (prefers-color-scheme:dark){{.page{{fill:#14171c}}.head{{fill:#e6e9ee}}.foot{{fill:#9da7b3}}.arrow{{stroke:#626c7a}}.tip{{fill:#626c7a}}{}}}\n</style>",
        rules(false),
        rules(true)
    )
}

/// Text inside an element or an attribute.
fn escaped(text: &str) -> String {
    let text = plain(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;").replace('\'', "&#39;")
}
