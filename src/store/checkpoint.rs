//! Checkpoints: states that a long step leaves on its way, so that the work can go on from the last of them.
//! It does not know what a state is. Nothing here decides what runs, nor what a result is.
//!
//! `checkpoints/ab/SERIES/POSITION/` holds the files of a state and `checkpoint.json`, which says what they are. A series
//! is a key; where the step is declared to be extended, it is what the keys of all lengths have in common, so that a run
//! of 2000 steps finds the end of one of 1000. A state is written aside, flushed, and renamed in: a kill leaves it whole
//! or not at all. Before it is used its files are linked into the folder of the step and read to their end, so that
//! nobody can take it away or change it meanwhile.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::object::write_synced;
use super::{Stage, Store};
use crate::digest::{Digest, files_below};
use crate::error::{Problem, Result};
use crate::step::{Checkpoints, Restored};

const FORMAT: &str = "pipe/checkpoint@1";
const ABOUT: &str = "checkpoint.json";
/// No `checkpoint.json` is as large.
const MOST: u64 = 1 << 20;
/// How many states on the way are kept: the last, and one before it, should that be damaged.
const KEPT: usize = 2;
/// Saving takes this share of the time at most.
const SHARE: u32 = 20;

/// `checkpoint.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    format: String,
    position: u64,
    /// True for the state at the end of the work.
    finished: bool,
    /// The key of the result that was being made.
    key: Digest,
    run: String,
    /// How long the work took until then, in milliseconds.
    took_ms: u64,
    files: BTreeMap<String, Content>,
}

#[derive(Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Content {
    bytes: u64,
    digest: Digest,
}

/// What a step works on whose states are kept.
#[derive(Debug, Clone)]
pub struct Work {
    /// What its states are found by.
    pub series: Digest,
    /// The key of its result.
    pub key: Digest,
    /// The run.
    pub run: String,
    /// How often a state is left.
    pub every: Duration,
    /// True if the state at the end is kept, for a longer run to go on from.
    pub lasting: bool,
    /// True if the work is to begin at its beginning.
    pub afresh: bool,
}

/// The states of one series, for the step that works on it.
pub struct Series {
    work: Work,
    folder: PathBuf,
    /// A folder of the step's own, on the same file system.
    own: PathBuf,
    begun: Instant,
    next: Cell<Instant>,
    made: Cell<u32>,
    /// How long the work had taken before this run.
    spent: Cell<Duration>,
}

impl Store {
    fn series_folder(&self, series: &Digest) -> PathBuf {
        self.root().join("checkpoints").join(&series.as_str()[..2]).join(series.as_str())
    }

    /// The states of a piece of work, for a step that runs in `stage`.
    pub fn series(&self, work: Work, stage: &Stage) -> Series {
        let now = Instant::now();
        Series {
            folder: self.series_folder(&work.series),
            own: stage.folder().join("checkpoints"),
            begun: now,
            next: Cell::new(now + work.every),
            made: Cell::default(),
            spent: Cell::default(),
            work,
        }
    }

    /// Removes the states that nobody needs once the result of `key` is there: those on the way, but for those of other
    /// lengths that somebody works on; and unless it is `lasting`, those of ends. What is removed in part only is no
    /// state any more.
    pub fn settle(&self, series: &Digest, key: &Digest, lasting: bool) {
        let folder = self.series_folder(series);
        let needed = |about: &About| match about.finished {
            true => lasting,
            false => about.key != *key && matches!(self.lease(&about.key), Ok(None)),
        };
        for (_, path) in positions(&folder) {
            if !About::read(&path).is_ok_and(|about| needed(&about)) {
                let _ = fs::remove_dir_all(path);
            }
        }
        // A folder with something in it stays.
        let _ = fs::remove_dir(&folder);
    }

    /// The keys whose results the states of a series belong to.
    pub(super) fn keys_of_series(folder: &Path) -> Vec<Digest> {
        positions(folder).into_iter().filter_map(|(_, path)| About::read(&path).ok()).map(|about| about.key).collect()
    }

    /// How far the furthest state is that a piece of work of this length could go on from; it has not been read.
    pub fn furthest(&self, series: &Digest, most: u64) -> Option<u64> {
        positions(&self.series_folder(series)).into_iter().map(|(at, _)| at).filter(|at| *at <= most).max()
    }
}

impl About {
    fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(ABOUT);
        let bad = |why: String| Problem::new(format!("{} is no checkpoint: {why}", folder.display()));
        let meta = fs::symlink_metadata(&path).map_err(|e| Problem::io("read", &path, &e))?;
        if !meta.is_file() || meta.len() > MOST {
            return Err(bad(format!("`{ABOUT}` is no file of a usual size")));
        }
        let text = fs::read(&path).map_err(|e| Problem::io("read", &path, &e))?;
        let about: Self = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
        if about.format != FORMAT {
            return Err(bad(format!("its format is `{}`", about.format)));
        }
        let plain =
            |name: &String| matches!(Path::new(name).components().collect::<Vec<_>>()[..], [Component::Normal(_)]);
        match about.files.keys().find(|name| !plain(name)) {
            Some(name) => Err(bad(format!("`{name}` is no name of a file in it"))),
            None => Ok(about),
        }
    }
}

impl Series {
    /// A fresh path in the step's own folder.
    fn aside(&self) -> Result<PathBuf> {
        fs::create_dir_all(&self.own).map_err(|e| Problem::io("make the folder", &self.own, &e))?;
        self.made.set(self.made.get() + 1);
        Ok(self.own.join(self.made.get().to_string()))
    }

    /// Links a state into the step's own folder and reads it to its end.
    fn take(&self, position: u64, state: &Path) -> Result<(About, PathBuf)> {
        let about = About::read(state)?;
        let damaged = |what: &str| Problem::new(format!("{} is damaged: {what}", state.display()));
        if about.position != position || about.files.is_empty() {
            return Err(damaged("it is not what its name says"));
        }
        let own = self.aside()?;
        fs::create_dir(&own).map_err(|e| Problem::io("make the folder", &own, &e))?;
        for (name, content) in &about.files {
            let (from, to) = (state.join(name), own.join(name));
            let meta = fs::symlink_metadata(&from).map_err(|e| Problem::io("read", &from, &e))?;
            if !meta.is_file() || meta.len() != content.bytes {
                return Err(damaged(&format!("`{name}` has another size")));
            }
            if fs::hard_link(&from, &to).is_err() {
                fs::copy(&from, &to).map_err(|e| Problem::io("copy", &from, &e))?;
            }
            if Digest::of_path_watched(&to, &mut |_| Ok(()))? != content.digest {
                return Err(damaged(&format!("`{name}` has another content")));
            }
        }
        Ok((about, own))
    }

    /// Keeps the last states on the way to this result, all of ends, and what belongs to other lengths.
    fn prune(&self) {
        let ours = |about: About| !about.finished && about.key == self.work.key;
        let on_the_way = |(_, path): &(u64, PathBuf)| About::read(path).is_ok_and(ours);
        let mut states: Vec<_> = positions(&self.folder).into_iter().filter(on_the_way).collect();
        states.sort_unstable_by_key(|(position, _)| std::cmp::Reverse(*position));
        for (_, path) in states.into_iter().skip(KEPT) {
            let _ = fs::remove_dir_all(path);
        }
    }
}

impl Checkpoints for Series {
    fn latest(&self, most: u64) -> Result<Option<Restored>> {
        if self.work.afresh {
            return Ok(None);
        }
        let mut states = positions(&self.folder);
        states.retain(|(position, _)| *position <= most);
        states.sort_unstable_by_key(|(position, _)| std::cmp::Reverse(*position));
        for (position, path) in states {
            match self.take(position, &path) {
                Ok((about, folder)) => {
                    self.spent.set(Duration::from_millis(about.took_ms));
                    return Ok(Some(Restored { position, folder, run: about.run }));
                }
                // An earlier one does as well; this one only costs room.
                Err(_) => {
                    let _ = fs::remove_dir_all(path);
                }
            }
        }
        Ok(None)
    }

    fn spent(&self) -> Duration {
        self.spent.get()
    }

    fn due(&self, finished: bool) -> bool {
        if finished { self.work.lasting } else { Instant::now() >= self.next.get() }
    }

    fn save(&self, position: u64, finished: bool, write: &mut dyn FnMut(&Path) -> Result<()>) -> Result<()> {
        let (started, place) = (Instant::now(), self.folder.join(format!("{position:012}")));
        // The state at another run's end is the same, and stays.
        if !finished && About::read(&place).is_ok_and(|about| about.finished) {
            return Ok(());
        }
        let aside = self.aside()?;
        fs::create_dir(&aside).map_err(|e| Problem::io("make the folder", &aside, &e))?;
        write(&aside)?;
        let mut files = BTreeMap::new();
        for name in files_below(&aside)? {
            let path = aside.join(&name);
            let failed = |e| Problem::io("write", &path, &e);
            let bytes =
                File::open(&path).and_then(|file| file.sync_all().and_then(|()| file.metadata())).map_err(failed)?;
            let digest = Digest::of_path_watched(&path, &mut |_| Ok(()))?;
            files.insert(name, Content { bytes: bytes.len(), digest });
        }
        let took = self.spent.get() + self.begun.elapsed();
        let about = About {
            format: FORMAT.to_owned(),
            position,
            finished,
            key: self.work.key.clone(),
            run: self.work.run.clone(),
            took_ms: took.as_millis() as u64,
            files,
        };
        let text = serde_json::to_string_pretty(&about).map_err(|e| Problem::new(e.to_string()))?;
        write_synced(&aside.join(ABOUT), format!("{text}\n").as_bytes())?;
        // The same work in another run may have left the same state; a folder cannot be renamed over it.
        if place.symlink_metadata().is_ok() {
            fs::rename(&place, self.aside()?).map_err(|e| Problem::io("replace", &place, &e))?;
        }
        super::commit::rename(&aside, &place)?;
        self.prune();
        self.next.set(Instant::now() + self.work.every.max(started.elapsed() * SHARE));
        Ok(())
    }
}

/// The states of a series, in no order.
fn positions(folder: &Path) -> Vec<(u64, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(name: &str, key: &str, lasting: bool) -> Work {
        Work {
            series: Digest::of(name.as_bytes()),
            key: Digest::of(key.as_bytes()),
            run: "a run".to_owned(),
            every: Duration::ZERO,
            lasting,
            afresh: false,
        }
    }

    fn save(series: &Series, position: u64, finished: bool) {
        let text = format!("state {position}");
        series.save(position, finished, &mut |folder| write_synced(&folder.join("state"), text.as_bytes())).unwrap();
    }

    fn there(store: &Store, series: &str) -> Vec<u64> {
        let mut all: Vec<u64> =
            positions(&store.series_folder(&Digest::of(series.as_bytes()))).into_iter().map(|(at, _)| at).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn the_furthest_that_is_not_too_far_is_gone_on_from() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        let stage = store.stage().unwrap();
        let series = store.series(work("series", "1000", true), &stage);
        assert_eq!(series.latest(1000).unwrap(), None);
        for (position, finished) in [(10, false), (20, false), (30, true), (40, false), (50, false), (60, false)] {
            save(&series, position, finished);
        }
        assert_eq!(there(&store, "series"), [30, 50, 60], "two on the way, and all ends");
        let later = store.series(work("series", "2000", true), &stage);
        for (most, found) in [(29, None), (30, Some(30)), (49, Some(30)), (50, Some(50)), (1000, Some(60))] {
            let state = later.latest(most).unwrap();
            assert_eq!(state.as_ref().map(|state| state.position), found);
            if let Some(state) = state {
                let text = fs::read_to_string(state.folder.join("state")).unwrap();
                assert_eq!((text, state.run), (format!("state {}", state.position), "a run".to_owned()));
            }
        }
        assert_eq!(store.furthest(&Digest::of(b"series"), 55), Some(50));
        // A state on the way does not take the place of the same state at an end.
        save(&later, 30, false);
        // Another length that somebody works on has states of its own, which nobody else takes away.
        save(&later, 70, false);
        assert_eq!(there(&store, "series"), [30, 50, 60, 70]);
        let (one, other) = (Digest::of(b"1000"), Digest::of(b"2000"));
        let lease = store.lease(&other).unwrap();
        store.settle(&Digest::of(b"series"), &one, true);
        assert_eq!(there(&store, "series"), [30, 70]);
        drop(lease);
        store.settle(&Digest::of(b"series"), &one, true);
        assert_eq!(there(&store, "series"), [30]);
        store.settle(&Digest::of(b"series"), &one, false);
        assert!(there(&store, "series").is_empty() && !store.series_folder(&Digest::of(b"series")).exists());
    }

    #[test]
    fn who_begins_afresh_finds_nothing_and_who_is_not_to_last_leaves_no_end() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        let stage = store.stage().unwrap();
        let series = store.series(work("a", "a", false), &stage);
        assert!(series.due(false) && !series.due(true));
        save(&series, 5, false);
        assert_eq!(store.series(Work { afresh: true, ..work("a", "a", false) }, &stage).latest(9).unwrap(), None);
        let rare = store.series(Work { every: Duration::from_secs(3600), ..work("a", "a", true) }, &stage);
        assert!(!rare.due(false) && rare.due(true));
    }

    #[test]
    fn what_is_damaged_is_passed_over() {
        type Harm = fn(&Path);
        let harms: [Harm; 9] = [
            |state| fs::write(state.join("state"), "state 2X").unwrap(),
            |state| fs::write(state.join("state"), "state").unwrap(),
            |state| fs::remove_file(state.join("state")).unwrap(),
            |state| fs::remove_file(state.join(ABOUT)).unwrap(),
            |state| fs::write(state.join(ABOUT), "{").unwrap(),
            |state| File::options().write(true).open(state.join(ABOUT)).unwrap().set_len(MOST + 1).unwrap(),
            |state| edit(state, "checkpoint@1", "checkpoint@0"),
            |state| edit(state, "\"state\"", "\"../state\""),
            |state| edit(state, "\"position\": 20", "\"position\": 21"),
        ];
        fn edit(state: &Path, from: &str, to: &str) {
            let text = fs::read_to_string(state.join(ABOUT)).unwrap();
            assert!(text.contains(from), "{text}");
            fs::write(state.join(ABOUT), text.replace(from, to)).unwrap();
        }
        for (at, harm) in harms.into_iter().enumerate() {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::at(folder.path());
            let stage = store.stage().unwrap();
            let series = store.series(work("a", "a", false), &stage);
            save(&series, 10, false);
            save(&series, 20, false);
            harm(&store.series_folder(&Digest::of(b"a")).join(format!("{:012}", 20)));
            assert_eq!(series.latest(99).unwrap().map(|state| state.position), Some(10), "harm {at}");
            assert_eq!(there(&store, "a"), [10], "harm {at}");
        }
    }

    #[test]
    fn a_state_that_cannot_be_written_leaves_the_earlier_ones() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        let stage = store.stage().unwrap();
        let series = store.series(work("a", "a", false), &stage);
        save(&series, 10, false);
        let failed = series.save(20, false, &mut |folder| {
            write_synced(&folder.join("state"), b"half")?;
            Err(Problem::new("the disk is full"))
        });
        assert!(failed.is_err());
        assert_eq!(there(&store, "a"), [10]);
    }

    #[test]
    fn what_was_taken_stays_though_the_state_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        let stage = store.stage().unwrap();
        let series = store.series(work("a", "a", false), &stage);
        save(&series, 10, false);
        let state = series.latest(10).unwrap().unwrap();
        store.settle(&Digest::of(b"a"), &Digest::of(b"a"), false);
        assert_eq!(fs::read_to_string(state.folder.join("state")).unwrap(), "state 10");
        assert!(series.spent() <= Duration::from_secs(60));
    }
}
