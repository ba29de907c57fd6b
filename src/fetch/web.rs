//! Files of web servers: fetched into a folder of the cache, and kept there for the next step that wants them.
//! It does not unpack them.
//!
//! ```text
//! downloads/HASH OF THE ADDRESS/part  part.json    what has arrived, and what the server said about it
//!                              /file  file.json    the whole
//!                              /lock               held by the process that fetches
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::client::{Client, Failure};
use super::hash::{self, Hashes};
use super::hub_cache::lock;
use super::settings::Settings;
use super::shared::Shared;
use super::transfer::{About, Outcome, Transfer};
use super::url::Url;
use super::{Brought, Request};
use crate::digest::Digest;
use crate::error::Problem;
use crate::lockfile::{Locked, LockedFile, is_plain};

/// See [`super::bring`].
pub(super) fn bring(
    url: &str,
    request: &Request,
    settings: &Settings,
    client: &Client,
    shared: &Shared,
) -> Result<Brought, Failure> {
    let folder = settings.downloads.join(&Digest::of(url.as_bytes()).as_str()[..32]);
    fs::create_dir_all(&folder).map_err(|e| Problem::io("make the folder", &folder, &e))?;
    let _lock = lock(&folder.join("lock"), url, shared)?;
    let web = Web { url, request, client, shared, folder };
    let known = web.known()?;
    let file = web.folder.join("file");
    let hashes = match web.here(&file, known.as_deref())? {
        Some(hashes) => hashes,
        None if settings.offline => {
            return Err(Problem::new(format!("{url} is not here, and nothing may be fetched"))
                .help("run once without --offline")
                .into());
        }
        None => web.fetch(&file, known.as_deref(), settings)?,
    };
    shared.text("checking");
    let digest = Digest::of_file(&file)?;
    let found = LockedFile { bytes: hashes.bytes, sha256: hashes.sha256 };
    let locked = Locked { revision: None, digest, files: BTreeMap::from([(name(url), found)]) };
    Ok(Brought { path: file, is_folder: false, locked, prefix: String::new() })
}

struct Web<'a> {
    url: &'a str,
    request: &'a Request<'a>,
    client: &'a Client<'a>,
    shared: &'a Shared,
    folder: PathBuf,
}

impl Web<'_> {
    /// The SHA-256 that the file must have.
    fn known(&self) -> Result<Option<String>, Failure> {
        let locked = self.request.known.and_then(|known| known.files.values().next()).map(|file| file.sha256.clone());
        match (locked, self.request.sha256) {
            (Some(locked), Some(pinned)) if locked != pinned => {
                let what = format!("{} is pinned to the sha256 {pinned}, and pipe.lock says {locked}", self.url);
                Err(Problem::new(what).help("if the pin is right, run with --update").into())
            }
            (locked, pinned) => Ok(locked.or(pinned.map(str::to_owned))),
        }
    }

    /// The file, if it is here and is what it must be; if nothing says what it must be, the server is asked.
    fn here(&self, file: &Path, known: Option<&str>) -> Result<Option<Hashes>, Failure> {
        if known.is_none() || !file.exists() {
            return Ok(None);
        }
        self.shared.text("checking");
        let hashes = hash::of_file(file, self.shared)?;
        Ok(Some(hashes).filter(|hashes| Some(hashes.sha256.as_str()) == known))
    }

    fn fetch(&self, file: &Path, known: Option<&str>, settings: &Settings) -> Result<Hashes, Failure> {
        debug_assert!(!settings.offline);
        let about = self.folder.join("file.json");
        // A file that must be another one is of no use; one of which nothing is known may still be the right one.
        let unless = if known.is_none() && file.exists() { About::read(&about).etag } else { None };
        let url = Url::parse(self.url).ok_or_else(|| Problem::new(format!("{} is not an address", self.url)))?;
        let (part, part_about) = (self.folder.join("part"), self.folder.join("part.json"));
        let transfer = Transfer {
            url: &url,
            name: self.url,
            part: &part,
            about: Some(&part_about),
            bytes: None,
            checked: known.is_some(),
            limit: self.request.max_bytes,
            unless,
        };
        let mut again = true;
        loop {
            self.shared.text("");
            let resumed = match transfer.run(self.client, self.shared)? {
                Outcome::Unchanged => return hash::of_file(file, self.shared),
                Outcome::Whole { resumed } => resumed,
            };
            self.shared.text("checking");
            let hashes = hash::of_file(&part, self.shared)?;
            if known.is_none_or(|known| known == hashes.sha256) {
                // What the server said of an older file must not stand beside this one, at no instant.
                let _ = fs::remove_file(&about);
                let moved = fs::rename(&part, file).and_then(|()| fs::rename(&part_about, &about));
                moved.map_err(|e| Problem::io("write", file, &e))?;
                return Ok(hashes);
            }
            fs::remove_file(&part).map_err(|e| Problem::io("delete", &part, &e))?;
            // What had arrived earlier may have been the wrong part.
            if !(resumed && std::mem::take(&mut again)) {
                return Err(self.wrong(&hashes, known.unwrap_or_default()));
            }
            self.shared.take_back(hashes.bytes);
        }
    }

    fn wrong(&self, found: &Hashes, known: &str) -> Failure {
        let by = if self.request.sha256.is_some() { "is pinned" } else { "pipe.lock says" };
        let help = if self.request.sha256.is_some() {
            "the file changed, or another one was meant; if the new one is right, pin it"
        } else {
            "the file changed there; to take the new one, run with --update"
        };
        let what = format!("{} is not what {by}: its sha256 is {}, not {known}", self.url, found.sha256);
        Problem::new(what).help(help).into()
    }
}

/// The last part of the path, or `file`.
fn name(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let last = path.rsplit('/').next().unwrap_or_default();
    let has_path = path.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
    if has_path && is_plain(last) { last.to_owned() } else { "file".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_called_as_its_address_ends() {
        for (url, expected) in [
            ("https://a/b/nerus.conllu.gz", "nerus.conllu.gz"),
            ("https://a/download/TERRa?x=/y", "TERRa"),
            ("https://a/b/", "file"),
            ("https://a", "file"),
            ("https://a/..", "file"),
        ] {
            assert_eq!(name(url), expected, "{url}");
        }
    }
}
