//! Leases: whoever is making the result of a key holds its lease, so that nobody makes it a second time meanwhile.
//! It does not know what is made, nor whether it is there already.
//!
//! A lease is a lock of the operating system: of one byte, whose place follows from the key, in the file `leases/lock`
//! that has no bytes and stays. The kernel lets go of the lock however its holder ends, so there is never anything to
//! unlock, and a run of thousands of steps makes no file for them. The lock belongs to the opened file (`F_OFD_SETLK`),
//! of which a store has one; so the store itself knows which of its leases are out.
//!
//! Where the system has no such locks, a lease is a lock on a file of its own, `leases/ab/KEY`. A holder deletes it before
//! it lets go. Somebody may have opened it just before, and gets the lock of a file that is nowhere any more; so whoever
//! gets a lock looks whether the file is still the one at its path, and begins anew if it is not.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Store, make_parent};
use crate::digest::Digest;
use crate::error::{Problem, Result};

/// The right to make the result of a key; given up when dropped.
#[derive(Debug)]
pub struct Lease {
    place: u64,
    leases: Arc<Leases>,
    lock: system::Lock,
}

/// The leases that a store has given out.
#[derive(Debug, Default)]
pub(super) struct Leases(Mutex<Out>);

#[derive(Debug, Default)]
struct Out {
    places: BTreeSet<u64>,
    file: system::Shared,
}

impl Leases {
    fn lock(&self) -> MutexGuard<'_, Out> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Tries to take the lease of a key; `None` if somebody holds it, here or in another process.
    pub fn lease(&self, key: &Digest) -> Result<Option<Lease>> {
        let (folder, place) = (self.root().join("leases"), place(key));
        let mut out = self.leases.lock();
        if out.places.contains(&place) {
            return Ok(None);
        }
        let Some(lock) = system::lock(&mut out.file, &folder, key, place)? else { return Ok(None) };
        out.places.insert(place);
        Ok(Some(Lease { place, leases: self.leases.clone(), lock }))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut out = self.leases.lock();
        system::unlock(&mut out.file, &mut self.lock, self.place);
        out.places.remove(&self.place);
    }
}

/// Where the byte of a key lies. Two keys with one place would wait for each other, which does no harm.
fn place(key: &Digest) -> u64 {
    // The first fifteen digits: a place is a positive number of 63 bits.
    key.as_str()
        .bytes()
        .take(15)
        .fold(0, |place, digit| place << 4 | u64::from(char::from(digit).to_digit(16).unwrap_or(0)))
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

/// Bytes of one file.
#[cfg(target_os = "linux")]
mod system {
    use nix::errno::Errno;
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::libc;

    use super::{Digest, File, Path, Problem, Result, open};

    /// The file, once the first lease was taken.
    pub type Shared = Option<File>;

    #[derive(Debug)]
    pub struct Lock;

    pub fn lock(file: &mut Shared, folder: &Path, _key: &Digest, place: u64) -> Result<Option<Lock>> {
        let path = folder.join("lock");
        let held = match file {
            // Whoever deleted the cache, or a part of it, meanwhile has deleted the file of all others, too.
            Some(held) if super::is_at(held, &path) => held,
            _ => file.insert(open(&path)?),
        };
        match set(held, libc::F_WRLCK, place) {
            Ok(()) => Ok(Some(Lock)),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
            Err(error) => Err(Problem::io("lock", &path, &error.into())),
        }
    }

    pub fn unlock(file: &mut Shared, _lock: &mut Lock, place: u64) {
        // What cannot be unlocked now is unlocked by the end of the process.
        let _ = file.as_ref().map(|file| set(file, libc::F_UNLCK, place));
    }

    fn set(file: &File, kind: libc::c_int, place: u64) -> nix::Result<()> {
        let range = libc::flock {
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: place as libc::off_t,
            l_len: 1,
            l_pid: 0,
        };
        fcntl(file, FcntlArg::F_OFD_SETLK(&range)).map(|_| ())
    }
}

/// A file for each lease.
#[cfg(not(target_os = "linux"))]
mod system {
    use std::fs::{self, TryLockError};
    use std::path::PathBuf;

    use super::{Digest, File, Path, Problem, Result, is_at, open};

    /// There is none.
    pub type Shared = ();

    #[derive(Debug)]
    pub struct Lock(Option<File>, PathBuf);

    pub fn lock(_file: &mut Shared, folder: &Path, key: &Digest, _place: u64) -> Result<Option<Lock>> {
        let path = folder.join(&key.as_str()[..2]).join(key.as_str());
        loop {
            let file = open(&path)?;
            match file.try_lock() {
                Ok(()) if is_at(&file, &path) => return Ok(Some(Lock(Some(file), path))),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(Problem::io("lock", &path, &error)),
            }
        }
    }

    pub fn unlock(_file: &mut Shared, lock: &mut Lock, _place: u64) {
        // Before the lock is let go: afterwards it may be somebody else's. A file that stays does no harm.
        if cfg!(unix) {
            let _ = fs::remove_file(&lock.1);
        }
        lock.0 = None;
    }
}

/// Whether this is the file that lies at the path now.
#[cfg(unix)]
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let there = |meta: fs::Metadata| (meta.dev(), meta.ino());
    matches!((file.metadata().map(there), fs::metadata(path).map(there)), (Ok(ours), Ok(its)) if ours == its)
}

/// Elsewhere an open file is never deleted.
#[cfg(not(unix))]
pub(super) fn is_at(_file: &File, _path: &Path) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_lease_is_held_by_one_and_makes_no_file_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (Store::at(folder.path()), Store::at(folder.path()));
        let (key, other) = (Digest::of(b"a"), Digest::of(b"b"));
        let lease = one.lease(&key).unwrap().unwrap();
        assert!(one.lease(&key).unwrap().is_none() && two.lease(&key).unwrap().is_none());
        assert!(two.lease(&other).unwrap().is_some());
        drop(lease);
        assert!(two.lease(&key).unwrap().is_some());
        for number in 0..50_u8 {
            assert!(two.lease(&Digest::of(&[number])).unwrap().is_some());
        }
        assert!(crate::digest::files_below(&folder.path().join("leases")).unwrap().len() <= 1);
    }

    #[test]
    fn what_stands_in_files_means_nothing_and_files_that_are_deleted_are_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (Store::at(folder.path()), Store::at(folder.path()));
        let (key, other) = (Digest::of(b"a"), Digest::of(b"b"));
        drop(one.lease(&key).unwrap().unwrap());
        let leases = folder.path().join("leases");
        fs::create_dir_all(&leases).unwrap();
        fs::write(leases.join("lock"), "whatever").unwrap();
        let lease = one.lease(&key).unwrap().unwrap();
        assert!(two.lease(&key).unwrap().is_none());
        fs::remove_dir_all(&leases).unwrap();
        let again = one.lease(&other).unwrap();
        assert!(again.is_some() && two.lease(&other).unwrap().is_none());
        drop((lease, again));
        assert!(two.lease(&key).unwrap().is_some() && two.lease(&other).unwrap().is_some());
    }

    #[test]
    fn keys_have_places_of_their_own() {
        let places: BTreeSet<u64> = (0..1000_u32).map(|number| place(&Digest::of(&number.to_le_bytes()))).collect();
        assert!(places.len() == 1000 && places.iter().all(|&place| i64::try_from(place).is_ok()));
    }

    /// Takers race for one lease, which is taken and given up all the time: never two of them have it.
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
