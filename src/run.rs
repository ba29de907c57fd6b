//! The log of a run: the events as they happened, one JSON object per line, written and read back.
//! It does not know what the events mean.
//!
//! The first line is `{"format":"pipe/run@1","run":…,"version":…}`; each other line is a [`Stamped`] event.
//! Progress and forecasts are left out: they say nothing once they are over.

pub mod find;
mod glance;
mod steps;

use std::fs::{self, File, TryLockError};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Problem, Result};
use crate::event::{Event, Say, Stamped};
pub use glance::{Begun, End, Glance, glance};
pub use steps::{Fate, Story, Told};

/// First field of the first line.
pub const FORMAT: &str = "pipe/run@1";

/// The first line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// [`FORMAT`].
    pub format: String,
    /// The run's name.
    pub run: String,
    /// The version of the program.
    pub version: String,
}

/// A log that is being written.
pub struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Begins the log of a run in the folder of logs.
    pub fn create(runs: &Path, run: &str) -> Result<Self> {
        fs::create_dir_all(runs).map_err(|e| Problem::io("make the folder", runs, &e))?;
        let path = runs.join(format!("{run}.jsonl"));
        let file = File::create_new(&path).map_err(|e| Problem::io("write", &path, &e))?;
        // Held as long as the run goes on, and let go by the system however it ends; see [`goes_on`]. Where files cannot
        // be locked, nobody can tell, and that is all.
        let _ = file.lock();
        let mut log = Self { path, file };
        let version = env!("CARGO_PKG_VERSION").to_owned();
        log.add(&text(std::iter::once(Head { format: FORMAT.to_owned(), run: run.to_owned(), version }))?)?;
        Ok(log)
    }

    /// Adds events.
    pub fn write(&mut self, events: &[Stamped]) -> Result<()> {
        let passes =
            |event: &Event| matches!(event, Event::StepSaid { say: Say::Progress { .. }, .. } | Event::Forecast { .. });
        let text = |events: &[Stamped]| text(events.iter().filter(|stamped| !passes(&stamped.event)));
        // To wake other threads costs more than a few lines.
        if events.len() <= TOGETHER {
            return self.add(&text(events)?);
        }
        let parts = events.par_chunks(TOGETHER).map(text).collect::<Result<Vec<_>>>()?;
        self.add(&parts.concat())
    }

    /// One write for all lines: after a kill the log ends with a whole line or a piece of the last one.
    fn add(&mut self, text: &[u8]) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        self.file.write_all(text).map_err(|e| Problem::io("write", &self.path, &e))
    }
}

/// True if the process that writes this log is still there.
pub fn goes_on(path: &Path) -> bool {
    let lock = File::open(path).map(|file| file.try_lock_shared());
    matches!(lock, Ok(Err(TryLockError::WouldBlock)))
}

/// So many events are written down by one thread.
const TOGETHER: usize = 64;

fn text(lines: impl Iterator<Item = impl Serialize>) -> Result<Vec<u8>> {
    // Room for a few lines at once.
    let mut text = Vec::with_capacity(1024);
    for line in lines {
        serde_json::to_writer(&mut text, &line).map_err(|e| Problem::new(format!("cannot log: {e}")))?;
        text.push(b'\n');
    }
    Ok(text)
}

/// Reads a log back. A last line that a kill cut short is left out; any other damage is a problem.
pub fn read(path: &Path) -> Result<(Head, Vec<Stamped>)> {
    let file = File::open(path).map_err(|e| Problem::io("read", path, &e))?;
    // Bytes, because a kill may cut a line within a letter.
    let lines: Vec<Vec<u8>> =
        BufReader::new(file).split(b'\n').collect::<std::io::Result<_>>().map_err(|e| Problem::io("read", path, &e))?;
    let name = path.display().to_string();
    let broken = |line: usize, error: &serde_json::Error| {
        Problem::new(format!("this line of the run log cannot be read: {error}")).in_file(&name, Some(line as u64))
    };
    let first = lines.first().map_or(&[][..], Vec::as_slice);
    let head: Head = serde_json::from_slice(first).map_err(|e| broken(1, &e))?;
    if head.format != FORMAT {
        return Err(Problem::new(format!("the run log has the format `{}`", head.format))
            .in_file(&name, Some(1))
            .expected(format!("`{FORMAT}`")));
    }
    let mut events = Vec::new();
    for (i, line) in lines.iter().enumerate().skip(1) {
        match serde_json::from_slice(line) {
            Ok(stamped) => events.push(stamped),
            Err(_) if i + 1 == lines.len() => {}
            Err(error) => return Err(broken(i + 1, &error)),
        }
    }
    Ok((head, events))
}

/// A new name for a run: when it began in UTC, and a few digits that tell runs of the same second apart.
pub fn name() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let salt = Digest::of(format!("{} {}", now.as_nanos(), std::process::id()).as_bytes());
    format!("{}-{}", utc(now.as_secs()), &salt.as_str()[..6])
}

/// When a run of this name began, in UTC: `2026-11-24 02:30:05`. `None` if it is no name of a run.
pub fn began(name: &str) -> Option<String> {
    let (time, _) = name.split_once('Z')?;
    let (day, clock) = time.split_once('T')?;
    let is_time = |text: &str, parts: usize| {
        let numbers = text.split('-').filter(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
        numbers.count() == parts && text.matches('-').count() == parts - 1
    };
    (is_time(day, 3) && is_time(clock, 3)).then(|| format!("{day} {}", clock.replace('-', ":")))
}

/// How long ago a run of this name began; `None` if it is no name of a run, or of one to come.
pub fn age(name: &str, now: SystemTime) -> Option<Duration> {
    let began = began(name)?;
    let parts: Vec<u64> = began.split(['-', ' ', ':']).map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [year @ 1970..=9999, month @ 1..=12, day @ 1..=31, hour, minute, second] = parts[..] else { return None };
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days from civil, of the same page: years begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let of_era = year % 400 * 365 + year % 400 / 4 - year % 400 / 100 + (153 * month + 2) / 5 + day;
    let days = (year / 400 * 146_097 + of_era).checked_sub(719_469)?;
    let began = Duration::from_secs(days * 86400 + hour * 3600 + minute * 60 + second);
    now.duration_since(UNIX_EPOCH).ok()?.checked_sub(began)
}

/// `2026-11-24T02-30-05Z`: a time that is a file name everywhere. Days to date by Howard Hinnant's
/// `civil_from_days` (<https://howardhinnant.github.io/date_algorithms.html>), for days since 1970.
fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86400 + 719_468, seconds % 86400);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}-{:02}-{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_calendar_times() {
        assert_eq!(utc(0), "1970-01-01T00-00-00Z");
        assert_eq!(utc(951_782_400), "2000-02-29T00-00-00Z");
        assert_eq!(utc(1_795_487_405), "2026-11-24T02-30-05Z");
        assert_ne!(name(), name());
        assert_eq!(began("2026-11-24T02-30-05Z-ab12cd").as_deref(), Some("2026-11-24 02:30:05"));
        assert!(["", "r", "Z", "TZ", "2026T1-2-3Z", "a-b-cT1-2-3Z"].iter().all(|name| began(name).is_none()));
    }

    #[test]
    fn an_age_is_what_has_passed_since() {
        let second = |n: u64| UNIX_EPOCH + Duration::from_secs(n);
        for began in [0, 951_782_400, 951_868_799, 951_868_800, 1_795_487_405, 1_798_761_599, 4_107_542_400] {
            let name = format!("{}-ab12cd", utc(began));
            assert_eq!(age(&name, second(began + 61)), Some(Duration::from_secs(61)), "{name}");
            assert_eq!(age(&name, second(began.saturating_sub(1))), (began == 0).then_some(Duration::ZERO));
        }
        for bad in [
            "r",
            "2026-13-01T00-00-00Z",
            "1969-01-01T00-00-00Z",
            "2026-01-01T24-00-00Z",
            "99999999999999999999-1-1T1-1-1Z",
        ] {
            assert_eq!(age(bad, second(1 << 40)), None, "{bad}");
        }
    }

    #[test]
    fn what_was_logged_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::create(folder.path(), "r").unwrap();
        let said = |say: Say| Stamped { at_ms: 3, event: Event::StepSaid { step: "шаг".into(), say } };
        let kept = [
            said(Say::Metric { name: "loss".into(), at: 1, value: 0.1 + 0.2 }),
            said(Say::Warning { text: "a\nb".into() }),
        ];
        let progress = said(Say::Progress { done: 1, total: None, unit: "B".into(), text: String::new() });
        let forecast = Stamped { at_ms: 3, event: Event::Forecast { low_ms: 1, high_ms: 2, unknown: 0 } };
        log.write(&[kept[0].clone(), progress, forecast]).unwrap();
        log.write(&kept[1..]).unwrap();
        let path = folder.path().join("r.jsonl");
        let (head, events) = read(&path).unwrap();
        assert_eq!((head.run.as_str(), events.as_slice()), ("r", &kept[..]));

        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() - 5]).unwrap();
        assert_eq!(read(&path).unwrap().1, kept[..1]);
        fs::write(&path, text.replace("\"at_ms\":3,\"event\":\"step_said\",\"step\":\"шаг\",\"say\":{\"metric\"", "{"))
            .unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("r.jsonl:2"));
    }
}
