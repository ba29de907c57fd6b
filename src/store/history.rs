//! The keys that the steps of a pipeline had last: what a rerun is compared with.
//! It does not decide anything: without it, everything runs the same and is only less well explained.
//!
//! One journal for each pipeline, `steps/PIPELINE.log`: a line for each step whose key changed. It is read once per
//! process, and written anew when most of its lines tell nothing any more, so that a run costs what it changes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::journal::{self, Journal};
use super::receipt::Extent;
use super::{Store, file_name};
use crate::digest::Digest;
use crate::error::Result;

const FORMAT: &str = "pipe/steps@2";

/// A journal with as many lines more than twice those that tell something is written anew.
const STALE: usize = 1000;

/// Lines that wait to be written together; a kill loses them, and with them an explanation.
const TOGETHER: usize = 64;

/// So many keys of a step are remembered.
const REMEMBERED: usize = 20;

/// The last different keys of a step, the latest at the end; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys(Vec<Digest>);

impl Keys {
    /// The latest.
    pub fn last(&self) -> &Digest {
        self.0.last().expect("a step that is known has a key")
    }

    /// All that are remembered, the latest first.
    pub fn all(&self) -> impl Iterator<Item = &Digest> {
        self.0.iter().rev()
    }

    /// False if the key is the latest already; one that was there before becomes it.
    fn note(&mut self, key: &Digest) -> bool {
        if self.last() == key {
            return false;
        }
        self.0.retain(|known| known != key);
        if self.0.len() == REMEMBERED {
            self.0.remove(0);
        }
        self.0.push(key.clone());
        true
    }
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
        let (mut journal, mut steps) = (Journal::at(path, FORMAT), BTreeMap::new());
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
        let lines = |(step, keys): (&String, &Keys)| keys.0.iter().map(|key| line(key, step)).collect::<Vec<_>>();
        self.steps.iter().flat_map(lines).collect()
    }
}

fn line(key: &Digest, step: &str) -> String {
    format!("{key} {step}")
}

/// False if the key is the same as last time.
fn note(steps: &mut BTreeMap<String, Keys>, step: &str, key: &Digest) -> bool {
    match steps.get_mut(step) {
        Some(keys) => keys.note(key),
        None => {
            steps.insert(step.to_owned(), Keys(vec![key.clone()]));
            true
        }
    }
}

impl Store {
    fn history_path(&self, pipeline: &str) -> PathBuf {
        self.root().join("steps").join(format!("{}.log", file_name(pipeline)))
    }

    /// How far the keys of a pipeline's steps are written down, if this process knows all of it.
    pub fn history_extent(&self, pipeline: &str) -> Option<Extent> {
        self.history(pipeline, |history| history.waiting.is_empty().then(|| history.journal.extent()).flatten())
    }

    /// True if nobody has written down keys of the pipeline's steps since.
    pub fn history_ends(&self, pipeline: &str, at: &Extent) -> bool {
        journal::extent(&self.history_path(pipeline)).as_ref() == Some(at)
    }

    fn history<T>(&self, pipeline: &str, use_it: impl FnOnce(&mut History) -> T) -> T {
        let mut all = self.histories.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !all.contains_key(pipeline) {
            all.insert(pipeline.to_owned(), History::open(self.history_path(pipeline)));
        }
        use_it(all.get_mut(pipeline).expect("just put in"))
    }

    /// The keys that the step had when it was done, the last so many of them; `None` if it never was.
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
            let kept: usize = history.steps.values().map(|keys| keys.0.len()).sum();
            if history.lines > STALE + 2 * kept {
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
        let expected = Some(Keys(vec![a, b]));
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
        let most = (1..250).map(|round| run(round).len()).max().unwrap();
        // Twenty lines for each step twice; never more than the stale ones and one run more.
        assert!(most < (STALE + 2 * REMEMBERED * 10 + 20) * first.len() / 10, "{most}");
        let keys = Store::at(folder.path()).keys("p", "s3").unwrap();
        let rounds = (0..REMEMBERED).map(|back| Digest::of(&(249 - back).to_le_bytes()));
        assert_eq!(keys.all().cloned().collect::<Vec<_>>(), rounds.collect::<Vec<_>>());
    }

    #[test]
    fn a_key_that_comes_back_is_the_latest_and_stands_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        let [a, b, c] = [b"a", b"b", b"c"].map(|text| Digest::of(text));
        for key in [&a, &b, &c, &a] {
            store.remember("p", "s", key).unwrap();
        }
        assert_eq!(store.keys("p", "s").unwrap().all().collect::<Vec<_>>(), [&a, &c, &b]);
    }
}
