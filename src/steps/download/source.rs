//! Where a source is: a scheme and what follows it.
//! It does not fetch anything; a new scheme is a variant here and a file beside.

use std::path::PathBuf;

use crate::error::{Problem, Result};

/// A source that can be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file or folder of this machine, as written.
    File(PathBuf),
}

/// Schemes that people write and that are not fetched, with what to do instead.
const REFUSED: [(&str, &str); 4] = [
    ("https", "fetch the file yourself and give its path"),
    ("http", "fetch the file yourself and give its path"),
    ("hf", "fetch the repository yourself (`hf download`) and give its folder"),
    ("s3", "fetch the file yourself and give its path"),
];

impl Source {
    /// Reads `PATH`, `file:PATH` or `file:///PATH`.
    pub fn parse(text: &str) -> Result<Self> {
        let path = match scheme(text) {
            Some(("file", rest)) => rest.strip_prefix("//").unwrap_or(rest),
            Some((scheme, _)) => {
                let known = REFUSED.iter().find(|(name, _)| *name == scheme);
                let problem = match known {
                    Some((_, help)) => {
                        Problem::new(format!("sources of the kind `{scheme}://` cannot be fetched")).help(*help)
                    }
                    None => Problem::new(format!("the scheme `{scheme}:` is not known")),
                };
                return Err(problem.expected("a path, or `file:PATH`"));
            }
            None => text,
        };
        if path.trim().is_empty() {
            return Err(Problem::new("the source is empty").expected("a path, or `file:PATH`"));
        }
        Ok(Self::File(PathBuf::from(path)))
    }
}

/// The scheme and the rest. One letter is a drive, not a scheme.
fn scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let named = scheme.len() > 1
        && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    named.then_some((scheme, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_with_and_without_their_scheme() {
        for (text, path) in [
            ("data/val.jsonl", "data/val.jsonl"),
            ("file:data/val.jsonl", "data/val.jsonl"),
            ("file:///data/val.jsonl", "/data/val.jsonl"),
            ("../Мои данные/a: b.txt", "../Мои данные/a: b.txt"),
        ] {
            assert_eq!(Source::parse(text).expect("a path"), Source::File(PathBuf::from(path)), "{text}");
        }
    }

    #[test]
    fn other_schemes_are_refused_with_what_to_do() {
        let told = |text: &str| Source::parse(text).expect_err("refused").to_string();
        assert_eq!(
            told("hf://RussianNLP/russian_super_glue"),
            "sources of the kind `hf://` cannot be fetched (expected a path, or `file:PATH`)\nhelp: fetch the repository yourself (`hf download`) and give its folder"
        );
        assert!(told("https://example.org/x").contains("`https://` cannot be fetched"));
        assert!(told("fiel:x").starts_with("the scheme `fiel:` is not known"));
        assert!(told("file:").starts_with("the source is empty"));
    }
}
