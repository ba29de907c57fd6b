//! What a file is, in the hashes that other programs name files by.
//! It does not know where the file came from.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::client::Failure;
use super::shared::Shared;
use crate::error::Problem;

/// A file in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hashes {
    /// Its size.
    pub bytes: u64,
    /// SHA-256, as git LFS names a file.
    pub sha256: String,
    /// SHA-1 of `blob SIZE\0` and the bytes, as git names a file.
    pub git: String,
}

/// Reads a file once.
pub(super) fn of_file(path: &Path, shared: &Shared) -> Result<Hashes, Failure> {
    let io = |e| Problem::io("read", path, &e);
    let mut file = File::open(path).map_err(io)?;
    let bytes = file.metadata().map_err(io)?.len();
    let mut sha256 = Sha256::new();
    let mut git = Sha1::new();
    git.update(format!("blob {bytes}\0"));
    let (mut buffer, mut total) = (vec![0; 1 << 18], 0);
    loop {
        shared.check()?;
        let read = file.read(&mut buffer).map_err(io)?;
        if read == 0 {
            break;
        }
        total += read as u64;
        sha256.update(&buffer[..read]);
        // Whole shards are named by their SHA-256; git's own name is for what lies in git itself.
        if bytes <= GIT {
            git.update(&buffer[..read]);
        }
    }
    Ok(Hashes { bytes: total, sha256: hex(&sha256.finalize()), git: hex(&git.finalize()) })
}

/// The Hub keeps nothing larger than 10 MB in git itself; beyond this, git's name is not worked out.
const GIT: u64 = 64 << 20;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Hashes {
    /// Whether a file of this ETag may have this content: the Hub's ETags are SHA-256 of what lies in LFS, and git's
    /// name of everything else. Of other servers' ETags nothing is known.
    pub fn fit(&self, etag: &str) -> bool {
        let hexadecimal = etag.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        match etag.len() {
            64 if hexadecimal => self.sha256 == etag,
            40 if hexadecimal && self.bytes <= GIT => self.git == etag,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_both_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, "test content\n").unwrap();
        let hashes = of_file(&path, &Shared::default()).unwrap();
        // `echo 'test content' | git hash-object --stdin`, and the same of `sha256sum`.
        assert_eq!(hashes.git, "d670460b4b4aece5915caf5c68d12f560a9fe3e4");
        assert_eq!(hashes.sha256, "a1fff0ffefb9eace7230c24e50731f0a91c62f9cefdfe77121c2f607125dffae");
        assert!(hashes.fit(&hashes.git) && hashes.fit(&hashes.sha256) && hashes.fit("something-else"));
        assert!(!hashes.fit(&"0".repeat(40)) && !hashes.fit(&"0".repeat(64)));
    }
}
