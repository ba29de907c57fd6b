//! Lines of a data file, one at a time, with their numbers; a byte order mark and CRLF are tolerated.
//! It does not know what the lines mean.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use crate::error::{Problem, Result};

/// The longest line that is read: a file without line ends must not fill the memory.
const LONGEST: usize = 16 << 20;

/// Reads a file line by line, strictly as UTF-8.
pub struct Lines {
    reader: Box<dyn BufRead + Send>,
    label: String,
    number: u64,
    ended: bool,
    buffer: Vec<u8>,
}

impl Lines {
    /// Opens a file; `label` is what messages call it.
    pub fn open(path: &Path, label: &str) -> Result<Self> {
        let file = File::open(path).map_err(|e| Problem::io("open", path, &e))?;
        Ok(Self::new(BufReader::with_capacity(1 << 16, file), label))
    }

    /// Reads from anything; `label` is what messages call it.
    pub fn new(reader: impl BufRead + Send + 'static, label: &str) -> Self {
        Self { reader: Box::new(reader), label: label.to_owned(), number: 0, ended: true, buffer: Vec::new() }
    }

    /// The same, where `lines` stand before these in the file.
    #[must_use]
    pub fn after(mut self, lines: u64) -> Self {
        self.number = lines;
        self
    }

    /// The next line without its end, or `None` after the last.
    pub fn next_line(&mut self) -> Result<Option<&str>> {
        self.buffer.clear();
        let read = Read::take(&mut self.reader, LONGEST as u64 + 1)
            .read_until(b'\n', &mut self.buffer)
            .map_err(|e| Problem::new(format!("cannot be read: {e}")).in_file(&self.label, Some(self.number + 1)))?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        if self.buffer.len() > LONGEST {
            return Err(self.problem(format!("the line is longer than {} MiB", LONGEST >> 20)));
        }
        self.ended = self.buffer.last() == Some(&b'\n');
        let mut line = self.buffer.as_slice();
        line = line.strip_suffix(b"\n").unwrap_or(line);
        line = line.strip_suffix(b"\r").unwrap_or(line);
        if self.number == 1 {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        match std::str::from_utf8(line) {
            Ok(line) => Ok(Some(line)),
            // A character that only lacks its rest, at the end of a file without a last line end.
            Err(error) if error.error_len().is_none() && !self.ended => {
                Err(Problem::new("the file ends in the middle of a character")
                    .in_file(&self.label, Some(self.number))
                    .help("it was probably cut off while it was copied: fetch it again"))
            }
            Err(error) => Err(Problem::new(format!("byte {} of the line is not UTF-8", error.valid_up_to() + 1))
                .in_file(&self.label, Some(self.number))
                .help("convert the file to UTF-8")),
        }
    }

    /// The number of the line read last, counted from 1; 0 before the first.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// True if the line read last had its line end.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// What messages call the file.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// A problem of the line read last.
    pub fn problem(&self, what: impl Into<String>) -> Problem {
        Problem::new(what).in_file(&self.label, Some(self.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &'static [u8]) -> Result<Vec<String>> {
        let mut lines = Lines::new(bytes, "x");
        let mut found = Vec::new();
        while let Some(line) = lines.next_line()? {
            found.push(line.to_owned());
        }
        Ok(found)
    }

    #[test]
    fn a_mark_and_both_line_ends_are_taken_off() {
        assert_eq!(all(b"\xef\xbb\xbfa\r\nb \n\nc").expect("lines"), ["a", "b ", "", "c"]);
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_told_with_their_line() {
        let problem = all(b"ok\n\xd0\n").expect_err("not UTF-8");
        assert_eq!(problem.to_string().lines().next(), Some("x:2: byte 1 of the line is not UTF-8"));
    }

    #[test]
    fn a_character_that_is_cut_off_tells_of_a_cut_file() {
        let problem = all(b"ok\n\xd0").expect_err("cut off").to_string();
        assert!(problem.starts_with("x:2: the file ends in the middle of a character\nhelp: "), "{problem}");
    }

    #[test]
    fn a_file_without_line_ends_does_not_fill_the_memory() {
        let endless = BufReader::new(std::io::repeat(b'a'));
        let problem = Lines::new(endless, "x").next_line().expect_err("too long");
        assert_eq!(problem.to_string(), "x:1: the line is longer than 16 MiB");
    }
}
