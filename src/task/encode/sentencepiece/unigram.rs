//! The likeliest division into pieces, as SentencePiece finds it.
//! It does not know bytes: text without a piece comes out a character at a time.

use std::ops::Range;

use super::Vocabulary;

/// What a character without a piece costs below the least likely piece.
const UNKNOWN: f32 = 10.0;

/// The best way to where it stands.
#[derive(Clone, Copy)]
struct Best {
    score: f32,
    start: Option<usize>,
}

/// Where the parts of a text are, in order: `EncodeOptimized` in `unigram_model.cc` of SentencePiece 0.2. Sums are
/// taken in its types, because they decide between divisions that are almost equally likely.
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
            let score = if vocabulary.is_own(id) {
                f64::from(length as f32 * vocabulary.highest) - 0.1
            } else {
                f64::from(vocabulary.score(id))
            };
            let score = score + f64::from(here);
            let end = &mut best[start + length];
            if end.start.is_none() || score > f64::from(end.score) {
                *end = Best { score: score as f32, start: Some(start) };
            }
            single = single || length == character;
        }
        if !single {
            let score = unknown + here;
            let end = &mut best[start + character];
            if end.start.is_none() || score > end.score {
                *end = Best { score, start: Some(start) };
            }
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
