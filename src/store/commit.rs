//! The order of a commit: first the outputs are on the disk, then the record appears that names them.
//! It does not know what is in a record.
//!
//! Making files durable costs milliseconds, whether it is one or a thousand. So the records of quick steps wait
//! for each other, a tenth of a second at most: one call makes all their outputs durable, then all their records
//! are renamed in. Meanwhile this process knows them (`Store::find`), others do not, and the lease of each is held
//! until its record can be seen. A step that took long is committed at once, on its own.
//!
//! A record needs no flushing: its checksum makes it a miss where a power cut left a part of it. So a power cut may
//! cost the results of the last moments, which are made again, and never leaves a result that is not what it says.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::lease::Lease;
use super::record::Record;
use super::{Stage, Store, make_parent};
use crate::digest::{Digest, files_below};
use crate::error::{Problem, Result};

/// How long a record waits for others.
const WINDOW: Duration = Duration::from_millis(100);

/// A step that took as long is committed at once: waiting for others would save nothing, and more would be lost.
pub(super) const LONG_MS: u64 = 1000;

/// As many files are flushed one by one; more are flushed with all that is dirty on their file system, which costs
/// a quarter of a millisecond of CPU however many they are, where each file would cost a tenth.
const FEW: usize = 4;

/// A result that was told to be kept and was not.
#[derive(Debug, Clone, PartialEq)]
pub struct Lost {
    /// Its key.
    pub key: Digest,
    /// Why.
    pub problem: Problem,
}

/// A record on its way to the disk.
pub(super) struct Pending {
    pub key: Digest,
    /// The step that made it.
    pub step: String,
    /// What its file will hold.
    pub text: Vec<u8>,
    /// Where its file will be.
    pub place: PathBuf,
    /// The objects that must be on the disk before.
    pub objects: Vec<PathBuf>,
    /// Given up once the record can be seen.
    pub lease: Option<Lease>,
}

#[derive(Default)]
struct Waiting {
    queue: VecDeque<Pending>,
    /// The records of the queue, and of the batch that is being written.
    records: BTreeMap<Digest, Record>,
    /// How many are on their way.
    open: usize,
    lost: Vec<Lost>,
    /// How many want everything written now.
    hurry: usize,
    stop: bool,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Told when there is something to write, or no more time to gather.
    work: Condvar,
    /// Told when a batch is written.
    done: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The records that are on their way, and the thread that brings them there.
#[derive(Default)]
pub(super) struct Commits {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Commits {
    /// The record of a key that is on its way.
    pub fn get(&self, key: &Digest) -> Option<Record> {
        self.shared.lock().records.get(key).cloned()
    }

    /// Fails once a record was lost: what could not be written before will not be written now.
    pub fn healthy(&self) -> Result<()> {
        self.shared.lock().lost.first().map_or(Ok(()), |lost| Err(lost.problem.clone()))
    }

    /// Lets a record be written soon.
    pub fn add(&self, store: &Store, record: Record, pending: Pending) -> Result<()> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_none() {
            let (shared, root, stage) = (self.shared.clone(), store.root().to_owned(), store.stage()?);
            let work = thread::Builder::new().name("commits".to_owned()).spawn(move || work(&shared, &root, &stage));
            *thread = Some(work.map_err(|error| Problem::new(format!("cannot start a thread: {error}")))?);
        }
        drop(thread);
        let mut waiting = self.shared.lock();
        waiting.records.insert(record.key.clone(), record);
        waiting.queue.push_back(pending);
        waiting.open += 1;
        // Whoever gathers already looks again by himself.
        if waiting.queue.len() == 1 {
            self.shared.work.notify_one();
        }
        Ok(())
    }

    /// Waits until everything is written; answers what could not be.
    pub fn flush(&self) -> Vec<Lost> {
        let mut waiting = self.shared.lock();
        waiting.hurry += 1;
        self.shared.work.notify_one();
        while waiting.open > 0 {
            waiting = self.shared.done.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        waiting.hurry -= 1;
        std::mem::take(&mut waiting.lost)
    }
}

impl Drop for Commits {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.work.notify_one();
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        // A panic there was printed there.
        let _ = thread.map(JoinHandle::join);
    }
}

/// What the thread does until it is told to stop and nothing waits any more.
fn work(shared: &Shared, root: &Path, stage: &Stage) {
    loop {
        let mut waiting = shared.lock();
        while waiting.queue.is_empty() {
            if waiting.stop {
                return;
            }
            waiting = shared.work.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let end = Instant::now() + WINDOW;
        while !waiting.stop && waiting.hurry == 0 {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            waiting = shared.work.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let batch = std::mem::take(&mut waiting.queue);
        drop(waiting);
        let (mut written, mut lost, mut leases) = (Vec::new(), Vec::new(), Vec::new());
        let durable = sync(root, batch.iter().flat_map(|pending| &pending.objects));
        for pending in batch {
            let Pending { key, step, .. } = pending;
            let result =
                durable.clone().and_then(|()| write(&stage.folder().join("record"), &pending.place, &pending.text));
            if let Err(problem) = result {
                lost.push(Lost { key: key.clone(), problem: not_kept(&step, &problem) });
            }
            written.push(key);
            leases.extend(pending.lease);
        }
        let mut waiting = shared.lock();
        for key in &written {
            waiting.records.remove(key);
        }
        waiting.lost.extend(lost);
        drop(waiting);
        drop(leases);
        // Only now, so that nothing is held any more when whoever waits goes on.
        shared.lock().open -= written.len();
        shared.done.notify_all();
    }
}

fn not_kept(step: &str, problem: &Problem) -> Problem {
    Problem { what: format!("the result of `{step}` could not be kept: {}", problem.what), ..problem.clone() }
}

/// Writes a record at once: the outputs first, flushed, then the record, flushed as well.
pub(super) fn at_once(root: &Path, aside: &Path, pending: &Pending) -> Result<()> {
    sync(root, pending.objects.iter())?;
    super::object::write_synced(aside, &pending.text)?;
    rename(aside, &pending.place)
}

fn write(aside: &Path, place: &Path, text: &[u8]) -> Result<()> {
    fs::write(aside, text).map_err(|e| Problem::io("write", place, &e))?;
    rename(aside, place)
}

/// Renames, and makes the folder only if it turns out to be missing.
pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            make_parent(to)?;
            fs::rename(from, to)
        }
        other => other,
    }
    .map_err(|e| Problem::io("write", to, &e))
}

/// Makes the content of objects durable.
///
/// Folders above them are not flushed: a rename that a power cut undoes is a missing object or record, which is a
/// miss and costs a rerun, nothing more.
fn sync<'a>(root: &Path, objects: impl Iterator<Item = &'a PathBuf>) -> Result<()> {
    let objects: Vec<&PathBuf> = objects.collect();
    let few = objects.len() <= FEW && !objects.iter().any(|object| object.is_dir());
    if objects.is_empty() || (!few && sync_all(root)) {
        return Ok(());
    }
    for object in objects {
        let files = if object.is_dir() { files_below(object)? } else { vec![String::new()] };
        for file in files {
            let path = if file.is_empty() { object.clone() } else { object.join(file) };
            File::open(&path).and_then(|file| file.sync_all()).map_err(|e| Problem::io("write", &path, &e))?;
        }
    }
    Ok(())
}

/// Flushes the file system of the cache; false where the system cannot do that.
#[cfg(target_os = "linux")]
fn sync_all(root: &Path) -> bool {
    File::open(root).is_ok_and(|root| rustix::fs::syncfs(root).is_ok())
}

#[cfg(not(target_os = "linux"))]
fn sync_all(_root: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Costs;
    use crate::store::{Draft, Lookup};
    use serde_json::json;

    fn commit(store: &Store, number: u64, took_ms: u64) -> Result<Record> {
        let manifest = json!({"number": number});
        let key = crate::key::key_of(&manifest);
        let lease = store.lease(&key)?;
        let stage = store.stage()?;
        fs::create_dir(stage.out()).unwrap();
        fs::write(stage.out().join("file"), format!("{}", number % 7)).unwrap();
        let draft = Draft {
            manifest,
            outputs: BTreeMap::from([("text".to_owned(), "file".to_owned())]),
            figures: BTreeMap::new(),
            said: Vec::new(),
            costs: Costs { took_ms, ..Costs::default() },
            run: "run".into(),
            step: "a".into(),
        };
        store.commit(&stage, draft, lease, &mut |_| Ok(()))
    }

    fn hit(store: &Store, key: &Digest) -> bool {
        matches!(store.find(key), Lookup::Hit(_))
    }

    #[test]
    fn the_committer_knows_a_record_at_once_and_others_when_its_lease_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, other) = (Store::at(folder.path()), Store::at(folder.path()));
        for number in 0..20 {
            let record = commit(&ours, number, 0).unwrap();
            assert!(hit(&ours, &record.key));
            if number % 5 == 0 {
                while other.lease(&record.key).unwrap().is_none() {
                    thread::yield_now();
                }
                assert!(hit(&other, &record.key), "the lease was given up before the record could be seen");
            }
        }
        let last = commit(&ours, 20, 0).unwrap();
        assert_eq!(ours.flush(), []);
        assert!(hit(&other, &last.key) && hit(&ours, &last.key));
        let dropped = commit(&ours, 21, 0).unwrap();
        drop(ours);
        assert!(hit(&other, &dropped.key), "a store that is dropped leaves nothing behind");
        assert!(files_below(&folder.path().join("leases")).unwrap().len() <= 1, "leases pile up");
    }

    #[test]
    fn a_long_step_is_committed_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, other) = (Store::at(folder.path()), Store::at(folder.path()));
        let record = commit(&ours, 0, LONG_MS).unwrap();
        assert!(hit(&other, &record.key) && other.lease(&record.key).unwrap().is_some());
    }

    #[test]
    fn a_record_that_cannot_be_written_is_told_and_ends_the_committing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        fs::write(folder.path().join("records"), "a file where a folder should be").unwrap();
        let record = commit(&store, 0, 0).unwrap();
        // Once it is known to be lost, nothing more is begun.
        let problem = loop {
            match commit(&store, 0, 0) {
                Ok(_) => thread::yield_now(),
                Err(problem) => break problem,
            }
        };
        assert!(problem.what.starts_with("the result of `a` could not be kept: cannot "), "{problem}");
        let lost = store.flush();
        assert!(!lost.is_empty() && lost.iter().all(|lost| lost.key == record.key), "{lost:?}");
        assert!(!hit(&store, &record.key) && store.lease(&record.key).unwrap().is_some());
        fs::remove_file(folder.path().join("records")).unwrap();
        commit(&store, 0, 0).unwrap();
        assert_eq!(store.flush(), []);
        assert!(hit(&store, &record.key));
    }
}
