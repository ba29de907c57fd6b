//! A receipt as bytes: the format as a line, blake3 of all that follows, and that.
//! It does not know where the bytes lie.

use std::path::PathBuf;
use std::sync::Arc;

use super::super::packed::{Packer, Unpacker};
use super::{Extent, KnownFile, KnownFolder, KnownOutput, KnownStep, Receipt};
use crate::digest::Digest;
use crate::event::Costs;
use crate::store::{Object, Stat};

/// The first line.
const FORMAT: &[u8] = b"pipe/receipt@1\n";

impl Receipt {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
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
        let steps = from.list(|from| take_step(from, &runs).map(Arc::new))?;
        let sound = |step: &Arc<KnownStep>| {
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
    use std::collections::BTreeMap;

    use super::*;
    use crate::event::Say;
    use crate::store::Store;

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
            steps: vec![step.into(), plain.into()],
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
