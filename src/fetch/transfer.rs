//! One file over the network: what is here already is gone on with, and what breaks off is tried again.
//! It does not know whether the content is right; whoever knows its hash checks it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::client::{Answer, Client, Failure, io_failure};
use super::retry::Patience;
use super::shared::Shared;
use super::space;
use super::url::Url;
use crate::error::Problem;

/// What to bring, and where it arrives.
pub(super) struct Transfer<'a> {
    /// Where it is.
    pub url: &'a Url,
    /// What messages call it.
    pub name: &'a str,
    /// What has arrived. Appended to, so that at any instant it is a beginning of the file.
    pub part: &'a Path,
    /// Where [`About`] stands, for a file of which nothing but that is known.
    pub about: Option<&'a Path>,
    /// Its size, if that is known.
    pub bytes: Option<u64>,
    /// Whether the whole is compared with a hash afterwards, so that nothing has to prove that `part` belongs to it.
    pub checked: bool,
    /// The most bytes that may come.
    pub limit: u64,
    /// The ETag of a version that need not come again.
    pub unless: Option<String>,
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All of it is in `part`; `resumed` says whether it began there.
    Whole {
        /// Whether some of it had arrived earlier.
        resumed: bool,
    },
    /// It is still what `unless` says.
    Unchanged,
}

/// What a web server said about a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct About {
    /// Where it is.
    pub address: String,
    /// `ETag`, as it was sent.
    pub etag: Option<String>,
    /// `Last-Modified`, as it was sent.
    pub last_modified: Option<String>,
}

impl About {
    /// Reads it; a file that is not there or is damaged says nothing.
    pub fn read(path: &Path) -> Self {
        fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    fn write(&self, path: &Path) -> Result<(), Failure> {
        let aside = path.with_extension("new");
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        fs::write(&aside, text)
            .and_then(|()| fs::rename(&aside, path))
            .map_err(|e| Problem::io("write", path, &e).into())
    }

    /// What proves that a beginning and a rest belong together (RFC 9110 §13.1.5). A weak ETag does not.
    fn validator(&self) -> Option<&str> {
        let strong = self.etag.as_deref().filter(|etag| !etag.starts_with("W/"));
        strong.or(self.last_modified.as_deref().filter(|_| self.etag.is_none()))
    }
}

struct State {
    file: File,
    here: u64,
    /// The furthest that it ever got.
    best: u64,
    total: Option<u64>,
    counted: bool,
    restarts: u32,
    about: About,
}

/// A server may change its mind so often about what the file is.
const RESTARTS: u32 = 2;

impl Transfer<'_> {
    /// Brings the file, however often it breaks off on the way.
    pub fn run(&self, client: &Client, shared: &Shared) -> Result<Outcome, Failure> {
        let mut state = self.begin()?;
        let resumed = state.here > 0;
        shared.add(state.here);
        if resumed && self.bytes == Some(state.here) {
            return Ok(Outcome::Whole { resumed });
        }
        let mut patience = Patience::default();
        loop {
            shared.check()?;
            let failure = match self.attempt(&mut state, client, shared) {
                Ok(true) => break,
                Ok(false) => return Ok(Outcome::Unchanged),
                Err(failure) => failure,
            };
            if state.here > state.best {
                state.best = state.here;
                patience.renew();
            }
            patience.wait(failure, shared)?;
        }
        state.file.sync_all().map_err(|e| Problem::io("write", self.part, &e))?;
        Ok(Outcome::Whole { resumed })
    }

    /// Opens `part` and decides whether it can be gone on with.
    fn begin(&self) -> Result<State, Failure> {
        let io = |e| Failure::from(Problem::io("write", self.part, &e));
        let file = File::options().create(true).append(true).open(self.part).map_err(io)?;
        let here = file.metadata().map_err(io)?.len();
        let about = self.about.map(About::read).unwrap_or_default();
        let mut state = State { file, here, best: here, total: None, counted: false, restarts: 0, about };
        let proven = self.checked || state.about.validator().is_some();
        if here > 0 && (!proven || self.bytes.is_some_and(|bytes| here > bytes)) {
            state.file.set_len(0).map_err(io)?;
            (state.here, state.best) = (0, 0);
        }
        Ok(state)
    }

    /// One request. True if all has arrived, false if nothing need come.
    fn attempt(&self, state: &mut State, client: &Client, shared: &Shared) -> Result<bool, Failure> {
        let mut headers = Vec::new();
        if state.here > 0 {
            headers.push(("range", format!("bytes={}-", state.here)));
            if let Some(validator) = state.about.validator() {
                headers.push(("if-range", validator.to_owned()));
            }
        } else if let Some(etag) = &self.unless {
            headers.push(("if-none-match", etag.clone()));
        }
        let answer = client.get(self.url, &headers)?;
        let total = match answer.status {
            304 if self.unless.is_some() => return Ok(false),
            200 => {
                self.empty(state, shared)?;
                self.remember(state, &answer)?;
                answer.length()
            }
            206 => {
                let Some((start, total)) = range(answer.last_header("content-range")) else {
                    return Err(self.restart(state, shared, "answers with a part that it does not name"));
                };
                if start != Some(state.here) || (state.total.is_some() && total.is_some() && state.total != total) {
                    return Err(self.restart(state, shared, "answers with another part than it was asked for"));
                }
                total.or_else(|| answer.length().map(|length| state.here + length))
            }
            416 => {
                let total = range(answer.last_header("content-range")).and_then(|(_, total)| total);
                let fits = self.bytes.or(state.total).is_none_or(|bytes| bytes == state.here);
                if state.here > 0 && total.is_none_or(|total| total == state.here) && fits {
                    return Ok(true);
                }
                return Err(self.restart(state, shared, "contradicts itself about the size of the file"));
            }
            other => {
                let what = format!("{} answers {other} where {} is due", answer.url.host(), self.name);
                return Err(Problem::new(what).into());
            }
        };
        self.measure(state, total, shared)?;
        self.receive(state, answer, shared)
    }

    /// Checks the size before the first byte is taken.
    fn measure(&self, state: &mut State, total: Option<u64>, shared: &Shared) -> Result<(), Failure> {
        if let (Some(expected), Some(total)) = (self.bytes, total)
            && expected != total
        {
            let what = format!("{} should have {expected} bytes, and the server would send {total}", self.name);
            return Err(Problem::new(what)
                .help("the server contradicts itself: try again later, or another one")
                .into());
        }
        state.total = total.or(state.total);
        let Some(total) = state.total.or(self.bytes) else { return Ok(()) };
        if total > self.limit {
            return Err(too_much(self.name, total, self.limit));
        }
        if self.bytes.is_none() && !state.counted {
            state.counted = true;
            shared.expect(total);
            let folder = self.part.parent().unwrap_or(Path::new("."));
            let what = format!("fetching {} into {}", self.name, folder.display());
            space::require(folder, total - state.here.min(total), &what)?;
        }
        Ok(())
    }

    fn receive(&self, state: &mut State, answer: Answer, shared: &Shared) -> Result<bool, Failure> {
        let host = answer.url.host().to_owned();
        let most = self.bytes.or(state.total).unwrap_or(u64::MAX);
        let mut reader = answer.reader();
        let mut buffer = vec![0; 1 << 17];
        loop {
            shared.check()?;
            let read = match reader.read(&mut buffer) {
                Ok(read) => read,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(io_failure(&e, &host)),
            };
            if read == 0 {
                break;
            }
            if state.here + read as u64 > most {
                return Err(Problem::new(format!("{host} sends more than the {most} bytes of {}", self.name)).into());
            }
            if state.here + read as u64 > self.limit {
                return Err(too_much(self.name, state.here + read as u64, self.limit));
            }
            state.file.write_all(&buffer[..read]).map_err(|e| Problem::io("write", self.part, &e))?;
            state.here += read as u64;
            shared.add(read as u64);
        }
        match self.bytes.or(state.total) {
            Some(bytes) if state.here < bytes => {
                Err(Failure::Broken(format!("{host} broke off after {} of {bytes} bytes", state.here)))
            }
            _ => Ok(true),
        }
    }

    /// Forgets what has arrived, because it does not belong to what will come.
    fn empty(&self, state: &mut State, shared: &Shared) -> Result<(), Failure> {
        shared.take_back(state.here);
        state.here = 0;
        state.file.set_len(0).map_err(|e| Problem::io("write", self.part, &e).into())
    }

    fn restart(&self, state: &mut State, shared: &Shared, why: &str) -> Failure {
        let words = format!("{} {why} ({} bytes of {} have arrived)", self.url.host(), state.here, self.name);
        if let Err(failure) = self.empty(state, shared) {
            return failure;
        }
        state.total = None;
        state.restarts += 1;
        if state.restarts > RESTARTS { Problem::new(words).into() } else { Failure::Broken(words) }
    }

    /// Writes down what will prove that a later rest belongs to this beginning; `part` is empty, so that a kill on
    /// either side of this leaves nothing that does not belong together.
    fn remember(&self, state: &mut State, answer: &Answer) -> Result<(), Failure> {
        let Some(path) = self.about else { return Ok(()) };
        let header = |name: &str| answer.last_header(name).map(str::to_owned);
        state.about =
            About { address: self.url.to_string(), etag: header("etag"), last_modified: header("last-modified") };
        state.about.write(path)
    }
}

/// More comes than the pipeline allows.
pub(super) fn too_much(name: &str, bytes: u64, limit: u64) -> Failure {
    Problem::new(format!("{name} has {bytes} bytes or more, and `max_bytes` allows {limit}"))
        .help("raise `max_bytes` if the source is what you expect")
        .into()
}

/// First byte and size of `bytes 5-9/10`, size of `bytes */10`.
fn range(header: Option<&str>) -> Option<(Option<u64>, Option<u64>)> {
    let (range, total) = header?.trim().strip_prefix("bytes")?.trim().split_once('/')?;
    let start = match range.trim() {
        "*" => None,
        range => Some(range.split_once('-')?.0.trim().parse().ok()?),
    };
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    Some((start, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        assert_eq!(range(Some("bytes 5-9/10")), Some((Some(5), Some(10))));
        assert_eq!(range(Some("bytes 5-9/*")), Some((Some(5), None)));
        assert_eq!(range(Some("bytes */10")), Some((None, Some(10))));
        for wrong in [None, Some(""), Some("bytes 5-9"), Some("items 5-9/10"), Some("bytes x-9/10")] {
            assert_eq!(range(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn only_a_strong_validator_proves_that_parts_belong_together() {
        let about = |etag: Option<&str>, date: Option<&str>| About {
            etag: etag.map(str::to_owned),
            last_modified: date.map(str::to_owned),
            ..About::default()
        };
        assert_eq!(about(Some("\"a\""), Some("then")).validator(), Some("\"a\""));
        assert_eq!(about(None, Some("then")).validator(), Some("then"));
        assert_eq!(about(Some("W/\"a\""), Some("then")).validator(), None);
        assert_eq!(about(None, None).validator(), None);
    }
}
