//! Receipts: what a run relied on that ended well, so that the next one of its kind need not work it out again.
//! It does not know what a run is, nor whether what a receipt says still holds: `exec` holds it against the world.
//!
//! A receipt is never needed and never believed: deleting it costs time alone, and what it says of a file is true only
//! as long as the file looks as it did. How something looks is kept only where a later change would show (`stat`).
//!
//! The file: the format as a line, blake3 of all that follows, and that. One that is damaged, of another version or
//! of somebody else counts as none.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::packed::{Packer, Unpacker};
use super::record::Record;
use super::{Object, Stat, Store, commit};
use crate::digest::Digest;
use crate::error::{Problem, Result};
use crate::event::{Costs, Say};

/// The first line.
const FORMAT: &[u8] = b"pipe/receipt@1\n";

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
    /// The steps, in the order of the run.
    pub steps: Vec<KnownStep>,
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
        let seal = Digest::of(&[text.as_bytes(), whom.as_str().as_bytes()].concat());
        let bytes = [COMPILED, seal.as_str().as_bytes(), text.as_bytes()].concat();
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

impl Receipt {
    fn to_bytes(&self) -> Vec<u8> {
        let mut to = Packer(FORMAT.to_vec());
        to.0.extend_from_slice(&[0; 32]);
        to.digest(&self.basis);
        to.list(&self.variables, |to, name| to.text(name));
        to.number(u64::from(self.locked));
        to.text(&self.pipeline);
        to.option(self.history.as_ref(), |to, extent| {
            [extent.bytes, extent.inode, extent.device].into_iter().for_each(|number| to.number(number));
        });
        to.list(&self.files, |to, file| {
            to.text(&file.path.to_string_lossy());
            to.digest(&file.digest);
            to.option(file.stat.as_ref(), put_stat);
        });
        to.list(&self.folders, |to, folder| {
            to.text(&folder.path.to_string_lossy());
            to.digest(&folder.shape);
        });
        // Most were made by few runs.
        let mut runs: Vec<&str> = self.steps.iter().map(|step| &*step.run).collect();
        runs.sort_unstable();
        runs.dedup();
        to.list(&runs, |to, run| to.text(run));
        to.list(&self.steps, |to, step| put_step(to, step, &runs));
        let mut bytes = to.0;
        let (head, body) = bytes.split_at_mut(FORMAT.len() + 32);
        head[FORMAT.len()..].copy_from_slice(&Digest::of(body).to_bytes());
        bytes
    }

    /// Reads the bytes of a receipt's file.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut from = Unpacker(bytes.strip_prefix(FORMAT)?);
        if from.digest()? != Digest::of(from.0) {
            return None;
        }
        let basis = from.digest()?;
        let variables = from.list(text)?;
        let locked = from.number()? == 1;
        let pipeline = text(&mut from)?;
        let history =
            from.option(|from| Some(Extent { bytes: from.number()?, inode: from.number()?, device: from.number()? }))?;
        let files = from.list(|from| {
            let path = PathBuf::from(from.text()?);
            Some(KnownFile { path, digest: from.digest()?, stat: from.option(take_stat)? })
        })?;
        let folders =
            from.list(|from| Some(KnownFolder { path: PathBuf::from(from.text()?), shape: from.digest()? }))?;
        let runs: Vec<Arc<str>> = from.list(|from| from.text().map(Arc::from))?;
        let steps = from.list(|from| take_step(from, &runs))?;
        let sound = |step: &KnownStep| {
            step.files.iter().all(|&at| at < files.len()) && step.folders.iter().all(|&at| at < folders.len())
        };
        let whole = from.0.is_empty() && steps.iter().all(sound);
        whole.then_some(Self { basis, variables, locked, pipeline, history, files, folders, steps })
    }
}

fn text(from: &mut Unpacker) -> Option<String> {
    from.text().map(str::to_owned)
}

fn put_stat(to: &mut Packer, stat: &Stat) {
    let Stat { size, mtime, ctime, inode, device } = *stat;
    for number in [size, inode, device] {
        to.number(number);
    }
    for time in [mtime, ctime] {
        to.0.extend_from_slice(&time.to_le_bytes()[..10]);
    }
}

fn take_stat(from: &mut Unpacker) -> Option<Stat> {
    let (size, inode, device) = (from.number()?, from.number()?, from.number()?);
    let mut time = || {
        let mut bytes = [0; 16];
        let (taken, rest) = from.0.split_at_checked(10)?;
        bytes[..10].copy_from_slice(taken);
        // The sign goes on.
        bytes[10..].fill(if taken[9] < 128 { 0 } else { 255 });
        from.0 = rest;
        Some(i128::from_le_bytes(bytes))
    };
    Some(Stat { size, mtime: time()?, ctime: time()?, inode, device })
}

fn put_step(to: &mut Packer, step: &KnownStep, runs: &[&str]) {
    to.text(&step.id);
    to.number(step.position as u64);
    to.number(step.level as u64);
    to.number(u64::from(step.wanted));
    to.digest(&step.key);
    to.digest(&step.seal);
    to.option(step.record.as_ref(), put_stat);
    to.list(&step.outputs, |to, output| {
        to.text(&output.name);
        to.text(&output.file);
        to.digest(&output.object.digest);
        to.number(output.object.bytes);
        to.number(u64::from(output.object.is_folder));
        to.option(output.link.as_ref(), put_stat);
    });
    let figures: Vec<(&String, &f64)> = step.figures.iter().collect();
    to.list(&figures, |to, (name, value)| {
        to.text(name);
        to.0.extend_from_slice(&value.to_bits().to_le_bytes());
    });
    to.list(&step.said, |to, say| to.text(&serde_json::to_string(say).unwrap_or_default()));
    to.number(step.costs.took_ms);
    to.option(step.costs.cpu_ms.as_ref(), |to, ms| to.number(*ms));
    to.option(step.costs.peak_bytes.as_ref(), |to, bytes| to.number(*bytes));
    to.number(runs.binary_search(&&*step.run).unwrap_or_default() as u64);
    to.option(step.step.as_ref(), |to, name| to.text(name));
    to.list(&step.files, |to, at| to.number(*at as u64));
    to.list(&step.folders, |to, at| to.number(*at as u64));
}

fn take_step(from: &mut Unpacker, runs: &[Arc<str>]) -> Option<KnownStep> {
    let position = |from: &mut Unpacker| usize::try_from(from.number()?).ok();
    let id = text(from)?;
    let (place, level) = (position(from)?, position(from)?);
    let wanted = from.number()? == 1;
    let (key, seal) = (from.digest()?, from.digest()?);
    let record = from.option(take_stat)?;
    let outputs = from.list(|from| {
        let (name, file) = (text(from)?, text(from)?);
        let object = Object { digest: from.digest()?, bytes: from.number()?, is_folder: from.number()? == 1 };
        Some(KnownOutput { name, file, object, link: from.option(take_stat)? })
    })?;
    let figures = from.list(|from| {
        let name = text(from)?;
        let (bits, rest) = from.0.split_first_chunk()?;
        from.0 = rest;
        Some((name, f64::from_bits(u64::from_le_bytes(*bits))))
    })?;
    let said = from.list(|from| serde_json::from_str(from.text()?).ok())?;
    let took_ms = from.number()?;
    let costs = Costs { took_ms, cpu_ms: from.option(Unpacker::number)?, peak_bytes: from.option(Unpacker::number)? };
    let run = runs.get(position(from)?)?.clone();
    let step = from.option(text)?;
    let (files, folders) = (from.list(position)?, from.list(position)?);
    Some(KnownStep {
        id,
        position: place,
        level,
        wanted,
        key,
        seal,
        record,
        outputs,
        figures: figures.into_iter().collect(),
        said,
        costs,
        run,
        step,
        files,
        folders,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt() -> Receipt {
        let stat = Stat { size: 7, mtime: -5, ctime: i128::from(u64::MAX), inode: u64::MAX, device: 1 };
        let object = Object { digest: Digest::of(b"o"), bytes: 300, is_folder: true };
        let output = KnownOutput { name: "a".into(), file: "б/a.txt".into(), object, link: Some(stat) };
        let step = KnownStep {
            id: "шаг[x=1]".into(),
            position: 1000,
            level: 3,
            wanted: true,
            key: Digest::of(b"k"),
            seal: Digest::of(b"s"),
            record: Some(stat),
            outputs: vec![output.clone(), KnownOutput { link: None, ..output }],
            figures: BTreeMap::from([("loss".to_owned(), 0.1 + 0.2), ("f1".to_owned(), -0.0)]),
            said: vec![Say::Warning { text: "a\nb".into() }, Say::Metric { name: "l".into(), at: 1, value: 0.1 }],
            costs: Costs { took_ms: 1 << 40, cpu_ms: None, peak_bytes: Some(0) },
            run: "r2".into(),
            step: Some("another".into()),
            files: vec![1, 0],
            folders: vec![0],
        };
        let plain = KnownStep { step: None, id: "b".into(), run: "r1".into(), record: None, ..step.clone() };
        let file = KnownFile { path: "src/ф".into(), digest: Digest::of(b"f"), stat: Some(stat) };
        Receipt {
            basis: Digest::of(b"b"),
            variables: vec!["HOME".into()],
            locked: true,
            pipeline: "p".into(),
            history: Some(Extent { bytes: 1, inode: 2, device: 3 }),
            files: vec![file.clone(), KnownFile { stat: None, ..file }],
            folders: vec![KnownFolder { path: "code".into(), shape: Digest::of(b"c") }],
            steps: vec![step, plain],
        }
    }

    #[test]
    fn what_was_kept_is_read_back_and_damage_is_none() {
        let receipt = receipt();
        let bytes = receipt.to_bytes();
        assert_eq!(Receipt::parse(&bytes), Some(receipt));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            assert_eq!(Receipt::parse(&damaged), None, "{at}");
            assert_eq!(Receipt::parse(&bytes[..at]), None, "{at}");
        }
        assert_eq!(Receipt::parse(&[&bytes[..], b"x"].concat()), None);
    }

    #[test]
    fn damage_under_a_right_checksum_does_not_panic() {
        let bytes = receipt().to_bytes();
        for at in FORMAT.len() + 32..bytes.len() {
            for value in [0, 1, 127, 128, 255] {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                let (head, body) = damaged.split_at_mut(FORMAT.len() + 32);
                head[FORMAT.len()..].copy_from_slice(&Digest::of(body).to_bytes());
                let _ = Receipt::parse(&damaged);
            }
        }
    }

    #[test]
    fn a_receipt_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        let name = Digest::of(b"name");
        assert_eq!(store.receipt(&name), None);
        store.keep_receipt(&name, &receipt()).unwrap();
        assert_eq!(store.receipt(&name), Some(receipt()));
        let other = Receipt { locked: false, ..receipt() };
        store.keep_receipt(&name, &other).unwrap();
        assert_eq!(store.receipt(&name), Some(other));
    }
}
