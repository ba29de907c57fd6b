//! Bars on a terminal: one over the whole run, one for each step that runs or reads its sources.
//! It does not know how lines above them are worded, nor what a bar says.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};

use super::gauge::{Gauge, bar};
use super::text::{cut, seconds, span};
use crate::event::{Event, Say, Stamped};

/// The bars of a run; clones share them.
#[derive(Clone)]
pub struct Bars {
    multi: MultiProgress,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    overall: Option<(ProgressBar, Arc<Mutex<Overall>>)>,
    steps: BTreeMap<String, Step>,
    /// The columns of the longest name that is shown.
    names: Arc<AtomicUsize>,
    clock: Clock,
}

/// The time of the events, between two of them.
#[derive(Clone, Copy)]
struct Clock {
    at_ms: u64,
    heard: Instant,
}

struct Step {
    bar: ProgressBar,
    gauge: Arc<Mutex<Gauge>>,
    /// False while only its sources are read.
    runs: bool,
}

#[derive(Default)]
struct Overall {
    total: usize,
    done: usize,
    running: usize,
    forecast: Option<Forecast>,
}

/// How long the run goes on, as told at this time.
#[derive(Clone, Copy)]
struct Forecast {
    at_ms: u64,
    low_ms: u64,
    high_ms: u64,
    unknown: usize,
}

impl Bars {
    /// No bars yet; they draw on stderr.
    pub fn new() -> Self {
        Self { multi: MultiProgress::new(), state: Arc::default() }
    }

    /// A line above the bars.
    pub fn line(&self, text: &str) {
        if self.multi.println(text).is_err() || self.multi.is_hidden() {
            super::err(text);
        }
    }

    /// Takes the bars off the screen; what the run draws next brings them back.
    pub fn clear(&self) {
        let _ = self.multi.clear();
    }

    /// Removes them.
    pub fn end(&self) {
        locked(&self.state).end(&self.multi);
    }

    /// Moves the bars.
    pub fn event(&self, stamped: &Stamped) {
        let mut state = locked(&self.state);
        state.clock = Clock { at_ms: stamped.at_ms, heard: Instant::now() };
        match &stamped.event {
            Event::RunStarted { steps, .. } => state.begin(&self.multi, steps.len()),
            // What has been fetched or read goes on under a new bar.
            Event::StepFetching { step, .. } => {
                state.remove(&self.multi, step);
                state.add(&self.multi, step, false);
            }
            Event::StepStarted { step, .. } => {
                state.remove(&self.multi, step);
                state.add(&self.multi, step, true);
            }
            Event::StepSaid { step, say: Say::Progress { done, total, unit, text } } => {
                if !state.steps.contains_key(step) {
                    state.add(&self.multi, step, false);
                }
                state.progress(&self.multi, step, |gauge| gauge.told(stamped.at_ms, *done, *total, unit, text));
            }
            Event::StepReused { step, .. }
            | Event::StepFinished { step, .. }
            | Event::StepFailed { step, .. }
            | Event::StepSkipped { step, .. } => {
                state.remove(&self.multi, step);
                state.change(|overall| overall.done += 1);
            }
            Event::Forecast { low_ms, high_ms, unknown } => {
                let (at_ms, low_ms, high_ms, unknown) = (stamped.at_ms, *low_ms, *high_ms, *unknown);
                state.change(|overall| overall.forecast = Some(Forecast { at_ms, low_ms, high_ms, unknown }));
            }
            Event::RunFinished { .. } => state.end(&self.multi),
            Event::StepJoined { .. }
            | Event::StepRetrying { .. }
            | Event::StepSaid { .. }
            | Event::Refused { .. }
            | Event::GridFinished { .. } => {}
        }
        let running = state.steps.values().filter(|step| step.runs).count();
        state.change(|overall| overall.running = running);
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self { at_ms: 0, heard: Instant::now() }
    }
}

impl Clock {
    fn now_ms(self) -> u64 {
        self.at_ms + self.heard.elapsed().as_millis() as u64
    }
}

impl State {
    fn begin(&mut self, multi: &MultiProgress, steps: usize) {
        self.end(multi);
        let overall = Arc::new(Mutex::new(Overall { total: steps, ..Overall::default() }));
        let (shown, clock) = (overall.clone(), self.clock);
        let bar = drawn(multi, move |columns| locked(&shown).line(clock.now_ms(), columns));
        self.overall = Some((bar, overall));
    }

    fn add(&mut self, multi: &MultiProgress, id: &str, runs: bool) {
        let gauge = Arc::new(Mutex::new(Gauge::new(id, self.clock.at_ms)));
        let (shown, names, clock) = (gauge.clone(), self.names.clone(), self.clock);
        let line = move |columns| locked(&shown).line(clock.now_ms(), columns, names.load(Ordering::Relaxed));
        self.steps.insert(id.to_owned(), Step { bar: drawn(multi, line), gauge, runs });
        self.measure();
    }

    fn remove(&mut self, multi: &MultiProgress, id: &str) {
        if let Some(step) = self.steps.remove(id) {
            step.bar.finish_and_clear();
            multi.remove(&step.bar);
        }
        self.measure();
    }

    fn measure(&self) {
        let widest = self.steps.values().map(|step| locked(&step.gauge).name_width()).max();
        self.names.store(widest.unwrap_or_default(), Ordering::Relaxed);
    }

    fn progress(&mut self, multi: &MultiProgress, id: &str, tell: impl FnOnce(&mut Gauge)) {
        let Some(step) = self.steps.get(id) else { return };
        let mut gauge = locked(&step.gauge);
        tell(&mut gauge);
        let is_read = gauge.is_full() && !step.runs;
        drop(gauge);
        if is_read {
            self.remove(multi, id);
        }
    }

    fn change(&self, change: impl FnOnce(&mut Overall)) {
        if let Some((_, overall)) = &self.overall {
            change(&mut locked(overall));
        }
    }

    fn end(&mut self, multi: &MultiProgress) {
        let steps: Vec<String> = self.steps.keys().cloned().collect();
        steps.iter().for_each(|step| self.remove(multi, step));
        if let Some((bar, _)) = self.overall.take() {
            bar.finish_and_clear();
            multi.remove(&bar);
        }
    }
}

impl Overall {
    fn line(&self, now_ms: u64, columns: usize) -> String {
        let share = self.done as f64 / self.total.max(1) as f64;
        let left = self.forecast.and_then(|forecast| forecast.left(now_ms)).map(|left| format!("  {left}"));
        let told = format!("{}{}  {}", seconds(now_ms), left.unwrap_or_default(), self.told());
        let all = [24, 16, 8].map(|width| format!("{}  {told}", bar(share, width)));
        let fits = |line: &String| console::measure_text_width(line) <= columns;
        all.into_iter().find(fits).unwrap_or_else(|| cut(&told, columns))
    }

    /// Done, running and unknown are told apart: a step that waits may turn out to be in the cache.
    fn told(&self) -> String {
        let Self { total, done, running, .. } = self;
        let unknown = total.saturating_sub(done + running);
        let unknown = if unknown > 0 { format!(", {unknown} to run or to reuse") } else { String::new() };
        format!("{done} of {total} done, {running} running{unknown}")
    }
}

impl Forecast {
    /// `2-3 min left`, counted down since it was told. `None` where that says nothing: the time is over already.
    fn left(self, now_ms: u64) -> Option<String> {
        let gone = now_ms.saturating_sub(self.at_ms);
        let (low, high) = (self.low_ms.saturating_sub(gone), self.high_ms.saturating_sub(gone));
        match self.unknown {
            0 => (high > 0).then(|| format!("{} left", span(low, high))),
            // What is not known comes on top.
            _ => (low >= 1000).then(|| format!("over {} left", seconds(low))),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A bar that draws this line, as wide as the terminal is at that moment.
fn drawn(multi: &MultiProgress, line: impl Fn(usize) -> String + Clone + Send + Sync + 'static) -> ProgressBar {
    let write = move |_: &ProgressState, to: &mut dyn Write| {
        let _ = to.write_str(&line(super::columns().unwrap_or(80)));
    };
    let style = ProgressStyle::with_template("{line}").expect("one field").with_key("line", write);
    let bar = multi.add(ProgressBar::new_spinner().with_style(style));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn done_running_and_unknown_are_told_apart() {
        let told = |total, done, running| Overall { total, done, running, forecast: None }.told();
        assert_eq!(told(5, 1, 2), "1 of 5 done, 2 running, 2 to run or to reuse");
        assert_eq!(told(3, 2, 1), "2 of 3 done, 1 running");
    }

    #[test]
    fn the_bar_over_the_run_fits() {
        let overall = Overall { total: 14, done: 7, running: 2, forecast: None };
        assert_eq!(
            overall.line(62_000, 80),
            format!("{}╸{}  1 m 02 s  7 of 14 done, 2 running, 5 to run or to reuse", "━".repeat(8), " ".repeat(7))
        );
        for columns in 10..150 {
            assert!(console::measure_text_width(&overall.line(62_000, columns)) <= columns, "{columns}");
        }
    }

    #[test]
    fn what_is_left_is_counted_down() {
        let forecast = Forecast { at_ms: 1000, low_ms: 125_000, high_ms: 170_000, unknown: 0 };
        let left = |now_ms| forecast.left(now_ms).unwrap_or_default();
        assert_eq!([1000, 62_000, 161_000, 171_000].map(left), ["2-3 min left", "1-2 min left", "0-10 s left", ""]);
        let unknown = Forecast { unknown: 1, ..forecast };
        assert_eq!(unknown.left(1000).as_deref(), Some("over 2 m 05 s left"));
        assert_eq!(unknown.left(126_000), None);
        let overall = Overall { total: 14, done: 7, running: 7, forecast: Some(forecast) };
        assert!(overall.line(1000, 120).ends_with("  1 s  2-3 min left  7 of 14 done, 7 running"));
        for columns in 10..150 {
            assert!(console::measure_text_width(&overall.line(1000, columns)) <= columns, "{columns}");
        }
    }
}
