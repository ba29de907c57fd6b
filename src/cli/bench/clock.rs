//! When a step said that it had done which work, and what of that is measured: the warm-up and pauses are not.
//! It does not know steps, nor what the work was.

use std::time::Instant;

use crate::exec;
use crate::step::Work;

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// Pieces of work that are made first and not measured, if there are more than that.
    pub warm_up: usize,
    /// So many pieces are enough.
    pub pieces: Option<usize>,
    /// So many seconds are enough.
    pub seconds: Option<f64>,
}

/// A moment at which work was told.
#[derive(Debug, Clone, Copy)]
struct Mark {
    seconds: f64,
    cpu_ms: Option<u64>,
    /// Since the mark before.
    work: Work,
}

/// Hears of work.
pub struct Clock {
    span: Span,
    begun: Instant,
    /// Seconds and processor milliseconds of pauses.
    paused: (f64, u64),
    /// The first is that of the beginning.
    marks: Vec<Mark>,
}

/// What was measured.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// Pieces of work.
    pub pieces: usize,
    /// Those before them.
    pub warm_up: usize,
    /// How long they took.
    pub seconds: f64,
    /// Seconds of processors, where the system tells.
    pub cpu_seconds: Option<f64>,
    /// All of it.
    pub work: Work,
}

impl Clock {
    /// Begins now.
    pub fn new(span: Span) -> Self {
        let mut clock = Self { span, begun: Instant::now(), paused: (0.0, 0), marks: Vec::new() };
        clock.push(Work::default());
        clock
    }

    fn push(&mut self, work: Work) {
        let cpu_ms = exec::cpu_ms().map(|ms| ms.saturating_sub(self.paused.1));
        let seconds = self.begun.elapsed().as_secs_f64() - self.paused.0;
        self.marks.push(Mark { seconds, cpu_ms, work });
    }

    /// Hears of a piece of work; true once it is enough.
    pub fn hear(&mut self, work: Work) -> bool {
        // What is before the first work is none.
        if work == Work::default() && self.pieces().next().is_none() {
            self.marks.clear();
        }
        self.push(work);
        let enough = |measured: Measured| {
            let Measured { pieces, warm_up, seconds, .. } = measured;
            warm_up >= self.span.warm_up
                && (self.span.pieces.is_some_and(|most| pieces >= most)
                    || self.span.seconds.is_some_and(|most| seconds >= most))
        };
        self.measured().is_some_and(enough)
    }

    /// Does something that is not measured.
    pub fn pause<T>(&mut self, other: impl FnOnce() -> T) -> T {
        let (begun, cpu) = (Instant::now(), exec::cpu_ms());
        let done = other();
        self.paused.0 += begun.elapsed().as_secs_f64();
        self.paused.1 += exec::cpu_ms().zip(cpu).map_or(0, |(now, before)| now.saturating_sub(before));
        done
    }

    /// Seconds and processor milliseconds of all pauses.
    pub fn paused(&self) -> (f64, u64) {
        self.paused
    }

    /// The marks at which there was work.
    fn pieces(&self) -> impl Iterator<Item = usize> {
        (0..self.marks.len()).filter(|&at| self.marks[at].work != Work::default())
    }

    /// What was measured so far; `None` without any work.
    pub fn measured(&self) -> Option<Measured> {
        let pieces: Vec<usize> = self.pieces().collect();
        let last = *pieces.last()?;
        let warm_up = if pieces.len() > self.span.warm_up { self.span.warm_up } else { 0 };
        let first = if warm_up == 0 { 0 } else { pieces[warm_up - 1] };
        let (from, to) = (self.marks[first], self.marks[last]);
        let mut work = Work::default();
        self.marks[first + 1..=last].iter().for_each(|mark| work += mark.work);
        let cpu = from.cpu_ms.zip(to.cpu_ms);
        Some(Measured {
            pieces: pieces.len() - warm_up,
            warm_up,
            seconds: to.seconds - from.seconds,
            cpu_seconds: cpu.map(|(from, to)| to.saturating_sub(from) as f64 / 1000.0),
            work,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn work(ids: u64) -> Work {
        Work { ids, padding: 1, flop: 2 }
    }

    #[test]
    fn the_warm_up_is_left_out_where_there_is_more() {
        let mut clock = Clock::new(Span { warm_up: 2, pieces: Some(2), seconds: None });
        assert!(clock.measured().is_none());
        let enough = [0, 5, 6, 7, 8].map(|ids| clock.hear(if ids == 0 { Work::default() } else { work(ids) }));
        assert_eq!(enough, [false, false, false, false, true]);
        let measured = clock.measured().unwrap();
        assert_eq!((measured.pieces, measured.warm_up), (2, 2));
        assert_eq!(measured.work, Work { ids: 15, padding: 2, flop: 4 });
        let mut short = Clock::new(Span { warm_up: 2, pieces: None, seconds: None });
        assert!(!short.hear(work(5)) && !short.hear(work(6)));
        let measured = short.measured().unwrap();
        assert_eq!((measured.pieces, measured.warm_up, measured.work.ids), (2, 0, 11));
    }

    #[test]
    fn pauses_and_what_is_before_the_work_take_no_time() {
        let mut clock = Clock::new(Span { warm_up: 0, pieces: None, seconds: Some(1e9) });
        let pause = Duration::from_millis(80);
        std::thread::sleep(pause);
        clock.hear(Work::default());
        clock.pause(|| std::thread::sleep(pause));
        clock.hear(work(1));
        let (seconds, whole) = (clock.measured().unwrap().seconds, clock.begun.elapsed().as_secs_f64());
        assert!(seconds >= 0.0 && seconds <= whole - 2.0 * pause.as_secs_f64(), "{seconds} of {whole}");
        assert!(clock.paused().0 >= pause.as_secs_f64());
    }
}
