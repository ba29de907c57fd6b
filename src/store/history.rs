//! The keys that a step of a pipeline had last: what a rerun is compared with.
//! It does not decide anything: without it, everything runs the same and is only less well explained.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Store, file_name};
use crate::digest::Digest;
use crate::error::Result;

const FORMAT: &str = "pipe/step@1";

/// The last two different keys of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    format: String,
    /// The latest.
    pub last: Digest,
    /// The one before it.
    pub before: Option<Digest>,
}

impl Store {
    fn history_path(&self, pipeline: &str, step: &str) -> PathBuf {
        self.root().join("steps").join(file_name(pipeline)).join(format!("{}.json", file_name(step)))
    }

    /// The keys that the step had when it was last done; `None` if it never was.
    pub fn keys(&self, pipeline: &str, step: &str) -> Option<Keys> {
        let text = fs::read(self.history_path(pipeline, step)).ok()?;
        serde_json::from_slice(&text).ok().filter(|keys: &Keys| keys.format == FORMAT)
    }

    /// Remembers the key of a step that is done. Writes nothing if it is the same as last time.
    pub fn remember(&self, pipeline: &str, step: &str, key: &Digest) -> Result<()> {
        let keys = self.keys(pipeline, step);
        if keys.as_ref().is_some_and(|keys| keys.last == *key) {
            return Ok(());
        }
        let keys = Keys { format: FORMAT.to_owned(), last: key.clone(), before: keys.map(|keys| keys.last) };
        let text = serde_json::to_string_pretty(&keys).unwrap_or_default();
        self.write(&self.history_path(pipeline, step), &(text + "\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_two_keys_are_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        assert_eq!(store.keys("p", "s[x=1]"), None);
        for key in [&a, &a, &b, &b] {
            store.remember("p", "s[x=1]", key).unwrap();
        }
        let keys = store.keys("p", "s[x=1]").unwrap();
        assert_eq!((keys.last, keys.before), (b, Some(a)));
    }
}
