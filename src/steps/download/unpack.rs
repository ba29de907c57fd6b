//! Gzip files and entries of zip archives, streamed; the first bytes tell which of them a file is.
//! It trusts no size that an archive claims and no name that leads outside.

use std::cell::Cell;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use zip::ZipArchive;

use super::{Params, Pump, size};
use crate::error::{Path as SpecPath, Problem, Result};
use crate::step::Context;

/// How a file is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Not at all.
    Plain,
    /// As a gzip stream.
    Gzip,
    /// As a zip archive.
    Zip,
}

/// What the first bytes say.
pub fn format(path: &Path) -> Result<Format> {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(4).read_to_end(&mut head));
    read.map_err(|e| Problem::io("read", path, &e))?;
    Ok(match head.as_slice() {
        [0x1f, 0x8b, ..] => Format::Gzip,
        // A local file, or the end record of an empty archive.
        b"PK\x03\x04" | b"PK\x05\x06" => Format::Zip,
        _ => Format::Plain,
    })
}

/// Unpacks a gzip stream.
pub fn gzip(path: &Path, out: &Path, params: &Params, cx: &Context) -> Result<()> {
    let position = Cell::new(0);
    let file = File::open(path).map_err(|e| Problem::io("open", path, &e))?;
    let counted = Counted { file, position: &position };
    let mut decoder = MultiGzDecoder::new(BufReader::with_capacity(1 << 18, counted));
    let mut pump = Pump { cx, most: params.max_bytes, done: 0, total: Some(size(path)?) };
    let damaged = |e| broken(&params.source, "gzip file", &e);
    pump.run(&mut decoder, out, &damaged, Some(&|| position.get()))
}

/// Takes one file out of a zip archive.
pub fn zip(path: &Path, out: &Path, params: &Params, cx: &Context) -> Result<()> {
    let file = File::open(path).map_err(|e| Problem::io("open", path, &e))?;
    let damaged = |e: zip::result::ZipError| broken(&params.source, "zip archive", &e);
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(damaged)?;
    let mut names = Vec::new();
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(damaged)?;
        let name = entry.name().map_err(damaged)?.into_owned();
        if !name.ends_with('/') {
            names.push((name, index));
        }
    }
    names.sort();
    let index = choose(&names, params)?;
    let mut entry = archive.by_index(index).map_err(damaged)?;
    if entry.enclosed_name().is_none() {
        return Err(Problem::new(format!("the name of the entry leads outside of {}", params.source))
            .at(SpecPath::root().key("entry")));
    }
    let total = entry.size();
    let mut pump = Pump { cx, most: params.max_bytes, done: 0, total: Some(total) };
    pump.run(&mut entry, out, &|e| broken(&params.source, "zip archive", &e), None)
}

/// The entry that is asked for, or the only one.
fn choose(names: &[(String, usize)], params: &Params) -> Result<usize> {
    let Some(wanted) = &params.entry else {
        return match names {
            [(_, index)] => Ok(*index),
            _ => Err(missing(
                format!("{} has {} files, and `entry` does not say which", params.source, names.len()),
                names,
            )),
        };
    };
    let found = names.iter().find(|(name, _)| name == wanted).map(|(_, index)| *index);
    found.ok_or_else(|| missing(format!("{} has no entry `{wanted}`", params.source), names))
}

fn missing(what: String, names: &[(String, usize)]) -> Problem {
    const SHOWN: usize = 20;
    let mut listed: Vec<String> = names.iter().take(SHOWN).map(|(name, _)| format!("`{name}`")).collect();
    if names.len() > SHOWN {
        listed.push(format!("{} more", names.len() - SHOWN));
    }
    let listed = if listed.is_empty() { "no files".to_owned() } else { listed.join(", ") };
    Problem::new(what).at(SpecPath::root().key("entry")).help(format!("the archive has {listed}"))
}

fn broken(source: &str, kind: &str, error: &dyn std::fmt::Display) -> Problem {
    Problem::new(format!("the {kind} {source} cannot be unpacked: {error}"))
        .help("it was probably cut off while it was copied: fetch it again")
}

/// Counts the bytes that are read from a file.
struct Counted<'a> {
    file: File,
    position: &'a Cell<u64>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.position.set(self.position.get() + read as u64);
        Ok(read)
    }
}
