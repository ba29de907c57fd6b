//! Leases: whoever is making the result of a key holds its lease, so that nobody makes it a second time meanwhile.
//! It does not know what is made, nor whether it is there already.
//!
//! A lease is a lock of the operating system on `leases/ab/KEY`. The file itself means nothing: the kernel lets go of
//! the lock however its holder ends, so there is never anything to unlock. A holder deletes the file before it lets
//! go. Somebody may have opened it just before, and gets the lock of a file that is nowhere any more; so whoever gets
//! a lock looks whether the file is still the one at its path, and begins anew if it is not.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use super::{Store, make_parent};
use crate::digest::Digest;
use crate::error::{Problem, Result};

/// The right to make the result of a key; given up when dropped.
#[derive(Debug)]
pub struct Lease {
    path: PathBuf,
    _lock: File,
}

impl Store {
    /// Tries to take the lease of a key; `None` if somebody holds it, here or in another process.
    pub fn lease(&self, key: &Digest) -> Result<Option<Lease>> {
        let path = self.root().join("leases").join(&key.as_str()[..2]).join(key.as_str());
        let failed = |error: &std::io::Error| Problem::io("lock", &path, error);
        loop {
            let lock = open(&path)?;
            match lock.try_lock() {
                Ok(()) if is_at(&lock, &path) => return Ok(Some(Lease { path, _lock: lock })),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(failed(&error)),
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Before the lock is let go: afterwards it may be somebody else's. A file that stays does no harm.
        #[cfg(unix)]
        let _ = fs::remove_file(&self.path);
    }
}

fn open(path: &Path) -> Result<File> {
    let mut options = File::options();
    options.create(true).truncate(false).write(true);
    match options.open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            make_parent(path)?;
            options.open(path)
        }
        other => other,
    }
    .map_err(|error| Problem::io("lock", path, &error))
}

#[cfg(unix)]
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let there = |meta: fs::Metadata| (meta.dev(), meta.ino());
    matches!((file.metadata().map(there), fs::metadata(path).map(there)), (Ok(ours), Ok(its)) if ours == its)
}

/// Elsewhere the file is never deleted.
#[cfg(not(unix))]
pub(super) fn is_at(_file: &File, _path: &Path) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_lease_is_held_by_one_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (Store::at(folder.path()), Store::at(folder.path()));
        let (key, other) = (Digest::of(b"a"), Digest::of(b"b"));
        let lease = one.lease(&key).unwrap().unwrap();
        assert!(one.lease(&key).unwrap().is_none() && two.lease(&key).unwrap().is_none());
        assert!(two.lease(&other).unwrap().is_some());
        drop(lease);
        assert!(two.lease(&key).unwrap().is_some());
        assert_eq!(crate::digest::files_below(&folder.path().join("leases")).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_file_that_was_left_means_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        let key = Digest::of(b"a");
        let path = store.lease(&key).unwrap().unwrap().path.clone();
        fs::write(&path, "whatever").unwrap();
        assert!(store.lease(&key).unwrap().is_some());
        assert!(!path.exists());
    }

    /// Takers race for one lease, which is unlinked and made anew all the time: never two of them have it.
    #[test]
    fn takers_exclude_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let (key, inside, taken) = (Digest::of(b"a"), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let store = Store::at(folder.path());
                    while taken.load(Ordering::SeqCst) < 400 {
                        let Some(_lease) = store.lease(&key).unwrap() else { continue };
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        taken.fetch_add(1, Ordering::SeqCst);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
    }

    #[test]
    fn a_lease_that_cannot_be_locked_is_a_problem() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("leases"), "a file where a folder should be").unwrap();
        let problem = Store::at(folder.path()).lease(&Digest::of(b"a")).unwrap_err();
        assert!(problem.what.starts_with("cannot lock "), "{problem}");
    }
}
