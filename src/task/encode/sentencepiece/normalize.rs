//! Text as SentencePiece sees it before it divides it: replacements, spaces as `▁`, a space in front.
//! It does not know pieces, but for those of the user's own that nothing may change.

use super::proto::Model;
use super::trie::{CharsMap, Trie};
use crate::error::{Problem, Result};

/// What stands for a space inside pieces.
pub const SPACE: &str = "\u{2581}";

/// `Normalizer` of SentencePiece 0.2 (`normalizer.cc`).
#[derive(Debug)]
pub struct Normalizer {
    map: Option<CharsMap>,
    own: Trie,
    space: &'static str,
    space_as_suffix: bool,
    dummy_prefix: bool,
    remove_extra_spaces: bool,
}

impl Normalizer {
    /// That of a model, with its user's own pieces.
    pub fn new(model: &Model, own: Trie) -> Result<Self> {
        let map = match model.charsmap.as_slice() {
            [] => None,
            bytes => Some(CharsMap::read(bytes).ok_or_else(|| Problem::new("its list of replacements is damaged"))?),
        };
        Ok(Self {
            map,
            own,
            space: if model.escape_spaces { SPACE } else { " " },
            space_as_suffix: model.space_as_suffix,
            dummy_prefix: model.dummy_prefix,
            remove_extra_spaces: model.remove_extra_spaces,
        })
    }

    /// True if a space goes in front of a text (or behind it).
    pub fn has_dummy_prefix(&self) -> bool {
        self.dummy_prefix
    }

    /// True if spaces are taken from both ends.
    pub fn removes_extra_spaces(&self) -> bool {
        self.remove_extra_spaces
    }

    /// A text, with a space in front if `prefix` and the model want one.
    pub fn normalize(&self, mut text: &str, prefix: bool) -> String {
        let mut out = String::with_capacity(text.len() + text.len() / 2 + 3);
        if self.remove_extra_spaces {
            while !text.is_empty() {
                let (length, replaced) = self.first(text);
                if replaced != " " {
                    break;
                }
                text = &text[length..];
            }
        }
        if text.is_empty() {
            return out;
        }
        let dummy = prefix && self.dummy_prefix;
        if dummy && !self.space_as_suffix {
            out.push_str(self.space);
        }
        let mut after_space = self.remove_extra_spaces;
        while !text.is_empty() {
            let (length, mut replaced) = self.first(text);
            while after_space && let Some(rest) = replaced.strip_prefix(' ') {
                replaced = rest;
            }
            if !replaced.is_empty() {
                for part in replaced.split_inclusive(' ') {
                    match part.strip_suffix(' ') {
                        Some(word) => out.extend([word, self.space]),
                        None => out.push_str(part),
                    }
                }
                after_space = self.remove_extra_spaces && replaced.ends_with(' ');
            }
            text = &text[length..];
        }
        if self.remove_extra_spaces {
            while let Some(rest) = out.strip_suffix(self.space) {
                out.truncate(rest.len());
            }
        }
        if dummy && self.space_as_suffix {
            out.push_str(self.space);
        }
        out
    }

    /// How much of a text is looked at next, and what it becomes.
    fn first<'t>(&'t self, text: &'t str) -> (usize, &'t str) {
        if let Some(length) = self.own.longest(text.as_bytes()) {
            return (length, &text[..length]);
        }
        let replaced = self.map.as_ref().and_then(|map| map.longest(text.as_bytes()));
        // A rule that ends inside a character cannot come from a text, only from a damaged list.
        if let Some((length, instead)) = replaced.filter(|(length, _)| text.is_char_boundary(*length)) {
            return (length, instead);
        }
        let length = text.chars().next().map_or(0, char::len_utf8);
        (length, &text[..length])
    }
}
