//! What lies in the cache folder, part by part, and whether it is what it should be.
//! It does not know what of it is still needed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Record, Store, file_name};
use crate::digest::{Digest, bytes_of};
use crate::error::{Problem, Result};

/// The parts of the cache that hold something, and whether their entries lie below two digits of their names.
pub const PARTS: &[(&str, bool)] = &[
    ("objects", true),
    ("records", true),
    ("logs", true),
    ("checkpoints", true),
    ("failed", false),
    ("damaged", false),
    ("downloads", false),
    ("receipts", false),
    ("runs", false),
];

/// One entry of a part.
#[derive(Debug, Clone)]
pub struct Found {
    /// The part.
    pub part: &'static str,
    /// Its name without an ending.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// How large it is.
    pub bytes: u64,
    /// When it came here or was changed.
    pub changed: SystemTime,
}

/// Something that is not what it should be.
#[derive(Debug, Clone)]
pub struct Damage {
    /// The sentence.
    pub what: String,
    /// Where it is, if anything is there.
    pub path: Option<PathBuf>,
    /// The results that it belongs to, as far as that is known: their keys, and who made them as `step (run)`.
    pub results: BTreeMap<Digest, String>,
}

/// What a look at everything found.
#[derive(Debug, Default)]
pub struct Verified {
    /// How many records there are.
    pub records: usize,
    /// How many objects.
    pub objects: usize,
    /// Their bytes.
    pub bytes: u64,
    /// How many objects no record names, left by a kill or a record that is gone.
    pub unreferenced: usize,
    /// What is damaged or missing.
    pub damage: Vec<Damage>,
}

impl Store {
    /// The entries of a part, by name. What is gone before it can be looked at is left out.
    pub fn survey(&self, part: &'static str) -> Vec<Found> {
        let fanned = PARTS.iter().any(|&(name, fanned)| name == part && fanned);
        let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let top = self.root().join(part);
        let paths: Vec<PathBuf> =
            if fanned { entries(&top).flat_map(|folder| entries(&folder)).collect() } else { entries(&top).collect() };
        let found = |path: PathBuf| {
            let meta = fs::symlink_metadata(&path).ok()?;
            let name = path.file_stem()?.to_str()?.to_owned();
            Some(Found { part, name, bytes: bytes_of(&path).unwrap_or(0), changed: changed(&meta), path })
        };
        let mut found: Vec<Found> = paths.into_iter().filter_map(found).collect();
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found
    }

    /// The record in this file, if it is one and stands under its own key.
    pub(super) fn record_at(found: &Found) -> std::result::Result<Record, String> {
        let text = fs::read(&found.path).map_err(|error| format!("its record cannot be read: {error}"))?;
        let record = Record::parse(&text)?;
        if record.key.as_str() != found.name || crate::key::key_of(&record.manifest) != record.key {
            return Err("its record does not belong to its key".to_owned());
        }
        Ok(record)
    }

    /// Reads every record and every object. `watch` is told how many bytes of all have been read.
    pub fn verify(&self, watch: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<Verified> {
        let (mut verified, mut users) = (Verified::default(), BTreeMap::<Digest, BTreeMap<Digest, String>>::new());
        for found in self.survey("records") {
            verified.records += 1;
            match Self::record_at(&found) {
                Ok(record) => {
                    let step = format!("{} ({})", record.step, record.run);
                    for object in record.outputs.values() {
                        users.entry(object.digest.clone()).or_default().insert(record.key.clone(), step.clone());
                    }
                }
                Err(why) => {
                    let what = format!("{}: {why}", found.path.display());
                    let key = Digest::parse(&found.name).map(|key| (key, "a step whose record is lost".to_owned()));
                    verified.damage.push(Damage { what, path: Some(found.path), results: key.into_iter().collect() });
                }
            }
        }
        let objects = self.survey("objects");
        let (total, mut done) = (objects.iter().map(|found| found.bytes).sum::<u64>(), 0);
        for found in objects {
            verified.objects += 1;
            verified.bytes += found.bytes;
            let read = Digest::of_path_watched(&found.path, &mut |bytes| {
                done += bytes;
                watch(done, total.max(done))
            });
            let (what, digest) = (found.path.display(), Digest::parse(&found.name));
            let results = digest.as_ref().and_then(|digest| users.remove(digest));
            verified.unreferenced += usize::from(results.is_none());
            let what = match read {
                Err(problem) if problem.cancelled => return Err(problem),
                Err(problem) => problem.what,
                Ok(read) if Some(&read) == digest.as_ref() && !found.path.is_symlink() => continue,
                Ok(_) => format!("{what}: its content is not what its name says"),
            };
            verified.damage.push(Damage { what, path: Some(found.path), results: results.unwrap_or_default() });
        }
        for (digest, results) in users {
            let what = format!("{}: it is missing", self.object(&digest).display());
            verified.damage.push(Damage { what, path: None, results });
        }
        Ok(verified)
    }

    /// Moves what is damaged to `damaged/`, where nothing looks for it: its step then runs again.
    pub fn put_aside(&self, damage: &Damage) -> Result<()> {
        let Some(path) = &damage.path else { return Ok(()) };
        let place = self.root().join("damaged").join(path.file_name().unwrap_or_default());
        // What was put aside before under the same name is deleted with what this process leaves.
        if place.symlink_metadata().is_ok() {
            super::commit::rename(&place, &self.aside()?)?;
        }
        super::commit::rename(path, &place)
    }

    /// The runs whose results are kept whatever happens.
    pub fn pins(&self) -> BTreeSet<String> {
        let names = fs::read_dir(self.root().join("pins")).into_iter().flatten().flatten();
        names.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Pins a run, or lets it go again; false if that was so already.
    pub fn pin(&self, run: &str, pinned: bool) -> Result<bool> {
        let path = self.root().join("pins").join(file_name(run));
        if path.exists() == pinned {
            return Ok(false);
        }
        if pinned {
            self.write(&path, "")?;
        } else {
            fs::remove_file(&path).map_err(|e| Problem::io("remove", &path, &e))?;
        }
        Ok(true)
    }
}

/// The content's time may be older than the entry: a step writes its outputs before they are moved in.
#[cfg(unix)]
fn changed(meta: &Metadata) -> SystemTime {
    use std::os::unix::fs::MetadataExt;
    let of_entry = std::time::Duration::new(meta.ctime().max(0) as u64, meta.ctime_nsec() as u32);
    meta.modified().unwrap_or(SystemTime::UNIX_EPOCH).max(SystemTime::UNIX_EPOCH + of_entry)
}

#[cfg(not(unix))]
fn changed(meta: &Metadata) -> SystemTime {
    meta.modified().unwrap_or(SystemTime::UNIX_EPOCH)
}
