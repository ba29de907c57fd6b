//! The likeliest division into pieces, as SentencePiece finds it.
//! It does not know bytes: text without a piece comes out a character at a time.

use std::ops::Range;

use super::Vocabulary;

/// What a character without a piece costs below the least likely piece.
const UNKNOWN: f32 = 10.0;

/// What each byte but the first of a piece of the user's own is worth: it is always taken, for all others cost. Found
/// from how SentencePiece 0.2.3 decides between equally likely divisions behind such a piece.
const OWN: f32 = 0.1;

/// The best way to where it stands.
#[derive(Clone, Copy)]
struct Best {
    score: f32,
    start: Option<usize>,
}

impl Best {
    /// Of two ways that are equally good the first stays.
    fn improve(&mut self, score: f32, start: usize) {
        if self.start.is_none() || score > self.score {
            *self = Self { score, start: Some(start) };
        }
    }
}

/// Where the parts of a text are, in order: `EncodeOptimized` in `unigram_model.cc`. Sums are in `f32`, as those of
/// SentencePiece 0.2.3 are: rounding decides between `сс с` and `с сс`.
pub fn divide(text: &str, vocabulary: &Vocabulary) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let unknown = vocabulary.lowest - UNKNOWN;
    let mut best = vec![Best { score: 0.0, start: None }; bytes.len() + 1];
    let mut start = 0;
    while start < bytes.len() {
        let here = best[start].score;
        let character = text[start..].chars().next().map_or(1, char::len_utf8);
        let mut single = false;
        for (length, id) in vocabulary.trie.prefixes(&bytes[start..]) {
            if vocabulary.is_unused(id) {
                continue;
            }
            let score = if vocabulary.is_own(id) { OWN * (length as f32 - 1.0) } else { vocabulary.score(id) };
            best[start + length].improve(here + score, start);
            single = single || length == character;
        }
        if !single {
            best[start + character].improve(here + unknown, start);
        }
        start += character;
    }
    let mut parts = Vec::new();
    let mut end = bytes.len();
    while end > 0 {
        let start = best[end].start.unwrap_or(0);
        parts.push(start..end);
        end = start;
    }
    parts.reverse();
    parts
}
