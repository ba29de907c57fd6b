//! Two threads that compute beside each other on a processor, each with half of the cores, instead of one whose every
//! operation is spread over all of them: no operation is too small to be shared, and nobody waits for the other's.
//! It does not know what they compute, nor how they divide it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Result as Caught, Scope};

use tch::Device;

use super::device::limit_threads;
use super::tally::{self, Tally};

/// Half of the threads of libtorch that the caller may use, and all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Halves {
    half: usize,
    all: usize,
}

/// The threads of the caller in halves, which are equal: who takes what is chance, and a product's bits may depend on how
/// many threads make it. `None` if there is one thread, or the device computes by itself.
pub(super) fn halves(device: Device) -> Option<Halves> {
    let all = usize::try_from(tch::get_num_threads()).unwrap_or(1);
    (device == Device::Cpu && all > 1).then_some(Halves { half: all / 2, all })
}

impl Halves {
    /// Does this with the caller's half.
    pub fn alone<T>(self, work: impl FnOnce() -> T) -> T {
        /// Also where the work panics.
        struct Restored(usize);
        impl Drop for Restored {
            fn drop(&mut self) {
                limit_threads(self.0);
            }
        }
        let _restored = Restored(self.all);
        limit_threads(self.half);
        work()
    }
}

/// A thread beside the caller's that does what it is given, one after the other.
pub(super) struct Helper<J, R> {
    jobs: Sender<J>,
    done: Receiver<(Caught<R>, Tally)>,
}

/// What a helper is given.
pub(super) struct Jobs<J, R> {
    jobs: Receiver<J>,
    done: Sender<(Caught<R>, Tally)>,
}

impl<J: Send, R: Send> Helper<J, R> {
    /// Begins one, which ends with the scope or when this is dropped: `work` makes what it needs on its own thread, and
    /// then does each of its jobs.
    pub fn begin<'scope>(
        scope: &'scope Scope<'scope, '_>,
        halves: Halves,
        work: impl FnOnce(Jobs<J, R>) + Send + 'scope,
    ) -> Self
    where
        J: 'scope,
        R: 'scope,
    {
        let (jobs, given) = channel();
        let (finished, done) = channel();
        scope.spawn(move || {
            limit_threads(halves.half);
            work(Jobs { jobs: given, done: finished });
        });
        Self { jobs, done }
    }

    /// Gives it a job.
    pub fn give(&self, job: J) {
        // It ends before its jobs do only by a panic, which `take` hands on.
        let _ = self.jobs.send(job);
    }

    /// Waits for what became of its next job. What it panics with, the caller panics with.
    pub fn take(&self) -> R {
        let (result, tally) = self.done.recv().unwrap_or_else(|_| panic!("the thread beside this one ended early"));
        tally::join(tally);
        result.unwrap_or_else(|panic| resume_unwind(panic))
    }
}

impl<J, R> Jobs<J, R> {
    /// Does each job.
    pub fn each(self, mut work: impl FnMut(J) -> R) {
        for job in self.jobs {
            let result = catch_unwind(AssertUnwindSafe(|| work(job)));
            let ends = result.is_err();
            if self.done.send((result, tally::leave())).is_err() || ends {
                return;
            }
        }
    }
}

/// What a helper says while it works, each time with what it has computed until then.
pub(super) struct Say<T>(Sender<(T, Tally)>);

/// What the caller hears of it.
pub(super) struct Hear<T>(Receiver<(T, Tally)>);

/// A way from a helper to its caller.
pub(super) fn talk<T>() -> (Say<T>, Hear<T>) {
    let (say, heard) = channel();
    (Say(say), Hear(heard))
}

impl<T> Say<T> {
    /// Says it; where the caller has failed, nobody listens any more.
    pub fn say(&self, what: T) {
        let _ = self.0.send((what, tally::leave()));
    }
}

impl<T> Hear<T> {
    /// What was said by now. Whoever is told of it may ask what work that was.
    pub fn now(&self) -> impl Iterator<Item = T> {
        self.0.try_iter().map(Self::joined)
    }

    /// Waits for what is said next, until nobody is left who could say something.
    pub fn next(&self) -> Option<T> {
        self.0.recv().ok().map(Self::joined)
    }

    fn joined((what, work): (T, Tally)) -> T {
        tally::join(work);
        what
    }
}

#[cfg(test)]
mod tests {
    use tch::{Kind, Tensor};

    use super::*;

    fn halves_of(threads: usize) -> Option<Halves> {
        limit_threads(threads);
        halves(Device::Cpu)
    }

    #[test]
    fn a_helper_does_jobs_in_their_order_on_its_half_and_leaves_its_work() {
        let halves = halves_of(4).unwrap();
        let _ = tally::take();
        std::thread::scope(|scope| {
            let helper = Helper::begin(scope, halves, |jobs: Jobs<i64, (i64, i32)>| {
                let w = Tensor::ones([7, 5], (Kind::Float, Device::Cpu));
                jobs.each(|rows| {
                    let _ = tally::product(&Tensor::ones([rows, 5], (Kind::Float, Device::Cpu)), &w, None);
                    (rows, tch::get_num_threads())
                });
            });
            for rows in [3, 4] {
                helper.give(rows);
            }
            assert_eq!(halves.alone(tch::get_num_threads), 2);
            assert_eq!([helper.take(), helper.take()], [(3, 2), (4, 2)]);
        });
        assert_eq!(tch::get_num_threads(), 4, "what the caller had is the caller's again");
        assert_eq!(tally::take().flop, 2 * 7 * 5 * 7);
        assert_eq!(halves_of(1), None);
    }

    #[test]
    fn a_panic_beside_is_one_of_the_caller() {
        let halves = halves_of(2).unwrap();
        let caught = catch_unwind(|| {
            std::thread::scope(|scope| {
                let helper = Helper::begin(scope, halves, |jobs: Jobs<(), ()>| jobs.each(|()| panic!("of the helper")));
                helper.give(());
                helper.take();
            });
        });
        assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"of the helper"));
        assert!(catch_unwind(|| halves.alone(|| panic!("of the caller"))).is_err());
        assert_eq!(tch::get_num_threads(), 2);
    }
}
