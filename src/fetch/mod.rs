//! From the address of a remote source to files of this machine: HTTP, the Hugging Face Hub, its cache.
//! It does not know steps, nor that there is a pipeline.
//!
//! Everything happens on worker threads; the thread that asked watches, so that a step can be stopped at any moment and
//! always tells how far it is. What arrives is written aside, so that the next run goes on where this one broke off,
//! and stands under its own name only when it is whole and is what it should be.

pub mod address;
mod client;
mod hash;
mod hub;
mod hub_api;
mod hub_cache;
mod retry;
mod select;
pub mod settings;
mod shared;
mod space;
mod tell;
mod transfer;
mod url;
mod web;

use std::path::PathBuf;

pub use address::{Address, Repo};
pub use settings::{Proxies, Settings, Token};
pub use shared::Watch;
pub use space::require as require_space;

use crate::error::Result;
use crate::lockfile::Locked;
use client::Client;
use shared::{Shared, supervise};

/// What is wanted.
pub struct Request<'a> {
    /// Where it is.
    pub address: &'a Address,
    /// What it must be, if `pipe.lock` says so.
    pub known: Option<&'a Locked>,
    /// The SHA-256 that its one file must have, if the pipeline says so.
    pub sha256: Option<&'a str>,
    /// The most bytes that may come.
    pub max_bytes: u64,
}

/// What was brought in. It stays where it is: a cache of its own, not to be changed.
pub struct Brought {
    /// The file, or the folder of `locked.files`; a folder may have other files as well.
    pub path: PathBuf,
    /// Whether it is a folder.
    pub is_folder: bool,
    /// What it is.
    pub locked: Locked,
    /// What stands before the names of files that lie below `path`.
    prefix: String,
}

impl Brought {
    /// The files below `path`, sorted.
    pub fn names(&self) -> Vec<String> {
        self.locked.files.keys().filter_map(|name| name.strip_prefix(&self.prefix)).map(str::to_owned).collect()
    }
}

/// Brings a remote source to this machine, or fails. Without `known` the servers are asked what the source is now; with
/// it nothing but that is taken, and nobody is asked if it is here already.
pub fn bring(request: &Request, settings: &Settings, watch: &dyn Watch) -> Result<Brought> {
    let client = Client::new(settings)?;
    let shared = Shared::default();
    supervise(watch, &shared, &client, || match request.address {
        Address::Web(url) => {
            web::bring(url, request, settings, &client, &shared).map_err(|failure| tell::web(failure, url, settings))
        }
        Address::Hub(repo) => hub::Hub { repo, request, settings, client: &client, shared: &shared }
            .bring()
            .map_err(|failure| tell::hub(failure, repo, settings)),
    })
}
