//! The cache folder: objects by content, records by key, and what people and later runs look up.
//! It does not know what a step is or does, nor when one should run.
//!
//! ```text
//! objects/ab/abcd…             a file or a folder, named by its digest, never changed      (object)
//! records/ab/abcd….json        the record of a key: manifest, outputs, figures, time       (record)
//! steps/PIPELINE.log           the keys that its steps had last, to explain a rerun        (history)
//! leases/lock                  locks: whoever makes the result of a key holds one          (lease)
//! results/PIPELINE/STEP/FILE   links for people into objects/                              (results)
//! runs/RUN.jsonl               one log per run                                             (crate::run)
//! dtypes.json                  which precision was measured to be faster on which machine   (dtypes)
//! stat.log                     digests of files outside that have not changed since        (stat)
//! receipts/NAME                what a run relied on, for the next one of its kind          (receipt)
//! logs/ab/abcd…/               what the programs of a `command` step said                  (logs)
//! checkpoints/ab/abcd…/        states of long steps, to go on from                      (checkpoint)
//! failed/abcd…/                the folder of one that failed, until it succeeds            (logs)
//! pins/RUN                     runs whose results are kept whatever happens                (survey)
//! damaged/…                    what was found damaged and put aside                        (survey)
//! tmp/…                        what is being written, a folder per process                 (scratch)
//! ```
//!
//! The record is the commit. Outputs are written below `tmp/`, hashed, made read-only and renamed into
//! `objects/`; when they are on the disk (commit), the record is renamed into `records/`. So a kill at any instant
//! leaves objects that nobody refers to, at worst. Nothing else is authoritative: `steps/`, `results/`, `receipts/` and
//! `runs/` can be deleted.
//! All formats are described in `cache/README.md`.

mod checkpoint;
mod commit;
mod dtypes;
mod gc;
mod history;
mod journal;
mod lease;
mod logs;
mod object;
mod packed;
pub mod receipt;
mod record;
mod results;
mod scratch;
mod search;
mod stat;
mod survey;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

pub use checkpoint::{Series, Work};
pub use commit::Lost;
pub use dtypes::{Choice, Precision};
pub use gc::Keep;
pub use history::Keys;
pub use lease::Lease;
pub use object::Object;
pub use receipt::Receipt;
pub use record::{Draft, Lookup, Record};
pub use scratch::Stage;
pub use stat::Stat;
pub use survey::{Damage, Found, PARTS, Verified};

use crate::digest::Digest;
use crate::error::{Problem, Result};
use commit::Commits;
use history::History;
use lease::Leases;
use scratch::Scratch;
use stat::Stats;

/// A cache folder. Reading touches nothing; the first write makes what is missing.
pub struct Store {
    root: PathBuf,
    // Before the scratch folder, which it uses: fields are dropped in this order.
    commits: Commits,
    leases: Arc<Leases>,
    scratch: Mutex<Option<Scratch>>,
    histories: Mutex<BTreeMap<String, History>>,
    stats: Mutex<Option<Stats>>,
    paranoid: bool,
}

impl Store {
    /// The cache in this folder, which need not exist yet.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            commits: Commits::default(),
            leases: Arc::default(),
            scratch: Mutex::default(),
            histories: Mutex::default(),
            stats: Mutex::default(),
            paranoid: false,
        }
    }

    /// The cache folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where run logs go.
    pub fn runs(&self) -> PathBuf {
        self.root.join("runs")
    }

    /// Where the object of this digest lies, if it is there.
    pub fn object(&self, digest: &Digest) -> PathBuf {
        self.fanned("objects", digest, "")
    }

    fn record_path(&self, key: &Digest) -> PathBuf {
        self.fanned("records", key, ".json")
    }

    /// `PART/ab/abcd…ENDING`, in one piece of memory: thousands are asked for.
    fn fanned(&self, part: &str, digest: &Digest, ending: &str) -> PathBuf {
        let (root, digits) = (self.root.as_os_str(), digest.as_str());
        let mut path = PathBuf::with_capacity(root.len() + part.len() + digits.len() + ending.len() + 5);
        path.push(root);
        path.push(part);
        path.push(&digits[..2]);
        path.push(digits);
        path.as_mut_os_string().push(ending);
        path
    }

    /// A fresh folder for the outputs of a step that is about to run; gone again when dropped.
    pub fn stage(&self) -> Result<Stage> {
        // Others need not wait for the folder.
        Scratch::stage(self.aside()?)
    }

    /// A path of this process for what is written aside and then renamed; nothing is there.
    fn aside(&self) -> Result<PathBuf> {
        self.scratch(Scratch::aside)
    }

    fn scratch<T>(&self, use_it: impl FnOnce(&mut Scratch) -> T) -> Result<T> {
        let mut scratch = self.scratch.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if scratch.is_none() {
            *scratch = Some(Scratch::open(&self.root.join("tmp"))?);
        }
        Ok(use_it(scratch.as_mut().expect("just opened")))
    }

    /// Waits until every record that was committed can be seen by others; answers those that could not be written.
    /// A run is not done before. What is still on its way when the store is dropped is written then, too.
    pub fn flush(&self) -> Vec<Lost> {
        // Whoever has a scratch folder of his own has cleared away those of the dead already.
        if self.scratch.lock().unwrap_or_else(std::sync::PoisonError::into_inner).is_none() {
            Scratch::clear(&self.root.join("tmp"));
        }
        self.write_histories();
        self.keep_digests();
        self.commits.flush()
    }

    /// Writes a file so that readers see the old text or the new one, never a part of it.
    fn write(&self, path: &Path, text: &str) -> Result<()> {
        let aside = self.aside()?;
        object::write_synced(&aside, text.as_bytes())?;
        commit::rename(&aside, path)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.write_histories();
    }
}

fn make_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(|e| Problem::io("make the folder", parent, &e))
}

/// A name of a step, pipeline or file as the name of one file on any system: `lora[rank=4]` stays as it is.
/// Two names that would fall together after the replacement are kept apart by a piece of their hash.
pub fn file_name(name: &str) -> String {
    let plain = |c: char| !c.is_control() && !r#"/\:*?"<>|"#.contains(c);
    // 255 bytes is what most file systems take; what is added to the name needs some of them.
    let fits = name.len() <= 200 && !name.is_empty() && !name.starts_with('.') && !name.ends_with(['.', ' ']);
    if fits && name.chars().all(plain) {
        return name.to_owned();
    }
    let mut short: String = name.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    while short.len() > 180 {
        short.pop();
    }
    let short = short.trim_start_matches('.').trim_end_matches(['.', ' ']);
    format!("{short}~{}", &Digest::of(name.as_bytes()).as_str()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_safe_and_apart() {
        assert_eq!(file_name("lora[rank=4,alpha=8]"), "lora[rank=4,alpha=8]");
        assert_eq!(file_name("данные и шаг"), "данные и шаг");
        let bad = ["a/b", "a\\b", "..", ".", "", "x\0y", "a:b", ".hidden", &"ж".repeat(300)];
        let names: std::collections::BTreeSet<String> = bad.iter().map(|name| file_name(name)).collect();
        assert_eq!(names.len(), bad.len());
        for name in names {
            assert!(!name.contains(['/', '\\', '\0']) && !name.starts_with('.') && name.len() < 255, "{name}");
        }
    }
}
