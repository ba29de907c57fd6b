//! Threads that work for the loop, one piece of work after the other: to start one for each step costs more than the rest
//! of a small step. It does not know what they do.

use std::collections::VecDeque;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};

use super::{Message, Run, Threads};
use crate::error::{Problem, Result};

/// The stack of a thread: regular expressions and parsers are deep.
const STACK: usize = 16 << 20;

/// What a thread is to do.
pub(super) type Work<'s> = Box<dyn FnOnce() + Send + 's>;

/// The threads of a run. They end when it is dropped and all work is done.
pub(super) struct Pool<'s> {
    shared: Arc<Shared<'s>>,
}

struct Shared<'s> {
    waiting: Mutex<Waiting<'s>>,
    /// Told when there is work, or none will come any more.
    work: Condvar,
}

struct Waiting<'s> {
    queue: VecDeque<Work<'s>>,
    /// How many threads have nothing to do.
    idle: usize,
    over: bool,
}

impl<'s> Shared<'s> {
    fn lock(&self) -> MutexGuard<'_, Waiting<'s>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'s> Pool<'s> {
    /// No threads yet.
    pub fn new() -> Self {
        let waiting = Mutex::new(Waiting { queue: VecDeque::new(), idle: 0, over: false });
        Self { shared: Arc::new(Shared { waiting, work: Condvar::new() }) }
    }

    /// Lets a thread do something now: one that has nothing to do, or a new one.
    pub fn start(&self, scope: &'s Scope<'s, '_>, work: Work<'s>) -> Result<()> {
        let mut waiting = self.shared.lock();
        // Each of those that wait already takes one of the idle.
        if waiting.idle > waiting.queue.len() {
            waiting.queue.push_back(work);
            self.shared.work.notify_one();
            return Ok(());
        }
        drop(waiting);
        let shared = self.shared.clone();
        start(scope, "step", move || {
            work();
            shared.go_on();
        })
    }
}

impl Drop for Pool<'_> {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.shared.work.notify_all();
    }
}

impl Shared<'_> {
    /// What a thread does after its first work.
    fn go_on(&self) {
        let mut waiting = self.lock();
        loop {
            if let Some(work) = waiting.queue.pop_front() {
                drop(waiting);
                work();
                waiting = self.lock();
            } else if waiting.over {
                return;
            } else {
                waiting.idle += 1;
                waiting = self.work.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                waiting.idle -= 1;
            }
        }
    }
}

/// Starts a thread for one piece of work, of which nothing is left afterwards.
pub(super) fn start<'s>(scope: &'s Scope<'s, '_>, name: &str, work: impl FnOnce() + Send + 's) -> Result<()> {
    let thread = thread::Builder::new().name(name.to_owned()).stack_size(STACK);
    let started = thread.spawn_scoped(scope, work);
    started.map(|_| ()).map_err(|error| Problem::new(format!("cannot start a thread: {error}")))
}

impl<'a> Run<'a> {
    /// Lets a thread work that will send one message of an end.
    pub(super) fn spawn<'s>(
        &mut self,
        threads: &Threads<'s, '_>,
        step: usize,
        work: impl FnOnce(&Sender<Message>) + Send + 's,
    ) -> Result<()>
    where
        'a: 's,
    {
        let sender = threads.sender.clone();
        let work = move || work(&sender);
        // libtorch remembers by thread how it computes; what one step sets must not reach another.
        if self.pipeline.steps[step].kind.needs_torch() {
            start(threads.scope, &self.pipeline.steps[step].id, work)?;
        } else {
            threads.pool.start(threads.scope, Box::new(work))?;
        }
        self.busy += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::sync::Barrier;
    use std::sync::mpsc::channel;

    #[test]
    fn work_never_waits_for_other_work_and_threads_are_used_again() {
        let barrier = Barrier::new(4);
        let mut seen = BTreeSet::new();
        thread::scope(|scope| {
            let pool = Pool::new();
            for _ in 0..20 {
                let (sender, receiver) = channel();
                for _ in 0..4 {
                    let (sender, barrier) = (sender.clone(), &barrier);
                    let work = move || {
                        // All four are at work at once, or nobody goes on.
                        barrier.wait();
                        let _ = sender.send(format!("{:?}", thread::current().id()));
                    };
                    pool.start(scope, Box::new(work)).unwrap();
                }
                drop(sender);
                seen.extend(receiver);
                // Those that are done wait for more in a moment.
                while pool.shared.lock().idle < 4 {
                    thread::yield_now();
                }
            }
        });
        assert_eq!(seen.len(), 4, "{seen:?}");
    }
}
