//! A repository of the Hugging Face Hub: what is needed of it is brought into the Hub's own cache, and checked there.
//! It does not know what the files mean.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::address::{Repo, RepoKind};
use super::client::{Client, Failure};
use super::hash::{self, Hashes};
use super::hub_api::{self, Listing, Remote};
use super::hub_cache::RepoCache;
use super::settings::Settings;
use super::shared::{Shared, in_parallel};
use super::transfer::{Outcome, Transfer, too_much};
use super::{Brought, Request, select, space};
use crate::digest::{Digest, files_below};
use crate::error::Problem;
use crate::lockfile::{Locked, LockedFile, is_plain};

/// One repository and what is wanted of it.
pub(super) struct Hub<'a> {
    pub repo: &'a Repo,
    pub request: &'a Request<'a>,
    pub settings: &'a Settings,
    pub client: &'a Client<'a>,
    pub shared: &'a Shared,
}

/// A file, and what it must be if that is known.
#[derive(Clone)]
struct Wanted {
    name: String,
    known: Option<LockedFile>,
}

/// Requests that only ask, and files that are fetched, at a time.
const ASKED: usize = 8;
const FETCHED: usize = 4;

impl Hub<'_> {
    /// See [`super::bring`].
    pub fn bring(&self) -> Result<Brought, Failure> {
        match self.request.known {
            Some(known) => self.again(known),
            None => self.anew(),
        }
    }

    fn cache(&self) -> RepoCache {
        RepoCache::new(&self.settings.hub_cache, self.repo)
    }

    /// What `pipe.lock` says, and nothing else.
    fn again(&self, known: &Locked) -> Result<Brought, Failure> {
        let Some(commit) = &known.revision else {
            return Err(Problem::new(format!("pipe.lock has no revision for {}", self.repo))
                .help("run with --update to ask for it anew")
                .into());
        };
        let wanted: Vec<Wanted> =
            known.files.iter().map(|(name, file)| Wanted { name: name.clone(), known: Some(file.clone()) }).collect();
        self.ensure(commit, &wanted)?;
        self.shared.text("checking");
        let (path, is_folder, digest) = self.digest(commit, &wanted)?;
        if digest == known.digest {
            return Ok(Brought { path, is_folder, locked: known.clone(), prefix: self.folder() });
        }
        let hashes = self.checked(commit, &wanted, BTreeMap::new())?;
        for Wanted { name, known } in &wanted {
            let (found, known) = (&hashes[name], known.as_ref().map(|known| known.sha256.as_str()).unwrap_or_default());
            if found.sha256 != known {
                return Err(wrong(&format!("{}: {name}", self.repo), &found.sha256, known));
            }
        }
        let (path, is_folder, digest) = self.digest(commit, &wanted)?;
        if digest != known.digest {
            return Err(Problem::new(format!("the entry of {} in pipe.lock contradicts itself", self.repo))
                .help("take pipe.lock from version control, or run with --update")
                .into());
        }
        Ok(Brought { path, is_folder, locked: known.clone(), prefix: self.folder() })
    }

    /// What the repository is now; offline, what its cache says it was last.
    fn anew(&self) -> Result<Brought, Failure> {
        let listing = if self.settings.offline { self.remembered()? } else { self.asked()? };
        let commit = &listing.commit;
        let (mut names, index) = self.choose(&listing)?;
        let wanted = |names: &[String]| -> Vec<Wanted> {
            names.iter().map(|name| Wanted { name: name.clone(), known: None }).collect()
        };
        let mut hashes = BTreeMap::new();
        if let Some(index) = index {
            hashes = self.ensure(commit, &wanted(std::slice::from_ref(&index)))?;
            let path = self.cache().snapshot(commit).join(&index);
            let text = fs::read(&path).map_err(|e| Problem::io("read", &path, &e))?;
            let folder = self.folder();
            let below: Vec<&str> = listing.names.iter().filter_map(|name| name.strip_prefix(&folder)).collect();
            let parts = select::parts(&text, &below, &self.repo.to_string())?;
            names.extend(parts.into_iter().map(|part| format!("{folder}{part}")));
        }
        names.sort();
        let wanted = wanted(&names);
        hashes.extend(self.ensure(commit, &wanted)?);
        self.shared.text("checking");
        let hashes = self.checked(commit, &wanted, hashes)?;
        if !self.settings.offline {
            self.cache().remember(self.repo.revision(), commit)?;
        }
        let (path, is_folder, digest) = self.digest(commit, &wanted)?;
        let file = |found: &Hashes| LockedFile { bytes: found.bytes, sha256: found.sha256.clone() };
        let files: BTreeMap<_, _> = names.iter().map(|name| (name.clone(), file(&hashes[name]))).collect();
        if let (Some(pinned), [only]) = (self.request.sha256, files.values().collect::<Vec<_>>().as_slice())
            && !is_folder
            && only.sha256 != pinned
        {
            let what = format!("{} is not what is pinned: its sha256 is {}", self.repo, only.sha256);
            return Err(Problem::new(what).help("if the new one is right, pin it").into());
        }
        let locked = Locked { revision: Some(commit.clone()), digest, files };
        Ok(Brought { path, is_folder, locked, prefix: self.folder() })
    }

    fn asked(&self) -> Result<Listing, Failure> {
        self.shared.text("asking the Hub");
        let listing = hub_api::listing(self.repo, self.settings, self.client, self.shared)?;
        self.shared.text("");
        if self.repo.commit().is_some_and(|commit| commit != listing.commit) {
            return Err(
                Problem::new(format!("the Hub answers with the commit {} for {}", listing.commit, self.repo)).into()
            );
        }
        Ok(listing)
    }

    fn remembered(&self) -> Result<Listing, Failure> {
        let cache = self.cache();
        let commit = self.repo.commit().map(str::to_owned).or_else(|| cache.commit_of(self.repo.revision()));
        let snapshot = commit.map(|commit| (cache.snapshot(&commit), commit)).filter(|(folder, _)| folder.is_dir());
        let Some((folder, commit)) = snapshot else { return Err(self.not_here("it")) };
        self.shared.note(format!("offline: {} is taken as it was when it was last fetched", self.repo));
        let names = files_below(&folder)?;
        Ok(Listing { commit, names: names.into_iter().filter(|name| is_plain(name)).collect() })
    }

    fn not_here(&self, what: &str) -> Failure {
        Problem::new(format!("{}: {what} is not in the Hugging Face cache, and nothing may be fetched", self.repo))
            .help(format!("run once without --offline; the cache is {}", self.settings.hub_cache.display()))
            .into()
    }

    /// The folder that is wanted, with a slash at its end; empty for the whole repository.
    fn folder(&self) -> String {
        self.repo.path.as_deref().map(|path| format!("{path}/")).unwrap_or_default()
    }

    /// The files that are needed, and the index of their weights if there is one.
    fn choose(&self, listing: &Listing) -> Result<(Vec<String>, Option<String>), Failure> {
        if let Some(path) = &self.repo.path
            && listing.names.contains(path)
        {
            return Ok((vec![path.clone()], None));
        }
        let folder = self.folder();
        let below: Vec<&str> = listing.names.iter().filter_map(|name| name.strip_prefix(&folder)).collect();
        if below.is_empty() {
            let what = format!("{} has no file or folder of this name", self.repo);
            let shown: Vec<String> = listing.names.iter().take(10).map(|name| format!("`{name}`")).collect();
            let more = listing.names.len().saturating_sub(shown.len());
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            return Err(Problem::new(what).help(format!("it has {}{more}", shown.join(", "))).into());
        }
        if self.repo.kind == RepoKind::Dataset {
            let names = below.iter().filter(|name| !name.starts_with('.')).map(|name| format!("{folder}{name}"));
            return Ok((names.collect(), None));
        }
        let selection = select::of_model(&below, &self.repo.to_string())?;
        let full = |name: String| format!("{folder}{name}");
        Ok((selection.names.into_iter().map(full).collect(), selection.index.map(full)))
    }

    /// Path, whether it is a folder, and digest of the files together.
    fn digest(&self, commit: &str, wanted: &[Wanted]) -> Result<(PathBuf, bool, Digest), Failure> {
        let snapshot = self.cache().snapshot(commit);
        if let (Some(path), [only]) = (&self.repo.path, wanted)
            && only.name == *path
        {
            let file = snapshot.join(path);
            let digest = Digest::of_file(&file)?;
            return Ok((file, false, digest));
        }
        let folder = self.folder();
        let names: Vec<&str> = wanted.iter().filter_map(|wanted| wanted.name.strip_prefix(&folder)).collect();
        let path = snapshot.join(folder.trim_end_matches('/'));
        let digest = Digest::of_files(&path, &names)?;
        Ok((path, true, digest))
    }

    /// Brings what is not here. Answers what it has checked on the way.
    fn ensure(&self, commit: &str, wanted: &[Wanted]) -> Result<BTreeMap<String, Hashes>, Failure> {
        let cache = self.cache();
        let here = |wanted: &Wanted| {
            let size = fs::metadata(cache.snapshot(commit).join(&wanted.name)).map(|meta| meta.len());
            size.is_ok_and(|size| wanted.known.as_ref().is_none_or(|known| known.bytes == size))
        };
        let missing: Vec<Wanted> = wanted.iter().filter(|wanted| !here(wanted)).cloned().collect();
        let Some(first) = missing.first() else { return Ok(BTreeMap::new()) };
        if self.settings.offline {
            return Err(self.not_here(&format!("`{}`", first.name)));
        }
        let asked = Mutex::new(Vec::new());
        in_parallel(&missing, ASKED, self.shared, self.client, |wanted| {
            let url = hub_api::file(self.repo, commit, &wanted.name, self.settings)?;
            let remote = hub_api::remote(&url, commit, &wanted.name, self.client, self.shared)?;
            asked.lock().unwrap_or_else(PoisonError::into_inner).push((wanted.clone(), remote));
            Ok(())
        })?;
        let mut asked = asked.into_inner().unwrap_or_else(PoisonError::into_inner);
        // Small ones first: a tokenizer that cannot be had is noticed before the weights are fetched.
        asked.sort_by(|(a, x), (b, y)| (x.bytes, &a.name).cmp(&(y.bytes, &b.name)));
        let bytes = self.room(&cache, &asked)?;
        self.shared.expect(bytes);
        let (done, hashes) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
        in_parallel(&asked, FETCHED, self.shared, self.client, |(wanted, remote)| {
            let found = self.one(commit, wanted, remote)?;
            if let Some(found) = found {
                hashes.lock().unwrap_or_else(PoisonError::into_inner).insert(wanted.name.clone(), found);
            }
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            self.shared.text(format!("{done} of {} files", asked.len()));
            Ok(())
        })?;
        Ok(hashes.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// The bytes that are to be here in the end; fails if they may not or cannot come.
    fn room(&self, cache: &RepoCache, asked: &[(Wanted, Remote)]) -> Result<u64, Failure> {
        let length = |path: PathBuf| fs::metadata(path).map_or(0, |meta| meta.len());
        let mut by_content: BTreeMap<&str, u64> = BTreeMap::new();
        for (_, remote) in asked.iter().filter(|(_, remote)| !cache.blob(&remote.etag).exists()) {
            by_content.insert(&remote.etag, remote.bytes);
        }
        let all = by_content.values().fold(0u64, |sum, bytes| sum.saturating_add(*bytes));
        if all > self.request.max_bytes {
            return Err(too_much(&self.repo.to_string(), all, self.request.max_bytes));
        }
        let here: u64 = by_content.keys().map(|etag| length(cache.incomplete(etag))).sum();
        let what = format!("fetching {} into {}", self.repo, cache.folder().display());
        space::require(cache.folder(), all.saturating_sub(here), &what)?;
        Ok(all)
    }

    /// Brings one file; answers its hashes unless its bytes were here.
    fn one(&self, commit: &str, wanted: &Wanted, remote: &Remote) -> Result<Option<Hashes>, Failure> {
        let (cache, Remote { etag, bytes }) = (self.cache(), remote);
        let name = format!("{}: {}", self.repo, wanted.name);
        if let Some(known) = &wanted.known
            && known.bytes != *bytes
        {
            return Err(Problem::new(format!("{name} has {bytes} bytes, and pipe.lock says {}", known.bytes)).into());
        }
        let _lock = cache.lock(etag, &name, self.shared)?;
        let blob = cache.blob(etag);
        let whole = fs::metadata(&blob).is_ok_and(|meta| meta.len() == *bytes);
        let mut hashes = None;
        if !whole {
            let url = hub_api::file(self.repo, commit, &wanted.name, self.settings)?;
            let part = cache.incomplete(etag);
            let transfer = Transfer {
                url: &url,
                name: &name,
                part: &part,
                about: None,
                bytes: Some(*bytes),
                checked: true,
                limit: self.request.max_bytes,
                unless: None,
            };
            let found = self.transfer(&transfer, etag, wanted)?;
            fs::rename(&part, &blob).map_err(|e| Problem::io("write", &blob, &e))?;
            hashes = Some(found);
        }
        cache.link(commit, &wanted.name, etag)?;
        Ok(hashes)
    }

    /// Brings the bytes of an ETag and checks that they are its own.
    fn transfer(&self, transfer: &Transfer, etag: &str, wanted: &Wanted) -> Result<Hashes, Failure> {
        let mut again = true;
        loop {
            let Outcome::Whole { resumed } = transfer.run(self.client, self.shared)? else {
                return Err(Problem::new(format!("{} did not come", transfer.name)).into());
            };
            let found = hash::of_file(transfer.part, self.shared)?;
            let known = wanted.known.as_ref().map(|known| known.sha256.as_str());
            if found.fit(etag) && known.is_none_or(|known| known == found.sha256) {
                return Ok(found);
            }
            fs::remove_file(transfer.part).map_err(|e| Problem::io("delete", transfer.part, &e))?;
            self.shared.take_back(found.bytes);
            // What had arrived earlier may have been damaged.
            if !(resumed && std::mem::take(&mut again)) {
                let (found, due) =
                    if etag.len() == 40 { (&found.git, etag) } else { (&found.sha256, known.unwrap_or(etag)) };
                return Err(wrong(transfer.name, found, due));
            }
        }
    }

    /// The hashes of all files. A file whose bytes are not what their name says is fetched once more.
    fn checked(
        &self,
        commit: &str,
        wanted: &[Wanted],
        mut hashes: BTreeMap<String, Hashes>,
    ) -> Result<BTreeMap<String, Hashes>, Failure> {
        let cache = self.cache();
        for last in [false, true] {
            let open: Vec<&Wanted> = wanted.iter().filter(|wanted| !hashes.contains_key(&wanted.name)).collect();
            let (found, damaged) = (Mutex::new(BTreeMap::new()), Mutex::new(Vec::new()));
            in_parallel(&open, FETCHED, self.shared, self.client, |wanted| {
                let path = cache.snapshot(commit).join(&wanted.name);
                let hashes = hash::of_file(&path, self.shared)?;
                let known = wanted.known.as_ref().is_none_or(|known| known.sha256 == hashes.sha256);
                if cache.etag(commit, &wanted.name).is_none_or(|etag| hashes.fit(&etag)) && (known || last) {
                    found.lock().unwrap_or_else(PoisonError::into_inner).insert(wanted.name.clone(), hashes);
                } else {
                    damaged.lock().unwrap_or_else(PoisonError::into_inner).push((*wanted).clone());
                }
                Ok(())
            })?;
            hashes.extend(found.into_inner().unwrap_or_else(PoisonError::into_inner));
            let damaged = damaged.into_inner().unwrap_or_else(PoisonError::into_inner);
            let Some(first) = damaged.first() else { break };
            let name = &first.name;
            if last || self.settings.offline {
                return Err(Problem::new(format!("{}: `{name}` in the Hugging Face cache is damaged", self.repo))
                    .help(format!("delete {} and run again", cache.snapshot(commit).join(name).display()))
                    .into());
            }
            self.shared.note(format!("`{name}` in the Hugging Face cache is damaged and is fetched again"));
            damaged.iter().for_each(|wanted| cache.forget(commit, &wanted.name));
            hashes.extend(self.ensure(commit, &damaged)?);
        }
        Ok(hashes)
    }
}

fn wrong(name: &str, found: &str, due: &str) -> Failure {
    Problem::new(format!("{name} is not what it should be: its hash is {found}, not {due}"))
        .help("the bytes were damaged on the way, or the server is not honest; try again, or another HF_ENDPOINT")
        .into()
}
