//! `pipe.lock`: what each remote source was when it was first fetched, so that later runs get the same bytes or fail.
//! It does not know how anything is fetched, nor which step wanted it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Problem, Result};

/// The name of the file; it lies beside the pipelines that it is for.
pub const NAME: &str = "pipe.lock";

const FORMAT: &str = "pipe/lock@1";

const HEAD: &str = "\
# Written by `pipe run`: what the remote sources of the pipelines in this folder are. Keep it with them: whoever runs
# them gets the same bytes, or an error. `pipe run PIPELINE --update` asks the servers anew and rewrites it.
";

/// What a remote source is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locked {
    /// The commit of a Hugging Face repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Its content, as [`Digest::of_path`] gives it: this is what enters the key of the step.
    pub digest: Digest,
    /// Its files by their paths; the one file of an address that names a file.
    pub files: BTreeMap<String, LockedFile>,
}

/// One file of a remote source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedFile {
    /// Its size.
    pub bytes: u64,
    /// SHA-256 in 64 hexadecimal digits, which other programs show as well.
    pub sha256: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: String,
    sources: BTreeMap<String, Locked>,
}

/// The file and what this process knows of it. Safe for several threads and several processes.
pub struct Lockfile {
    /// `None`: nothing is known, and nothing is written.
    path: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sources: BTreeMap<String, Locked>,
    /// Whether what the file said before this process counts; if not, only `fresh` does.
    renew: bool,
    fresh: BTreeSet<String>,
}

impl Lockfile {
    /// For pipelines without remote sources.
    pub fn none() -> Self {
        Self { path: None, state: Mutex::default() }
    }

    /// Reads the file, which need not exist.
    pub fn read(path: PathBuf) -> Result<Self> {
        let sources = sources(&path)?;
        Ok(Self { path: Some(path), state: Mutex::new(State { sources, ..State::default() }) })
    }

    /// The same, but that every source is asked for anew, once.
    #[must_use]
    pub fn renewed(self) -> Self {
        self.state().renew = true;
        self
    }

    /// What the source of this address is.
    pub fn get(&self, address: &str) -> Option<Locked> {
        let state = self.state();
        let counts = !state.renew || state.fresh.contains(address);
        state.sources.get(address).filter(|_| counts).cloned()
    }

    /// Remembers what a source is, in the file as well. Answers what counts from now on: where another process was
    /// faster, that is its word.
    pub fn put(&self, address: &str, found: Locked) -> Result<Locked> {
        let mut state = self.state();
        let Some(path) = &self.path else { return Ok(found) };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // The folder is locked, not the file: the file is replaced.
        let guard = File::open(folder).and_then(|folder| folder.lock().map(|()| folder));
        let _guard = guard.map_err(|e| Problem::io("lock", folder, &e))?;
        let before = state.sources.get(address).cloned();
        state.sources = sources(path)?;
        let theirs = state.sources.get(address).filter(|now| before.as_ref() != Some(*now)).cloned();
        let counts = theirs.unwrap_or(found);
        state.fresh.insert(address.to_owned());
        if state.sources.get(address) != Some(&counts) {
            state.sources.insert(address.to_owned(), counts.clone());
            write(path, folder, &state.sources)?;
        }
        Ok(counts)
    }

    /// The digest of the file's bytes, if what they say is what this process knows.
    pub fn agreed(&self) -> Option<Digest> {
        let path = self.path.as_ref()?;
        let before = digest(path)?;
        let same = sources(path).ok()? == self.state().sources;
        (same && digest(path)? == before).then_some(before)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The digest of a lock file's bytes; one that is not there has a digest, too.
pub fn digest(path: &Path) -> Option<Digest> {
    match fs::read(path) {
        Ok(bytes) => Some(Digest::of(&bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(Digest::of(b"no lock")),
        Err(_) => None,
    }
}

fn sources(path: &Path) -> Result<BTreeMap<String, Locked>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(e) => return Err(Problem::io("read", path, &e)),
    };
    let wrong = |what: String, line: Option<u64>| {
        Problem::new(format!("this is not a lock file that `pipe` can read: {what}"))
            .in_file(path.display().to_string(), line)
            .help("take it from version control, or delete it: then the sources are asked for anew")
    };
    let document: Document = serde_yaml::from_str(&text)
        .map_err(|e| wrong(e.to_string(), e.location().map(|location| location.line() as u64)))?;
    if document.format != FORMAT {
        return Err(wrong(format!("its format is `{}`, not `{FORMAT}`", document.format), None));
    }
    for (address, locked) in &document.sources {
        let names = locked.files.keys().all(|name| is_plain(name));
        let hashes = locked.files.values().all(|file| Digest::parse(&file.sha256).is_some());
        let revision = locked.revision.as_deref().is_none_or(is_commit);
        if !names || !hashes || !revision || locked.files.is_empty() {
            return Err(wrong(format!("the entry of {address} is damaged"), None));
        }
    }
    Ok(document.sources)
}

fn write(path: &Path, folder: &Path, sources: &BTreeMap<String, Locked>) -> Result<()> {
    let document = Document { format: FORMAT.to_owned(), sources: sources.clone() };
    let text = serde_yaml::to_string(&document)
        .map_err(|e| Problem::new(format!("{} cannot be written down: {e}", path.display())))?;
    let written = tempfile::Builder::new().prefix(".pipe.lock-").tempfile_in(folder).and_then(|mut file| {
        file.write_all(format!("{HEAD}{text}").as_bytes())?;
        file.as_file().sync_all()?;
        readable(file.as_file())?;
        file.persist(path).map_err(|e| e.error)
    });
    written.map(drop).map_err(|e| {
        Problem::new(format!("cannot write {}: {e}", path.display())).help(
            "what was fetched is kept; without the lock a later run could get other bytes, so this one stops here",
        )
    })
}

/// Temporary files are for their owner alone; this one goes into version control.
#[cfg(unix)]
fn readable(file: &File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn readable(_file: &File) -> std::io::Result<()> {
    Ok(())
}

/// True for a relative path that stays in its folder on any system.
pub fn is_plain(name: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part != "." && part != "..";
    let safe = |c: char| !c.is_control() && !r#"\:*?"<>|"#.contains(c);
    name.len() <= 1024 && name.split('/').all(part) && name.chars().all(safe)
}

/// True for the full name of a git commit.
pub fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locked(text: &str) -> Locked {
        let file = LockedFile { bytes: text.len() as u64, sha256: "0".repeat(64) };
        let files = BTreeMap::from([("a.txt".to_owned(), file)]);
        Locked { revision: None, digest: Digest::of(text.as_bytes()), files }
    }

    #[test]
    fn what_is_put_is_there_for_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        let lock = Lockfile::read(path.clone()).unwrap();
        assert_eq!(lock.get("https://a/x"), None);
        lock.put("https://a/x", locked("one")).unwrap();
        let other = Lockfile::read(path.clone()).unwrap();
        assert_eq!(other.get("https://a/x"), Some(locked("one")));
        other.put("hf://a/b", locked("two")).unwrap();
        lock.put("https://a/y", locked("three")).unwrap();
        let all = Lockfile::read(path).unwrap();
        for address in ["https://a/x", "hf://a/b", "https://a/y"] {
            assert!(all.get(address).is_some(), "{address}");
        }
    }

    #[test]
    fn the_first_of_two_processes_is_right() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        let (a, b) = (Lockfile::read(path.clone()).unwrap(), Lockfile::read(path.clone()).unwrap());
        a.put("https://a/x", locked("one")).unwrap();
        assert_eq!(b.put("https://a/x", locked("two")).unwrap(), locked("one"));
        let c = Lockfile::read(path.clone()).unwrap().renewed();
        assert_eq!(c.get("https://a/x"), None);
        assert_eq!(c.put("https://a/x", locked("two")).unwrap(), locked("two"));
        assert_eq!(c.get("https://a/x"), Some(locked("two")));
        assert_eq!(Lockfile::read(path).unwrap().get("https://a/x"), Some(locked("two")));
    }

    #[test]
    fn a_damaged_file_is_refused_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        Lockfile::read(path.clone()).unwrap().put("https://a/x", locked("one")).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        for (from, to, word) in [
            ("sources:", "<<<<<<< HEAD\nsources:", "pipe.lock:"),
            ("pipe/lock@1", "pipe/lock@2", "its format is `pipe/lock@2`"),
            ("a.txt", "../a.txt", "the entry of https://a/x is damaged"),
            ("digest: ", "digest: z", "64 hexadecimal digits"),
            ("sha256: ", "sha256: z", "the entry of https://a/x is damaged"),
            ("digest: ", "digset: ", "digset"),
        ] {
            fs::write(&path, good.replacen(from, to, 1)).unwrap();
            let problem = Lockfile::read(path.clone()).err().expect(to).to_string();
            assert!(problem.contains(word) && problem.contains("help: take it from"), "{problem}");
        }
    }

    #[test]
    fn plain_names_stay_in_their_folder() {
        for good in ["a.txt", "a/b c.txt", ".gitattributes", "данные/x"] {
            assert!(is_plain(good), "{good}");
        }
        for bad in ["", "/a", "a/", "a//b", "../a", "a/../b", ".", "a\\b", "c:x", "a\0b", "a\nb"] {
            assert!(!is_plain(bad), "{bad}");
        }
    }
}
