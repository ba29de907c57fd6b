//! A problem: what happened, where, and what to do about it.
//! It does not know how problems are drawn (`ui`) nor where a path stands in a file (`spec`).

use std::fmt;
use std::path::Path as FilePath;

use serde::{Deserialize, Serialize};

/// One step on the way into a YAML document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Segment {
    /// A key of a mapping.
    Key(String),
    /// A position in a list, counted from 0.
    Index(usize),
}

/// The way into a YAML document, shown as `steps.lora.with.layers[2]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Path(pub Vec<Segment>);

impl Path {
    /// The document itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// This path and one key more.
    #[must_use]
    pub fn key(&self, key: impl Into<String>) -> Self {
        self.and(Segment::Key(key.into()))
    }

    /// This path and one list position more.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.and(Segment::Index(index))
    }

    fn and(&self, segment: Segment) -> Self {
        let mut path = Vec::with_capacity(self.0.len() + 1);
        path.extend(self.0.iter().cloned());
        path.push(segment);
        Self(path)
    }

    /// This path followed by `tail`.
    #[must_use]
    pub fn join(&self, tail: &Path) -> Self {
        let mut path = self.clone();
        path.0.extend(tail.0.iter().cloned());
        path
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Key(key) if i == 0 => write!(f, "{key}")?,
                Segment::Key(key) => write!(f, ".{key}")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Where a problem is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Nowhere in particular: the message says it all.
    #[default]
    Nowhere,
    /// In the pipeline file, at a path that `spec` turns into line and column.
    /// Inside a step kind the path is relative to its `with:`.
    Spec(Path),
    /// In a file that is read as data.
    File {
        /// The file as the user knows it.
        file: String,
        /// Line, counted from 1.
        line: Option<u64>,
        /// Column in characters, counted from 1.
        column: Option<u64>,
    },
}

/// What happened, where, and what to do.
///
/// Wording: lower case, no full stop at the end, names in backticks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What happened.
    pub what: String,
    /// Where.
    pub place: Place,
    /// What was expected, shown under the offending text.
    pub expected: Option<String>,
    /// What to do about it, or what was probably meant.
    pub help: Option<String>,
    /// True when the user asked to stop: not a failure of the step.
    pub cancelled: bool,
    /// True where an expectation of the user was not met.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gate: bool,
}

impl Problem {
    /// A problem without a place yet.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), place: Place::Nowhere, expected: None, help: None, cancelled: false, gate: false }
    }

    /// The same, as an expectation that was not met.
    #[must_use]
    pub fn of_gate(self) -> Self {
        Self { gate: true, ..self }
    }

    /// The answer of a step that noticed Ctrl-C.
    pub fn cancelled() -> Self {
        Self { cancelled: true, ..Self::new("interrupted") }
    }

    /// Reading or writing `path` failed.
    pub fn io(action: &str, path: &FilePath, error: &std::io::Error) -> Self {
        let problem = Self::new(format!("cannot {action} {}: {error}", path.display()));
        match error.kind() {
            std::io::ErrorKind::StorageFull => {
                problem.help("free some space on that disk, or put the cache on another one with --cache DIR")
            }
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                problem.help("check the permissions, or put the cache elsewhere with --cache DIR")
            }
            _ => problem,
        }
    }

    /// The same problem, at a path of the pipeline file.
    #[must_use]
    pub fn at(mut self, path: Path) -> Self {
        self.place = Place::Spec(path);
        self
    }

    /// The same problem, in a data file.
    #[must_use]
    pub fn in_file(mut self, file: impl Into<String>, line: Option<u64>) -> Self {
        self.place = Place::File { file: file.into(), line, column: None };
        self
    }

    /// The same problem, with what was expected.
    #[must_use]
    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    /// The same problem, with what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Problem {
    /// One or two plain lines, for logs and tests; `ui` draws the same with the source text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Nowhere => {}
            Place::Spec(path) => write!(f, "{path}: ")?,
            Place::File { file, line, column } => {
                write!(f, "{file}")?;
                if let Some(line) = line {
                    write!(f, ":{line}")?;
                    if let Some(column) = column {
                        write!(f, ":{column}")?;
                    }
                }
                write!(f, ": ")?;
            }
        }
        write!(f, "{}", self.what)?;
        if let Some(expected) = &self.expected {
            write!(f, " (expected {expected})")?;
        }
        if let Some(help) = &self.help {
            write!(f, "\nhelp: {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

/// What most functions answer.
pub type Result<T, E = Problem> = std::result::Result<T, E>;
