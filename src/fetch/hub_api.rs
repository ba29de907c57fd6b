//! What the Hub says: which commit a revision is, which files it has, and what each of them is.
//! It does not fetch files.
//!
//! Source: `huggingface_hub`, `hf_api.py` (`repo_info`) and `file_download.py` (`get_hf_file_metadata`).

use serde::Deserialize;

use super::address::Repo;
use super::client::{Client, Failure};
use super::retry::patiently;
use super::settings::Settings;
use super::shared::Shared;
use super::url::{Url, encode};
use crate::error::Problem;
use crate::lockfile::{is_commit, is_plain};

/// A commit and its files.
pub(super) struct Listing {
    /// Its name, 40 hexadecimal digits.
    pub commit: String,
    /// The paths of its files, sorted.
    pub names: Vec<String>,
}

/// What a file is, before it is fetched.
pub(super) struct Remote {
    /// The name of its bytes in the cache: SHA-256 of what lies in LFS, git's own name of the rest.
    pub etag: String,
    /// Its size.
    pub bytes: u64,
}

#[derive(Deserialize)]
struct Info {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// A listing has some hundred bytes a file.
const LISTING: u64 = 256 << 20;

/// Asks which commit the revision is now.
pub(super) fn listing(repo: &Repo, settings: &Settings, client: &Client, shared: &Shared) -> Result<Listing, Failure> {
    // A slash inside the revision must not look like one of the path.
    let revision = encode(repo.revision()).replace('/', "%2F");
    let url = address(settings, &format!("api/{}/{}/revision/{revision}", repo.plural(), repo.id))?;
    let text = patiently(shared, || client.get(&url, &[])?.text(LISTING))?;
    let odd = |what: &str| {
        Problem::new(format!("{} answers with {what}", url.host())).help("is HF_ENDPOINT the address of a Hub?")
    };
    let info: Info = serde_json::from_str(&text).map_err(|_| odd("what is not a description of a repository"))?;
    if !is_commit(&info.sha) {
        return Err(odd("a commit that is not 40 hexadecimal digits").into());
    }
    let mut names: Vec<String> = info.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
    if let Some(bad) = names.iter().find(|name| !is_plain(name)) {
        return Err(odd(&format!("the file name {bad:?}, which is not taken")).into());
    }
    names.sort();
    Ok(Listing { commit: info.sha, names })
}

/// Where a file is.
pub(super) fn file(repo: &Repo, commit: &str, name: &str, settings: &Settings) -> Result<Url, Failure> {
    address(settings, &format!("{}{}/resolve/{commit}/{}", repo.prefix(), repo.id, encode(name)))
}

/// Asks what a file is.
pub(super) fn remote(url: &Url, commit: &str, name: &str, client: &Client, shared: &Shared) -> Result<Remote, Failure> {
    let answer = patiently(shared, || client.head(url))?;
    if answer.header("x-repo-commit").is_some_and(|other| other != commit) {
        return Err(Problem::new(format!("{} answers with another commit than {commit}", url.host())).into());
    }
    let etag = answer.header("x-linked-etag").or(answer.header("etag")).unwrap_or_default();
    let etag = etag.trim().trim_start_matches("W/").trim_matches('"').to_owned();
    let safe = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if etag.is_empty() || etag.len() > 128 || etag.starts_with('.') || !etag.chars().all(safe) {
        return Err(Problem::new(format!("{} does not say which bytes {name} has (no usable ETag)", url.host()))
            .help("is HF_ENDPOINT the address of a Hub?")
            .into());
    }
    let linked = answer.header("x-linked-size").and_then(|size| size.trim().parse().ok());
    let bytes = linked.or_else(|| answer.length().filter(|_| answer.status == 200));
    let Some(bytes) = bytes else {
        return Err(Problem::new(format!("{} does not say how large {name} is", url.host())).into());
    };
    Ok(Remote { etag, bytes })
}

fn address(settings: &Settings, path: &str) -> Result<Url, Failure> {
    let text = format!("{}/{path}", settings.endpoint.trim_end_matches('/'));
    Url::parse(&text).ok_or_else(|| {
        Problem::new(format!("HF_ENDPOINT is `{}`", settings.endpoint))
            .expected("an address such as `https://huggingface.co`")
            .into()
    })
}
