//! What a source must be: its digest, as the author of the pipeline saw it.
//! It does not know where the source came from.

use std::io::Read;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::error::{Path as SpecPath, Problem, Result};
use crate::fetch::Brought;
use crate::step::Context;

/// A digest that is asked for: 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pin {
    /// blake3 of a file, or pipe's own digest of a folder.
    Blake3(String),
    /// SHA-256 of a file.
    Sha256(String),
}

impl Pin {
    /// Reads `blake3:…` or `sha256:…`.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || {
            Problem::new(format!("`{text}` is not a pin")).expected("`blake3:` or `sha256:` and 64 hexadecimal digits")
        };
        let (kind, digits) = text.split_once(':').ok_or_else(wrong)?;
        let digits = Digest::parse(&digits.to_ascii_lowercase()).ok_or_else(wrong)?.to_string();
        match kind {
            "blake3" => Ok(Self::Blake3(digits)),
            "sha256" => Ok(Self::Sha256(digits)),
            _ => Err(wrong()),
        }
    }

    /// The SHA-256 that is asked for.
    pub fn as_sha256(&self) -> Option<&str> {
        match self {
            Self::Sha256(digits) => Some(digits),
            Self::Blake3(_) => None,
        }
    }

    /// Compares a file or folder of this machine with the pin; `written` is what messages call it.
    pub fn verify(&self, path: &Path, written: &str, cx: &Context) -> Result<()> {
        match self {
            Self::Blake3(pinned) => compare("blake3", pinned, blake3(path, cx)?.as_str(), written),
            Self::Sha256(_) if path.is_dir() => Err(no_sha256(written, &blake3(path, cx)?)),
            Self::Sha256(pinned) => compare("sha256", pinned, &sha256(path, cx)?, written),
        }
    }

    /// Compares what was fetched with the pin.
    pub fn verify_fetched(&self, fetched: &Brought, written: &str) -> Result<()> {
        let files: Vec<_> = fetched.locked.files.values().collect();
        match (self, files.as_slice()) {
            (Self::Blake3(pinned), _) => compare("blake3", pinned, fetched.locked.digest.as_str(), written),
            (Self::Sha256(pinned), [only]) if !fetched.is_folder => compare("sha256", pinned, &only.sha256, written),
            (Self::Sha256(_), _) => Err(no_sha256(written, &fetched.locked.digest)),
        }
    }
}

fn compare(kind: &str, pinned: &str, found: &str, written: &str) -> Result<()> {
    if pinned == found {
        return Ok(());
    }
    Err(Problem::new(format!("{written} is not what is pinned: its {kind} is {found}"))
        .at(SpecPath::root().key("pin"))
        .help("the file changed, or another one was meant; if the new one is right, pin it"))
}

fn no_sha256(written: &str, digest: &Digest) -> Problem {
    Problem::new(format!("{written} is a folder, and a folder has no sha256"))
        .at(SpecPath::root().key("pin"))
        .help(format!("its pin is `blake3:{digest}`"))
}

/// Follows the reading of what may be many gigabytes: tells how far it is, and ends it on Ctrl-C.
fn watched(cx: &Context) -> impl FnMut(u64) -> Result<()> {
    let mut done = 0;
    move |read| {
        cx.check_cancelled()?;
        done += read;
        cx.progress(done, None, "B", "checking the pin");
        Ok(())
    }
}

fn blake3(path: &Path, cx: &Context) -> Result<Digest> {
    Digest::of_path_watched(path, &mut watched(cx))
}

fn sha256(path: &Path, cx: &Context) -> Result<String> {
    let mut watch = watched(cx);
    let mut file = std::fs::File::open(path).map_err(|e| Problem::io("open", path, &e))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        let read = file.read(&mut buffer).map_err(|e| Problem::io("read", path, &e))?;
        if read == 0 {
            return Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hasher.update(&buffer[..read]);
        watch(read as u64)?;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::event::Say;
    use crate::step::{Frame, Machine};

    #[test]
    fn checking_a_pin_is_told_and_ends_on_ctrl_c() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), "text").unwrap();
        let (cancel, said) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let heard = said.clone();
        let cx = Context::new(Frame {
            step: "here".to_owned(),
            inputs: BTreeMap::new(),
            out: folder.path().to_owned(),
            root: folder.path().to_owned(),
            machine: Machine::plain("cpu", 1),
            threads: 1,
            cancel: cancel.clone(),
            sink: Box::new(move |say| heard.lock().unwrap().push(say)),
        });
        let check = |pin: &Pin| pin.verify(&folder.path().join("a"), "a", &cx).unwrap_err();
        for pin in [Pin::Blake3("0".repeat(64)), Pin::Sha256("0".repeat(64))] {
            cancel.store(false, Ordering::Relaxed);
            said.lock().unwrap().clear();
            assert!(check(&pin).what.contains("is not what is pinned"));
            assert!(matches!(said.lock().unwrap().as_slice(), [Say::Progress { done: 4, .. }]));
            cancel.store(true, Ordering::Relaxed);
            assert!(check(&pin).cancelled);
        }
    }
}
