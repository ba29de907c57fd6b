//! Entities in a text: `PER:0:12 LOC:20:26` becomes pieces of the text, marked and not.
//! It does not know who found them. Whatever a span says, it is never taken beyond the text.

use serde::Serialize;

/// Characters of a type that a page has room for.
const MOST_LABEL: usize = 16;

/// A piece of text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Piece {
    /// What it says.
    pub text: String,
    /// The type of the entity that it is; empty for text between.
    pub label: String,
}

/// A stretch of characters with a type.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    start: usize,
    end: usize,
    label: String,
}

/// Reads spans; none if the text is anything else. An empty text has none and is read as no spans.
pub fn read(text: &str) -> Option<Vec<Span>> {
    text.split_whitespace()
        .map(|one| {
            let mut parts = one.rsplitn(3, ':');
            let (end, start, label) = (parts.next()?, parts.next()?, parts.next()?);
            let label = Some(label).filter(|label| !label.is_empty())?;
            Some(Span { start: start.parse().ok()?, end: end.parse().ok()?, label: label.to_owned() })
        })
        .collect()
}

/// The text in pieces, and the spans that found no place in it: outside, empty or overlapping.
pub fn marked(text: &str, spans: &[Span]) -> (Vec<Piece>, Vec<String>) {
    let chars: Vec<char> = text.chars().collect();
    let mut sorted = spans.to_vec();
    sorted.sort();
    let (mut pieces, mut homeless, mut at) = (Vec::new(), Vec::new(), 0);
    let piece = |from: usize, to: usize, label: &str| Piece {
        text: chars[from..to].iter().collect(),
        label: label.chars().take(MOST_LABEL).collect(),
    };
    for span in sorted {
        if span.start < at || span.end <= span.start || span.end > chars.len() {
            homeless.push(format!("{}:{}:{}", span.label, span.start, span.end));
            continue;
        }
        if at < span.start {
            pieces.push(piece(at, span.start, ""));
        }
        pieces.push(piece(span.start, span.end, &span.label));
        at = span.end;
    }
    if at < chars.len() {
        pieces.push(piece(at, chars.len(), ""));
    }
    (pieces, homeless)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn told(text: &str, spans: &str) -> (String, Vec<String>) {
        let (pieces, homeless) = marked(text, &read(spans).expect("spans"));
        let one = |piece: &Piece| match piece.label.as_str() {
            "" => piece.text.clone(),
            label => format!("[{} {label}]", piece.text),
        };
        (pieces.iter().map(one).collect(), homeless)
    }

    #[test]
    fn spans_count_characters() {
        let (text, homeless) = told("Иван Петров едет в Томск", "LOC:19:24 PER:0:11");
        assert_eq!(text, "[Иван Петров PER] едет в [Томск LOC]");
        assert!(homeless.is_empty());
    }

    #[test]
    fn spans_without_a_place_are_told() {
        let (text, homeless) = told("Иван", "PER:0:4 LOC:2:4 ORG:3:99 PER:1:1 LOC:4:2");
        assert_eq!(text, "[Иван PER]");
        assert_eq!(homeless.len(), 4);
    }

    #[test]
    fn other_answers_are_no_spans() {
        for text in ["entailment", "да", "PER:1", "PER:a:b", ":1:2", "PER:0:4 и ещё", "PER:0:99999999999999999999999"]
        {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(read(""), Some(Vec::new()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_text_is_lost(text in "\\PC{0,20}", spans in proptest::collection::vec((0usize..30, 0usize..30), 0..6)) {
            let spans: Vec<String> = spans.iter().map(|(start, end)| format!("PER:{start}:{end}")).collect();
            let (pieces, homeless) = marked(&text, &read(&spans.join(" ")).expect("spans"));
            let joined: String = pieces.iter().map(|piece| piece.text.as_str()).collect();
            prop_assert_eq!(joined, text);
            let placed = pieces.iter().filter(|piece| !piece.label.is_empty()).count();
            prop_assert_eq!(placed + homeless.len(), spans.len());
        }
    }
}
