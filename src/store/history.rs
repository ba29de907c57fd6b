//! The keys that the steps of a pipeline had last: what a rerun is compared with.
//! It does not decide anything: without it, everything runs the same and is only less well explained.
//!
//! One journal for each pipeline, `steps/PIPELINE.log`: a line for each step whose key changed. It is read once per
//! process, and written anew when most of its lines tell nothing any more, so that a run costs what it changes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::journal::Journal;
use super::{Store, file_name};
use crate::digest::Digest;
use crate::error::Result;

const FORMAT: &str = "pipe/steps@2";

/// A journal with as many lines more than steps, and twice as many, is written anew.
const STALE: usize = 1000;

/// Lines that wait to be written together; a kill loses them, and with them an explanation.
const TOGETHER: usize = 64;

/// The last two different keys of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// The latest.
    pub last: Digest,
    /// The one before it.
    pub before: Option<Digest>,
}

/// What is known of a pipeline.
pub(super) struct History {
    journal: Journal,
    steps: BTreeMap<String, Keys>,
    lines: usize,
    waiting: Vec<String>,
}

impl History {
    fn open(path: PathBuf) -> Self {
        let (journal, mut steps) = (Journal::at(path, FORMAT), BTreeMap::new());
        let lines = journal.read(|line| {
            if let Some((key, step)) = line.split_once(' ')
                && let Some(key) = Digest::parse(key)
            {
                note(&mut steps, step, &key);
            }
        });
        Self { journal, steps, lines, waiting: Vec::new() }
    }

    fn write(&mut self) -> Result<()> {
        self.lines += self.waiting.len();
        self.journal.add(std::mem::take(&mut self.waiting))
    }

    /// All that is known, in as few lines as possible.
    fn shortest(&self) -> Vec<String> {
        let keys = |(step, keys): (&String, &Keys)| {
            let line = |key: &Digest| line(key, step);
            keys.before.iter().map(line).chain([line(&keys.last)]).collect::<Vec<_>>()
        };
        self.steps.iter().flat_map(keys).collect()
    }
}

fn line(key: &Digest, step: &str) -> String {
    format!("{key} {step}")
}

/// False if the key is the same as last time.
fn note(steps: &mut BTreeMap<String, Keys>, step: &str, key: &Digest) -> bool {
    match steps.get_mut(step) {
        Some(keys) if keys.last == *key => return false,
        Some(keys) => keys.before = Some(std::mem::replace(&mut keys.last, key.clone())),
        None => {
            steps.insert(step.to_owned(), Keys { last: key.clone(), before: None });
        }
    }
    true
}

impl Store {
    fn history<T>(&self, pipeline: &str, use_it: impl FnOnce(&mut History) -> T) -> T {
        let mut all = self.histories.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !all.contains_key(pipeline) {
            let path = self.root().join("steps").join(format!("{}.log", file_name(pipeline)));
            all.insert(pipeline.to_owned(), History::open(path));
        }
        use_it(all.get_mut(pipeline).expect("just put in"))
    }

    /// The keys that the step had when it was last done; `None` if it never was.
    pub fn keys(&self, pipeline: &str, step: &str) -> Option<Keys> {
        self.history(pipeline, |history| history.steps.get(step).cloned())
    }

    /// Remembers the key of a step that is done. Writes nothing if it is the same as last time, and what it writes is
    /// there at the latest after [`Store::flush`].
    pub fn remember(&self, pipeline: &str, step: &str, key: &Digest) -> Result<()> {
        // A line of the journal ends where a line ends.
        if step.contains('\n') {
            return Ok(());
        }
        self.history(pipeline, |history| {
            if note(&mut history.steps, step, key) {
                history.waiting.push(line(key, step));
            }
            if history.waiting.len() < TOGETHER { Ok(()) } else { history.write() }
        })
    }

    /// Writes what waits. Only explanations need it, and a cache that cannot be written is told about where it matters.
    pub(super) fn write_histories(&self) {
        let mut all = self.histories.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for history in all.values_mut().filter(|history| !history.waiting.is_empty()) {
            let _ = history.write();
            if history.lines > STALE + 2 * history.steps.len() {
                let lines = history.shortest();
                let _ = self.aside().and_then(|aside| history.journal.replace(&lines, &aside));
                history.lines = lines.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_last_two_keys_are_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        assert_eq!(store.keys("p", "s[x=1, y]"), None);
        for key in [&a, &a, &b, &b] {
            store.remember("p", "s[x=1, y]", key).unwrap();
        }
        let expected = Some(Keys { last: b, before: Some(a) });
        assert_eq!(store.keys("p", "s[x=1, y]"), expected);
        drop(store);
        assert_eq!(Store::at(folder.path()).keys("p", "s[x=1, y]"), expected);
        assert_eq!(Store::at(folder.path()).keys("q", "s[x=1, y]"), None);
    }

    #[test]
    fn nothing_is_written_when_nothing_changed_and_lines_that_tell_nothing_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("steps/p.log");
        let run = |round: usize| {
            let store = Store::at(folder.path());
            for step in 0..10 {
                store.remember("p", &format!("s{step}"), &Digest::of(&round.to_le_bytes())).unwrap();
            }
            store.flush();
            fs::read(&path).unwrap()
        };
        let first = run(0);
        assert_eq!(run(0), first);
        assert!(!folder.path().join("tmp").exists(), "nothing else is made for it");
        let most = (1..150).map(|round| run(round).len()).max().unwrap();
        // Two lines for each step at least; never more than the stale ones and one run more.
        assert!(most < (STALE + 40) * first.len() / 10, "{most}");
        let keys = Store::at(folder.path()).keys("p", "s3").unwrap();
        assert_eq!(
            (keys.last, keys.before.unwrap()),
            (Digest::of(&149usize.to_le_bytes()), Digest::of(&148usize.to_le_bytes()))
        );
    }
}
