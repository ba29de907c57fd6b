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
