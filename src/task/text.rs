//! What a person wrote in a file: plain lines, premises and hypotheses, sentences of a CoNLL-U file.
//! It does not know what the text is for. The content tells the format, because a stored file has no name of its own.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use super::lines::Lines;
use super::{nerus, terra};
use crate::digest::files_below;
use crate::error::{Problem, Result};

/// Formats that text is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Plain,
    Terra,
    Nerus,
}

/// Files in a folder that are read; others (licences, lists) are passed over.
const ENDINGS: [&str; 3] = [".txt", ".jsonl", ".conllu"];

/// Calls `take` with each text of a file, or of a folder's files in order of their names, until it answers false.
/// `label` is what messages call it.
pub fn each(path: &Path, label: &str, take: &mut dyn FnMut(&str) -> Result<bool>) -> Result<()> {
    if !path.is_dir() {
        return each_of_file(path, label, take).map(drop);
    }
    let files = files_below(path)?;
    let files: Vec<&String> = files.iter().filter(|name| ENDINGS.iter().any(|ending| name.ends_with(ending))).collect();
    if files.is_empty() {
        return Err(Problem::new(format!("{label} has no text")).expected("files that end in .txt, .jsonl or .conllu"));
    }
    for name in files {
        if !each_of_file(&path.join(name), &format!("{label}/{name}"), take)? {
            break;
        }
    }
    Ok(())
}

fn each_of_file(path: &Path, label: &str, take: &mut dyn FnMut(&str) -> Result<bool>) -> Result<bool> {
    match format(path)? {
        Format::Plain => {
            let mut lines = Lines::open(path, label)?;
            while let Some(line) = lines.next_line()? {
                if !line.trim().is_empty() && !take(line)? {
                    return Ok(false);
                }
            }
        }
        Format::Terra => {
            for row in terra::Reader::open(path, label)? {
                let row = row?;
                if !take(&row.premise)? || !take(&row.hypothesis)? {
                    return Ok(false);
                }
            }
        }
        Format::Nerus => {
            for document in nerus::Reader::open(path, label)? {
                for sentence in document?.sentences {
                    if !sentence.text.is_empty() && !take(&sentence.text)? {
                        return Ok(false);
                    }
                }
            }
        }
    }
    Ok(true)
}

/// How a file begins tells what it is.
fn format(path: &Path) -> Result<Format> {
    let open = || -> std::io::Result<Vec<u8>> {
        let mut head = Vec::new();
        File::open(path)?.take(64).read_to_end(&mut head)?;
        Ok(head)
    };
    let head = open().map_err(|e| Problem::io("read", path, &e))?;
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&head);
    let begins = |with: &str| head.starts_with(with.as_bytes());
    Ok(if begins("{\"") || begins("{ \"") {
        Format::Terra
    } else if begins("# newdoc") || begins(nerus::GENERATED) {
        Format::Nerus
    } else {
        Format::Plain
    })
}

/// Bytes of a file, or of all files that [`each`] would read.
pub fn bytes(path: &Path) -> Result<u64> {
    let size = |path: &Path| fs::metadata(path).map(|meta| meta.len()).map_err(|e| Problem::io("read", path, &e));
    if !path.is_dir() {
        return size(path);
    }
    let files = files_below(path)?;
    files
        .iter()
        .filter(|name| ENDINGS.iter().any(|ending| name.ends_with(ending)))
        .map(|name| size(&path.join(name)))
        .sum()
}
