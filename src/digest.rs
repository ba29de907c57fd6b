//! Content digests: what a file or a folder is, independent of where it lies and when it was written.
//! It does not know the store, nor what a digest is used for.

use std::fmt;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Problem, Result};

/// blake3 of a content, as 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(String);

/// Bytes that are read before they are hashed, on all cores.
const AT_ONCE: usize = 4 << 20;

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).to_hex().to_string())
    }

    /// The digest of a file, or of a folder: see [`Digest::of_folder`].
    pub fn of_path(path: &Path) -> Result<Self> {
        let meta = fs::metadata(path).map_err(|e| Problem::io("read", path, &e))?;
        if meta.is_dir() { Self::of_folder(path) } else { Self::of_file(path) }
    }

    /// The digest of a file's bytes.
    pub fn of_file(path: &Path) -> Result<Self> {
        let failed = |e: std::io::Error| Problem::io("read", path, &e);
        let mut file = fs::File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        // Read, not mapped: the memory does not grow with the file, and a file that shrinks meanwhile is no crash.
        let mut buffer = vec![0; usize::try_from(size).unwrap_or(AT_ONCE).clamp(1, AT_ONCE)];
        let mut hasher = blake3::Hasher::new();
        loop {
            let mut filled = 0;
            while filled < buffer.len() {
                match file.read(&mut buffer[filled..]) {
                    Ok(0) => break,
                    Ok(read) => filled += read,
                    Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(failed(e)),
                }
            }
            if filled == 0 {
                return Ok(Self(hasher.finalize().to_hex().to_string()));
            }
            hasher.update_rayon(&buffer[..filled]);
        }
    }

    /// The digest of a folder: blake3 over its files in order of their relative paths, each as
    /// `digest path-with-slashes\n`. Empty folders, times and permissions do not count.
    pub fn of_folder(folder: &Path) -> Result<Self> {
        let mut listing = String::from("pipe folder 1\n");
        for relative in files_below(folder)? {
            let digest = Self::of_file(&folder.join(&relative))?;
            listing.push_str(&format!("{digest} {relative}\n"));
        }
        Ok(Self::of(listing.as_bytes()))
    }

    /// All 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits, enough to tell digests apart for a person.
    pub fn short(&self) -> &str {
        &self.0[..12.min(self.0.len())]
    }

    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let ok = text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        ok.then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The files below a folder as relative paths with `/`, sorted by their bytes. Links are followed;
/// a name that is not UTF-8 is refused, because it could not be written down.
pub fn files_below(folder: &Path) -> Result<Vec<String>> {
    fn walk(folder: &Path, prefix: &str, depth: usize, found: &mut Vec<String>) -> Result<()> {
        if depth > 64 {
            return Err(Problem::new(format!("{} is nested more than 64 folders deep", folder.display()))
                .help("look for a link that points back into the folder"));
        }
        let entries = fs::read_dir(folder).map_err(|e| Problem::io("list", folder, &e))?;
        for entry in entries {
            let entry = entry.map_err(|e| Problem::io("list", folder, &e))?;
            let name = entry
                .file_name()
                .into_string()
                .map_err(|name| Problem::new(format!("the file name {name:?} in {} is not UTF-8", folder.display())))?;
            let relative = format!("{prefix}{name}");
            let path = entry.path();
            let meta = fs::metadata(&path).map_err(|e| Problem::io("read", &path, &e))?;
            if meta.is_dir() {
                walk(&path, &format!("{relative}/"), depth + 1, found)?;
            } else {
                found.push(relative);
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    walk(folder, "", 0, &mut found)?;
    found.sort();
    Ok(found)
}
