//! How states look: their words, and their colours by day and by night.
//! It does not know in which format they are drawn.

/// What would become of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Its result is there.
    Reused,
    /// Not known before others have run.
    Depends,
    /// It runs.
    Run,
    /// It cannot run, or will fail.
    Fails,
}

/// Colours of a node.
pub(super) struct Colors {
    pub fill: &'static str,
    pub line: &'static str,
    pub text: &'static str,
}

impl State {
    /// All of them, from what needs no attention to what needs most.
    pub const ALL: [Self; 4] = [Self::Reused, Self::Depends, Self::Run, Self::Fails];

    /// A word for a picture's class.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Reused => "reused",
            Self::Depends => "depends",
            Self::Run => "run",
            Self::Fails => "fails",
        }
    }

    /// What it means.
    pub fn word(self) -> &'static str {
        match self {
            Self::Reused => "reused",
            Self::Depends => "depends on others",
            Self::Run => "to run",
            Self::Fails => "fails",
        }
    }

    pub(super) fn light(self) -> Colors {
        let (fill, line, text) = match self {
            Self::Reused => ("#e7f5ec", "#3d8b5a", "#14351f"),
            Self::Depends => ("#f6f2e4", "#a48a3a", "#3b3110"),
            Self::Run => ("#e6f0fd", "#3b78c9", "#10294a"),
            Self::Fails => ("#fdeaea", "#c94b4b", "#4d1212"),
        };
        Colors { fill, line, text }
    }

    pub(super) fn dark(self) -> Colors {
        let (fill, line, text) = match self {
            Self::Reused => ("#163324", "#4fae78", "#d6f2e0"),
            Self::Depends => ("#332d18", "#bfa552", "#f3ead0"),
            Self::Run => ("#162b47", "#5b9be8", "#d8e8fc"),
            Self::Fails => ("#441d1d", "#e57373", "#fde0e0"),
        };
        Colors { fill, line, text }
    }
}
