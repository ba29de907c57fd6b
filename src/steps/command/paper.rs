//! The files that programs print into. One that nothing was printed into serves the next program, so that a step that
//! prints nothing, as most do, makes no file. It does not know what is printed.

use std::cell::RefCell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Problem, Result};

/// A file that a program prints into.
pub(super) struct Paper {
    path: PathBuf,
    /// `None` once it is where it is kept.
    file: Option<File>,
}

thread_local! {
    /// Those that nothing was printed into. A thread runs one step at a time.
    static BLANK: RefCell<Vec<(PathBuf, File)>> = const { RefCell::new(Vec::new()) };
}

impl Paper {
    /// An empty file in this folder.
    pub fn blank(folder: &Path) -> Result<Self> {
        // Those of another folder belong to a run that is over.
        let blank = BLANK.with_borrow_mut(|blank| {
            blank.retain(|(path, _)| path.parent() == Some(folder));
            blank.pop()
        });
        let (path, file) = match blank {
            Some(blank) => blank,
            None => {
                static MADE: AtomicU64 = AtomicU64::new(0);
                let path = folder.join(format!("printed-{}", MADE.fetch_add(1, Ordering::Relaxed)));
                // What a program prints goes to the end, wherever it thinks that it is.
                let made = File::options().create_new(true).append(true).open(&path);
                let made = made.map_err(|e| Problem::io("write", &path, &e))?;
                (path, made)
            }
        };
        Ok(Self { path, file: Some(file) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// For a program to print into.
    pub fn stdio(&self) -> Result<Stdio> {
        let file =
            self.file.as_ref().map(File::try_clone).transpose().map_err(|e| Problem::io("open", &self.path, &e))?;
        Ok(file.map_or_else(Stdio::null, Stdio::from))
    }

    /// Moves it to a place if something was printed; answers whether.
    pub fn keep(mut self, place: &Path) -> Result<bool> {
        if !self.is_printed() {
            self.put_back();
            return Ok(false);
        }
        fs::rename(&self.path, place).map_err(|e| Problem::io("write", place, &e))?;
        self.file = None;
        Ok(true)
    }

    fn put_back(&mut self) {
        if let Some(file) = self.file.take() {
            let path = std::mem::take(&mut self.path);
            BLANK.with_borrow_mut(|blank| blank.push((path, file)));
        }
    }

    fn is_printed(&self) -> bool {
        self.file.as_ref().is_none_or(|file| file.metadata().map_or(true, |meta| meta.len() > 0))
    }
}

impl Drop for Paper {
    fn drop(&mut self) {
        if !self.is_printed() {
            self.put_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn only_a_blank_file_is_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (Paper::blank(folder.path()).unwrap(), Paper::blank(folder.path()).unwrap());
        let (first, second) = (one.path().to_owned(), two.path().to_owned());
        assert_ne!(first, second);
        one.file.as_ref().unwrap().write_all(b"text").unwrap();
        let kept = folder.path().join("stdout");
        assert!(one.keep(&kept).unwrap() && !two.keep(&folder.path().join("stderr")).unwrap());
        assert_eq!(fs::read_to_string(&kept).unwrap(), "text");
        assert!(!first.exists() && !folder.path().join("stderr").exists());
        let third = Paper::blank(folder.path()).unwrap();
        assert_eq!(third.path(), second);
        // What a program printed that could not be kept does not come before what the next one prints.
        third.file.as_ref().unwrap().write_all(b"text").unwrap();
        drop(third);
        let other = tempfile::tempdir().unwrap();
        for folder in [folder.path(), other.path()] {
            let fresh = Paper::blank(folder).unwrap();
            assert!(fresh.path() != second && fresh.path().parent() == Some(folder));
            assert_eq!(fs::read(fresh.path()).unwrap(), b"");
        }
    }
}
