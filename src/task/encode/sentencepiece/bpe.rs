//! Division by the best merge first, as SentencePiece does it.
//! It does not know bytes or unknown text: what has no piece comes out as it is.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Range;

use super::Vocabulary;

/// Two neighbours that may become one.
struct Pair {
    left: usize,
    right: usize,
    score: f32,
    size: usize,
}

/// The best pair is the greatest: a higher score, then further left.
impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pair {}

/// A part of the text and its neighbours; merged away, it is empty.
struct Symbol {
    previous: Option<usize>,
    next: Option<usize>,
    place: Range<usize>,
    /// A piece of the user's own is never merged.
    frozen: bool,
}

/// Where the parts of a text are, in order. `bpe_model.cc` of SentencePiece 0.2, without its random dropout.
pub fn divide(text: &str, vocabulary: &Vocabulary) -> Vec<Range<usize>> {
    let mut symbols = symbols(text, vocabulary);
    let mut agenda = BinaryHeap::new();
    // Of a piece that never comes out: what it was merged from.
    let mut merged_from: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut consider =
        |symbols: &[Symbol], left: Option<usize>, right: Option<usize>, agenda: &mut BinaryHeap<Pair>| {
            let (Some(left), Some(right)) = (left, right) else { return };
            let (first, second) = (&symbols[left], &symbols[right]);
            if first.frozen || second.frozen {
                return;
            }
            let place = first.place.start..second.place.end;
            let Some(id) = vocabulary.trie.get(&text.as_bytes()[place.clone()]) else { return };
            agenda.push(Pair { left, right, score: vocabulary.score(id), size: place.len() });
            if vocabulary.is_unused(id) {
                merged_from.insert(&text[place], (first.place.len(), second.place.len()));
            }
        };
    for right in 1..symbols.len() {
        consider(&symbols, Some(right - 1), Some(right), &mut agenda);
    }
    while let Some(Pair { left, right, size, .. }) = agenda.pop() {
        let (first, second) = (&symbols[left].place, &symbols[right].place);
        if first.is_empty() || second.is_empty() || first.len() + second.len() != size {
            continue;
        }
        let end = second.end;
        let next = symbols[right].next;
        symbols[left].place.end = end;
        symbols[left].next = next;
        if let Some(next) = next {
            symbols[next].previous = Some(left);
        }
        symbols[right].place = end..end;
        consider(&symbols, symbols[left].previous, Some(left), &mut agenda);
        consider(&symbols, Some(left), next, &mut agenda);
    }
    let mut parts = Vec::new();
    let mut at = (!symbols.is_empty()).then_some(0);
    while let Some(symbol) = at.map(|at| &symbols[at]) {
        come_out(text, symbol.place.clone(), vocabulary, &merged_from, &mut parts);
        at = symbol.next;
    }
    parts
}

fn symbols(text: &str, vocabulary: &Vocabulary) -> Vec<Symbol> {
    let mut symbols = Vec::with_capacity(text.len());
    let mut start = 0;
    while start < text.len() {
        let rest = &text[start..];
        let own = vocabulary.own.longest(rest.as_bytes());
        let length = own.unwrap_or_else(|| rest.chars().next().map_or(1, char::len_utf8));
        let index = symbols.len();
        let end = start + length;
        symbols.push(Symbol {
            previous: index.checked_sub(1),
            next: (end < text.len()).then_some(index + 1),
            place: start..end,
            frozen: own.is_some(),
        });
        start = end;
    }
    symbols
}

/// A piece that never comes out is divided again into what it was merged from.
fn come_out(
    text: &str,
    place: Range<usize>,
    vocabulary: &Vocabulary,
    merged_from: &BTreeMap<&str, (usize, usize)>,
    parts: &mut Vec<Range<usize>>,
) {
    let mut waiting = vec![place];
    while let Some(place) = waiting.pop() {
        let piece = &text[place.clone()];
        let unused = vocabulary.trie.get(piece.as_bytes()).is_some_and(|id| vocabulary.is_unused(id));
        match merged_from.get(piece).filter(|_| unused) {
            Some((first, _)) => {
                waiting.push(place.start + first..place.end);
                waiting.push(place.start..place.start + first);
            }
            None => parts.push(place),
        }
    }
}
