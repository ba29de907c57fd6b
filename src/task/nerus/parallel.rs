//! Documents of a large file, parsed on all cores, in the order of the file, in memory that does not grow with it.
//! It does not know what is done with a document.

use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::Path;

use rayon::prelude::*;

use super::{Document, Reader};
use crate::error::{Problem, Result};
use crate::task::lines::Lines;

/// What begins a document, after the end of a line.
const BOUNDARY: &[u8] = b"\n# newdoc";
/// Bytes of the first block: a small `limit` needs no more.
const FIRST: usize = 1 << 16;
/// Bytes of a block later.
const LARGEST: usize = 1 << 20;
/// Blocks of a batch for each thread, so that threads end together.
const BLOCKS: usize = 2;
/// A document that is longer is a file without documents.
const LONGEST: usize = 256 << 20;

/// How far the reading is.
#[derive(Debug, Clone, Copy)]
pub struct Position {
    /// Bytes that were read.
    pub bytes: u64,
    /// Bytes of the file.
    pub total: u64,
    /// True if the file says that a generator made it.
    pub generated: bool,
}

/// Calls `work` with each document, on any thread, and `take` with what it answered, in the order of the file, until
/// that answers false. A problem is told once all before it was taken; `label` is what messages call the file.
pub fn each<T: Send>(
    path: &Path,
    label: &str,
    work: &(dyn Fn(Document) -> Result<T> + Sync),
    take: &mut dyn FnMut(T, Position) -> Result<bool>,
) -> Result<()> {
    let mut blocks = Blocks::open(path, label)?;
    let mut generated = false;
    loop {
        let mut batch = Vec::new();
        let most = BLOCKS * rayon::current_num_threads();
        let mut last = None;
        while batch.len() < most && last.is_none() {
            match blocks.next() {
                Ok(Some(block)) => batch.push(block),
                Ok(None) => last = Some(Ok(())),
                Err(problem) => last = Some(Err(problem)),
            }
        }
        let parsed: Vec<Parsed<T>> = batch.into_par_iter().map(|block| parse(block, label, work)).collect();
        for parsed in parsed {
            generated = generated || parsed.generated;
            let position = Position { bytes: parsed.end, total: blocks.total, generated };
            for item in parsed.items {
                if !take(item, position)? {
                    return Ok(());
                }
            }
            if let Some(problem) = parsed.problem {
                return Err(problem);
            }
        }
        if let Some(last) = last {
            return last;
        }
    }
}

/// What a block gave.
struct Parsed<T> {
    items: Vec<T>,
    problem: Option<Problem>,
    generated: bool,
    end: u64,
}

fn parse<T>(block: Block, label: &str, work: &(dyn Fn(Document) -> Result<T> + Sync)) -> Parsed<T> {
    let Block { bytes, lines_before, more, end } = block;
    let lines = Lines::new(Cursor::new(bytes), label).after(lines_before);
    let mut reader = Reader::new(lines).with_more(more);
    let (mut items, mut problem) = (Vec::new(), None);
    for document in reader.by_ref() {
        match document.and_then(work) {
            Ok(item) => items.push(item),
            Err(found) => {
                problem = Some(found);
                break;
            }
        }
    }
    Parsed { items, problem, generated: reader.generated(), end }
}

/// Whole documents, as they stand in the file.
struct Block {
    bytes: Vec<u8>,
    lines_before: u64,
    /// True if another document follows.
    more: bool,
    /// Bytes of the file up to its end.
    end: u64,
}

struct Blocks {
    file: BufReader<File>,
    label: String,
    /// Read, but not yet given.
    pending: Vec<u8>,
    size: usize,
    lines: u64,
    given: u64,
    total: u64,
    ended: bool,
}

impl Blocks {
    fn open(path: &Path, label: &str) -> Result<Self> {
        let failed = |e: std::io::Error| Problem::io("open", path, &e);
        let file = File::open(path).map_err(failed)?;
        let total = file.metadata().map_err(failed)?.len();
        Ok(Self {
            file: BufReader::new(file),
            label: label.to_owned(),
            pending: Vec::new(),
            size: FIRST,
            lines: 0,
            given: 0,
            total,
            ended: false,
        })
    }

    fn next(&mut self) -> Result<Option<Block>> {
        // What was looked through already has no boundary.
        let mut looked = 0;
        while !self.ended {
            let room = self.size.saturating_sub(self.pending.len()).max(FIRST) as u64;
            let read = Read::take(&mut self.file, room).read_to_end(&mut self.pending);
            let read = read
                .map_err(|e| Problem::new(format!("cannot be read: {e}")).in_file(&self.label, Some(self.lines + 1)))?;
            self.ended = read == 0;
            if self.pending.len() >= self.size
                && let Some(at) = last_boundary(&self.pending[looked..])
            {
                let rest = self.pending.split_off(looked + at + 1);
                return Ok(Some(self.give(rest, true)));
            }
            if self.pending.len() >= self.size {
                looked = self.pending.len().saturating_sub(BOUNDARY.len());
            }
            if self.pending.len() > LONGEST {
                return Err(Problem::new(format!("the document is longer than {} MiB", LONGEST >> 20))
                    .in_file(&self.label, Some(self.lines + 1))
                    .expected("`# newdoc id = …` before each document"));
            }
        }
        Ok((!self.pending.is_empty()).then(|| self.give(Vec::new(), false)))
    }

    fn give(&mut self, rest: Vec<u8>, more: bool) -> Block {
        let bytes = std::mem::replace(&mut self.pending, rest);
        let lines_before = self.lines;
        self.lines += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.given += bytes.len() as u64;
        self.size = (2 * self.size).min(LARGEST);
        Block { bytes, lines_before, more, end: self.given }
    }
}

/// Where the line end stands before the last document of these bytes.
fn last_boundary(bytes: &[u8]) -> Option<usize> {
    let mut end = bytes.len();
    while let Some(at) = bytes[..end].iter().rposition(|byte| *byte == b'\n') {
        if bytes[at..].starts_with(BOUNDARY) {
            return Some(at);
        }
        end = at;
    }
    None
}
