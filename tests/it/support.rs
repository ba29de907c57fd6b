//! What tests share: the binary, temporary projects, and where golden cases and real data lie.
#![allow(dead_code)]

use std::path::{Path, PathBuf};

/// The repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Golden cases: `PIPE_GOLDEN`, or `../shared/golden`; `None`, with a word on stderr, where there are none.
pub fn golden() -> Option<PathBuf> {
    beside("PIPE_GOLDEN", "golden")
}

/// Real data: `PIPE_DATA`, or `../shared/data`; `None`, with a word on stderr, where there is none.
pub fn data() -> Option<PathBuf> {
    beside("PIPE_DATA", "data")
}

/// The project's own golden tree has cases of every kind; one that `PIPE_GOLDEN` names need not.
pub fn has_cases(found: usize, kind: &str) {
    if found == 0 && std::env::var_os("PIPE_GOLDEN").is_some() {
        eprintln!("skipped: there is no golden case of the kind `{kind}`");
        return;
    }
    assert!(found > 0, "there is no golden case of the kind `{kind}`");
}

fn beside(variable: &str, name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os(variable).map_or_else(|| repository().join("../shared").join(name), PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: {} is not there (set {variable})", folder.display());
    None
}

/// Whether tests that take minutes are wanted (`make test-long` sets `PIPE_LONG`). Their names start with `long_`, and
/// they begin with `if !support::long() { return; }`.
pub fn long() -> bool {
    let wanted = std::env::var_os("PIPE_LONG").is_some();
    if !wanted {
        eprintln!("skipped: it takes minutes (`make test-long` runs it)");
    }
    wanted
}
