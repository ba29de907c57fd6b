//! An append-only file of checked lines: what is cheap to add to, read once, and worth nothing when it is damaged.
//! It does not know what the lines say.
//!
//! The first line names the format; each other one is eight digits of the blake3 of the rest, a space, and the rest.
//! A line is written by one call to the end of the file, so processes do not mix; one that is damaged is left out.
//! Whoever adds holds the file's lock and looks whether it is still the one at its path: it may have been written
//! anew, shorter, by another process.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use super::commit::rename;
use super::receipt::Extent;
use super::{Stat, make_parent};
use crate::digest::Digest;
use crate::error::{Problem, Result};

/// More is not read: such a file is damaged, or not ours.
const MOST_BYTES: u64 = 1 << 30;

/// A journal that may be added to.
pub(super) struct Journal {
    path: PathBuf,
    format: &'static str,
    file: Option<File>,
    /// How long it was after our last line: if it still is, nobody else has written and nothing need be looked at.
    end: u64,
    /// How long it is as far as all of it is known here; `None` once somebody else has written.
    seen: Option<u64>,
}

impl Journal {
    /// The journal at this path, which need not exist yet.
    pub fn at(path: PathBuf, format: &'static str) -> Self {
        Self { path, format, file: None, end: 0, seen: None }
    }

    /// Hands every sound line to `line`, in order; answers how many there were. What cannot be read says nothing.
    pub fn read(&mut self, mut line: impl FnMut(&str)) -> usize {
        let mut bytes = Vec::new();
        let read = File::open(&self.path).and_then(|file| file.take(MOST_BYTES).read_to_end(&mut bytes));
        self.seen = Some(bytes.len() as u64);
        let mut lines = bytes.split(|&byte| byte == b'\n');
        if read.is_err() || lines.next() != Some(self.format.as_bytes()) {
            return 0;
        }
        let sound = lines.filter_map(|line| std::str::from_utf8(line).ok()).filter_map(checked);
        sound.map(&mut line).count()
    }

    /// Adds lines; none of them contains a line break.
    pub fn add(&mut self, lines: impl IntoIterator<Item = impl AsRef<str>>) -> Result<()> {
        let mut text = String::new();
        lines.into_iter().for_each(|line| push(&mut text, line.as_ref()));
        if text.is_empty() {
            return Ok(());
        }
        let failed = |error: &std::io::Error| Problem::io("write", &self.path, error);
        loop {
            let file = match self.file.take() {
                Some(file) => file,
                None => open(&self.path).map_err(|error| failed(&error))?,
            };
            file.lock().map_err(|error| failed(&error))?;
            if !super::lease::is_at(&file, &self.path) {
                continue;
            }
            let written = (|| {
                let length = file.metadata()?.len();
                let alone = self.seen.take() == Some(length);
                // A file of another format begins anew; so does what a kill left of the last line.
                if length == self.end && length > 0 {
                } else if length == 0 || !begins_with(&self.path, self.format) {
                    file.set_len(0)?;
                    text.insert_str(0, &format!("{}\n", self.format));
                } else if !ends_with_a_line(&self.path, length) {
                    text.insert(0, '\n');
                }
                (&file).write_all(text.as_bytes())?;
                let length = file.metadata()?.len();
                self.seen = alone.then_some(length);
                Ok(length)
            })();
            let _ = file.unlock();
            self.end = *written.as_ref().unwrap_or(&0);
            self.file = Some(file);
            return written.map(|_| ()).map_err(|error| failed(&error));
        }
    }

    /// Which file it is and how long, if nobody else has written to it since it was read.
    pub fn extent(&self) -> Option<Extent> {
        let bytes = self.seen?;
        extent(&self.path).filter(|found| found.bytes == bytes)
    }

    /// Replaces the whole by these lines; `aside` is a path on the same file system.
    pub fn replace(&mut self, lines: impl IntoIterator<Item = impl AsRef<str>>, aside: &Path) -> Result<()> {
        let mut text = format!("{}\n", self.format);
        lines.into_iter().for_each(|line| push(&mut text, line.as_ref()));
        // What others add meanwhile is lost; nothing depends on it.
        (self.file, self.end, self.seen) = (None, 0, None);
        fs::write(aside, text).map_err(|e| Problem::io("write", &self.path, &e))?;
        rename(aside, &self.path)
    }
}

/// The journal at a path as it is now.
pub(super) fn extent(path: &Path) -> Option<Extent> {
    let Stat { size, inode, device, .. } = Stat::of_file(path)?;
    Some(Extent { bytes: size, inode, device })
}

fn push(text: &mut String, line: &str) {
    text.push_str(&Digest::of(line.as_bytes()).as_str()[..8]);
    text.push(' ');
    text.push_str(line);
    text.push('\n');
}

fn checked(line: &str) -> Option<&str> {
    let (check, rest) = line.split_at_checked(8)?;
    let rest = rest.strip_prefix(' ')?;
    (Digest::of(rest.as_bytes()).as_str()[..8] == *check).then_some(rest)
}

fn begins_with(path: &Path, format: &str) -> bool {
    let mut start = vec![0; format.len() + 1];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start.strip_suffix(b"\n") == Some(format.as_bytes())
}

fn ends_with_a_line(path: &Path, length: u64) -> bool {
    use std::io::{Seek, SeekFrom};
    let mut last = [0];
    let read = File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::Start(length - 1))?;
        file.read_exact(&mut last)
    });
    read.is_ok() && last == *b"\n"
}

fn open(path: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.create(true).append(true);
    match options.open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            make_parent(path).map_err(|_| error)?;
            options.open(path)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: &str = "pipe/test@1";

    fn lines(path: &Path) -> Vec<String> {
        let mut lines = Vec::new();
        Journal::at(path.to_owned(), FORMAT).read(|line| lines.push(line.to_owned()));
        lines
    }

    #[test]
    fn damage_costs_the_damaged_lines_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/journal");
        assert_eq!(lines(&path), Vec::<String>::new());
        let mut journal = Journal::at(path.clone(), FORMAT);
        journal.add(["один", "two"]).unwrap();
        journal.add(["three"]).unwrap();
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, whole.replace("two", "twx")).unwrap();
        assert_eq!(lines(&path), ["один", "three"]);
        // A kill in the middle of a line: the next one is whole again.
        fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        journal.add(["four"]).unwrap();
        assert_eq!(lines(&path), ["один", "two", "four"]);
        for other in ["pipe/test@2\n", "pipe/tes", "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"] {
            fs::write(&path, other).unwrap();
            assert_eq!(lines(&path), Vec::<String>::new());
            Journal::at(path.clone(), FORMAT).add(["five"]).unwrap();
            assert_eq!(lines(&path), ["five"]);
        }
    }

    #[cfg(unix)]
    #[test]
    fn its_extent_is_known_as_long_as_nobody_else_writes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (mut one, mut two) = (Journal::at(path.clone(), FORMAT), Journal::at(path.clone(), FORMAT));
        assert_eq!(one.read(|_| {}), 0);
        one.add(["a"]).unwrap();
        assert_eq!(one.extent(), extent(&path));
        assert!(one.extent().is_some());
        two.add(["b"]).unwrap();
        assert_eq!((one.extent(), two.extent()), (None, None), "neither has seen all of it");
        one.add(["c"]).unwrap();
        assert_eq!(one.extent(), None);
        assert_eq!(two.read(|_| {}), 3);
        assert_eq!(two.extent(), extent(&path));
    }

    #[test]
    fn who_adds_follows_a_journal_that_was_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (mut one, mut two) = (Journal::at(path.clone(), FORMAT), Journal::at(path.clone(), FORMAT));
        one.add(["a"]).unwrap();
        two.replace(["b"], &folder.path().join("aside")).unwrap();
        one.add(["c"]).unwrap();
        assert_eq!(lines(&path), ["b", "c"]);
    }

    #[test]
    fn those_who_add_at_once_do_not_mix() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        std::thread::scope(|scope| {
            for who in 0..4 {
                let mut journal = Journal::at(path.clone(), FORMAT);
                scope.spawn(move || (0..50).for_each(|i| journal.add([format!("{who} {i}")]).unwrap()));
            }
        });
        let mut lines = lines(&path);
        assert_eq!(lines.len(), 200);
        lines.sort();
        lines.dedup();
        assert_eq!(lines.len(), 200);
    }
}
