//! Addresses of remote sources: `hf://…` and `https://…`, parsed once.
//! It does not know what is there.

use std::fmt;

use super::url::Url;
use crate::error::{Problem, Result};
use crate::lockfile::{is_commit, is_plain};

/// Where a remote source is. Shown as it is written in `pipe.lock`: without what only leads to it, such as a mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A file on a web server.
    Web(String),
    /// A repository of the Hugging Face Hub, or a file or folder of it.
    Hub(Repo),
}

/// `hf://owner/name@revision/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repo {
    /// Models, or data sets.
    pub kind: RepoKind,
    /// `owner/name`.
    pub id: String,
    /// A branch, tag or commit; `main` without it.
    pub revision: Option<String>,
    /// A file, or a folder; without it what is needed of the whole.
    pub path: Option<String>,
}

/// The two kinds of repositories that hold what pipelines need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepoKind {
    /// `hf://owner/name`.
    Model,
    /// `hf://datasets/owner/name`.
    Dataset,
}

const EXPECTED: &str =
    "`hf://owner/name`, `hf://datasets/owner/name`, with `@revision` and `/file` behind it where wanted";

impl Address {
    /// Reads what follows `https:` or `http:`; the whole text is given. Plain http is for this machine alone, unless
    /// `pinned` says that a hash is known: anybody on the way could change the file.
    pub fn web(text: &str, pinned: bool) -> Result<Self> {
        let (_, rest) = text.split_once("://").unwrap_or_default();
        if rest.split(['/', '?', '#']).next().is_some_and(|server| server.contains('@')) {
            return Err(Problem::new("the address has a name or a password in it, which would be written into logs")
                .help("fetch the file yourself and give its path"));
        }
        let blank = |c: char| c.is_whitespace() || c.is_control();
        let Some(url) = Url::parse(text).filter(|_| !text.contains('#') && !text.contains(blank)) else {
            return Err(Problem::new("this is not an address of a file").expected("`https://host/path`"));
        };
        if url.scheme() == "http" && !pinned && !is_loopback(url.host()) {
            return Err(Problem::new("over `http://` anybody on the way can change the file")
                .help("write `https://`, or pin what the file must be: `pin: sha256:…`"));
        }
        Ok(Self::Web(text.to_owned()))
    }

    /// Reads `hf://…`.
    pub fn hub(text: &str) -> Result<Self> {
        let wrong = |what: &str| Problem::new(format!("`{text}`: {what}")).expected(EXPECTED);
        let rest = text.strip_prefix("hf://").ok_or_else(|| wrong("it does not begin with `hf://`"))?;
        let (kind, rest) = match rest.split_once('/') {
            Some(("datasets", rest)) => (RepoKind::Dataset, rest),
            Some((other @ ("spaces" | "buckets"), _)) => return Err(wrong(&format!("`{other}` are not fetched"))),
            _ => (RepoKind::Model, rest),
        };
        let (owner, rest) = rest.split_once('/').ok_or_else(|| wrong("the name has no owner"))?;
        let end = rest.find(['/', '@']).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        let named = |name: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !name.is_empty() && name.len() <= 96 && name.chars().all(plain) && !name.starts_with(['.', '-'])
        };
        if !named(owner) || !named(name) || name.contains("--") || name.contains("..") {
            return Err(wrong("owner and name are letters, digits, `-`, `_` and `.`"));
        }
        let (revision, path) = match rest.strip_prefix('@') {
            None => (None, rest.strip_prefix('/')),
            Some(rest) => {
                let (revision, path) = revision_and_path(rest);
                (Some(revision.replace("%2F", "/").replace("%2f", "/")), path)
            }
        };
        if revision.as_deref().is_some_and(|revision| !is_plain(revision) || revision.contains([' ', '@', '~', '^'])) {
            return Err(wrong("this is no name of a branch, tag or commit"));
        }
        // A folder may be written with a slash at its end.
        let path = path.map(|path| path.strip_suffix('/').unwrap_or(path)).filter(|path| !path.is_empty());
        if path.is_some_and(|path| !is_plain(path)) {
            return Err(wrong("the path leads outside of the repository"));
        }
        let id = format!("{owner}/{name}");
        Ok(Self::Hub(Repo { kind, id, revision, path: path.map(str::to_owned) }))
    }

    /// Reads what [`fmt::Display`] wrote.
    pub fn parse(text: &str) -> Result<Self> {
        if text.starts_with("hf://") { Self::hub(text) } else { Self::web(text, true) }
    }
}

/// A slash belongs to the revision only in the Hub's own `refs/pr/1` and `refs/convert/parquet`.
fn revision_and_path(rest: &str) -> (&str, Option<&str>) {
    let parts = if rest.starts_with("refs/pr/") || rest.starts_with("refs/convert/") { 3 } else { 1 };
    match rest.match_indices('/').nth(parts - 1) {
        Some((at, _)) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    }
}

impl Repo {
    /// The revision that is asked for.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }

    /// The commit, if the address names one.
    pub fn commit(&self) -> Option<&str> {
        self.revision.as_deref().filter(|revision| is_commit(revision))
    }

    /// `models` or `datasets`, as the Hub's API and its cache write it.
    pub fn plural(&self) -> &'static str {
        match self.kind {
            RepoKind::Model => "models",
            RepoKind::Dataset => "datasets",
        }
    }

    /// What stands before `owner/name` in the address of its page.
    pub fn prefix(&self) -> &'static str {
        match self.kind {
            RepoKind::Model => "",
            RepoKind::Dataset => "datasets/",
        }
    }
}

impl fmt::Display for Repo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf://{}{}", self.prefix(), self.id)?;
        if let Some(revision) = &self.revision {
            let special = revision.starts_with("refs/pr/") || revision.starts_with("refs/convert/");
            let revision = if special { revision.clone() } else { revision.replace('/', "%2F") };
            write!(f, "@{revision}")?;
        }
        if let Some(path) = &self.path {
            write!(f, "/{path}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Web(url) => f.write_str(url),
            Self::Hub(repo) => repo.fmt(f),
        }
    }
}

/// True for names of this machine.
pub fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repo(text: &str) -> Repo {
        match Address::hub(text) {
            Ok(Address::Hub(repo)) => repo,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn hub_addresses_are_read_and_written() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        for (text, kind, id, revision, path) in [
            ("hf://a/b", RepoKind::Model, "a/b", None, None),
            ("hf://a/b@v1", RepoKind::Model, "a/b", Some("v1"), None),
            ("hf://a/b.c/d/e.json", RepoKind::Model, "a/b.c", None, Some("d/e.json")),
            ("hf://datasets/a/b@refs/pr/3/x.zip", RepoKind::Dataset, "a/b", Some("refs/pr/3"), Some("x.zip")),
            ("hf://datasets/a/b@refs/convert/parquet", RepoKind::Dataset, "a/b", Some("refs/convert/parquet"), None),
            ("hf://a/b@feature%2Fx/y", RepoKind::Model, "a/b", Some("feature/x"), Some("y")),
        ] {
            let read = repo(text);
            assert_eq!((read.kind, read.id.as_str()), (kind, id), "{text}");
            assert_eq!((read.revision.as_deref(), read.path.as_deref()), (revision, path), "{text}");
            assert_eq!(read.to_string(), text);
            assert_eq!(Address::parse(text).unwrap(), Address::Hub(read));
        }
        assert_eq!(repo("hf://a/b/c/").path.as_deref(), Some("c"));
        assert_eq!(repo("hf://a/b").commit(), None);
        assert_eq!(repo(&format!("hf://a/b@{commit}")).commit(), Some(commit));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for (text, word) in [
            ("hf://gpt2", "no owner"),
            ("hf://datasets/a", "no owner"),
            ("hf://spaces/a/b", "`spaces`"),
            ("hf://a/b/../c", "outside"),
            ("hf://a/b@../x", "no name of a branch"),
            ("hf://../b", "owner and name"),
            ("hf://a/b c", "owner and name"),
            ("hf://a/", "owner and name"),
        ] {
            let problem = Address::hub(text).expect_err(text).to_string();
            assert!(problem.contains(word) && problem.contains("`hf://owner/name`"), "{problem}");
        }
        for (text, word) in [
            ("https://", "not an address"),
            ("https://a/b c", "not an address"),
            ("https://u:p@a/b", "password"),
            ("http://example.org/x", "anybody on the way"),
        ] {
            let problem = Address::web(text, false).expect_err(text).to_string();
            assert!(problem.contains(word), "{problem}");
        }
    }

    #[test]
    fn plain_http_is_for_this_machine_or_for_what_is_pinned() {
        for text in ["http://localhost:8080/x", "http://127.0.0.1/x", "http://[::1]:80/x", "https://example.org/x?y=z"]
        {
            assert!(Address::web(text, false).is_ok(), "{text}");
        }
        assert!(Address::web("http://example.org/x", true).is_ok());
    }
}
