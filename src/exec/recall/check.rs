//! A receipt against the world: which of its files, folders, records, objects and links are as it says.
//! It does not know what becomes of the steps.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rayon::prelude::*;

use super::basis;
use super::{Asked, Found};
use crate::digest::shape;
use crate::step::Machine;
use crate::store::receipt::{KnownFile, KnownStep};
use crate::store::{Stat, Store};

/// More bytes of files that look changed are not read here: whoever reads them tells how far it is.
pub(super) const SMALL: u64 = 16 << 20;

/// So many steps are looked at by one thread in one go.
const TOGETHER: usize = 64;

/// The receipt of what is asked for, if there is one of the same pipeline text, machine and so on; and what of it holds.
pub fn check(store: &Store, machine: &Machine, asked: &Asked) -> Option<Found> {
    let begun = SystemTime::now();
    let mut receipt = store.receipt(&asked.name)?;
    let lock = basis::lock(receipt.locked, &asked.lock)?;
    if basis::basis(&asked.text, machine, &receipt.variables, lock.as_ref()) != receipt.basis {
        return None;
    }
    let mut better = false;
    let files = files(store, &mut receipt.files, &mut better);
    let folders = receipt.folders.iter().map(|folder| shape(&folder.path).as_ref() == Some(&folder.shape)).collect();
    let pipeline = &receipt.pipeline;
    let look = |steps: &mut [Arc<KnownStep>]| -> Vec<Looked> {
        steps.iter_mut().map(|step| one(store, pipeline, Arc::make_mut(step), begun)).collect()
    };
    let looked: Vec<Looked> = receipt.steps.par_chunks_mut(TOGETHER).map(look).flatten_iter().collect();
    let there = looked.iter().map(|looked| looked.there).collect();
    let linked = looked.iter().map(|looked| looked.linked).collect();
    better |= looked.iter().any(|looked| looked.better);
    Some(Found { receipt, files, folders, there, linked, better })
}

/// What a look at a step found.
struct Looked {
    there: bool,
    linked: bool,
    better: bool,
}

fn one(store: &Store, pipeline: &str, step: &mut KnownStep, begun: SystemTime) -> Looked {
    let mut better = false;
    let looks = store.record_looks(&step.key);
    let sound = looks.is_some() && looks == step.record || {
        // It may be the same nevertheless; if so, that may be seen from its looks from now on.
        let looks = store.record_sealed(&step.key, &step.seal);
        step.record = looks.filter(|stat| stat.is_settled(begun));
        better |= step.record.is_some();
        looks.is_some()
    };
    let mut linked = true;
    for output in &mut step.outputs {
        let place = store.published(pipeline, &step.id, &output.file);
        let looks = Stat::of_link(&place);
        if looks.is_none() || looks != output.link {
            let leads = store.leads(&place, &output.file, &output.object.digest) && Stat::of_link(&place) == looks;
            output.link = looks.filter(|stat| leads && stat.is_settled(begun));
            better |= output.link.is_some();
            linked &= leads;
        }
    }
    Looked { there: sound && step.outputs.iter().all(|output| store.has(&output.object)), linked, better }
}

/// Which files have the content that they had. Those that look changed are read, unless they are large.
fn files(store: &Store, files: &mut [KnownFile], better: &mut bool) -> Vec<bool> {
    let looks: Vec<Option<Stat>> = files.iter().map(|file| Stat::of_file(&file.path)).collect();
    let mut same: Vec<bool> = files.iter().zip(&looks).map(|(file, now)| now.is_some() && *now == file.stat).collect();
    let changed: Vec<usize> = (0..files.len()).filter(|&at| !same[at] && looks[at].is_some()).collect();
    let paths: Vec<PathBuf> = changed.iter().map(|&at| files[at].path.clone()).collect();
    let bytes = paths.iter().filter_map(|path| fs::metadata(path).ok()).map(|meta| meta.len());
    if changed.is_empty() || bytes.fold(0, u64::saturating_add) > SMALL {
        return same;
    }
    let Ok(digests) = store.digests(&paths, &mut |_| Ok(())) else { return same };
    for (at, digest) in changed.into_iter().zip(digests) {
        same[at] = digest == files[at].digest;
        let settled = store.last_known(&files[at].path).filter(|(_, known)| *known == files[at].digest);
        files[at].stat = settled.map(|(stat, _)| stat);
        *better |= same[at] && files[at].stat.is_some();
    }
    same
}
