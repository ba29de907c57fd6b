//! YAML text → a tree that keeps the order of keys; duplicate keys found, `<<` merged, bombs refused.
//! It does not know what a pipeline is.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde_json::{Number, Value};

use crate::error::{Path, Problem};

use super::problems::{Findings, Focus};

/// A YAML value. Keys are the text as it is written, so `no:`, `on:` and `1:` are plain names.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    /// The same value without the order of keys.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Number(value) => Value::Number(value.clone()),
            Self::Text(value) => Value::String(value.clone()),
            Self::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Self::Map(entries) => {
                Value::Object(entries.iter().map(|(key, value)| (key.clone(), value.to_json())).collect())
            }
        }
    }

    /// What it is, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a truth value",
            Self::Number(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// What a JSON value is, for messages; the words of [`Node::type_name`].
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

/// Aliases may repeat parts of a file, but not beyond this many values altogether.
const MOST_NODES: usize = 200_000;

/// Reads YAML. `None` if the syntax is broken, with the reason among the findings.
pub(super) fn parse(source: &str, findings: &mut Findings) -> Option<Node> {
    if let Some((anchor, span)) = super::anchors::twice(source) {
        let problem =
            Problem::new(format!("the anchor `&{anchor}` is defined twice")).help("give each anchor its own name");
        findings.add(Focus::Bytes(span), problem.at(Path::root()));
        return None;
    }
    let state = RefCell::new(State { findings, nodes: 0 });
    let seed = Reader { way: &Way::Root, state: &state };
    match seed.deserialize(serde_yaml::Deserializer::from_str(source)) {
        Ok(node) => Some(node),
        Err(error) => {
            let (problem, span) = syntax(source, &error);
            match span {
                Some(span) => findings.add(Focus::Bytes(span), problem.at(Path::root())),
                None => findings.nowhere(problem),
            }
            None
        }
    }
}

/// Reads a value given on the command line.
pub(super) fn parse_value(text: &str) -> Result<Value, Problem> {
    let mut findings = Findings::default();
    match parse(text, &mut findings) {
        Some(node) if findings.is_empty() => Ok(node.to_json()),
        _ => Err(Problem::new(format!("`{text}` is not a value that YAML can read"))
            .help("put the value in quotes: `--set 'name=\"value\"'`")),
    }
}

fn syntax(source: &str, error: &serde_yaml::Error) -> (Problem, Option<Range<usize>>) {
    let text = error.to_string();
    let span = error.location().map(|location| {
        let start = super::locate::byte(source, location.index());
        let word = |c: char| !(c.is_whitespace() || ",[]{}".contains(c));
        let first = source[start..].chars().next().filter(|&c| c != '\n').map_or(0, char::len_utf8);
        let length = source[start..].find(|c| !word(c)).unwrap_or(source.len() - start);
        start..start + length.max(first)
    });
    // The place is shown beside the text, so the message does not repeat it.
    let what = match text.find(" at line ") {
        Some(at) => {
            let rest = &text[at + 1..];
            let tail = rest.find(", ").map_or("", |comma| &rest[comma..]);
            format!("{}{tail}", &text[..at])
        }
        None => text,
    };
    let what = what.strip_prefix(".: ").unwrap_or(&what).to_owned();
    let problem = match what.as_str() {
        "unknown anchor" => Problem::new("this alias has no anchor").help("an anchor `&name` must stand above `*name`"),
        "recursion limit exceeded" => Problem::new("the file is nested too deep").help("nest at most 128 levels"),
        "repetition limit exceeded" => Problem::new(TOO_BIG).help("use fewer aliases"),
        _ if what.contains("more than one document") => {
            Problem::new("a pipeline file is one YAML document").help("remove what follows the line `---`")
        }
        _ if what.contains("found character that cannot start any token") => {
            Problem::new("not valid YAML: this character cannot start a value")
                .help("indent with spaces, and put text that starts with a special character in quotes")
        }
        _ => Problem::new(format!("not valid YAML: {what}")),
    };
    (problem, span)
}

const TOO_BIG: &str = "the file grows beyond 200000 values once its aliases are followed";

impl Reader<'_, '_, '_> {
    /// Tells what is wrong with the value and goes on without it.
    fn refuse(&self, problem: Problem) -> Node {
        self.state.borrow_mut().findings.value(&self.way.path(), problem);
        Node::Null
    }
}

struct State<'f> {
    findings: &'f mut Findings,
    nodes: usize,
}

/// Where the reader is: a path is made of it only where something is wrong.
enum Way<'w> {
    Root,
    Key(&'w Way<'w>, &'w str),
    Index(&'w Way<'w>, usize),
}

impl Way<'_> {
    fn path(&self) -> Path {
        match self {
            Self::Root => Path::root(),
            Self::Key(above, key) => above.path().key(*key),
            Self::Index(above, index) => above.path().index(*index),
        }
    }
}

/// Reads the value at the end of `way`.
struct Reader<'w, 's, 'f> {
    way: &'w Way<'w>,
    state: &'s RefCell<State<'f>>,
}

impl<'de> DeserializeSeed<'de> for Reader<'_, '_, '_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        let mut state = self.state.borrow_mut();
        state.nodes += 1;
        if state.nodes > MOST_NODES {
            return Err(D::Error::custom(TOO_BIG));
        }
        drop(state);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_, '_, '_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value.into()))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Number(value.into()))
    }
    // No parameter is a whole number of this size: as a float it is told to be none.
    fn visit_u128<E: serde::de::Error>(self, value: u128) -> Result<Node, E> {
        self.visit_f64(value as f64)
    }
    fn visit_i128<E: serde::de::Error>(self, value: i128) -> Result<Node, E> {
        self.visit_f64(value as f64)
    }
    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        match Number::from_f64(value) {
            Some(number) => Ok(Node::Number(number)),
            None => {
                let problem = Problem::new(format!("{value} is not a finite number")).expected("a finite number");
                Ok(self.refuse(problem))
            }
        }
    }
    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }
    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }
    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }
    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Node, A::Error> {
        let (tag, content) = data.variant::<String>()?;
        let problem = Problem::new(format!("the tag `!{tag}` means nothing here")).help("remove it");
        self.refuse(problem);
        content.newtype_variant_seed(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) =
            seq.next_element_seed(Reader { way: &Way::Index(self.way, items.len()), state: self.state })?
        {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        let mut merged = Vec::new();
        let mut names = std::collections::BTreeSet::new();
        while let Some(key) = map.next_key_seed(Key)? {
            let way = Way::Key(self.way, &key);
            let value = map.next_value_seed(Reader { way: &way, state: self.state })?;
            if !names.insert(key.clone()) {
                let problem = Problem::new(format!("`{key}` stands twice in this mapping"))
                    .expected("each name once")
                    .help("remove one of the two");
                self.state.borrow_mut().findings.add(Focus::SecondKey, problem.at(way.path()));
            } else if key == "<<" {
                match merge_sources(value) {
                    Some(found) => merged = found,
                    None => {
                        let problem =
                            Problem::new("`<<` cannot merge this").expected("a mapping or a list of mappings");
                        self.state.borrow_mut().findings.value(&way.path(), problem);
                    }
                }
            } else {
                entries.push((key, value));
            }
        }
        // A key that stands in the mapping itself wins over merged ones, and an earlier merge over a later.
        for (key, value) in merged {
            if names.insert(key.clone()) {
                entries.push((key, value));
            }
        }
        Ok(Node::Map(entries))
    }
}

fn merge_sources(value: Node) -> Option<Vec<(String, Node)>> {
    let items = match value {
        Node::List(items) => items,
        other => vec![other],
    };
    let mut merged = Vec::new();
    for item in items {
        let Node::Map(entries) = item else { return None };
        merged.extend(entries);
    }
    Some(merged)
}

/// Reads a key as the text that it is written with.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = String;
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a name as the key")
    }
    fn visit_str<E>(self, value: &str) -> Result<String, E> {
        Ok(value.to_owned())
    }
}
