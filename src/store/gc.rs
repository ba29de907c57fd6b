//! What of the cache nobody needs any more, and its removal.
//! It does not know why something is needed: it is told the keys.
//!
//! A running process holds the lock of its scratch folder from its first step on. Whatever came to the cache since
//! the oldest of them began is left alone, and so is every key whose lease somebody holds. While things are removed,
//! the lock `tmp/guard` is held, so that no process begins to write meanwhile. Records go before the objects that
//! they name, and an object is renamed away before it is deleted: a kill leaves no half of one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::survey::Found;
use super::{Receipt, Record, Store, scratch};
use crate::digest::Digest;
use crate::error::{Problem, Result};

/// What is needed.
#[derive(Debug, Default)]
pub struct Keep {
    /// The keys whose results are needed.
    pub keys: BTreeSet<Digest>,
    /// Of these, the ones that stay even if the cache is then too large.
    pub pinned: BTreeSet<Digest>,
    /// When a key was last used: any numbers that grow with time.
    pub used: BTreeMap<Digest, usize>,
    /// The names of the runs whose logs are kept.
    pub runs: BTreeSet<String>,
    /// How large all results together may be; those that were not used for the longest time go first.
    pub most: Option<u64>,
}

impl Store {
    /// What can be removed.
    pub fn garbage(&self, keep: &Keep) -> Vec<Found> {
        let own = self.scratch.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let horizon = scratch::oldest_living(&self.root().join("tmp"), own.as_ref());
        drop(own);
        let old = |found: &Found| horizon.is_none_or(|horizon| found.changed < horizon);
        let (mut garbage, mut kept) = (Vec::new(), Vec::new());
        for found in self.survey("records") {
            match Self::record_at(&found) {
                Ok(record) if keep.keys.contains(&record.key) || !old(&found) => kept.push((found, record)),
                Err(_) if !old(&found) => {}
                _ => garbage.push(found),
            }
        }
        self.evict(keep, horizon, &mut kept, &mut garbage);
        let keys: BTreeSet<&str> = kept.iter().map(|(_, record)| record.key.as_str()).collect();
        let objects: BTreeSet<&str> = digests(&kept).map(Digest::as_str).collect();
        // A receipt is worth something as long as all of its results are there; so is what lies beside it.
        let worth = |receipt: &Receipt| receipt.steps.iter().all(|step| keys.contains(step.key.as_str()));
        let receipts = self.survey("receipts").into_iter().filter_map(|found| Digest::parse(&found.name));
        let receipts: BTreeSet<Digest> =
            receipts.filter(|name| self.receipt(name).as_ref().is_some_and(worth)).collect();
        for part in ["objects", "logs", "checkpoints", "failed", "damaged", "downloads", "receipts", "runs"] {
            let needed = |found: &Found| match part {
                "objects" => objects.contains(found.name.as_str()),
                "logs" => keys.contains(found.name.as_str()),
                "receipts" => Digest::parse(&found.name).is_some_and(|name| receipts.contains(&name)),
                "checkpoints" => Self::keys_of_series(&found.path).iter().any(|key| keep.keys.contains(key)),
                "runs" => keep.runs.contains(&found.name),
                // A file that is there whole, or arrives, saves fetching it again.
                "downloads" => found.path.join("file").exists() || arrives(&found.path.join("part")),
                _ => false,
            };
            let ours = |found: &Found| match part {
                "objects" | "logs" | "checkpoints" => Digest::parse(&found.name).is_some(),
                _ => true,
            };
            garbage.extend(self.survey(part).into_iter().filter(|found| ours(found) && old(found) && !needed(found)));
        }
        garbage
    }

    /// Moves records from `kept` to `garbage` until what is left is small enough.
    fn evict(
        &self,
        keep: &Keep,
        horizon: Option<SystemTime>,
        kept: &mut Vec<(Found, Record)>,
        garbage: &mut Vec<Found>,
    ) {
        let Some(most) = keep.most else { return };
        let mut uses: BTreeMap<Digest, (usize, u64)> = BTreeMap::new();
        for object in kept.iter().flat_map(|(_, record)| record.outputs.values()) {
            uses.entry(object.digest.clone()).or_insert((0, object.bytes)).0 += 1;
        }
        // Records say any sizes.
        let mut bytes: u128 = uses.values().map(|(_, bytes)| u128::from(*bytes)).sum();
        kept.sort_by_key(|(found, record)| (keep.used.get(&record.key).copied(), found.changed));
        let mut left = Vec::new();
        for (found, record) in std::mem::take(kept) {
            let young = horizon.is_some_and(|horizon| found.changed >= horizon);
            if bytes <= u128::from(most) || young || keep.pinned.contains(&record.key) {
                left.push((found, record));
                continue;
            }
            for object in record.outputs.values() {
                if let Some((count, size)) = uses.get_mut(&object.digest) {
                    *count -= 1;
                    bytes -= if *count == 0 { u128::from(*size) } else { 0 };
                }
            }
            garbage.push(found);
        }
        *kept = left;
    }

    /// Removes what is not needed; answers what is gone.
    pub fn collect(&self, keep: &Keep) -> Result<Vec<Found>> {
        // Its own scratch folder first: nobody can make one while the guard is held.
        let trash = self.stage()?;
        let _guard = scratch::guard(&self.root().join("tmp"))?;
        let mut gone = Vec::new();
        for found in self.garbage(keep) {
            let key = Digest::parse(&found.name).filter(|_| !["objects", "receipts"].contains(&found.part));
            let lease = match &key {
                Some(key) => match self.lease(key)? {
                    None => continue,
                    lease => lease,
                },
                None => None,
            };
            let aside = trash.folder().join("gone");
            match fs::rename(&found.path, &aside) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Problem::io("remove", &found.path, &error)),
            }
            let removed = if aside.is_dir() { fs::remove_dir_all(&aside) } else { fs::remove_file(&aside) };
            removed.map_err(|e| Problem::io("remove", &found.path, &e))?;
            drop(lease);
            gone.push(found);
        }
        self.shorten_stats();
        Ok(gone)
    }
}

/// A process that only fetches writes nothing below `tmp/`; a part that nobody went on with for a day is left over.
fn arrives(part: &Path) -> bool {
    let changed = fs::metadata(part).and_then(|meta| meta.modified());
    changed.is_ok_and(|changed| changed.elapsed().is_ok_and(|age| age < Duration::from_secs(86_400)))
}

fn digests(kept: &[(Found, Record)]) -> impl Iterator<Item = &Digest> {
    kept.iter().flat_map(|(_, record)| record.outputs.values().map(|object| &object.digest))
}
