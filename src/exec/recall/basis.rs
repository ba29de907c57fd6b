//! The digest of all that makes keys besides files: if it is the same, the same files give the same keys.
//! It does not know which files there are.

use std::ffi::OsString;
use std::path::Path;

use crate::digest::Digest;
use crate::lockfile;
use crate::step::Machine;

/// The basis of a run. `variables` are those that steps ask for, and `lock` the digest of `pipe.lock`, if a step does.
pub(super) fn basis(text: &Digest, machine: &Machine, variables: &[String], lock: Option<&Digest>) -> Digest {
    let value = |name: &String| machine.variables.get(name).map(|value| of_value(value).to_string());
    let variables: Vec<(&String, Option<String>)> = variables.iter().map(|name| (name, value(name))).collect();
    let Machine { device, cores, bf16, variables: _, precisions } = machine;
    let all = serde_json::json!([BUILD, text, device, cores, bf16, variables, precisions.as_ref(), lock]);
    Digest::of(all.to_string().as_bytes())
}

/// Step kinds change, and with them what keys are made of: what another build knew is not known.
const BUILD: (&str, &str) = (env!("CARGO_PKG_VERSION"), env!("PIPE_BUILD"));

/// For whom a pipeline is compiled: this build, and this text of its file.
pub(super) fn compiled(text: &Digest) -> Digest {
    Digest::of(serde_json::json!([BUILD, text]).to_string().as_bytes())
}

/// Values may be secrets: nobody shall read them in a receipt.
fn of_value(value: &OsString) -> Digest {
    Digest::of(value.as_encoded_bytes())
}

/// The digest of the lock file, if it counts; `None` if that cannot be told.
pub(super) fn lock(counts: bool, path: &Path) -> Option<Option<Digest>> {
    if counts { lockfile::digest(path).map(Some) } else { Some(None) }
}
