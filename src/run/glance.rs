//! A run in a few words, from the beginning and the end of its log.
//! It does not read what lies between: a history costs the same however long its runs are.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::{FORMAT, Head};
use crate::error::{Problem, Result};
use crate::event::{Event, Outcome, Stamped};

/// No line of a log is longer: one names every step of a pipeline.
const LONGEST: u64 = 64 << 20;

/// What a history tells of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Glance {
    /// What it began with; `None` if it was killed before.
    pub begun: Option<Begun>,
    /// How it ended; `None` if it was killed, or still goes on.
    pub end: Option<End>,
}

/// What a run began with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// The pipeline's name.
    pub pipeline: String,
    /// Its file, as the user gave it.
    pub file: String,
    /// What was set on the command line.
    pub sets: Vec<String>,
    /// The steps that were needed.
    pub steps: Vec<String>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// In a word.
    pub outcome: Outcome,
    /// Steps that ran.
    pub ran: usize,
    /// Steps whose result was reused.
    pub reused: usize,
    /// Steps that failed.
    pub failed: usize,
    /// Steps that were skipped.
    pub skipped: usize,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// How much time the cache saved, in milliseconds.
    pub saved_ms: u64,
    /// What steps ran on; empty where none ran.
    pub machine: String,
}

impl Begun {
    /// What the event says, if it is the first of a run.
    pub fn of(event: Event) -> Option<Self> {
        match event {
            Event::RunStarted { pipeline, file, sets, steps, .. } => Some(Self { pipeline, file, sets, steps }),
            _ => None,
        }
    }
}

impl End {
    /// What the event says, if it is the last of a run.
    pub fn of(event: &Event) -> Option<Self> {
        match event.clone() {
            Event::RunFinished { outcome, ran, reused, failed, skipped, took_ms, saved_ms, machine, .. } => {
                Some(Self { outcome, ran, reused, failed, skipped, took_ms, saved_ms, machine })
            }
            _ => None,
        }
    }
}

/// Looks at the log of a run. What a kill cut short is no damage; anything else that cannot be read is.
pub fn glance(path: &Path) -> Result<Glance> {
    let name = path.display().to_string();
    let unread = |error: &std::io::Error| Problem::io("read", path, error);
    let broken = |what: &str, line: Option<u64>| Problem::new(what).in_file(&name, line);
    let file = File::open(path).map_err(|e| unread(&e))?;
    let mut reader = BufReader::new(file);
    let mut line = || -> Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        reader.by_ref().take(LONGEST).read_until(b'\n', &mut line).map_err(|e| unread(&e))?;
        // Without its end it is what a kill left of a line.
        Ok(if line.pop() == Some(b'\n') { Some(line) } else { None })
    };
    let Some(head) = line()? else {
        return Err(broken("the run log has no whole line", None));
    };
    match serde_json::from_slice::<Head>(&head) {
        Ok(head) if head.format == FORMAT => {}
        Ok(head) => return Err(broken(&format!("the run log has the format `{}`", head.format), Some(1))),
        Err(_) => return Err(broken("the first line is not that of a run log", Some(1))),
    }
    let Some(first) = line()? else { return Ok(Glance { begun: None, end: None }) };
    let first = serde_json::from_slice::<Stamped>(&first).ok().and_then(|stamped| Begun::of(stamped.event));
    let begun = first.ok_or_else(|| broken("the second line does not tell how the run began", Some(2)))?;
    let last = last_line(reader.into_inner()).map_err(|e| unread(&e))?;
    let end = match last {
        None => None,
        Some(last) => match serde_json::from_slice::<Stamped>(&last) {
            Ok(stamped) => End::of(&stamped.event),
            Err(_) => return Err(broken("the last line of the run log cannot be read", None)),
        },
    };
    Ok(Glance { begun: Some(begun), end })
}

/// The last line, read from the end; `None` if it is not whole.
fn last_line(mut file: File) -> std::io::Result<Option<Vec<u8>>> {
    let length = file.seek(SeekFrom::End(0))?;
    let (mut tail, mut step) = (Vec::new(), 16 << 10);
    loop {
        let from = length.saturating_sub(step);
        file.seek(SeekFrom::Start(from))?;
        tail.clear();
        file.by_ref().take(length - from).read_to_end(&mut tail)?;
        if tail.pop() != Some(b'\n') {
            return Ok(None);
        }
        if let Some(before) = tail.iter().rposition(|&byte| byte == b'\n') {
            return Ok(Some(tail.split_off(before + 1)));
        }
        if from == 0 || step >= LONGEST {
            return Ok(Some(tail));
        }
        step *= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::super::Log;
    use super::*;
    use std::fs;

    fn log(folder: &Path, results: usize) -> std::path::PathBuf {
        let mut log = Log::create(folder, "r").unwrap();
        let steps = vec!["данные".to_owned(); 3000];
        let (run, pipeline, file, sets) = ("r".into(), "проба".into(), "проба.yaml".into(), vec!["a=1".into()]);
        let finished = Event::RunFinished {
            outcome: Outcome::Done,
            ran: 2,
            reused: 1,
            failed: 0,
            skipped: 0,
            took_ms: 10,
            saved_ms: 5,
            results: vec!["результат".to_owned(); results],
            machine: String::new(),
        };
        let skipped = Event::StepSkipped { step: "я".into(), because: "ю".into() };
        for event in [Event::RunStarted { run, pipeline, file, sets, steps }, skipped, finished] {
            log.write(&[Stamped { at_ms: 1, event }]).unwrap();
        }
        folder.join("r.jsonl")
    }

    #[test]
    fn beginning_and_end_are_read_however_long_the_lines_are() {
        for results in [0, 1, 5000] {
            let folder = tempfile::tempdir().unwrap();
            let seen = glance(&log(folder.path(), results)).unwrap();
            let begun = seen.begun.unwrap();
            assert_eq!((begun.pipeline.as_str(), begun.steps.len()), ("проба", 3000));
            let end = seen.end.unwrap();
            assert_eq!((end.ran, end.reused, end.took_ms, end.saved_ms), (2, 1, 10, 5));
        }
    }

    #[test]
    fn a_cut_anywhere_behind_the_head_is_an_end_that_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = log(folder.path(), 3);
        let whole = fs::read(&path).unwrap();
        let head = whole.iter().position(|&byte| byte == b'\n').unwrap() + 1;
        let tail = whole.len() - 400;
        for cut in (head..head + 100).chain(tail..whole.len()) {
            fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(glance(&path).unwrap().end, None, "{cut}");
            // The whole reader leaves the same line out, though it may end within a letter.
            super::super::read(&path).unwrap();
        }
        for cut in 0..head {
            fs::write(&path, &whole[..cut]).unwrap();
            assert!(glance(&path).is_err(), "{cut}");
        }
    }

    #[test]
    fn damage_is_told_by_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = log(folder.path(), 0);
        let text = fs::read_to_string(&path).unwrap();
        let cases = [
            (text.replace("pipe/run@1", "pipe/run@9"), "pipe/run@9"),
            (text.replacen("{\"format\"", "{", 1), "first line"),
            (text.replace("run_started", "run_begun"), "how the run began"),
            (text.replace("run_finished", "run_fin"), "last line"),
            ("\u{0}\n\u{0}\n".to_owned(), "first line"),
        ];
        for (damaged, words) in cases {
            fs::write(&path, damaged).unwrap();
            assert!(glance(&path).unwrap_err().what.contains(words), "{words}");
        }
        assert!(glance(folder.path()).is_err(), "a folder is no log");
    }
}
