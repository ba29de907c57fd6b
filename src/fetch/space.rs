//! Whether a disk has room, asked before bytes are fetched for hours.
//! It does not know what they are for.

use std::path::Path;

use crate::error::{Problem, Result};

/// Fails if the disk of a folder, which need not exist yet, has less room than this.
pub fn require(folder: &Path, bytes: u64, what: &str) -> Result<()> {
    match available(folder) {
        Some(free) if free < bytes => {
            Err(Problem::new(format!("{what} needs {}, and {} are free there", size(bytes), size(free)))
                .help("free some space on that disk, or put the cache (`--cache`, `HF_HOME`) on another one"))
        }
        _ => Ok(()),
    }
}

/// The bytes that may still be written; `None` where the system does not say.
#[cfg(unix)]
fn available(folder: &Path) -> Option<u64> {
    let there = std::path::absolute(folder).ok()?;
    let there = there.ancestors().find(|ancestor| ancestor.is_dir())?.to_owned();
    let disk = rustix::fs::statvfs(&there).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(not(unix))]
fn available(_folder: &Path) -> Option<u64> {
    None
}

/// `13.5 GB`, as download pages write it.
pub(super) fn size(bytes: u64) -> String {
    let units = [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / unit as f64),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_before_it_is_full() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("not/yet/there");
        require(&deep, 1, "x").unwrap();
        let problem = require(&deep, 1 << 60, "a copy in the cache").unwrap_err().to_string();
        assert!(problem.starts_with("a copy in the cache needs 1152921.5 TB, and "), "{problem}");
    }
}
