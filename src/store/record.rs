//! Records: what is known under a key. A record is written last and makes a result exist.
//! It does not know how a manifest is made, only that its hash is the key.

use std::collections::BTreeMap;
use std::fs;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::commit::{self, LONG_MS, Pending};
use super::object::Object;
use super::{Lease, Stage, Store};
use crate::digest::{Digest, Watch};
use crate::error::{Problem, Result};
use crate::event::{Costs, Say};
use crate::step::Named;

/// First field of each record; another version is a miss.
pub const FORMAT: &str = "pipe/record@2";

/// What a step left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// `FORMAT`.
    pub format: String,
    /// blake3 of all that follows it in the file, so that a record that a crash left half written is none.
    pub checksum: Digest,
    /// The hash of `manifest`, also the name of the file.
    pub key: Digest,
    /// The readable document that the key is made of.
    pub manifest: Value,
    /// The outputs by name.
    pub outputs: Named<Object>,
    /// Final figures that the step recorded.
    pub figures: BTreeMap<String, f64>,
    /// Notes and warnings that the step said, so that a reused result still warns.
    pub said: Vec<Say>,
    /// What it cost to make.
    pub costs: Costs,
    /// The run that made it.
    pub run: String,
    /// The id that the step had in that run.
    pub step: String,
}

/// All of a record but what the store itself works out.
pub struct Draft {
    /// The manifest's document.
    pub manifest: Value,
    /// The file or folder of each output, relative to the stage's `out` folder.
    pub outputs: BTreeMap<String, String>,
    /// See [`Record::figures`].
    pub figures: BTreeMap<String, f64>,
    /// See [`Record::said`].
    pub said: Vec<Say>,
    /// See [`Record::costs`].
    pub costs: Costs,
    /// See [`Record::run`].
    pub run: String,
    /// See [`Record::step`].
    pub step: String,
}

/// What a look into the store found.
#[derive(Debug, Clone)]
pub enum Lookup {
    /// The result, with every output in place.
    Hit(Box<Record>),
    /// Nothing that can be used; the sentence says what was there and is damaged.
    Miss(Option<String>),
}

impl Store {
    /// Looks a key up. Whatever is wrong with a record or an output makes it a miss, never an error: the step
    /// runs again and repairs it.
    pub fn find(&self, key: &Digest) -> Lookup {
        if let Some(record) = self.commits.get(key) {
            return Lookup::Hit(Box::new(record));
        }
        let record = match self.read_record(key) {
            Ok(Some(record)) => record,
            Ok(None) => return Lookup::Miss(None),
            Err(why) => return Lookup::Miss(Some(why)),
        };
        for (name, object) in record.outputs.iter() {
            if !self.holds(object) {
                let what = if self.object(&object.digest).exists() { "damaged" } else { "gone" };
                return Lookup::Miss(Some(format!("its output `{name}` is {what} in the cache")));
            }
        }
        Lookup::Hit(Box::new(record))
    }

    /// The record of a key, even if its outputs are gone: for comparing manifests.
    pub fn record(&self, key: &Digest) -> Option<Record> {
        self.commits.get(key).or_else(|| self.read_record(key).ok().flatten())
    }

    /// Takes the record of a key out of the store, so that another one can be kept in its place; whoever does that
    /// holds the lease. Answers what was there.
    pub fn forget(&self, key: &Digest) -> Result<Option<Record>> {
        let (record, path) = (self.record(key), self.record_path(key));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Problem::io("remove", &path, &error)),
            _ => Ok(record),
        }
    }

    fn read_record(&self, key: &Digest) -> std::result::Result<Option<Record>, String> {
        let text = match fs::read(self.record_path(key)) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("its record cannot be read: {error}")),
        };
        let record = Record::parse(&text)?;
        if record.key != *key {
            return Err("its record does not belong to its key".to_owned());
        }
        Ok(Some(record))
    }

    /// Keeps what a step wrote into the `out` folder of its stage: moves the outputs in, then lets the record be
    /// written, after the outputs are on the disk: at once if the step took long, else together with others. From
    /// now on [`Store::find`] finds it here; for others it exists when the lease is given up, which is done then,
    /// and [`Store::flush`] waits for that. If another process has kept the same key meanwhile, its record is the
    /// answer. `watch` follows the hashing of the outputs.
    pub fn commit(&self, stage: &Stage, draft: Draft, lease: Option<Lease>, watch: Watch) -> Result<Record> {
        self.commits.healthy()?;
        let key = crate::key::key_of(&draft.manifest);
        let mut outputs = BTreeMap::new();
        for (position, (name, file)) in draft.outputs.into_iter().enumerate() {
            let aside = stage.folder().join(format!("damaged-{position}"));
            outputs.insert(name, self.take_in(&stage.out().join(file), &aside, watch)?);
        }
        let outputs = outputs.into();
        if let Lookup::Hit(first) = self.find(&key) {
            return Ok(*first);
        }
        let Draft { manifest, figures, said, costs, run, step, .. } = draft;
        let (format, checksum) = (FORMAT.to_owned(), Digest::of(b""));
        let record = Record { format, checksum, key, manifest, outputs, figures, said, costs, run, step };
        let (record, text) = record.sealed()?;
        let objects = record.outputs.values().map(|object| self.object(&object.digest)).collect();
        let place = self.record_path(&record.key);
        let pending = Pending { key: record.key.clone(), step: record.step.clone(), text, place, objects, lease };
        if costs.took_ms >= LONG_MS {
            commit::at_once(self.root(), &stage.folder().join("record"), &pending)?;
        } else {
            self.commits.add(self, record.clone(), pending)?;
        }
        Ok(record)
    }
}

/// How the file of a record begins; then come the digits of the checksum, `SEAM`, and what it is made of.
fn head() -> String {
    format!("{{\"format\":\"{FORMAT}\",\"checksum\":\"")
}

const SEAM: &str = "\",";

/// A record has seldom more bytes.
const USUAL: usize = 2048;

impl Record {
    /// The record with its checksum, and the text of its file.
    fn sealed(mut self) -> Result<(Self, Vec<u8>)> {
        let mut text = Vec::with_capacity(USUAL);
        serde_json::to_writer(&mut text, &self)
            .map_err(|e| Problem::new(format!("the record of `{}` cannot be written as JSON: {e}", self.step)))?;
        text.push(b'\n');
        let (_, rest) = text.split_at_mut(head().len());
        let (checksum, rest) = rest.split_at_mut(self.checksum.as_str().len());
        self.checksum = Digest::of(&rest[SEAM.len()..]);
        checksum.copy_from_slice(self.checksum.as_str().as_bytes());
        Ok((self, text))
    }

    /// Reads the text of a record's file; the sentence says what is wrong with it.
    pub(super) fn parse(text: &[u8]) -> std::result::Result<Self, String> {
        let damaged = || "its record is damaged".to_owned();
        let Some(rest) = text.strip_prefix(head().as_bytes()) else {
            #[derive(Deserialize)]
            struct Other {
                format: String,
            }
            let other: Other = serde_json::from_slice(text).map_err(|_| damaged())?;
            return Err(format!("its record has the format `{}`, not `{FORMAT}`", other.format));
        };
        Self::sealed_by(rest).ok_or_else(damaged)?;
        serde_json::from_slice(text).map_err(|_| damaged())
    }

    /// The checksum of a record's file, if it is right; the rest is not looked at.
    pub(super) fn seal(text: &[u8]) -> Option<Digest> {
        text.strip_prefix(head().as_bytes()).and_then(Self::sealed_by)
    }

    /// The same for what follows the head. Over the bytes as they lie there: nothing has to be read and written again
    /// to compare it.
    fn sealed_by(rest: &[u8]) -> Option<Digest> {
        let (checksum, rest) = rest.split_at_checked(64)?;
        let seal = Digest::of(rest.strip_prefix(SEAM.as_bytes())?);
        (seal.as_str().as_bytes() == checksum).then_some(seal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn commit(store: &Store, text: &str) -> Record {
        let stage = store.stage().unwrap();
        fs::create_dir(stage.out()).unwrap();
        fs::write(stage.out().join("file"), text).unwrap();
        let draft = Draft {
            manifest: json!({"kind": "test", "params": {"a": 0.1}}),
            outputs: BTreeMap::from([("text".to_owned(), "file".to_owned())]),
            figures: BTreeMap::from([("loss".to_owned(), 0.1 + 0.2)]),
            said: vec![Say::Warning { text: "careful".into() }],
            costs: Costs { took_ms: 12, cpu_ms: Some(7), peak_bytes: None },
            run: "run".into(),
            step: "a".into(),
        };
        let record = store.commit(&stage, draft, None, &mut |_| Ok(())).unwrap();
        assert_eq!(store.flush(), []);
        record
    }

    fn miss(store: &Store, key: &Digest) -> String {
        match store.find(key) {
            Lookup::Miss(why) => why.unwrap_or_default(),
            Lookup::Hit(record) => panic!("{record:?}"),
        }
    }

    #[test]
    fn what_was_committed_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().join("кэш с пробелом"));
        let record = commit(&store, "one");
        let Lookup::Hit(found) = store.find(&record.key) else { panic!() };
        assert_eq!(*found, record);
        // Whoever commits second gets the first record, even if its bytes differ.
        assert_eq!(commit(&store, "two"), record);
    }

    #[test]
    fn damage_is_a_miss() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        let record = commit(&store, "one");
        let (path, object) = (store.record_path(&record.key), store.object(&record.outputs["text"].digest));
        let whole = fs::read_to_string(&path).unwrap();
        for (text, expected) in [
            (String::new(), "its record is damaged"),
            (whole.replace("\"a\":0.1", "\"a\":0.2"), "its record is damaged"),
            (whole.replace("record@2", "record@1"), "its record has the format `pipe/record@1`, not `pipe/record@2`"),
            (whole.trim_end().to_owned(), "its record is damaged"),
        ] {
            assert_ne!(text, whole);
            fs::write(&path, text).unwrap();
            assert_eq!(miss(&store, &record.key), expected);
        }
        let other = Digest::of(b"another key");
        super::super::make_parent(&store.record_path(&other)).unwrap();
        fs::write(store.record_path(&other), &whole).unwrap();
        assert_eq!(miss(&store, &other), "its record does not belong to its key");
        fs::write(&path, &whole).unwrap();
        fs::remove_file(&object).unwrap();
        assert_eq!(miss(&store, &record.key), "its output `text` is gone in the cache");
        fs::write(&object, "longer").unwrap();
        assert_eq!(miss(&store, &record.key), "its output `text` is damaged in the cache");
        commit(&store, "one");
        assert!(matches!(store.find(&record.key), Lookup::Hit(_)));
    }

    #[test]
    fn a_record_that_was_cut_short_or_has_a_hole_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        let record = commit(&store, "one");
        let whole = fs::read(store.record_path(&record.key)).unwrap();
        assert_eq!(Record::parse(&whole).unwrap(), record);
        for cut in 0..whole.len() {
            assert!(Record::parse(&whole[..cut]).is_err(), "{cut}");
            // What a power cut leaves where a block never reached the disk.
            let mut holed = whole.clone();
            holed[cut..].fill(0);
            assert!(Record::parse(&holed).is_err(), "{cut}");
        }
    }
}
