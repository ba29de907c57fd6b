//! Events as lines of text, for a terminal above the bars and for a log file alike.
//! It does not print.

use std::collections::{BTreeMap, BTreeSet};

use super::gauge::Gauge;
use super::problem;
use super::text::{count, cut, duration, grouped, measured, paint, reasons, warning, wrap};
use crate::event::{Costs, Event, Outcome, Say, Stamped};

/// How often a step without bars tells how far it is, in milliseconds.
const EVERY: u64 = 10_000;

/// In a run of more steps than these, the reused ones are counted instead of listed.
const LISTED: usize = 30;

/// Remembers what later lines need.
pub struct Lines {
    color: bool,
    /// Without bars a line tells that a step begins and, now and then, how far it is.
    plain: bool,
    /// The columns of the terminal; `None` where nobody counts them.
    columns: Option<usize>,
    /// The columns of a step's id.
    width: usize,
    why: BTreeMap<String, String>,
    gauges: BTreeMap<String, (u64, Gauge)>,
    noted: BTreeSet<String>,
    /// True where reused steps are counted.
    counts: bool,
    /// Reused steps that no line has told yet, and how long they had taken.
    reused: (u64, u64),
}

impl Lines {
    /// Nothing has happened yet.
    pub fn new(color: bool, plain: bool) -> Self {
        Self {
            color,
            plain,
            columns: None,
            width: 0,
            why: BTreeMap::new(),
            gauges: BTreeMap::new(),
            noted: BTreeSet::new(),
            counts: false,
            reused: (0, 0),
        }
    }

    /// The lines that tell an event on a terminal of so many columns; none for most of them. Who counts the columns asks
    /// the system, so nobody does where there is nothing to tell.
    pub fn of(&mut self, stamped: &Stamped, columns: impl FnOnce() -> Option<usize>) -> Vec<String> {
        if let Event::StepReused { saved_ms, .. } = &stamped.event
            && self.counts
        {
            self.reused = (self.reused.0 + 1, self.reused.1.saturating_add(*saved_ms));
            return Vec::new();
        }
        self.columns = columns();
        let mut lines = self.told(stamped);
        // The count goes where the steps would have been: before the next line, whatever that is.
        if !lines.is_empty() && self.reused.0 > 0 {
            lines.insert(0, self.counted());
        }
        lines
    }

    fn told(&mut self, stamped: &Stamped) -> Vec<String> {
        match &stamped.event {
            Event::RunStarted { steps, .. } => {
                (self.counts, self.reused) = (steps.len() > LISTED, (0, 0));
                self.width = steps.iter().map(|id| id.chars().count()).max().unwrap_or(0).clamp(8, 40);
                self.noted.clear();
                Vec::new()
            }
            Event::StepFetching { step, source } => {
                self.gauges.insert(step.clone(), (stamped.at_ms, Gauge::new(step, stamped.at_ms)));
                if self.plain { vec![self.step("▸", "36", step, "fetches", source)] } else { Vec::new() }
            }
            Event::StepStarted { step, why, .. } => {
                let why = reasons(why);
                self.why.insert(step.clone(), why.clone());
                self.gauges.insert(step.clone(), (stamped.at_ms, Gauge::new(step, stamped.at_ms)));
                if self.plain { vec![self.step("▸", "36", step, "runs", &why)] } else { Vec::new() }
            }
            Event::StepJoined { step, .. } => {
                vec![self.step("⋯", "36", step, "joined", "(another process is making it)")]
            }
            Event::StepRetrying { step, problem, wait_ms } => {
                let text = format!("{step}: {}; trying again in {}", problem.what, duration(*wait_ms));
                self.wrapped(&warning(&text, self.color))
            }
            Event::StepReused { step, saved_ms, costs, .. } => {
                let saved = format!("(saved {})  {}", duration(*saved_ms), measured(costs));
                vec![self.step("=", "2", step, "reused", &saved)]
            }
            Event::StepFinished { step, took_ms, costs, retries, .. } => {
                let why = self.over(step);
                // The plain line that told the beginning has told the reason.
                let why = if self.plain { String::new() } else { why };
                vec![self.step("✓", "32", step, &duration(*took_ms), &more(why, costs, *retries))]
            }
            Event::StepFailed { step, problem } => {
                self.over(step);
                let mut lines = vec![self.step("✗", "31", step, "failed", "")];
                lines.extend(self.problem(problem));
                lines
            }
            Event::StepSkipped { step, because } => {
                vec![self.step("–", "2", step, "skipped", &format!("({because} failed)"))]
            }
            Event::StepSaid { step, say } => self.said(stamped.at_ms, step, say),
            Event::RunFinished { .. } => self.finished(&stamped.event),
            Event::Refused { problems } => problems.iter().flat_map(|problem| self.problem(problem)).collect(),
            Event::GridFinished { file } => vec![format!("the table is in {file}")],
            // It is out of date before the next line comes.
            Event::Forecast { .. } => Vec::new(),
        }
    }

    /// Nothing more comes of a step; answers why it ran.
    fn over(&mut self, step: &str) -> String {
        self.gauges.remove(step);
        self.why.remove(step).unwrap_or_default()
    }

    /// `= 4 950 steps reused   (saved 3 m 05 s)`.
    fn counted(&mut self) -> String {
        let (steps, saved_ms) = std::mem::take(&mut self.reused);
        let noun = if steps == 1 { "step" } else { "steps" };
        let saved = duration(saved_ms);
        format!("{} {} {noun} reused   (saved {saved})", paint("=", "2", self.color), grouped(steps))
    }

    fn finished(&self, event: &Event) -> Vec<String> {
        let Event::RunFinished { outcome, ran, reused, failed, skipped, took_ms, saved_ms, results, .. } = event else {
            return Vec::new();
        };
        let mut parts = vec![format!("{} ran", count(*ran, "step")), format!("{reused} reused")];
        for (n, word) in [(failed, "failed"), (skipped, "skipped")] {
            if *n > 0 {
                parts.push(format!("{n} {word}"));
            }
        }
        let (word, code) = match outcome {
            Outcome::Done => ("done", "32"),
            Outcome::Failed => ("failed", "31"),
            Outcome::Interrupted => ("interrupted", "33"),
        };
        let mut line = format!("{} in {}: {}", paint(word, code, self.color), duration(*took_ms), parts.join(", "));
        if *saved_ms > 0 {
            line.push_str(&format!("; the cache saved {}", duration(*saved_ms)));
        }
        let mut lines = vec![line];
        match outcome {
            Outcome::Failed if *skipped > 0 => {
                lines.push("what was finished is kept; after a failure no new step is started".to_owned());
            }
            Outcome::Interrupted => lines.push("what was finished is kept; run again to go on".to_owned()),
            _ => {}
        }
        if !results.is_empty() {
            lines.push("results:".to_owned());
        }
        lines
    }

    fn said(&mut self, at_ms: u64, step: &str, say: &Say) -> Vec<String> {
        match say {
            Say::Warning { text } => self.wrapped(&warning(&format!("{step}: {text}"), self.color)),
            // Steps beside each other note the same of what they share: once is enough.
            Say::Note { text } if !self.noted.insert(text.clone()) => Vec::new(),
            Say::Note { text } => self.wrapped(&format!("  {step}: {text}")),
            Say::Remark { text } => self.wrapped(&format!("  {step}: {text}")),
            Say::Resumed { at, total, unit, run } => {
                let (at, total) = (grouped(*at), grouped(*total));
                self.wrapped(&format!("  {step}: goes on from {at} of {total} {unit}, left by {run}"))
            }
            Say::Metric { .. } => Vec::new(),
            Say::Progress { done, total, unit, text } => {
                let (last, gauge) =
                    self.gauges.entry(step.to_owned()).or_insert_with(|| (at_ms, Gauge::new(step, at_ms)));
                gauge.told(at_ms, *done, *total, unit, text);
                if !self.plain || at_ms.saturating_sub(*last) < EVERY {
                    return Vec::new();
                }
                *last = at_ms;
                vec![gauge.plain(at_ms)]
            }
        }
    }

    fn problem(&self, problem: &crate::error::Problem) -> Vec<String> {
        let look = problem::Look { color: self.color, columns: self.columns };
        problem::render_one(problem, look).trim_end().lines().map(str::to_owned).collect()
    }

    fn wrapped(&self, text: &str) -> Vec<String> {
        self.columns.map_or_else(|| vec![text.to_owned()], |columns| wrap(text, columns, 4))
    }

    fn step(&self, mark: &str, code: &str, step: &str, what: &str, more: &str) -> String {
        let width = self.width;
        let line = format!("{} {step:width$}  {what:>9}   {more}", paint(mark, code, self.color));
        self.columns.map_or_else(|| line.clone(), |columns| cut(&line, columns)).trim_end().to_owned()
    }
}

/// What is told of a finished step beside its time: the reason first, because nothing else tells it.
fn more(why: String, costs: &Costs, retries: u32) -> String {
    let failed = (retries > 0).then(|| format!("after {}", count(retries as usize, "failed attempt")));
    let parts = [why, measured(costs), failed.unwrap_or_default()];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::error::Problem;

    fn lines(lines: &mut Lines, at_ms: u64, event: Event) -> Vec<String> {
        lines.of(&Stamped { at_ms, event }, || None)
    }

    fn begun(plain: bool) -> Lines {
        of_steps(plain, vec!["lora".to_owned(), "tokens".to_owned()])
    }

    fn of_steps(plain: bool, steps: Vec<String>) -> Lines {
        let mut all = Lines::new(false, plain);
        let (run, pipeline, file) = ("r".into(), "p".into(), "p.yaml".into());
        let started = Event::RunStarted { run, pipeline, file, sets: Vec::new(), steps };
        assert!(lines(&mut all, 0, started).is_empty());
        all
    }

    fn started() -> Event {
        let why = vec!["params.adapter.lora.rank: 4 → 8".to_owned()];
        Event::StepStarted { step: "lora".into(), key: Digest::of(b""), why }
    }

    fn finished() -> Event {
        finished_after(Costs::default(), 0)
    }

    fn finished_after(costs: Costs, retries: u32) -> Event {
        let (outputs, figures) = (BTreeMap::new(), BTreeMap::new());
        let (step, key) = ("lora".into(), Digest::of(b""));
        Event::StepFinished { step, key, took_ms: 42_100, costs, retries, outputs, figures }
    }

    fn reused(costs: Costs) -> Event {
        let (outputs, figures) = (BTreeMap::new(), BTreeMap::new());
        let (step, key) = ("tokens".into(), Digest::of(b""));
        Event::StepReused { step, key, saved_ms: 3200, costs, outputs, figures }
    }

    const COSTS: Costs = Costs { took_ms: 42_100, cpu_ms: Some(80_200), peak_bytes: Some(1_288_490_189) };

    #[test]
    fn nothing_is_kept_of_steps_that_are_over() {
        let failed = || Event::StepFailed { step: "lora".into(), problem: Problem::new("no") };
        for end in [finished(), failed()] {
            let mut all = begun(false);
            lines(&mut all, 0, started());
            assert_eq!((all.why.len(), all.gauges.len()), (1, 1));
            lines(&mut all, 1, end);
            assert_eq!((all.why.len(), all.gauges.len()), (0, 0));
        }
    }

    #[test]
    fn above_bars_a_step_is_one_line_with_its_reason() {
        let mut all = begun(false);
        assert!(lines(&mut all, 1, started()).is_empty());
        assert_eq!(lines(&mut all, 2, finished()), ["✓ lora         42.1 s   params.adapter.lora.rank: 4 → 8"]);
        assert_eq!(lines(&mut all, 3, reused(Costs::default())), ["= tokens       reused   (saved 3.2 s)"]);
    }

    #[test]
    fn costs_and_failed_attempts_are_told_where_there_are_any() {
        let mut all = begun(false);
        lines(&mut all, 1, started());
        assert_eq!(
            lines(&mut all, 2, finished_after(COSTS, 2)),
            ["✓ lora         42.1 s   params.adapter.lora.rank: 4 → 8; CPU 1 m 20 s, 1.2 GiB; after 2 failed attempts"]
        );
        assert_eq!(lines(&mut all, 3, reused(COSTS)), ["= tokens       reused   (saved 3.2 s)  CPU 1 m 20 s, 1.2 GiB"]);
        let mut all = begun(true);
        lines(&mut all, 1, started());
        let memory = Costs { cpu_ms: None, ..COSTS };
        assert_eq!(
            lines(&mut all, 2, finished_after(memory, 1)),
            ["✓ lora         42.1 s   1.2 GiB; after 1 failed attempt"]
        );
    }

    #[test]
    fn of_many_steps_the_reused_ones_are_counted() {
        for (steps, plain) in [(30, false), (31, false), (31, true)] {
            let mut all = of_steps(plain, (0..steps).map(|i| format!("step-{i}")).collect());
            let told: Vec<String> = (0..1030).flat_map(|_| lines(&mut all, 1, reused(COSTS))).collect();
            if steps == 30 {
                assert_eq!(told.len(), 1030);
                continue;
            }
            assert!(told.is_empty(), "{told:?}");
            let mut told = lines(&mut all, 2, started());
            told.extend(lines(&mut all, 3, finished()));
            let place = usize::from(plain);
            assert_eq!(told[0], "= 1 030 steps reused   (saved 54 m 56 s)", "{told:?}");
            assert!(told[1 + place].starts_with("✓ lora") && told.len() == 2 + place, "{told:?}");
            assert!(lines(&mut all, 4, reused(COSTS)).is_empty());
            let end = Event::RunFinished {
                outcome: Outcome::Done,
                ran: 1,
                reused: 1031,
                failed: 0,
                skipped: 0,
                took_ms: 1,
                saved_ms: 0,
                results: Vec::new(),
                machine: String::new(),
            };
            assert_eq!(
                lines(&mut all, 5, end),
                ["= 1 step reused   (saved 3.2 s)", "done in 1 ms: 1 step ran, 1031 reused"]
            );
        }
    }

    #[test]
    fn without_bars_the_beginning_is_told_and_progress_now_and_then() {
        let mut all = begun(true);
        assert_eq!(lines(&mut all, 1, started()), ["▸ lora           runs   params.adapter.lora.rank: 4 → 8"]);
        let progress = |done| {
            let say = Say::Progress { done, total: Some(9), unit: "steps".into(), text: "loss 1.2".into() };
            Event::StepSaid { step: "lora".into(), say }
        };
        assert!(lines(&mut all, 2000, progress(1)).is_empty());
        assert_eq!(lines(&mut all, 10_001, progress(2)), ["  lora: 2/9 steps  0.12/s  56 s left  loss 1.2"]);
        assert!(lines(&mut all, 10_500, progress(3)).is_empty());
        assert_eq!(lines(&mut all, 11_000, finished()), ["✓ lora         42.1 s"]);
    }

    #[test]
    fn on_a_terminal_reasons_are_cut_and_sentences_wrapped() {
        let mut all = begun(false);
        let mut on = |columns, event| all.of(&Stamped { at_ms: 1, event }, || Some(columns));
        on(40, started());
        assert_eq!(on(40, finished()), ["✓ lora         42.1 s   params.adapter.…"]);
        let say = |text: &str| Say::Note { text: text.into() };
        let note =
            |step: &str| Event::StepSaid { step: step.into(), say: say("20 rows, 300 tokens, of which 4 have loss") };
        assert_eq!(on(30, note("lora")), ["  lora: 20 rows, 300 tokens,", "    of which 4 have loss"]);
        assert!(on(30, note("mlp")).is_empty(), "the same once more");
    }

    #[test]
    fn the_end_is_told_in_four_lines_at_most() {
        let mut all = begun(false);
        let problem = Problem::new("no labels").in_file("test.jsonl", Some(1));
        let failed = lines(&mut all, 1, Event::StepFailed { step: "lora".into(), problem });
        assert!(
            failed[0].starts_with("✗ lora") && failed.iter().any(|line| line.contains("test.jsonl:1")),
            "{failed:?}"
        );
        let end = Event::RunFinished {
            outcome: Outcome::Failed,
            ran: 1,
            reused: 2,
            failed: 1,
            skipped: 3,
            took_ms: 1500,
            saved_ms: 61_000,
            results: vec!["cache/results/p/a/f".into()],
            machine: String::new(),
        };
        assert_eq!(
            lines(&mut all, 1, end),
            [
                "failed in 1.5 s: 1 step ran, 2 reused, 1 failed, 3 skipped; the cache saved 1 m 01 s",
                "what was finished is kept; after a failure no new step is started",
                "results:",
            ]
        );
    }
}
