//! Entities in a sequence of BIO tags, by each of the conventions in use.
//! It does not know characters or files: positions are positions in the sequence.

/// What to do with tags that are not well-formed BIO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As Nerus's own `bio_spans`: a stray `I-` is nothing; within an entity any `I-` goes on with it, whatever
    /// its type.
    Nerus,
    /// As conlleval and seqeval by default: a stray `I-`, or one of another type, begins an entity.
    Conlleval,
    /// As seqeval's strict IOB2: only `B-` begins an entity, only `I-` of its type goes on; anything else ends it.
    Strict,
}

/// An entity: its type, first and last position.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span<'a> {
    /// The type: what stands after `B-` or `I-`.
    pub kind: &'a str,
    /// Where it begins.
    pub first: usize,
    /// Where it ends, inclusive.
    pub last: usize,
}

/// The entities of a sequence of `O`, `B-X`, `I-X`, in order. Any other tag counts as `O`.
pub fn spans<'a>(tags: &[&'a str], mode: Mode) -> Vec<Span<'a>> {
    let mut found: Vec<Span<'a>> = Vec::new();
    // True while the last entity found may go on.
    let mut open = false;
    for (position, tag) in tags.iter().enumerate() {
        let goes_on = |kind: &str, found: &[Span<'a>]| {
            open && (mode == Mode::Nerus || found.last().is_some_and(|span| span.kind == kind))
        };
        match tag.split_once('-') {
            Some(("I", kind)) if goes_on(kind, &found) => {
                if let Some(span) = found.last_mut() {
                    span.last = position;
                }
            }
            Some(("B", kind)) => {
                found.push(Span { kind, first: position, last: position });
                open = true;
            }
            Some(("I", kind)) if mode == Mode::Conlleval => {
                found.push(Span { kind, first: position, last: position });
                open = true;
            }
            _ => open = false,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(tags: &str, mode: Mode) -> String {
        let tags: Vec<&str> = tags.split(' ').collect();
        let told: Vec<String> =
            spans(&tags, mode).iter().map(|s| format!("{}:{}-{}", s.kind, s.first, s.last)).collect();
        told.join(" ")
    }

    #[test]
    fn the_conventions_differ_where_they_are_known_to() {
        for (tags, nerus, conlleval, strict) in [
            ("O I-PER O", "", "PER:1-1", ""),
            ("B-PER I-LOC O", "PER:0-1", "PER:0-0 LOC:1-1", "PER:0-0"),
            ("B-PER O I-PER", "PER:0-0", "PER:0-0 PER:2-2", "PER:0-0"),
            ("B-PER B-PER I-PER", "PER:0-0 PER:1-2", "PER:0-0 PER:1-2", "PER:0-0 PER:1-2"),
        ] {
            assert_eq!(told(tags, Mode::Nerus), nerus, "{tags}");
            assert_eq!(told(tags, Mode::Conlleval), conlleval, "{tags}");
            assert_eq!(told(tags, Mode::Strict), strict, "{tags}");
        }
    }
}
