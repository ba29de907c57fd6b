//! What ends a single step: Ctrl-C, or its time is up.
//! It does not know how a step ends: it looks at its flag.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often somebody looks at the clocks.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// The flag of one step, and until when it may run. Without a limit the flag is that of the whole run.
pub(super) struct Stop {
    run: Arc<AtomicBool>,
    flag: Arc<AtomicBool>,
    limit: Option<Duration>,
    deadline: Mutex<Option<Instant>>,
    late: AtomicBool,
}

impl Stop {
    pub fn new(run: &Arc<AtomicBool>, limit: Option<Duration>) -> Self {
        let flag = if limit.is_some() { Arc::new(AtomicBool::new(false)) } else { run.clone() };
        Self { run: run.clone(), flag, limit, deadline: Mutex::new(None), late: AtomicBool::new(false) }
    }

    /// The flag, as an attempt begins.
    pub fn begin(&self) -> Arc<AtomicBool> {
        if let Some(limit) = self.limit {
            self.flag.store(self.run.load(Ordering::SeqCst), Ordering::SeqCst);
            self.late.store(false, Ordering::SeqCst);
            *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + limit);
        }
        self.flag.clone()
    }

    /// Raises the flag where it is time.
    pub fn look(&self) {
        let over =
            self.deadline.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|end| end <= Instant::now());
        if over && !self.flag.load(Ordering::SeqCst) {
            self.late.store(true, Ordering::SeqCst);
            self.flag.store(true, Ordering::SeqCst);
        }
        if self.run.load(Ordering::SeqCst) {
            self.flag.store(true, Ordering::SeqCst);
        }
    }

    /// True if somebody has to look at the clock.
    pub fn has_limit(&self) -> bool {
        self.limit.is_some()
    }

    /// True if the whole run is to end.
    pub fn cancelled(&self) -> bool {
        self.run.load(Ordering::SeqCst)
    }

    /// The limit, if it was this that ended the attempt.
    pub fn late(&self) -> Option<Duration> {
        self.limit.filter(|_| self.late.load(Ordering::SeqCst) && !self.cancelled())
    }
}
