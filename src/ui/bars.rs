//! Bars on a terminal: one over the whole run, one for each running step.
//! It does not know how lines are worded.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};

use crate::event::{Event, Say, Stamped};

/// The bars of a run; clones share them.
#[derive(Clone)]
pub struct Bars {
    multi: MultiProgress,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    overall: Option<ProgressBar>,
    total: usize,
    done: usize,
    running: BTreeMap<String, Running>,
}

struct Running {
    bar: ProgressBar,
    /// Unit and whether the total is known: what the bar's look was made for.
    look: Option<(String, bool)>,
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

    /// Moves the bars.
    pub fn event(&self, stamped: &Stamped) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &stamped.event {
            Event::RunStarted { steps, .. } => state.begin(&self.multi, steps.len()),
            Event::StepStarted { step, .. } | Event::StepFetching { step, .. } => {
                // A step that has fetched goes on under a new bar.
                if let Some(running) = state.running.remove(step) {
                    running.bar.finish_and_clear();
                }
                let bar = self.multi.add(ProgressBar::new_spinner().with_prefix(step.clone()));
                bar.set_style(style("  {spinner} {prefix}  {elapsed}  {wide_msg}"));
                bar.enable_steady_tick(Duration::from_millis(200));
                state.running.insert(step.clone(), Running { bar, look: None });
            }
            Event::StepSaid { step, say: Say::Progress { done, total, unit, text } } => {
                if let Some(running) = state.running.get_mut(step) {
                    running.progress(*done, *total, unit, text);
                }
            }
            Event::StepSaid { .. } => {}
            Event::StepReused { step, .. }
            | Event::StepFinished { step, .. }
            | Event::StepFailed { step, .. }
            | Event::StepSkipped { step, .. } => {
                if let Some(running) = state.running.remove(step) {
                    running.bar.finish_and_clear();
                }
                state.done += 1;
            }
            Event::RunFinished { .. } => {
                for running in std::mem::take(&mut state.running).into_values() {
                    running.bar.finish_and_clear();
                }
                if let Some(overall) = state.overall.take() {
                    overall.finish_and_clear();
                }
            }
        }
        state.tell();
    }
}

impl State {
    fn begin(&mut self, multi: &MultiProgress, steps: usize) {
        let overall = multi.add(ProgressBar::new(steps as u64));
        overall.set_style(style("{bar:24} {elapsed}  {msg}"));
        overall.enable_steady_tick(Duration::from_millis(200));
        *self = Self { overall: Some(overall), total: steps, ..Self::default() };
    }

    /// Done, running and unknown are told apart: a step that waits may turn out to be in the cache.
    fn tell(&self) {
        let Some(overall) = &self.overall else { return };
        overall.set_position(self.done as u64);
        overall.set_message(overall_message(self.total, self.done, self.running.len()));
    }
}

fn overall_message(total: usize, done: usize, running: usize) -> String {
    let unknown = total.saturating_sub(done + running);
    let unknown = if unknown > 0 { format!(", {unknown} to run or to reuse") } else { String::new() };
    format!("{done} of {total} done, {running} running{unknown}")
}

impl Running {
    fn progress(&mut self, done: u64, total: Option<u64>, unit: &str, text: &str) {
        let look = (unit.to_owned(), total.is_some());
        if self.look.as_ref() != Some(&look) {
            self.bar.set_style(style(&template(unit, total.is_some())));
            self.bar.reset_eta();
            self.look = Some(look);
        }
        if let Some(total) = total {
            self.bar.set_length(total);
        }
        self.bar.set_position(done);
        self.bar.set_message(text.to_owned());
    }
}

/// What a step's bar shows: bytes in their own units, everything else counted.
fn template(unit: &str, bounded: bool) -> String {
    // Braces would be read as fields.
    let unit: String = unit.chars().filter(|c| !matches!(c, '{' | '}')).collect();
    let (at, rate) = match (unit.as_str(), bounded) {
        ("B", true) => ("{bytes}/{total_bytes}".to_owned(), "{bytes_per_sec}"),
        ("B", false) => ("{bytes}".to_owned(), "{bytes_per_sec}"),
        (_, true) => (format!("{{pos}}/{{len}} {unit}"), "{rate}"),
        (_, false) => (format!("{{pos}} {unit}"), "{rate}"),
    };
    let (bar, left) = if bounded { ("{bar:24}", "  {eta} left") } else { ("{spinner}", "") };
    format!("  {{prefix}}  {bar}  {at}  {rate}{left}  {{wide_msg}}")
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("━╸ ").with_key("rate", |state: &ProgressState, to: &mut dyn Write| {
        let _ = to.write_str(&rate(state.per_sec()));
    })
}

/// Three digits or more are enough to follow a rate by eye.
fn rate(per_second: f64) -> String {
    if per_second < 10.0 { format!("{per_second:.2}/s") } else { format!("{per_second:.0}/s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn done_running_and_unknown_are_told_apart() {
        assert_eq!(overall_message(5, 1, 2), "1 of 5 done, 2 running, 2 to run or to reuse");
        assert_eq!(overall_message(3, 2, 1), "2 of 3 done, 1 running");
    }

    #[test]
    fn rates_are_short() {
        assert_eq!((rate(0.456), rate(239_246.46)), ("0.46/s".to_owned(), "239246/s".to_owned()));
    }

    #[test]
    fn every_look_is_a_template_that_indicatif_takes() {
        for (unit, bounded) in [("B", true), ("B", false), ("steps", true), ("{odd}", false)] {
            assert!(ProgressStyle::with_template(&template(unit, bounded)).is_ok(), "{unit}");
        }
    }
}
