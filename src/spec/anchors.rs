//! Anchors that are defined twice: YAML allows it, but the YAML library then confuses later anchors.
//! It does not read YAML: it looks for words that start with `&` and `*` outside quotes and comments.

use std::collections::BTreeSet;
use std::ops::Range;

/// The second definition of an anchor, in a file that uses aliases.
pub(super) fn twice(source: &str) -> Option<(&str, Range<usize>)> {
    let mut seen = BTreeSet::new();
    let mut found = None;
    let mut aliases = false;
    let mut start = 0;
    for line in source.split_inclusive('\n') {
        for (at, word) in words(line) {
            aliases |= word.starts_with('*');
            if word.starts_with('&') && !seen.insert(word) && found.is_none() {
                found = Some((&word[1..], start + at..start + at + word.len()));
            }
        }
        start += line.len();
    }
    found.filter(|_| aliases)
}

/// Words of a line that start with `&` or `*` where a value may start.
fn words(line: &str) -> Vec<(usize, &str)> {
    let mut words = Vec::new();
    let mut quote = None;
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        let starts = before.is_whitespace() || "[{,".contains(before);
        match quote {
            Some(open) if c == open && before != '\\' => quote = None,
            Some(_) => {}
            None if (c == '"' || c == '\'') && starts => quote = Some(c),
            None if c == '#' && before.is_whitespace() => break,
            None if (c == '&' || c == '*') && starts => {
                let rest = &line[at..];
                let end = rest.find(|c: char| c.is_whitespace() || ",[]{}".contains(c)).unwrap_or(rest.len());
                if end > 1 {
                    words.push((at, &rest[..end]));
                }
            }
            None => {}
        }
        before = c;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_second_definition_in_a_file_with_aliases_counts() {
        assert_eq!(twice("a: &x 1\nb: [&x 2, *x]\n"), Some(("x", 12..14)));
        assert_eq!(twice("a: &x 1\nb: &y 2\nc: *x\n"), None);
        assert_eq!(twice("a: &x 1\nb: &x 2\n"), None);
        assert_eq!(twice("a: &x 1 # &x\nb: \"&x\"\nc: u?a=1&x\nd: *x\n"), None);
    }
}
