//! Receipts: what a run relied on that ended well, so that the next one of its kind need not work it out again.
//! It does not know what a run is, nor whether what a receipt says still holds: `exec` holds it against the world.
//!
//! A receipt is never needed and never believed: deleting it costs time alone, and what it says of a file is true only
//! as long as the file looks as it did. How something looks is kept only where a later change would show (`stat`).
//!
//! One that is damaged, of another version or of somebody else counts as none.

mod bytes;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::record::Record;
use super::{Object, Stat, Store, commit};
use crate::digest::Digest;
use crate::error::{Problem, Result};
use crate::event::{Costs, Say};

/// The first line of the text beside it.
const COMPILED: &[u8] = b"pipe/compiled@1\n";

/// More is not read: such a file is not ours.
const MOST_BYTES: u64 = 1 << 28;

/// What a run relied on.
#[derive(Debug, Clone, PartialEq)]
pub struct Receipt {
    /// The digest of all that made the keys besides files: the text of the pipeline, the machine, variables, and so on.
    pub basis: Digest,
    /// The environment variables that are part of it.
    pub variables: Vec<String>,
    /// Whether `pipe.lock` is part of it.
    pub locked: bool,
    /// The pipeline's name.
    pub pipeline: String,
    /// The journal of the steps' keys, as it was when the run had told it everything.
    pub history: Option<Extent>,
    /// The files outside the store that were read.
    pub files: Vec<KnownFile>,
    /// The folders outside the store whose entries were looked at.
    pub folders: Vec<KnownFolder>,
    /// The steps, in the order of the run. Most of them stand in the next receipt as they are.
    pub steps: Vec<Arc<KnownStep>>,
}

/// A journal as far as it is known: somebody else who adds makes it longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// How long it is.
    pub bytes: u64,
    /// Which file it is.
    pub inode: u64,
    /// Where that is.
    pub device: u64,
}

/// A file outside the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its content.
    pub digest: Digest,
    /// How it looks, if a change would show.
    pub stat: Option<Stat>,
}

/// A folder outside the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownFolder {
    /// Where it is.
    pub path: PathBuf,
    /// What lies in it, without contents.
    pub shape: Digest,
}

/// A step with its result.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownStep {
    /// Its id.
    pub id: String,
    /// Its position in the pipeline.
    pub position: usize,
    /// The longest way to it from the beginning of the graph, in steps.
    pub level: usize,
    /// Whether the run was for its results.
    pub wanted: bool,
    /// Its key.
    pub key: Digest,
    /// The checksum of its record.
    pub seal: Digest,
    /// How its record looks, if a change would show.
    pub record: Option<Stat>,
    /// See [`Record::outputs`].
    pub outputs: Vec<KnownOutput>,
    /// See [`Record::figures`].
    pub figures: BTreeMap<String, f64>,
    /// See [`Record::said`].
    pub said: Vec<Say>,
    /// See [`Record::costs`].
    pub costs: Costs,
    /// See [`Record::run`]; most steps share it.
    pub run: Arc<str>,
    /// See [`Record::step`]; `None` if that is `id`, as it is nearly always.
    pub step: Option<String>,
    /// Positions of the files and folders that it depends on.
    pub files: Vec<usize>,
    /// See there.
    pub folders: Vec<usize>,
}

/// An output with the link that leads people to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownOutput {
    /// Its name.
    pub name: String,
    /// Its file in the step's folder.
    pub file: String,
    /// What it is.
    pub object: Object,
    /// How the link looks, if a change would show.
    pub link: Option<Stat>,
}

impl Receipt {
    /// True if the last key that is written down of each step is the one that stands here.
    pub fn noted(&self, store: &Store) -> bool {
        self.history.is_some_and(|extent| store.history_ends(&self.pipeline, &extent))
    }
}

impl KnownStep {
    /// The record, but for its manifest.
    pub fn record(&self) -> Record {
        let outputs = self.outputs.iter().map(|output| (output.name.clone(), output.object.clone())).collect();
        Record {
            format: super::record::FORMAT.to_owned(),
            checksum: self.seal.clone(),
            key: self.key.clone(),
            manifest: serde_json::Value::Null,
            outputs,
            figures: self.figures.clone(),
            said: self.said.clone(),
            costs: self.costs,
            run: self.run.to_string(),
            step: self.step.clone().unwrap_or_else(|| self.id.clone()),
        }
    }
}

impl Store {
    fn receipt_path(&self, name: &Digest) -> PathBuf {
        self.root().join("receipts").join(name.as_str())
    }

    /// The receipt of this name, if there is a sound one.
    pub fn receipt(&self, name: &Digest) -> Option<Receipt> {
        read(&self.receipt_path(name))
    }

    fn compiled_path(&self, name: &Digest) -> PathBuf {
        self.root().join("receipts").join(format!("{name}.pipeline"))
    }

    /// The text that was kept beside the receipt of this name, for whom it was kept.
    pub fn compiled(&self, name: &Digest, whom: &Digest) -> Option<String> {
        let bytes = read_bytes(&self.compiled_path(name))?;
        let rest = bytes.strip_prefix(COMPILED)?;
        let (seal, body) = rest.split_at_checked(64)?;
        let sealed = Digest::of(&[body, whom.as_str().as_bytes()].concat());
        (seal == sealed.as_str().as_bytes()).then(|| String::from_utf8(body.to_vec()).ok()).flatten()
    }

    /// Keeps a text beside a receipt.
    pub fn keep_compiled(&self, name: &Digest, whom: &Digest, text: &str) -> Result<()> {
        let (aside, path) = (self.aside()?, self.compiled_path(name));
        let whom = whom.as_str().as_bytes();
        let mut bytes = [COMPILED, &[0; 64], text.as_bytes(), whom].concat();
        let (head, body) = bytes.split_at_mut(COMPILED.len() + 64);
        head[COMPILED.len()..].copy_from_slice(Digest::of(body).as_str().as_bytes());
        bytes.truncate(bytes.len() - whom.len());
        fs::write(&aside, bytes).map_err(|e| Problem::io("write", &path, &e))?;
        commit::rename(&aside, &path)
    }

    /// Keeps a receipt; whoever reads it meanwhile sees the old one or the new one. It is not flushed: half of one
    /// counts as none.
    pub fn keep_receipt(&self, name: &Digest, receipt: &Receipt) -> Result<()> {
        let (aside, path) = (self.aside()?, self.receipt_path(name));
        fs::write(&aside, receipt.to_bytes()).map_err(|e| Problem::io("write", &path, &e))?;
        commit::rename(&aside, &path)
    }

    /// How the file of a record looks.
    pub fn record_looks(&self, key: &Digest) -> Option<Stat> {
        Stat::of_file(&self.record_path(key))
    }

    /// How the file of a record looks, if it is whole and has this checksum.
    pub fn record_sealed(&self, key: &Digest, seal: &Digest) -> Option<Stat> {
        let path = self.record_path(key);
        let before = Stat::of_file(&path)?;
        let text = fs::read(&path).ok()?;
        (Record::seal(&text)? == *seal && Stat::of_file(&path)? == before).then_some(before)
    }
}

/// The receipt in this file.
pub(super) fn read(path: &Path) -> Option<Receipt> {
    Receipt::parse(&read_bytes(path)?)
}

fn read_bytes(path: &Path) -> Option<Vec<u8>> {
    let file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    let mut bytes = Vec::with_capacity(usize::try_from(length.min(MOST_BYTES)).ok()? + 1);
    file.take(MOST_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}
