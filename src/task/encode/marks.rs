//! Special tokens in a rendered chat, told apart from the same words in the messages.
//! It does not know templates or ids: a mark is a number in the list of special tokens.
//!
//! transformers does the same (`sanitize_control_tokens`): whoever writes `<|im_end|>` into a text ends no turn.

use crate::error::{Problem, Result};

/// Begins a mark: a noncharacter, which no text has (Unicode 16, 23.7).
const BEGIN: char = '\u{FDD0}';
/// Begins what stands, until the end, for words of a message that would else be taken for a special token.
const SHIELD: char = '\u{FDD1}';
/// A mark's number follows as a character from here on (private use, planes 15 and 16).
const FIRST: u32 = 0xF0000;
/// Numbers that fit there.
const MOST: usize = 0xFFFE;

/// The special tokens of a tokenizer, longest first where one begins with another.
#[derive(Debug, Clone, Default)]
pub struct Marks {
    tokens: Vec<String>,
    /// Indices of `tokens`, longest first.
    order: Vec<usize>,
    /// Characters that they begin with.
    begin: Vec<char>,
}

impl Marks {
    /// Of these tokens.
    pub fn new(tokens: Vec<String>) -> Self {
        let mut order: Vec<usize> = (0..tokens.len().min(MOST)).filter(|i| !tokens[*i].is_empty()).collect();
        order.sort_by_key(|i| std::cmp::Reverse(tokens[*i].len()));
        let mut begin: Vec<char> = tokens.iter().filter_map(|token| token.chars().next()).collect();
        begin.sort_unstable();
        begin.dedup();
        Self { tokens, order, begin }
    }

    /// The text of every mark, in the order of the tokens.
    pub fn texts(&self) -> impl Iterator<Item = String> {
        (0..self.tokens.len().min(MOST)).map(|token| stand_in(BEGIN, token))
    }

    /// Special tokens in `text` become marks.
    pub fn mark(&self, text: &str) -> String {
        self.replace(text, BEGIN)
    }

    /// A message in which nothing is a special token until [`Marks::unshield`].
    pub fn shield(&self, message: &str) -> Result<String> {
        if message.contains([BEGIN, SHIELD]) {
            return Err(Problem::new(format!(
                "a text has the noncharacter U+{:04X} or U+{:04X}, which marks special tokens in a chat",
                u32::from(BEGIN),
                u32::from(SHIELD)
            ))
            .help("remove it from the data: it is no character"));
        }
        Ok(self.replace(message, SHIELD))
    }

    /// The message's own words again.
    pub fn unshield(&self, text: &str) -> String {
        let mut parts = text.split(SHIELD);
        let mut out = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let mut characters = part.chars();
            let token = characters.next().and_then(|number| self.tokens.get(number_of(number)));
            out.push_str(token.map_or("", String::as_str));
            out.push_str(characters.as_str());
        }
        out
    }

    /// Marks become the words of their tokens.
    pub fn plain(&self, text: &str) -> String {
        let word = |part| match part {
            Part::Words(words) => words,
            Part::Mark(token) => self.tokens.get(token).map_or("", String::as_str),
        };
        self.parts(text).into_iter().map(word).collect()
    }

    /// The first mark in `text`.
    pub fn first(&self, text: &str) -> Option<usize> {
        let (_, rest) = text.split_once(BEGIN)?;
        rest.chars().next().map(number_of)
    }

    /// The parts of a text: words, or marks.
    pub fn parts<'t>(&self, text: &'t str) -> Vec<Part<'t>> {
        let mut parts = Vec::new();
        for (i, piece) in text.split(BEGIN).enumerate() {
            let mut words = piece;
            if i > 0
                && let Some(number) = piece.chars().next()
            {
                parts.push(Part::Mark(number_of(number)));
                words = &piece[number.len_utf8()..];
            }
            if !words.is_empty() {
                parts.push(Part::Words(words));
            }
        }
        parts
    }

    /// Every special token in `text` becomes two characters, of which the first is `with`.
    fn replace(&self, text: &str, with: char) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(self.begin.as_slice()) {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            let found = self.order.iter().find(|token| rest.starts_with(&self.tokens[**token]));
            let length = match found {
                Some(&token) => {
                    out.push_str(&stand_in(with, token));
                    self.tokens[token].len()
                }
                None => {
                    let length = rest.chars().next().map_or(1, char::len_utf8);
                    out.push_str(&rest[..length]);
                    length
                }
            };
            rest = &rest[length..];
        }
        out.push_str(rest);
        out
    }
}

/// A part of a rendered chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'t> {
    /// Words.
    Words(&'t str),
    /// A special token, by its number.
    Mark(usize),
}

fn stand_in(with: char, number: usize) -> String {
    let number = u32::try_from(number).ok().and_then(|number| char::from_u32(FIRST + number));
    [with, number.unwrap_or(char::REPLACEMENT_CHARACTER)].iter().collect()
}

fn number_of(character: char) -> usize {
    u32::from(character).wrapping_sub(FIRST) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_words_outside_of_messages_become_marks() {
        let marks = Marks::new(vec!["<s>".into(), "<s>x".into(), "</s>".into()]);
        let message = marks.shield("a<s>x</s>").expect("no noncharacter");
        let text = marks.unshield(&marks.mark(&format!("<s>{message}</s><s>xy")));
        let parts = marks.parts(&text);
        let words = Part::Words;
        assert_eq!(parts, [Part::Mark(0), words("a<s>x</s>"), Part::Mark(2), Part::Mark(1), words("y")]);
        assert_eq!(marks.first(&text), Some(0));
        assert!(marks.shield("\u{FDD0}").is_err());
    }
}
