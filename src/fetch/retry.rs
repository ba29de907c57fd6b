//! Whether and when to try again.
//! It does not know what was tried.

use std::time::{Duration, SystemTime};

use super::client::{Failure, Status};
use super::shared::Shared;

/// How often something failed in a row.
#[derive(Default)]
pub(super) struct Patience {
    failures: u32,
}

/// After so many failures in a row it is given up: half a minute, if the server names no other time.
const FAILURES: u32 = 6;

const FIRST: Duration = Duration::from_millis(500);

/// A server that wants more time than this is not waited for.
const LONGEST: Duration = Duration::from_secs(600);

impl Patience {
    /// Something got further than ever before.
    pub fn renew(&mut self) {
        self.failures = 0;
    }

    /// Waits until it is time to try again; answers the failure if it is of no use, or no use any more.
    pub fn wait(&mut self, failure: Failure, shared: &Shared) -> Result<(), Failure> {
        let (words, asked) = match &failure {
            Failure::Broken(words) => (words.clone(), None),
            Failure::Status(Status { code, retry_after, host, .. }) => match code {
                429 => (format!("{host} is asked too often"), *retry_after),
                408 | 425 | 500 | 502 | 503 | 504 => (format!("{host} answers {code}"), *retry_after),
                _ => return Err(failure),
            },
            Failure::Final(_) | Failure::Stopped => return Err(failure),
        };
        self.failures += 1;
        let wait = (FIRST * 2u32.pow(self.failures - 1)).max(asked.unwrap_or_default());
        if self.failures >= FAILURES || wait > LONGEST {
            return Err(failure);
        }
        shared.text(format!("{words}; again in {:.0} s", wait.as_secs_f64().ceil()));
        shared.sleep(wait)?;
        shared.text("");
        Ok(())
    }
}

/// Does something until it works or cannot work.
pub(super) fn patiently<T>(shared: &Shared, mut job: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
    let mut patience = Patience::default();
    loop {
        shared.check()?;
        match job() {
            Ok(done) => return Ok(done),
            Err(failure) => patience.wait(failure, shared)?,
        }
    }
}

/// `Retry-After`: seconds, or a date (RFC 9110 §10.2.3).
pub(super) fn after(header: &str) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(header).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_says_how_long_to_wait() {
        assert_eq!(after(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
        assert!((95..=100).contains(&after(&soon).unwrap().as_secs()));
        assert_eq!(after("soon"), None);
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let shared = Shared::default();
        let status = |code, seconds| {
            let retry_after = Some(Duration::from_secs(seconds));
            Failure::Status(Status { code, error: String::new(), retry_after, host: "hub".to_owned() })
        };
        let mut tries = 0;
        let passed = patiently(&shared, || {
            tries += 1;
            if tries < 2 { Err(status(429, 0)) } else { Ok(tries) }
        });
        assert_eq!(passed.unwrap(), 2);
        for failure in [status(404, 0), status(401, 0), status(503, 100_000)] {
            let mut failure = Some(failure);
            let given = patiently::<()>(&shared, || Err(failure.take().expect("one try")));
            assert!(matches!(given, Err(Failure::Status(_))));
        }
    }
}
