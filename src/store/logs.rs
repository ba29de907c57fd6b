//! What the programs of a step said: kept with its result, or with its whole folder if it failed.
//! It does not know which steps start programs, nor what stands in a log. Nothing here decides what runs.

use std::fs;
use std::path::{Path, PathBuf};

use super::commit::rename;
use super::{Stage, Store};
use crate::digest::Digest;
use crate::error::{Problem, Result};

impl Store {
    /// The log of the result of this key, if there is one.
    pub fn log(&self, key: &Digest) -> PathBuf {
        self.root().join("logs").join(&key.as_str()[..2]).join(key.as_str())
    }

    /// What is left of the last attempt to make the result of this key, if that failed: its log, and in `work` its
    /// folder.
    pub fn failed(&self, key: &Digest) -> PathBuf {
        self.root().join("failed").join(key.as_str())
    }

    /// Keeps the log that a step wrote, if it wrote one, and forgets that the step ever failed.
    pub fn keep_log(&self, key: &Digest, stage: &Stage) -> Result<()> {
        if !stage.log().exists() {
            return Ok(());
        }
        replace(&stage.log(), &self.log(key), stage)?;
        let failed = self.failed(key);
        // To look costs less than to move in vain.
        if failed.symlink_metadata().is_err() {
            return Ok(());
        }
        match fs::rename(&failed, stage.folder().join("failed")) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Problem::io("remove", &failed, &e)),
            _ => Ok(()),
        }
    }

    /// Keeps the log and the folder of a step that failed, if it wrote a log, in place of those of an earlier attempt.
    pub fn keep_failed(&self, key: &Digest, stage: &Stage) -> Result<()> {
        let log = stage.log();
        if !log.exists() {
            return Ok(());
        }
        let work = log.join("work");
        fs::rename(stage.out(), &work).map_err(|e| Problem::io("move", &work, &e))?;
        replace(&log, &self.failed(key), stage)
    }

    /// Takes an object out of the store that is not what it says any more, so that its step makes it anew.
    pub fn discard(&self, digest: &Digest) -> Result<()> {
        let (object, stage) = (self.object(digest), self.stage()?);
        match fs::rename(&object, stage.folder().join("damaged")) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Problem::io("remove", &object, &e)),
            _ => Ok(()),
        }
    }
}

/// Moves a folder to a place; what is there is deleted with the stage.
fn replace(from: &Path, place: &Path, stage: &Stage) -> Result<()> {
    // The most common case, and the cheapest: nothing is there.
    if rename(from, place).is_ok() {
        return Ok(());
    }
    if place.symlink_metadata().is_ok() {
        fs::rename(place, stage.folder().join("earlier")).map_err(|e| Problem::io("replace", place, &e))?;
    }
    rename(from, place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(store: &Store, text: &str) -> Stage {
        let stage = store.stage().unwrap();
        fs::create_dir(stage.out()).unwrap();
        fs::write(stage.out().join("half"), text).unwrap();
        fs::create_dir(stage.log()).unwrap();
        fs::write(stage.log().join("stderr"), text).unwrap();
        stage
    }

    #[test]
    fn a_failure_is_kept_until_the_next_attempt() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        let key = Digest::of(b"key");
        for text in ["one", "two"] {
            store.keep_failed(&key, &stage(&store, text)).unwrap();
            assert_eq!(fs::read_to_string(store.failed(&key).join("stderr")).unwrap(), text);
            assert_eq!(fs::read_to_string(store.failed(&key).join("work/half")).unwrap(), text);
        }
        for text in ["three", "four"] {
            store.keep_log(&key, &stage(&store, text)).unwrap();
            assert!(!store.failed(&key).exists());
            assert_eq!(fs::read_to_string(store.log(&key).join("stderr")).unwrap(), text);
        }
        // A step without a log leaves nothing, whatever becomes of it.
        let (other, silent) = (Digest::of(b"other"), store.stage().unwrap());
        store.keep_log(&other, &silent).unwrap();
        store.keep_failed(&other, &silent).unwrap();
        assert!(!store.log(&other).exists() && !store.failed(&other).exists());
    }
}
