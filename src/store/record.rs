//! Records: what is known under a key. A record is written last and makes a result exist.
//! It does not know how a manifest is made, only that its hash is the key.

use std::collections::BTreeMap;
use std::fs;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::object::Object;
use super::{Stage, Store};
use crate::digest::{Digest, Watch};
use crate::error::{Problem, Result};
use crate::event::Say;

/// First field of each record; another version is a miss.
pub const FORMAT: &str = "pipe/record@1";

/// What a step left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// `FORMAT`.
    pub format: String,
    /// The hash of `manifest`, also the name of the file.
    pub key: Digest,
    /// The readable document that the key is made of.
    pub manifest: Value,
    /// The outputs by name.
    pub outputs: BTreeMap<String, Object>,
    /// Final figures that the step recorded.
    pub figures: BTreeMap<String, f64>,
    /// Notes and warnings that the step said, so that a reused result still warns.
    pub said: Vec<Say>,
    /// How long the step took, in milliseconds.
    pub took_ms: u64,
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
    /// See [`Record::took_ms`].
    pub took_ms: u64,
    /// See [`Record::run`].
    pub run: String,
    /// See [`Record::step`].
    pub step: String,
}

/// What a look into the store found.
#[derive(Debug)]
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
        let record = match self.read_record(key) {
            Ok(Some(record)) => record,
            Ok(None) => return Lookup::Miss(None),
            Err(why) => return Lookup::Miss(Some(why)),
        };
        for (name, object) in &record.outputs {
            if !self.has(object) {
                let what = if self.object(&object.digest).exists() { "damaged" } else { "gone" };
                return Lookup::Miss(Some(format!("its output `{name}` is {what} in the cache")));
            }
        }
        Lookup::Hit(Box::new(record))
    }

    /// The record of a key, even if its outputs are gone: for comparing manifests.
    pub fn record(&self, key: &Digest) -> Option<Record> {
        self.read_record(key).ok().flatten()
    }

    fn read_record(&self, key: &Digest) -> std::result::Result<Option<Record>, String> {
        let text = match fs::read(self.record_path(key)) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("its record cannot be read: {error}")),
        };
        let record: Record = serde_json::from_slice(&text).map_err(|_| "its record is damaged".to_owned())?;
        if record.format != FORMAT {
            return Err(format!("its record has the format `{}`, not `{FORMAT}`", record.format));
        }
        if record.key != *key || crate::key::key_of(&record.manifest) != *key {
            return Err("its record does not belong to its key".to_owned());
        }
        Ok(Some(record))
    }

    /// Keeps what a step wrote into the `out` folder of its stage: moves the outputs in, then writes the record.
    /// If another process has kept the same key meanwhile, its record is the answer. `watch` follows the hashing
    /// of the outputs.
    pub fn commit(&self, stage: &Stage, draft: Draft, watch: Watch) -> Result<Record> {
        let key = crate::key::key_of(&draft.manifest);
        let mut outputs = BTreeMap::new();
        for (position, (name, file)) in draft.outputs.into_iter().enumerate() {
            let aside = stage.folder().join(format!("damaged-{position}"));
            outputs.insert(name, self.take_in(&stage.out().join(file), &aside, watch)?);
        }
        if let Lookup::Hit(first) = self.find(&key) {
            return Ok(*first);
        }
        let Draft { manifest, figures, said, took_ms, run, step, .. } = draft;
        let record = Record { format: FORMAT.to_owned(), key, manifest, outputs, figures, said, took_ms, run, step };
        let text = serde_json::to_string_pretty(&record)
            .map_err(|e| Problem::new(format!("the record of `{}` cannot be written as JSON: {e}", record.step)))?;
        self.write(&self.record_path(&record.key), &(text + "\n"))?;
        Ok(record)
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
            took_ms: 12,
            run: "run".into(),
            step: "a".into(),
        };
        store.commit(&stage, draft, &mut |_| Ok(())).unwrap()
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
            (whole[..whole.len() / 2].to_owned(), "its record is damaged"),
            (whole.replace("record@1", "record@9"), "its record has the format `pipe/record@9`, not `pipe/record@1`"),
            (
                whole.replace("0.1,", "0.2,").replace("\"a\": 0.1", "\"a\": 0.2"),
                "its record does not belong to its key",
            ),
        ] {
            assert_ne!(text, whole);
            fs::write(&path, text).unwrap();
            assert_eq!(miss(&store, &record.key), expected);
        }
        fs::write(&path, &whole).unwrap();
        fs::remove_file(&object).unwrap();
        assert_eq!(miss(&store, &record.key), "its output `text` is gone in the cache");
        fs::write(&object, "longer").unwrap();
        assert_eq!(miss(&store, &record.key), "its output `text` is damaged in the cache");
        commit(&store, "one");
        assert!(matches!(store.find(&record.key), Lookup::Hit(_)));
    }
}
