//! Whether a page is well-formed: a small reader of tags, strict where browsers are lenient.

/// A tag with its attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    pub name: String,
    pub attributes: Vec<(String, String)>,
}

impl Tag {
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Elements without content.
const VOID: [&str; 5] = ["meta", "br", "hr", "img", "link"];

/// All opening tags in order, and all text; panics where tags do not fit each other.
pub fn read(page: &str) -> (Vec<Tag>, String) {
    let mut rest = page.trim_start().strip_prefix("<!doctype html>").expect("a doctype");
    let (mut tags, mut text, mut open) = (Vec::new(), String::new(), Vec::<String>::new());
    while let Some(at) = rest.find('<') {
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let near: String = rest.chars().take(60).collect();
        if let Some(after) = rest.strip_prefix('/') {
            let (name, after) = after.split_once('>').expect("an end of a tag");
            assert_eq!(open.pop().as_deref(), Some(name), "a closing tag fits the open one near {near}");
            rest = after;
            continue;
        }
        let (tag, closed, after) = tag(rest);
        rest = after;
        if tag.name == "style" {
            let (_, after) = rest.split_once("</style>").expect("the end of the style");
            rest = after;
        } else if !closed && !VOID.contains(&tag.name.as_str()) {
            open.push(tag.name.clone());
        }
        tags.push(tag);
    }
    text.push_str(rest);
    assert!(open.is_empty(), "never closed: {open:?}");
    assert!(
        !text.contains('>'),
        "a bracket in the text: {:?}",
        text.find('>').map(|at| &text[at.saturating_sub(20)..at])
    );
    for piece in text.split('&').skip(1) {
        let entity = piece.split(';').next().unwrap();
        assert!(["amp", "lt", "gt", "quot", "#39", "#x27", "#x2F"].contains(&entity), "a bare ampersand: &{entity}");
    }
    (tags, text)
}

/// A tag after its `<`, whether it closes itself, and the rest.
fn tag(text: &str) -> (Tag, bool, &str) {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric()).expect("an end of a tag");
    assert!(end > 0, "a bare < before {}", text.chars().take(30).collect::<String>());
    let mut tag = Tag { name: text[..end].to_owned(), attributes: Vec::new() };
    let mut rest = text[end..].trim_start();
    loop {
        if let Some(after) = rest.strip_prefix("/>") {
            return (tag, true, after);
        }
        if let Some(after) = rest.strip_prefix('>') {
            return (tag, false, after);
        }
        let (name, after) = rest.split_once('=').expect("an attribute with a value");
        assert!(
            name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') && !name.is_empty(),
            "{name:?} is no attribute"
        );
        let (value, after) = after.strip_prefix('"').and_then(|after| after.split_once('"')).expect("a quoted value");
        assert!(!value.contains('<'), "a bracket in {name}={value:?}");
        assert!(tag.attribute(name).is_none(), "{name} twice");
        tag.attributes.push((name.to_owned(), value.to_owned()));
        rest = after.trim_start();
    }
}
