//! What the threads of one fetch share: how far it is, and whether to stop. One thread watches, the others work.
//! It does not know what is fetched.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::client::{Client, Failure};
use crate::error::{Problem, Result};

/// Who waits for a fetch.
pub trait Watch {
    /// True once the user wants to stop.
    fn cancelled(&self) -> bool;
    /// How many bytes are here, of how many.
    fn progress(&self, done: u64, total: Option<u64>, text: &str);
    /// Something that a person may want to know.
    fn note(&self, text: String);
}

/// See the module.
#[derive(Default)]
pub(super) struct Shared {
    stop: AtomicBool,
    done: AtomicU64,
    total: AtomicU64,
    text: Mutex<String>,
    notes: Mutex<Vec<String>>,
}

/// How often the watching thread looks.
const LOOK: Duration = Duration::from_millis(50);

impl Shared {
    /// Leaves with `?` once the fetch is to stop.
    pub fn check(&self) -> Result<(), Failure> {
        if self.stop.load(Ordering::Relaxed) { Err(Failure::Stopped) } else { Ok(()) }
    }

    /// Makes all threads leave.
    pub fn stop(&self, client: &Client) {
        if !self.stop.swap(true, Ordering::Relaxed) {
            client.interrupt();
        }
    }

    /// Sleeps, unless the fetch is to stop.
    pub fn sleep(&self, time: Duration) -> Result<(), Failure> {
        let until = Instant::now() + time;
        loop {
            self.check()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(LOOK));
        }
    }

    /// Bytes that are to come in all, those that are here already among them.
    pub fn expect(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that are here.
    pub fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that were here and do not count any more.
    pub fn take_back(&self, bytes: u64) {
        self.done.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// A few words beside the bar.
    pub fn text(&self, text: impl Into<String>) {
        *self.text.lock().unwrap_or_else(PoisonError::into_inner) = text.into();
    }

    /// See [`Watch::note`].
    pub fn note(&self, text: impl Into<String>) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(text.into());
    }

    fn report(&self, watch: &dyn Watch) {
        for note in std::mem::take(&mut *self.notes.lock().unwrap_or_else(PoisonError::into_inner)) {
            watch.note(note);
        }
        let (done, total) = (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // The end of a fetch is not the end of its step: the bar is full when the files are checked.
        watch.progress(done, Some(total).filter(|&total| total >= done && total > 0), &text);
    }
}

/// Does the work on another thread, tells how far it is, and makes it leave when the user wants to stop.
pub(super) fn supervise<T: Send>(
    watch: &dyn Watch,
    shared: &Shared,
    client: &Client,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    thread::scope(|scope| {
        let (sender, receiver) = channel();
        let worker = scope.spawn(move || {
            let result = work();
            // The watching thread waits for it.
            let _ = sender.send(());
            result
        });
        while let Err(RecvTimeoutError::Timeout) = receiver.recv_timeout(LOOK) {
            if watch.cancelled() {
                shared.stop(client);
            }
            shared.report(watch);
        }
        shared.report(watch);
        let result = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        if result.is_err() && watch.cancelled() { Err(Problem::cancelled()) } else { result }
    })
}

/// Does a job for each item on a few threads. The first failure makes the others leave, and is the answer.
pub(super) fn in_parallel<T: Sync>(
    items: &[T],
    threads: usize,
    shared: &Shared,
    client: &Client,
    job: impl Fn(&T) -> Result<(), Failure> + Sync,
) -> Result<(), Failure> {
    let next = AtomicU64::new(0);
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..threads.min(items.len()) {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    if let Err(failure) = shared.check().and_then(|()| job(item)) {
                        failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
                        shared.stop(client);
                        return;
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut failures = failures.into_iter();
    let first = failures.next();
    match first {
        None => Ok(()),
        // One that was made to leave may have been noted before the one that failed.
        Some(Failure::Stopped) => Err(failures.find(|f| !matches!(f, Failure::Stopped)).unwrap_or(Failure::Stopped)),
        Some(failure) => Err(failure),
    }
}
