//! Running text to one stream of ids: every paragraph between what begins and what ends a text.
//! It does not know blocks, batches or models.
#![cfg_attr(not(feature = "torch"), allow(dead_code))]

use std::fs;
use std::path::PathBuf;

use rayon::prelude::*;

use crate::digest::files_below;
use crate::error::{Problem, Result};
use crate::step::{Artifact, Context};
use crate::task::encode::Encoder;

/// Paragraphs that are encoded between two looks at whether the user wants to stop.
const AT_ONCE: usize = 4096;

/// The ids of all text artifacts, in their order.
pub fn stream(cx: &Context, encoder: &Encoder, artifacts: &[Artifact]) -> Result<Vec<u32>> {
    let Some(&eos) = encoder.eos().first() else {
        return Err(Problem::new(format!("{} has no token that ends a text", encoder.label())));
    };
    let mut ids = Vec::new();
    for artifact in artifacts {
        for path in files(artifact)? {
            let text = fs::read_to_string(&path).map_err(|error| match error.kind() {
                std::io::ErrorKind::InvalidData => {
                    Problem::new("the text is not UTF-8").in_file(path.display().to_string(), None)
                }
                _ => Problem::io("read", &path, &error),
            })?;
            let paragraphs: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            for (at, part) in paragraphs.chunks(AT_ONCE).enumerate() {
                cx.check_cancelled()?;
                cx.progress((at * AT_ONCE) as u64, Some(paragraphs.len() as u64), "paragraphs", "encoding");
                // In the order of the paragraphs, however many threads encode them.
                let encoded: Vec<Vec<u32>> = part.par_iter().map(|line| encoder.ids(line)).collect::<Result<_>>()?;
                for line in encoded {
                    ids.extend_from_slice(encoder.prefix());
                    ids.extend(line);
                    ids.push(eos);
                }
            }
        }
    }
    Ok(ids)
}

/// The file itself, or the `.txt` files below a folder, by name.
fn files(artifact: &Artifact) -> Result<Vec<PathBuf>> {
    if !artifact.path.is_dir() {
        return Ok(vec![artifact.path.clone()]);
    }
    let below = files_below(&artifact.path)?;
    let texts: Vec<PathBuf> =
        below.into_iter().filter(|name| name.ends_with(".txt")).map(|name| artifact.path.join(name)).collect();
    if texts.is_empty() {
        return Err(Problem::new(format!("there is no .txt file in {}", artifact.label())));
    }
    Ok(texts)
}
