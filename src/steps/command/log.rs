//! What is kept of a command: what was run, in which environment, what it printed and how it ended.
//! It does not know where the log will lie, nor for how long.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use serde::Serialize;

use super::Params;
use super::paper::Paper;
use super::secrets::Secrets;
use super::word::quoted;
use crate::error::{Problem, Result};

/// First field of `command.json`.
const FORMAT: &str = "pipe/command@1";

/// More of what a program prints is cut: so much of its beginning is kept, and so much of its end.
const HEAD: u64 = 1 << 20;
const TAIL: u64 = 7 << 20;

/// Lines of stderr that an error shows, and letters of each.
const LINES: usize = 20;
const WIDTH: usize = 300;

/// So many of the last bytes are looked at for them.
const LOOK: u64 = 16 << 10;

/// What stands in `command.json`.
#[derive(Serialize)]
struct Document<'a> {
    command: &'a [&'a str],
    /// Without the values of secrets.
    environment: BTreeMap<&'a str, Option<Cow<'a, str>>>,
    exit_code: Option<i32>,
    format: &'a str,
    signal: Option<i32>,
}

/// The log of one command.
pub(super) struct Log<'a> {
    pub folder: PathBuf,
    pub words: &'a [&'a str],
    pub variables: &'a BTreeMap<String, OsString>,
    pub secrets: &'a Secrets,
    pub params: &'a Params,
}

impl Log<'_> {
    /// Writes `command.json`, and keeps what was printed, if anything was.
    pub fn keep(&self, status: Option<ExitStatus>, stdout: Paper, stderr: Paper) -> Result<()> {
        for (name, paper) in [("stdout", stdout), ("stderr", stderr)] {
            let place = self.folder.join(name);
            if paper.keep(&place)? {
                tidy(&place, self.secrets)?;
            }
        }
        let shown = |name: &String| !self.params.secrets.contains(name);
        let variables = self.variables.iter();
        let environment = variables.map(|(name, value)| (&**name, shown(name).then(|| value.to_string_lossy())));
        let document = Document {
            command: self.words,
            environment: environment.collect(),
            exit_code: status.and_then(|status| status.code()),
            format: FORMAT,
            signal: status.and_then(|status| status.signal()),
        };
        let text = serde_json::to_string_pretty(&document).unwrap_or_default() + "\n";
        write(&self.folder.join("command.json"), text.as_bytes())
    }

    /// Writes a script that does the same by hand, in the folder that is kept of a command that failed.
    pub fn rerun(&self, program: &Path) -> Result<()> {
        let mut text = "#!/bin/sh\n# Runs the command again in the folder that it left.\ncd \"$(dirname \"$0\")/work\" || exit\nexec env -i".to_owned();
        for (name, value) in self.variables {
            let value = match name.as_str() {
                // The folder that it had is gone.
                "TMPDIR" => "\"${TMPDIR:-/tmp}\"".to_owned(),
                name if self.params.secrets.iter().any(|secret| secret == name) => format!("\"${name}\""),
                _ => quoted(&value.to_string_lossy()),
            };
            text.push_str(&format!(" \\\n    {name}={value}"));
        }
        // A program of the working folder has moved with it.
        let program = match self.words.first() {
            Some(word) if word.contains('/') && !word.starts_with('/') => (*word).to_owned(),
            _ => program.display().to_string(),
        };
        text.push_str(&format!(" \\\n    {}", quoted(&program)));
        for word in self.words.iter().skip(1) {
            text.push_str(&format!(" {}", quoted(word)));
        }
        text.push('\n');
        write(&self.folder.join("rerun.sh"), text.as_bytes())
    }

    /// How a command ended that did not end well, with its last words.
    pub fn failure(&self, status: ExitStatus, folder: Option<&Path>) -> Problem {
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("ended with exit status {code}"),
            (_, Some(9)) => "was killed by signal 9, as the system does when memory is short".to_owned(),
            (_, Some(signal)) => format!("was killed by signal {signal}"),
            _ => "did not end well".to_owned(),
        };
        let (name, lines) = match last_lines(&self.folder.join("stderr")) {
            lines if !lines.is_empty() => ("stderr", lines),
            _ => ("stdout", last_lines(&self.folder.join("stdout"))),
        };
        let mut what = format!("the command {how}");
        if lines.is_empty() {
            what.push_str(" and printed nothing");
        } else {
            what.push_str(&format!("; the end of its {name}:\n{}", lines.join("\n")));
        }
        let mut help = String::new();
        if lines.iter().any(|line| line.contains("No such file") || line.contains("ModuleNotFoundError")) {
            help.push_str("its working folder holds only what is declared under `in` and `code`; ");
        }
        if let Some(folder) = folder {
            help.push_str(&format!("all that it left is in {}; `rerun.sh` there runs it again", folder.display()));
        }
        let problem = Problem::new(what);
        if help.is_empty() { problem } else { problem.help(help.trim_end_matches("; ").to_owned()) }
    }
}

/// Covers secrets up, and cuts out the middle of what is too long.
fn tidy(path: &Path, secrets: &Secrets) -> Result<()> {
    let failed = |e: std::io::Error| Problem::io("read", path, &e);
    let mut file = File::open(path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    let cut = bytes > HEAD + TAIL;
    if !cut && secrets.is_empty() {
        return Ok(());
    }
    let mut part = |from: u64, to: u64| -> Result<Vec<u8>> {
        // A secret may reach over the edge of a part.
        let edge = secrets.longest() as u64;
        let (begin, end) = (from.saturating_sub(edge), (to + edge).min(bytes));
        file.seek(SeekFrom::Start(begin)).map_err(failed)?;
        let mut text = Vec::new();
        (&mut file).take(end - begin).read_to_end(&mut text).map_err(failed)?;
        let (from, to) = ((from - begin) as usize, ((to - begin) as usize).min(text.len()));
        Ok(secrets.cover(&text, from.min(to)..to))
    };
    let text = if cut {
        let left_out = format!("\n[{} bytes are left out here]\n", bytes - HEAD - TAIL);
        [part(0, HEAD)?, left_out.into_bytes(), part(bytes - TAIL, bytes)?].concat()
    } else {
        part(0, bytes)?
    };
    write(path, &text)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    File::create(path).and_then(|mut file| file.write_all(bytes)).map_err(|e| Problem::io("write", path, &e))
}

/// The end of a file as text; what is not UTF-8 is replaced, and so is what would move the cursor of a terminal.
fn end_of(path: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let bytes = fs::metadata(path)?.len();
        file.seek(SeekFrom::Start(bytes.saturating_sub(LOOK)))?;
        let mut text = Vec::new();
        file.take(LOOK).read_to_end(&mut text)?;
        Ok(text)
    };
    let mut text = read().unwrap_or_default();
    // The piece of a line could be a piece of a secret.
    if text.len() as u64 == LOOK {
        let line = text.iter().position(|byte| *byte == b'\n').map_or(text.len(), |end| end + 1);
        text.drain(..line);
    }
    let plain = |c: char| if c.is_control() && c != '\n' { ' ' } else { c };
    String::from_utf8_lossy(&text).replace('\r', "\n").chars().map(plain).collect()
}

/// The last line that tells something, without secrets.
pub(super) fn last_line(path: &Path, secrets: &Secrets) -> Option<String> {
    let text = end_of(path);
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(secrets.cover_text(line.trim()).chars().take(WIDTH).collect())
}

fn last_lines(path: &Path) -> Vec<String> {
    let text = end_of(path);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(LINES)..];
    last.iter().map(|line| format!("  {}", line.trim_end().chars().take(WIDTH).collect::<String>())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn what_is_too_long_loses_its_middle_and_never_shows_a_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stdout");
        let variables = BTreeMap::from([("KEY".to_owned(), "sesame-open".into())]);
        let machine = crate::step::Machine {
            device: "cpu".into(),
            cores: 1,
            bf16: false,
            variables: Arc::new(variables),
            precisions: Default::default(),
        };
        let secrets = Secrets::read(&["KEY".to_owned()], &machine).unwrap();
        // One stands across each edge of the cut.
        let mut text = vec![b'x'; (HEAD + TAIL + 1000) as usize];
        for at in [10, HEAD as usize - 5, 1000 + HEAD as usize - 5] {
            text[at..at + 11].copy_from_slice(b"sesame-open");
        }
        fs::write(&path, &text).unwrap();
        tidy(&path, &secrets).unwrap();
        let kept = fs::read(&path).unwrap();
        let text = String::from_utf8(kept).unwrap();
        assert!(!text.contains("sesam") && !text.contains("open"), "a part of a secret is left");
        assert_eq!(text.matches("[secret KEY]").count(), 3);
        assert!(text.contains("[1000 bytes are left out here]"));
    }
}
