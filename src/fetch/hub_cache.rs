//! The cache of Hugging Face's own programs, in their layout: what they fetched is used, and they use what is fetched.
//! It does not know the network.
//!
//! ```text
//! models--owner--name/blobs/ETAG                     the bytes; ETAG.incomplete while they arrive
//!                    /snapshots/COMMIT/path/of/file  a link into blobs
//!                    /refs/main                      the commit that a branch or tag was at last
//! .locks/models--owner--name/ETAG.lock               held by the process that fetches (flock, as theirs)
//! ```
//!
//! Source: `huggingface_hub`, `file_download.py`; tried both ways with its version 2.4.0.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::address::Repo;
use super::client::Failure;
use super::shared::Shared;
use crate::error::{Problem, Result};
use crate::lockfile::is_commit;

/// The folder of one repository.
pub(super) struct RepoCache {
    folder: PathBuf,
    locks: PathBuf,
}

impl RepoCache {
    /// It need not exist yet.
    pub fn new(cache: &Path, repo: &Repo) -> Self {
        let name = format!("{}--{}", repo.plural(), repo.id.replace('/', "--"));
        Self { folder: cache.join(&name), locks: cache.join(".locks").join(&name) }
    }

    /// The files of a commit.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// The bytes of this ETag, whole.
    pub fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// The bytes of this ETag while they arrive.
    pub fn incomplete(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(format!("{etag}.incomplete"))
    }

    /// Where the disk must have room.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The ETag behind a file of a commit, if it is a link into `blobs`.
    pub fn etag(&self, commit: &str, name: &str) -> Option<String> {
        let target = fs::read_link(self.snapshot(commit).join(name)).ok()?;
        (target.parent()?.file_name()? == "blobs").then(|| target.file_name()?.to_str().map(str::to_owned)).flatten()
    }

    /// The commit that a branch or tag was at when it was last asked for.
    pub fn commit_of(&self, revision: &str) -> Option<String> {
        let text = fs::read_to_string(self.folder.join("refs").join(revision)).ok()?;
        Some(text.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// Remembers where a branch or tag is.
    pub fn remember(&self, revision: &str, commit: &str) -> Result<()> {
        if revision == commit || self.commit_of(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.folder.join("refs").join(revision);
        write_aside(&path, |aside| fs::write(aside, commit))
    }

    /// Gives the bytes of an ETag the name of a file of a commit.
    pub fn link(&self, commit: &str, name: &str, etag: &str) -> Result<()> {
        let path = self.snapshot(commit).join(name);
        let up = "../".repeat(name.matches('/').count() + 2);
        let target = format!("{up}blobs/{etag}");
        write_aside(&path, |aside| {
            let _ = fs::remove_file(aside);
            symlink(&target, aside).or_else(|_| fs::copy(self.blob(etag), aside).map(drop))
        })
    }

    /// Takes a file of a commit away, with its bytes, because they are damaged.
    pub fn forget(&self, commit: &str, name: &str) {
        if let Some(etag) = self.etag(commit, name) {
            let _ = fs::remove_file(self.blob(&etag));
        }
        let _ = fs::remove_file(self.snapshot(commit).join(name));
    }

    /// Waits for whoever fetches these bytes just now.
    pub fn lock(&self, etag: &str, what: &str, shared: &Shared) -> Result<File, Failure> {
        for folder in [&self.locks, &self.folder.join("blobs")] {
            fs::create_dir_all(folder).map_err(|e| Problem::io("make the folder", folder, &e))?;
        }
        lock(&self.locks.join(format!("{etag}.lock")), what, shared)
    }
}

/// Holds a lock until the file is dropped; however a process ends, it lets go.
pub(super) fn lock(path: &Path, what: &str, shared: &Shared) -> Result<File, Failure> {
    let io = |e: &std::io::Error| Problem::io("lock", path, e);
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(|e| io(&e))?;
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::Error(e)) => return Err(io(&e).into()),
            Err(fs::TryLockError::WouldBlock) => {
                if !std::mem::replace(&mut told, true) {
                    shared.note(format!("another process fetches {what}; waiting for it"));
                }
                shared.sleep(Duration::from_millis(200))?;
            }
        }
    }
}

/// Makes a file so that it is there whole or not at all.
fn write_aside(path: &Path, write: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = folder.join(format!(".{name}.{}.new", std::process::id()));
    let made = fs::create_dir_all(folder).and_then(|()| write(&aside)).and_then(|()| fs::rename(&aside, path));
    made.map_err(|e| Problem::io("write", path, &e))
}

#[cfg(unix)]
fn symlink(target: &str, path: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

#[cfg(not(unix))]
fn symlink(_target: &str, _path: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::Address;

    #[test]
    fn the_layout_is_that_of_huggingface_hub() {
        let cache = tempfile::tempdir().unwrap();
        let Ok(Address::Hub(repo)) = Address::hub("hf://datasets/own.er/na_me@refs/pr/1") else { panic!() };
        let of = RepoCache::new(cache.path(), &repo);
        let commit = "a".repeat(40);
        fs::create_dir_all(of.folder().join("blobs")).unwrap();
        fs::write(of.blob("etag"), "bytes").unwrap();
        of.link(&commit, "x/y/z.txt", "etag").unwrap();
        of.remember("refs/pr/1", &commit).unwrap();
        let folder = cache.path().join("datasets--own.er--na_me");
        assert_eq!(fs::read_to_string(folder.join(format!("snapshots/{commit}/x/y/z.txt"))).unwrap(), "bytes");
        assert_eq!(fs::read_to_string(folder.join("refs/refs/pr/1")).unwrap(), commit);
        assert_eq!(of.commit_of("refs/pr/1"), Some(commit.clone()));
        assert_eq!(of.etag(&commit, "x/y/z.txt").as_deref(), Some("etag"));
        let _held = of.lock("etag", "x", &Shared::default()).unwrap();
        assert!(cache.path().join(".locks/datasets--own.er--na_me/etag.lock").exists());
        of.forget(&commit, "x/y/z.txt");
        assert!(!of.blob("etag").exists() && of.etag(&commit, "x/y/z.txt").is_none());
    }
}
