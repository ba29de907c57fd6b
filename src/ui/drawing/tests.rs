//! What must hold of drawings: no names overlap, nothing of a name is read as markup, the same picture each time.
//! It does not know what is drawn.

use super::layers::Layers;
use super::place::place;
use super::*;

fn drawing(arrows: &[(usize, usize)], names: &[&str]) -> Drawing {
    let node = |(i, name): (usize, &&str)| Node {
        name: (*name).to_owned(),
        detail: "kind".to_owned(),
        more: format!("<more & \"{name}\">"),
        state: State::ALL[i % 4],
    };
    Drawing { title: "a <b>".to_owned(), nodes: names.iter().enumerate().map(node).collect(), arrows: arrows.to_vec() }
}

/// Names that would end a text, a tag or an entity of one of the formats.
const WILD: [&str; 6] =
    ["a[x=\"1\"]", "</text><script>x</script>", "б & 'в'", "\\\" ]; n9", "#quot;`*\u{1}", "\u{ffff}"];
const ARROWS: [(usize, usize); 7] = [(0, 1), (0, 2), (1, 3), (2, 3), (0, 3), (3, 4), (4, 5)];

/// Fails unless every tag is closed by its own, and every `&` begins an entity that XML knows.
fn holds_as_xml(text: &str) {
    let mut open: Vec<&str> = Vec::new();
    for part in text.split('<').skip(1) {
        let (tag, after) = part.split_once('>').expect("a tag ends");
        assert!(!after.contains('>') && tag.matches('"').count() % 2 == 0, "{part}");
        let name = tag.split([' ', '/']).find(|word| !word.is_empty()).expect("a tag has a name");
        match (tag.starts_with('/'), tag.ends_with('/')) {
            (true, _) => assert_eq!(open.pop(), Some(name), "{part}"),
            (false, true) => {}
            (false, false) => open.push(name),
        }
        for entity in part.split('&').skip(1) {
            let known = ["amp;", "lt;", "gt;", "quot;", "#39;"].iter().any(|known| entity.starts_with(known));
            assert!(known, "{part}");
        }
    }
    assert!(open.is_empty(), "{open:?}");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control() && c != '\u{ffff}'));
}

#[test]
fn an_svg_is_xml_whatever_names_say_and_always_the_same() {
    let text = svg(&drawing(&ARROWS, &WILD));
    holds_as_xml(&text);
    assert_eq!(text, svg(&drawing(&ARROWS, &WILD)));
    assert!(text.contains("<title>a[x=&quot;1&quot;]: ") && !text.contains("<script"), "{text}");
    assert!(text.contains("prefers-color-scheme:dark") && !text.contains("href"), "{text}");
    assert_eq!(text.matches("class=\"arrow\"").count(), ARROWS.len());
    holds_as_xml(&svg(&drawing(&[], &[])));
}

#[test]
fn names_end_no_text_of_mermaid_and_graphviz() {
    let text = mermaid(&drawing(&ARROWS, &WILD));
    assert!(text.starts_with("flowchart LR\n") && text.contains("  n0 --> n1\n"), "{text}");
    assert!(text.contains("  n0(\"a#91;x=#34;1#34;#93;<br/>kind\"):::reused\n"), "{text}");
    assert!(text.lines().all(|line| [0, 2].contains(&line.matches('"').count())), "{text}");
    assert!(text.contains("n4(\"#35;quot#59;#96;#42; <br/>"), "{text}");

    let text = dot(&drawing(&ARROWS, &WILD));
    assert!(text.starts_with("digraph \"a <b>\" {\n") && text.ends_with("  n4 -> n5;\n}\n"), "{text}");
    assert!(text.contains(r#"  n0 [label="a[x=\"1\"]\nkind""#), "{text}");
    assert!(text.contains(r#"  n3 [label="\\\" ]; n9\nkind""#), "{text}");
}

#[test]
fn arrows_lead_to_the_right_and_nothing_overlaps() {
    // Also around in a circle, and to itself.
    let cases: [&[(usize, usize)]; 3] = [&ARROWS, &[(0, 1), (1, 2), (2, 0), (3, 3), (1, 4)], &[(5, 0), (5, 1), (4, 0)]];
    for arrows in cases {
        let layers = Layers::new(6, arrows);
        let height = |item: usize| if layers.items[item].is_some() { 60.0 } else { 14.0 };
        let y = place(&layers, height);
        assert!(y.iter().all(|y| y.is_finite() && *y >= 0.0));
        for column in &layers.columns {
            for pair in column.windows(2) {
                let room = (height(pair[0]) + height(pair[1])) / 2.0;
                assert!(y[pair[1]] - y[pair[0]] >= room - 1e-6, "{arrows:?}: {y:?}");
            }
        }
        let column =
            |item: usize| layers.columns.iter().position(|column| column.contains(&item)).expect("it is there");
        for way in &layers.ways {
            assert!(way.windows(2).all(|pair| column(pair[0]) + 1 == column(pair[1])), "{way:?}");
        }
    }
}

#[test]
fn sorting_takes_crossings_away() {
    // Two ladders whose rungs are named the wrong way round.
    let layers = Layers::new(6, &[(0, 5), (1, 4), (2, 3)]);
    let place = |node: usize| layers.columns.iter().find_map(|column| column.iter().position(|item| *item == node));
    assert_eq!([(0, 5), (1, 4), (2, 3)].map(|(a, b)| place(a) == place(b)), [true; 3]);
}
