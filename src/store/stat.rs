//! Digests of files outside the store, remembered as long as nothing says that the files have changed.
//! It does not know what the files are for.
//!
//! A file counts as unchanged if its size, its times of change (of the content, `mtime`, and of the file itself,
//! `ctime`, which no program can set), its inode and its device are those with which it was hashed. A file that was
//! changed twice within a tick of the clock may look the same both times. So, as git does, a digest is remembered
//! only if both times were well past when the reading began: whatever is written later has later ones.
//!
//! One journal, `stat.log`: a line for each file, `DIGEST SIZE MTIME CTIME INODE DEVICE PATH`, times in nanoseconds.
//! It is read when it is first asked for. Without it, or where the system has no such numbers, files are read again.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Store;
use super::journal::Journal;
use crate::digest::{Digest, Watch, files_below};
use crate::error::{Problem, Result};

const FORMAT: &str = "pipe/stat@1";

/// How long a file must have been left alone before it was read: more than the coarsest clock of a file system (2 s).
const MARGIN: Duration = Duration::from_secs(3);

/// A journal with as many lines more than files, and twice as many, is written anew.
const STALE: usize = 1000;

/// What tells whether a file is still the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    pub(super) size: u64,
    pub(super) mtime: i128,
    pub(super) ctime: i128,
    pub(super) inode: u64,
    pub(super) device: u64,
}

impl Stat {
    /// That of a file; `None` for anything else.
    fn of(meta: &Metadata) -> Option<Self> {
        meta.is_file().then(|| Self::numbers(meta)).flatten()
    }

    /// That of the file at a path, also behind a link.
    pub fn of_file(path: &Path) -> Option<Self> {
        Self::of(&fs::metadata(path).ok()?)
    }

    /// That of the link itself at a path; `None` where something else is.
    pub fn of_link(path: &Path) -> Option<Self> {
        let meta = fs::symlink_metadata(path).ok()?;
        meta.is_symlink().then(|| Self::numbers(&meta)).flatten()
    }

    #[cfg(unix)]
    fn numbers(meta: &Metadata) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let time = |seconds: i64, nanoseconds: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
        Some(Self {
            size: meta.size(),
            mtime: time(meta.mtime(), meta.mtime_nsec()),
            ctime: time(meta.ctime(), meta.ctime_nsec()),
            inode: meta.ino(),
            device: meta.dev(),
        })
    }

    #[cfg(not(unix))]
    fn numbers(_meta: &Metadata) -> Option<Self> {
        None
    }

    /// True if a change after this moment would show.
    pub fn is_settled(&self, begun: SystemTime) -> bool {
        let begun = begun.duration_since(UNIX_EPOCH).unwrap_or_default();
        let settled = begun.saturating_sub(MARGIN).as_nanos() as i128;
        self.mtime < settled && self.ctime < settled
    }
}

/// What is remembered.
pub(super) struct Stats {
    journal: Journal,
    files: BTreeMap<String, (Stat, Digest)>,
    lines: usize,
    waiting: Vec<String>,
}

impl Stats {
    fn open(path: PathBuf) -> Self {
        let (mut journal, mut files) = (Journal::at(path, FORMAT), BTreeMap::new());
        let lines = journal.read(|line| {
            if let Some((path, known)) = parse(line) {
                files.insert(path.to_owned(), known);
            }
        });
        Self { journal, files, lines, waiting: Vec::new() }
    }
}

fn parse(line: &str) -> Option<(&str, (Stat, Digest))> {
    let mut fields = line.splitn(7, ' ');
    let digest = Digest::parse(fields.next()?)?;
    let size = fields.next()?.parse().ok()?;
    let (mtime, ctime) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let (inode, device) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((fields.next()?, (Stat { size, mtime, ctime, inode, device }, digest)))
}

fn line(path: &str, (stat, digest): &(Stat, Digest)) -> String {
    let Stat { size, mtime, ctime, inode, device } = stat;
    format!("{digest} {size} {mtime} {ctime} {inode} {device} {path}")
}

/// The name of a file in the journal; `None` if it has none.
fn name(path: &Path) -> Option<String> {
    let path = std::path::absolute(path).ok()?.into_os_string().into_string().ok()?;
    (!path.contains('\n')).then_some(path)
}

impl Store {
    /// Makes every file and every result that is asked for be read, whatever is remembered of it.
    #[must_use]
    pub fn paranoid(mut self, paranoid: bool) -> Self {
        self.paranoid = paranoid;
        self
    }

    fn stats<T>(&self, use_it: impl FnOnce(&mut Stats) -> T) -> T {
        let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        use_it(stats.get_or_insert_with(|| Stats::open(self.root().join("stat.log"))))
    }

    /// The digest of a file or folder outside the store; only files that have changed are read. `watch` is told of the
    /// bytes of the others, too. What was read is remembered by [`Store::keep_digests`].
    pub fn digest_of(&self, path: &Path, watch: Watch) -> Result<Digest> {
        let meta = fs::metadata(path).map_err(|e| Problem::io("read", path, &e))?;
        if !meta.is_dir() {
            return Ok(self.digests(&[path.to_owned()], watch)?.remove(0));
        }
        let names = files_below(path)?;
        let paths: Vec<PathBuf> = names.iter().map(|name| path.join(name)).collect();
        Ok(Digest::of_listing(&names, &self.digests(&paths, watch)?))
    }

    /// The digest of a file that has not changed since it was read; reads nothing.
    pub fn remembered(&self, path: &Path) -> Option<Digest> {
        if self.paranoid {
            return None;
        }
        let (stat, name) = (Stat::of(&fs::metadata(path).ok()?)?, name(path)?);
        self.stats(|known| known.files.get(&name).filter(|(was, _)| *was == stat).map(|(_, digest)| digest.clone()))
    }

    /// What is remembered of a file, whether or not it has changed since: a digest, and how the file looked then.
    pub fn last_known(&self, path: &Path) -> Option<(Stat, Digest)> {
        let name = name(path)?;
        self.stats(|known| known.files.get(&name).cloned())
    }

    /// The digest of each of these files; only those that have changed are read.
    pub fn digests(&self, paths: &[PathBuf], watch: Watch) -> Result<Vec<Digest>> {
        let begun = SystemTime::now();
        let stat = |path: &PathBuf| fs::metadata(path).ok().as_ref().and_then(Stat::of);
        let stats: Vec<Option<Stat>> = paths.iter().map(stat).collect();
        let names: Vec<Option<String>> = paths.iter().map(|path| name(path)).collect();
        let mut digests: Vec<Option<Digest>> = vec![None; paths.len()];
        if !self.paranoid {
            self.stats(|known| {
                for ((digest, name), stat) in digests.iter_mut().zip(&names).zip(&stats) {
                    let same = name.as_ref().and_then(|name| known.files.get(name));
                    *digest = same.filter(|(was, _)| Some(was) == stat.as_ref()).map(|(_, digest)| digest.clone());
                }
            });
        }
        let unread: Vec<usize> = (0..paths.len()).filter(|&i| digests[i].is_none()).collect();
        let known = (0..paths.len()).filter(|&i| digests[i].is_some()).filter_map(|i| stats[i]);
        let known: u64 = known.map(|stat| stat.size).sum();
        if known > 0 {
            watch(known)?;
        }
        let read = Digest::each(&unread.iter().map(|&i| &paths[i]).collect::<Vec<_>>(), watch)?;
        let mut settled = Vec::new();
        for (&i, digest) in unread.iter().zip(read) {
            if let (Some(before), Some(name)) = (stats[i], &names[i])
                && before.is_settled(begun)
                && stat(&paths[i]) == Some(before)
            {
                settled.push((name.clone(), (before, digest.clone())));
            }
            digests[i] = Some(digest);
        }
        self.stats(|known| {
            for (name, entry) in settled {
                if known.files.get(&name) != Some(&entry) {
                    known.waiting.push(line(&name, &entry));
                    known.files.insert(name, entry);
                }
            }
        });
        Ok(digests.into_iter().flatten().collect())
    }

    /// Writes down what was read, so that other processes need not read it. Nothing depends on it, so nothing is told
    /// where it cannot be written.
    pub fn keep_digests(&self) {
        let Some(stats) = &mut *self.stats.lock().unwrap_or_else(PoisonError::into_inner) else { return };
        if stats.waiting.is_empty() {
            return;
        }
        stats.lines += stats.waiting.len();
        let _ = stats.journal.add(std::mem::take(&mut stats.waiting));
        if stats.lines > STALE + 2 * stats.files.len() {
            self.shorten(stats);
        }
    }

    /// Forgets files that are gone, and lines that tell nothing any more; answers how many bytes that freed.
    pub(super) fn shorten_stats(&self) -> u64 {
        self.stats(|stats| self.shorten(stats))
    }

    fn shorten(&self, stats: &mut Stats) -> u64 {
        let size = || fs::metadata(self.root().join("stat.log")).map_or(0, |meta| meta.len());
        let before = size();
        stats.files.retain(|path, _| Path::new(path).exists());
        let lines: Vec<String> = stats.files.iter().map(|(path, known)| line(path, known)).collect();
        let _ = self.aside().and_then(|aside| stats.journal.replace(&lines, &aside));
        stats.lines = lines.len();
        before.saturating_sub(size())
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, FileTimes};

    /// A file that was left alone long enough, as far as its content goes; `ctime` cannot be set, so tests that need
    /// a remembered digest write it down themselves.
    struct Case {
        folder: tempfile::TempDir,
        store: Store,
    }

    impl Case {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::at(folder.path().join("cache"));
            Self { folder, store }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.path(name);
            super::super::make_parent(&path).unwrap();
            fs::write(&path, text).unwrap();
            path
        }

        /// Remembers a digest for the file as it is now, as a reading would have that came much later.
        fn remember(&self, path: &Path, digest: &Digest) {
            let stat = Stat::of(&fs::metadata(path).unwrap()).unwrap();
            let entry = (stat, digest.clone());
            let name = name(path).unwrap();
            self.store.stats(|stats| {
                stats.waiting.push(line(&name, &entry));
                stats.files.insert(name, entry);
            });
        }

        fn digest(&self, path: &Path) -> Digest {
            self.store.digest_of(path, &mut |_| Ok(())).unwrap()
        }
    }

    #[test]
    fn only_what_has_changed_is_read() {
        let case = Case::new();
        let path = case.write("folder/a", "one");
        let (one, known) = (Digest::of(b"one"), Digest::of(b"what it is said to be"));
        assert_eq!(case.digest(&path), one);
        case.remember(&path, &known);
        assert_eq!(case.digest(&path), known, "it is not read");
        assert_eq!(case.digest(&case.path("folder")), Digest::of_listing(&["a"], std::slice::from_ref(&known)));
        case.store.keep_digests();
        let again = Store::at(case.folder.path().join("cache"));
        assert_eq!(again.digest_of(&path, &mut |_| Ok(())).unwrap(), known);
        let paranoid = Store::at(case.folder.path().join("cache")).paranoid(true);
        assert_eq!(paranoid.digest_of(&path, &mut |_| Ok(())).unwrap(), one);
        let mut told = 0;
        let mut watch = |bytes| {
            told += bytes;
            Ok(())
        };
        case.store.digest_of(&case.path("folder"), &mut watch).unwrap();
        assert_eq!(told, 3, "a bar reaches its end though nothing is read");
    }

    #[test]
    fn every_change_shows() {
        let case = Case::new();
        let wrong = Digest::of(b"what it was");
        type Change = fn(&Path);
        let changes: [(&str, Change); 4] = [
            ("the size", |path| fs::write(path, "longer").unwrap()),
            ("the content, with the size and the time of before", |path| {
                let time = fs::metadata(path).unwrap().modified().unwrap();
                fs::write(path, "two").unwrap();
                let file = File::options().write(true).open(path).unwrap();
                file.set_times(FileTimes::new().set_modified(time)).unwrap();
            }),
            ("another file in its place", |path| {
                let other = path.with_extension("other");
                fs::write(&other, "two").unwrap();
                let time = fs::metadata(path).unwrap().modified().unwrap();
                File::options()
                    .write(true)
                    .open(&other)
                    .unwrap()
                    .set_times(FileTimes::new().set_modified(time))
                    .unwrap();
                fs::rename(&other, path).unwrap();
            }),
            ("only its times", |path| {
                let file = File::options().write(true).open(path).unwrap();
                file.set_times(FileTimes::new().set_modified(SystemTime::now())).unwrap();
            }),
        ];
        for (what, change) in changes {
            let path = case.write("f", "one");
            case.remember(&path, &wrong);
            assert_eq!(case.digest(&path), wrong);
            // Until the clock of the file system has gone on, so that the test is about the change alone.
            let before = Stat::of(&fs::metadata(&path).unwrap());
            while Stat::of(&fs::metadata(case.write("clock", "")).unwrap()).map(|s| s.ctime) <= before.map(|s| s.ctime)
            {
            }
            change(&path);
            assert_eq!(case.digest(&path), Digest::of(&fs::read(&path).unwrap()), "{what}");
        }
    }

    #[test]
    fn what_was_changed_just_now_is_not_remembered() {
        let case = Case::new();
        let path = case.write("f", "one");
        // Both writes may fall into one tick, with the same size: nothing would tell them apart.
        assert_eq!(case.digest(&path), Digest::of(b"one"));
        fs::write(&path, "two").unwrap();
        assert_eq!(case.digest(&path), Digest::of(b"two"));
        assert!(case.store.stats(|stats| stats.waiting.is_empty() && stats.files.is_empty()));
        case.store.keep_digests();
        assert!(!case.path("cache").exists(), "nothing is written where there is nothing to say");

        let stat = Stat::of(&fs::metadata(&path).unwrap()).unwrap();
        let at = |seconds: i64| {
            let now = UNIX_EPOCH + Duration::from_nanos(stat.ctime as u64);
            if seconds < 0 {
                now - Duration::from_secs(seconds.unsigned_abs())
            } else {
                now + Duration::from_secs(seconds as u64)
            }
        };
        assert!(!stat.is_settled(at(-9)) && !stat.is_settled(at(0)) && !stat.is_settled(at(2)));
        assert!(stat.is_settled(at(4)));
        let set_back = Stat { mtime: 0, ..stat };
        assert!(!set_back.is_settled(at(0)), "the time of the content can be set, so it says nothing alone");
    }

    #[test]
    fn an_old_file_is_remembered_by_a_reading() {
        // Of the machine's own files some are old, unless everything was just installed.
        let old = ["/etc/passwd", "/etc/hostname", "/bin/sh", "/etc/os-release"].map(Path::new);
        let now = SystemTime::now();
        let settled =
            |path: &&&Path| fs::metadata(path).ok().as_ref().and_then(Stat::of).is_some_and(|s| s.is_settled(now));
        let Some(path) = old.iter().find(settled) else { return };
        let case = Case::new();
        let digest = case.digest(path);
        case.store.keep_digests();
        let again = Store::at(case.folder.path().join("cache"));
        assert_eq!(
            again.stats(|stats| stats.files.values().map(|known| known.1.clone()).collect::<Vec<_>>()),
            [digest]
        );
    }

    #[test]
    fn a_journal_of_many_changes_is_shortened() {
        let case = Case::new();
        let path = case.write("f", "one");
        for i in 0..2 * STALE as u64 {
            case.remember(&path, &Digest::of(&i.to_le_bytes()));
        }
        case.remember(&case.write("gone", ""), &Digest::of(b""));
        fs::remove_file(case.path("gone")).unwrap();
        case.store.keep_digests();
        let text = fs::read_to_string(case.path("cache/stat.log")).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
    }
}
