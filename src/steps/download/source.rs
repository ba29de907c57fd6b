//! Where a source is: a scheme and what follows it.
//! It does not fetch anything; a new scheme is a variant here and a file beside.

use std::path::PathBuf;

use crate::error::{Problem, Result};
use crate::fetch::Address;

/// A source that can be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file or folder of this machine, as written.
    File(PathBuf),
    /// Something on another machine.
    Remote(Address),
}

const EXPECTED: &str = "a path, `hf://owner/name`, `hf://datasets/owner/name` or `https://…`";

/// Schemes that people write and that are not fetched.
const REFUSED: [&str; 6] = ["s3", "gs", "az", "ftp", "sftp", "ssh"];

impl Source {
    /// Reads `PATH`, `file:PATH`, `file:///PATH`, `hf://…`, `https://…`, or `http://…` of this machine or of what is
    /// pinned.
    pub fn parse(text: &str, pinned: bool) -> Result<Self> {
        let path = match scheme(text) {
            Some(("file", rest)) => rest.strip_prefix("//").unwrap_or(rest),
            Some(("hf", _)) => return Address::hub(text).map(Self::Remote),
            Some(("https" | "http", _)) => return Address::web(text, pinned).map(Self::Remote),
            Some((scheme, _)) => {
                let problem = if REFUSED.contains(&scheme) {
                    Problem::new(format!("sources of the kind `{scheme}://` cannot be fetched"))
                        .help("fetch the file yourself and give its path")
                } else {
                    Problem::new(format!("the scheme `{scheme}:` is not known"))
                };
                return Err(problem.expected(EXPECTED));
            }
            None => text,
        };
        if path.trim().is_empty() {
            return Err(Problem::new("the source is empty").expected(EXPECTED));
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
            assert_eq!(Source::parse(text, false).expect("a path"), Source::File(PathBuf::from(path)), "{text}");
        }
    }

    #[test]
    fn addresses_are_read() {
        for text in ["hf://a/b@v1/x.json", "hf://datasets/a/b", "https://example.org/x.gz", "http://127.0.0.1:8000/x"] {
            let Source::Remote(address) = Source::parse(text, false).expect(text) else { panic!("{text}") };
            assert_eq!(address.to_string(), text);
        }
        assert!(Source::parse("http://example.org/x.gz", false).is_err());
        assert!(Source::parse("http://example.org/x.gz", true).is_ok());
    }

    #[test]
    fn other_schemes_are_refused_with_what_to_do() {
        let told = |text: &str| Source::parse(text, false).expect_err("refused").to_string();
        assert_eq!(
            told("s3://bucket/x"),
            format!(
                "sources of the kind `s3://` cannot be fetched (expected {EXPECTED})\nhelp: fetch the file yourself and give its path"
            )
        );
        assert!(told("fiel:x").starts_with("the scheme `fiel:` is not known"));
        assert!(told("file:").starts_with("the source is empty"));
    }
}
