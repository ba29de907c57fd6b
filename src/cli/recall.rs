//! What a run is asked for, as far as that is known before the pipeline is read: the name of its receipt.
//! It does not know what a receipt says.

use std::path::Path;

use serde_json::json;

use super::TargetArgs;
use crate::digest::Digest;
use crate::exec::recall::Asked;
use crate::lockfile;
use crate::spec;
use crate::store::Store;

/// What is asked for by these arguments; `None` if that cannot be told, or is to be worked out anew in any case.
pub(super) fn asked(what: &TargetArgs, targets: &[String], store: &Store) -> Option<Asked> {
    if what.cache.paranoid {
        return None;
    }
    let text = |path: &Path| path.to_str().map(str::to_owned);
    let file = &what.pipeline.pipeline;
    let here = text(&std::env::current_dir().ok()?)?;
    // The names of files are told as they were given, and the same name may be another file elsewhere.
    let (given, cache) = (text(file)?, text(store.root())?);
    let root = text(&spec::root_of(file))?;
    let options = (&what.pipeline.profile, &what.pipeline.sets, targets, &what.cache.device);
    let question = json!(["pipe receipt 1", here, given, root, cache, options]);
    Some(Asked {
        name: Digest::of(question.to_string().as_bytes()),
        text: spec::text_of(file)?,
        lock: file.parent().unwrap_or(Path::new("")).join(lockfile::NAME),
    })
}
