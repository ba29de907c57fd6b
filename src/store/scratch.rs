//! What is being written: a folder below `tmp/` for each process, with folders for single steps in it.
//! It does not know what will become of the files.
//!
//! A process holds an exclusive lock on `tmp/NAME/lock` as long as it lives; the kernel lets go of it however
//! the process ends. So whoever gets that lock knows that the owner is dead and may delete the folder. The lock
//! `tmp/guard` is held while a folder is made and locked, and while dead ones are looked for: without it, a
//! folder could be taken for dead between being made and being locked.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::{Problem, Result};

/// The folder of this process.
pub struct Scratch {
    folder: PathBuf,
    made: u64,
    _lock: File,
}

/// A fresh folder, deleted with all that is left in it when dropped.
pub struct Stage(PathBuf);

impl Scratch {
    /// Makes a folder for this process and clears away those of dead ones.
    pub fn open(tmp: &Path) -> Result<Self> {
        fs::create_dir_all(tmp).map_err(|e| Problem::io("make the folder", tmp, &e))?;
        let _guard = guard(tmp)?;
        sweep(tmp);
        let folder = tempfile::Builder::new()
            .prefix("run-")
            .tempdir_in(tmp)
            .map_err(|e| Problem::io("make a folder in", tmp, &e))?
            .keep();
        let lock = open_lock(&folder.join("lock"))?;
        lock.lock().map_err(|e| Problem::io("lock", &folder.join("lock"), &e))?;
        Ok(Self { folder, made: 0, _lock: lock })
    }

    /// Clears away what dead processes left, for a process that writes nothing itself. Without such folders it touches
    /// nothing.
    pub fn clear(tmp: &Path) {
        let is_folder = |entry: fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !fs::read_dir(tmp).into_iter().flatten().flatten().any(is_folder) {
            return;
        }
        // A cache that cannot be written is told about where it matters.
        if let Ok(guard) = open_lock(&tmp.join("guard"))
            && guard.lock().is_ok()
        {
            sweep(tmp);
        }
    }

    /// A fresh path.
    pub fn aside(&mut self) -> PathBuf {
        self.made += 1;
        self.folder.join(self.made.to_string())
    }

    /// A fresh folder at a fresh path.
    pub fn stage(folder: PathBuf) -> Result<Stage> {
        fs::create_dir(&folder).map_err(|e| Problem::io("make the folder", &folder, &e))?;
        Ok(Stage(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Whatever cannot be deleted now is deleted by the next process.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Stage {
    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// A folder that stays when this one is deleted.
    pub fn shared(&self) -> PathBuf {
        self.0.parent().unwrap_or(&self.0).to_owned()
    }

    /// Where a step writes its outputs; made by whoever starts the step.
    pub fn out(&self) -> PathBuf {
        self.0.join("out")
    }

    /// Where a step writes its log, in a folder that it makes itself.
    pub fn log(&self) -> PathBuf {
        self.0.join("log")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !remove(&self.0) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// Removes a folder with all that is in it; false if something is left. It asks for less of the system than the
/// standard library does, because there is one for each step. Links are not followed.
#[cfg(target_os = "linux")]
fn remove(folder: &Path) -> bool {
    clear(rustix::fs::CWD, folder, 0).and_then(|()| rustix::fs::rmdir(folder)).is_ok()
}

/// Removes what is in a folder, as far as one look at it tells.
#[cfg(target_os = "linux")]
fn clear(above: impl std::os::fd::AsFd, name: impl rustix::path::Arg, depth: usize) -> rustix::io::Result<()> {
    // Each level holds an open folder and a piece of the stack.
    if depth > 64 {
        return Err(rustix::io::Errno::MFILE);
    }
    use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, openat, unlinkat};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = openat(above, name, flags, Mode::empty())?;
    let mut space = [std::mem::MaybeUninit::uninit(); 2048];
    let mut entries = RawDir::new(&folder, &mut space);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
        } else if entry.file_type() != FileType::Directory {
            unlinkat(&folder, name, AtFlags::empty())?;
        } else if unlinkat(&folder, name, AtFlags::REMOVEDIR).is_err() {
            clear(&folder, name, depth + 1)?;
            unlinkat(&folder, name, AtFlags::REMOVEDIR)?;
        }
        // Most folders were read by one call. Of one that was not, something is left, and so it cannot be removed.
        if entries.is_buffer_empty() {
            break;
        }
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn remove(_folder: &Path) -> bool {
    false
}

/// Nobody else makes a folder while this is held.
pub fn guard(tmp: &Path) -> Result<File> {
    let path = tmp.join("guard");
    let guard = open_lock(&path)?;
    guard.lock().map_err(|e| Problem::io("lock", &path, &e))?;
    Ok(guard)
}

/// When the oldest of the living processes began to write, but for `own`.
pub fn oldest_living(tmp: &Path, own: Option<&Scratch>) -> Option<SystemTime> {
    let folders = fs::read_dir(tmp).into_iter().flatten().flatten().map(|entry| entry.path());
    let others = folders.filter(|folder| own.is_none_or(|own| own.folder != *folder));
    let began = |folder: PathBuf| {
        let lock = File::open(folder.join("lock")).ok()?;
        lock.try_lock().is_err().then(|| lock.metadata().and_then(|meta| meta.modified()).ok()).flatten()
    };
    others.filter_map(began).min()
}

fn open_lock(path: &Path) -> Result<File> {
    File::options().create(true).truncate(false).write(true).open(path).map_err(|e| Problem::io("write", path, &e))
}

/// Deletes the folders of dead processes; the guard is held. What cannot be deleted does no harm.
fn sweep(tmp: &Path) {
    for entry in fs::read_dir(tmp).into_iter().flatten().flatten() {
        let folder = entry.path();
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        // A folder without a lock is one whose owner died while making or deleting it.
        let alive = File::open(folder.join("lock")).is_ok_and(|lock| lock.try_lock().is_err());
        if !alive {
            let _ = fs::remove_dir_all(&folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_dead_are_cleared_away() {
        let tmp = tempfile::tempdir().unwrap();
        let mut living = Scratch::open(tmp.path()).unwrap();
        let stage = Scratch::stage(living.aside()).unwrap();
        let dead = tmp.path().join("run-dead");
        fs::create_dir_all(dead.join("1")).unwrap();
        fs::write(dead.join("lock"), "").unwrap();
        fs::create_dir_all(tmp.path().join("run-half-made")).unwrap();

        let second = Scratch::open(tmp.path()).unwrap();
        assert!(stage.folder().is_dir() && second.folder.is_dir());
        assert!(!dead.exists() && !tmp.path().join("run-half-made").exists());
        let gone = stage.folder().to_owned();
        drop(stage);
        assert!(!gone.exists());
        // More than one look tells, folders in folders, and links, which lead to what stays.
        let stage = Scratch::stage(living.aside()).unwrap();
        fs::create_dir_all(stage.out().join("a/b")).unwrap();
        (0..300).for_each(|i| fs::write(stage.out().join(format!("a/{i:0100}")), "").unwrap());
        #[cfg(unix)]
        std::os::unix::fs::symlink(&second.folder, stage.out().join("link")).unwrap();
        let gone = stage.folder().to_owned();
        drop(stage);
        assert!(!gone.exists() && second.folder.join("lock").exists());
        drop((living, second));
        let left: Vec<_> = fs::read_dir(tmp.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["guard"]);
    }
}
