//! What is known of how an adapter came about, in files beside it: its training, and its selection among trials.
//! It does not know the adapter's own files.

use std::fs;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::json;
use crate::error::{Problem, Result};
use crate::report::evidence::{Selection, Training};

/// The largest file that is read.
const MOST_BYTES: u64 = 4 << 20;

/// A file of facts: its name, and the format that stands in it.
struct File(&'static str, &'static str);

const TRAINING: File = File("pipe_training.json", "pipe training 1");
const SELECTION: File = File("pipe_selection.json", "pipe selection 1");

#[derive(Serialize, Deserialize)]
struct Document<T> {
    format: String,
    #[serde(flatten)]
    facts: T,
}

/// Says what the training was given.
pub fn write_training(folder: &Path, training: &Training) -> Result<()> {
    write(folder, &TRAINING, training)
}

/// What the training was given; `None` for an adapter that was not trained here.
pub fn training(folder: &Path) -> Result<Option<Training>> {
    read(folder, &TRAINING)
}

/// Says among what the adapter was chosen.
pub fn write_selection(folder: &Path, selection: &Selection) -> Result<()> {
    write(folder, &SELECTION, selection)
}

/// Among what the adapter was chosen, if it was.
pub fn selection(folder: &Path) -> Result<Option<Selection>> {
    read(folder, &SELECTION)
}

fn write<T: Serialize>(folder: &Path, File(name, format): &File, facts: &T) -> Result<()> {
    json::write(&folder.join(name), &Document { format: (*format).to_owned(), facts })
}

fn read<T: DeserializeOwned>(folder: &Path, File(name, format): &File) -> Result<Option<T>> {
    let path = folder.join(name);
    let meta = match fs::metadata(&path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Problem::io("read", &path, &error)),
    };
    let shown = path.display().to_string();
    if meta.len() > MOST_BYTES {
        return Err(Problem::new("it has more than 4 MiB").in_file(shown, None));
    }
    let text = fs::read_to_string(&path).map_err(|e| Problem::io("read", &path, &e))?;
    let document: Document<T> = serde_json::from_str(&text)
        .map_err(|e| Problem::new(format!("{name} is wrong: {e}")).in_file(&shown, Some(e.line() as u64)))?;
    if document.format != *format {
        return Err(Problem::new(format!("the format is `{}`", document.format))
            .expected(format!("`{format}`"))
            .in_file(shown, None));
    }
    Ok(Some(document.facts))
}
