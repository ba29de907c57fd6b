//! Where a path of the document stands in its text: the bytes of a key or of a value.
//! It does not know what stands there, only where.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, IgnoredAny, MapAccess, SeqAccess, VariantAccess, Visitor};

use crate::error::{Path, Segment};

use super::problems::Focus;

/// The byte that the parser names, inside the text and where a character begins.
pub(super) fn byte(source: &str, index: usize) -> usize {
    (0..=index.min(source.len())).rev().find(|&at| source.is_char_boundary(at)).unwrap_or(0)
}

/// The bytes that a problem at `path` is about. Where the path does not stand in the text (a name that is
/// missing, a value that came in by `${…}`), its nearest ancestor that does.
pub(super) fn span(source: &str, path: &Path, focus: &Focus) -> Option<Range<usize>> {
    let mut path = path.clone();
    let mut focus = focus.clone();
    loop {
        if let Some(found) = exact(source, &path, &focus) {
            return Some(found);
        }
        path.0.pop()?;
        focus = Focus::Key;
    }
}

fn exact(source: &str, path: &Path, focus: &Focus) -> Option<Range<usize>> {
    let target = match focus {
        Focus::Key | Focus::SecondKey if matches!(path.0.last(), Some(Segment::Key(_))) => {
            Target::Key { skip: usize::from(*focus == Focus::SecondKey) }
        }
        _ => Target::Value,
    };
    let found = probe_merged(source, path, target)?;
    match focus {
        Focus::Within(part) => {
            let at = source[found.clone()].find(part.as_str());
            Some(at.map_or(found.clone(), |at| found.start + at..found.start + at + part.len()))
        }
        _ => Some(found),
    }
}

/// Looks for the path itself, then behind the `<<` of every mapping on the way.
fn probe_merged(source: &str, path: &Path, target: Target) -> Option<Range<usize>> {
    if let Some(found) = probe(source, path, target) {
        return Some(found);
    }
    if !source.contains("<<") {
        return None;
    }
    (0..path.0.len()).find_map(|at| {
        let with = |extra: &[Segment]| {
            let mut segments = path.0.clone();
            segments.splice(at..at, extra.iter().cloned());
            Path(segments)
        };
        let merge = Segment::Key("<<".to_owned());
        probe(source, &with(std::slice::from_ref(&merge)), target)
            .or_else(|| (0..8).find_map(|i| probe(source, &with(&[merge.clone(), Segment::Index(i)]), target)))
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    /// The key at the end of the path, after so many of the same name.
    Key {
        skip: usize,
    },
    Value,
}

/// What stood at the target when the walk came there.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Met {
    /// Text that lies in the source just as it is, between quotes or bare.
    Text(Range<usize>),
    Scalar,
    Collection,
}

/// serde_yaml tells places in errors alone, so the walk ends with an error at the target.
const HERE: &str = "\u{1}here";

fn probe(source: &str, path: &Path, target: Target) -> Option<Range<usize>> {
    let met = RefCell::new(None);
    let seed = Probe { source, path: &path.0, target, met: &met };
    let error = seed.deserialize(serde_yaml::Deserializer::from_str(source)).err()?;
    let start = byte(source, error.location()?.index());
    let found = match met.into_inner()? {
        Met::Text(range) => range,
        Met::Scalar => scalar(source, start),
        Met::Collection if matches!(source.as_bytes().get(start), Some(b'{' | b'[')) => flow(source, start),
        // A block mapping has no text of its own: its key tells it better than its first line.
        Met::Collection if target == Target::Value && matches!(path.0.last(), Some(Segment::Key(_))) => {
            return probe(source, path, Target::Key { skip: 0 });
        }
        Met::Collection => start..line_end(source, start),
    };
    if found.is_empty() && target == Target::Value {
        // An empty value: show the key, or for a list item the line.
        return match path.0.last() {
            Some(Segment::Key(_)) => probe(source, path, Target::Key { skip: 0 }),
            _ => Some(start..line_end(source, start)),
        };
    }
    Some(found)
}

fn line_end(source: &str, start: usize) -> usize {
    let line = source[start..].lines().next().unwrap_or("");
    start + line.trim_end().len()
}

fn scalar(source: &str, start: usize) -> Range<usize> {
    let rest = &source[start..line_end(source, start)];
    let end = match rest.chars().next() {
        Some(quote @ ('"' | '\'')) => {
            let mut escaped = false;
            rest.char_indices()
                .skip(1)
                .find(|&(_, c)| {
                    let closes = c == quote && !escaped;
                    escaped = quote == '"' && c == '\\' && !escaped;
                    closes
                })
                .map_or(rest.len(), |(at, _)| at + 1)
        }
        Some('|' | '>') => rest.len(),
        _ => rest.find([',', ']', '}', ' ', '\t']).unwrap_or(rest.len()),
    };
    // A key without a value ends where its colon stands.
    let end = if rest[..end].ends_with(':') || rest.starts_with('#') { 0 } else { end };
    start..start + end
}

fn flow(source: &str, start: usize) -> Range<usize> {
    let rest = &source[start..line_end(source, start)];
    let mut depth = 0_usize;
    for (at, c) in rest.char_indices() {
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return start..start + at + 1;
        }
    }
    start..start + rest.len()
}

struct Probe<'p> {
    source: &'p str,
    path: &'p [Segment],
    target: Target,
    met: &'p RefCell<Option<Met>>,
}

impl Probe<'_> {
    fn meet<E: serde::de::Error>(&self, met: Met) -> Result<(), E> {
        if self.path.is_empty() && self.target == Target::Value {
            *self.met.borrow_mut() = Some(met);
            return Err(E::custom(HERE));
        }
        Ok(())
    }
}

/// Where a borrowed part of the source lies in it.
fn range_in(source: &str, part: &str) -> Option<Range<usize>> {
    let start = (part.as_ptr() as usize).checked_sub(source.as_ptr() as usize)?;
    let end = start.checked_add(part.len())?;
    (end <= source.len() && !part.is_empty()).then_some(start..end)
}

impl<'de> DeserializeSeed<'de> for Probe<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Probe<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        self.meet(Met::Scalar)
    }
    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        self.meet(Met::Scalar)
    }
    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        self.meet(Met::Scalar)
    }
    fn visit_u128<E: serde::de::Error>(self, _: u128) -> Result<(), E> {
        self.meet(Met::Scalar)
    }
    fn visit_i128<E: serde::de::Error>(self, _: i128) -> Result<(), E> {
        self.meet(Met::Scalar)
    }
    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        self.meet(Met::Scalar)
    }
    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        self.meet(Met::Scalar)
    }
    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<(), E> {
        self.meet(range_in(self.source, text).map_or(Met::Scalar, Met::Text))
    }
    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.meet(Met::Scalar)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<(), A::Error> {
        self.meet(Met::Scalar)?;
        let (_, content) = data.variant::<String>()?;
        content.newtype_variant_seed(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.meet(Met::Collection)?;
        let Some((Segment::Index(wanted), rest)) = self.path.split_first() else {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        };
        for _ in 0..*wanted {
            if seq.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        seq.next_element_seed(Probe { path: rest, ..self })?;
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.meet(Met::Collection)?;
        let Some((Segment::Key(wanted), rest)) = self.path.split_first() else {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(());
        };
        let last = rest.is_empty();
        let mut skip = match self.target {
            Target::Key { skip } if last => skip,
            _ => 0,
        };
        loop {
            let stop = last && self.target != Target::Value && skip == 0;
            let key = KeyProbe { source: self.source, wanted, stop, met: self.met };
            match map.next_key_seed(key)? {
                None => return Ok(()),
                Some(true) if last && self.target != Target::Value => {
                    skip = skip.saturating_sub(1);
                    map.next_value::<IgnoredAny>()?;
                }
                Some(true) => map.next_value_seed(Probe { path: rest, ..self })?,
                Some(false) => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
    }
}

/// Compares a key, and ends the walk if it is the one.
struct KeyProbe<'p> {
    source: &'p str,
    wanted: &'p str,
    stop: bool,
    met: &'p RefCell<Option<Met>>,
}

impl KeyProbe<'_> {
    fn compare<E: serde::de::Error>(&self, key: &str, met: Met) -> Result<bool, E> {
        if self.stop && key == self.wanted {
            *self.met.borrow_mut() = Some(met);
            return Err(E::custom(HERE));
        }
        Ok(key == self.wanted)
    }
}

impl<'de> DeserializeSeed<'de> for KeyProbe<'_> {
    type Value = bool;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeyProbe<'_> {
    type Value = bool;
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a name as the key")
    }
    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<bool, E> {
        self.compare(key, Met::Scalar)
    }
    fn visit_borrowed_str<E: serde::de::Error>(self, key: &'de str) -> Result<bool, E> {
        self.compare(key, range_in(self.source, key).map_or(Met::Scalar, Met::Text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_of_several_bytes_move_no_place() {
        let source = "имя: данные\nшаг: { ж: 0.5, число: 42 }\nlist: [1, два, 3]\n";
        let told = |path: Path| span(source, &path, &Focus::Value).map(|span| &source[span]);
        let step = Path::root().key("шаг");
        assert_eq!([told(step.key("ж")), told(step.key("число"))], [Some("0.5"), Some("42")]);
        let list = Path::root().key("list");
        assert_eq!([0, 1, 2].map(|i| told(list.index(i))), [Some("1"), Some("два"), Some("3")]);
    }
}
