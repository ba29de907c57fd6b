//! What a worker thread does with several steps that do their work together, each in its own folder and with a result
//! of its own; one that fails beside the others is tried alone. It does not know who belongs together.

use std::sync::mpsc::Sender;

use super::Message;
use super::ahead::Ahead;
use super::costs::Meter;
use super::panics::caught;
use super::work::{Ended, Job, Made, pass, send};
use crate::error::{Problem, Result};
use crate::event::{Costs, Say};
use crate::step::{AnyStep, Context, End};
use crate::store::Stage;

/// Steps of one kind, at least one.
pub(super) struct Team<'a> {
    pub jobs: Vec<Job<'a>>,
    /// True if their results must be those of steps that ran alone, to the byte.
    pub exact: bool,
}

/// Those of a team that have not ended, by their place, and those that are to be tried alone.
struct Members<'a> {
    jobs: Vec<Option<Job<'a>>>,
    again: Vec<(Job<'a>, Problem)>,
}

impl<'a> Team<'a> {
    /// Runs the steps and sends what became of each.
    pub fn work(mut self, to: &Sender<Message>, ahead: &Ahead<'a>) {
        if self.jobs.len() == 1
            && let Some(job) = self.jobs.pop()
        {
            return job.work(to, ahead);
        }
        let mut members = Members { jobs: self.jobs.into_iter().map(Some).collect(), again: Vec::new() };
        let left = match members.attempt(self.exact, to) {
            Ok(()) => Problem::new("nothing was said of how it ended"),
            Err(problem) => problem,
        };
        for at in 0..members.jobs.len() {
            members.failed(at, left.clone(), None, to);
        }
        // The others may have been the reason, or its time was up because of them.
        for (job, problem) in members.again {
            let text = format!("it failed beside the others ({}) and is tried alone", problem.what);
            pass(job.position, to.clone())(Say::Remark { text });
            job.work(to, ahead);
        }
    }
}

impl Members<'_> {
    fn attempt(&mut self, exact: bool, to: &Sender<Message>) -> Result<()> {
        let jobs: Vec<&Job> = self.jobs.iter().flatten().collect();
        let [first, ..] = jobs.as_slice() else { return Ok(()) };
        let (step, crowd) = (first.step, first.crowd.clone());
        let mut meter = Some(crowd.enter(!step.kind.works_outside()));
        let (mut contexts, mut folders) = (Vec::new(), Vec::new());
        for job in &jobs {
            let stage = job.store.stage()?;
            let (cx, said) = job.open(&stage, to)?;
            contexts.push(cx);
            folders.push(Some((stage, said)));
        }
        let actions: Vec<&dyn AnyStep> = jobs.iter().map(|job| &*job.step.action).collect();
        let mut members: Vec<(&dyn AnyStep, &mut Context)> = actions.into_iter().zip(&mut contexts).collect();
        let mut before = Costs::default();
        let mut ended = |ends: Vec<End<'_>>| {
            let Some(now) = meter.as_ref().map(Meter::read) else { return };
            let spent = since(before, now);
            let whole = ends.iter().map(|(_, cx, _)| u128::from(cx.weight())).sum::<u128>();
            let mut closed = Vec::new();
            for (at, cx, ran) in ends {
                let Some((stage, said)) = folders.get_mut(at).and_then(Option::take) else { continue };
                let Some(job) = &self.jobs[at] else { continue };
                let share = share(spent, cx.weight(), whole);
                let result = job.close(cx, &said, ran, &stage, || share, to);
                closed.push((at, stage, result));
            }
            // Whoever begins once the last has ended is measured alone.
            if folders.iter().all(Option::is_none) {
                meter = None;
            }
            for (at, stage, result) in closed {
                match result {
                    Ok((draft, replaces)) => self.made(at, Made { stage, draft, replaces }, to),
                    Err(problem) => self.failed(at, problem, Some(&stage), to),
                }
            }
            // What it took to keep results is nobody's work.
            before = meter.as_ref().map(Meter::read).unwrap_or_default();
        };
        caught(step.kind.name(), || step.action.run_together(&mut members, exact, &mut ended))
    }

    /// Keeps the result of one and tells that it has ended.
    fn made(&mut self, at: usize, made: Made, to: &Sender<Message>) {
        if let Some(job) = self.jobs[at].take() {
            let position = job.position;
            let kept = job.keep(made, to);
            let ended = |(record, stage)| (Ended { record: Box::new(record), retries: 0 }, stage);
            send(position, kept.map(ended), None, to);
        }
    }

    /// It has failed, for good or beside the others.
    fn failed(&mut self, at: usize, problem: Problem, stage: Option<&Stage>, to: &Sender<Message>) {
        let Some(job) = self.jobs[at].take() else { return };
        // Who fails alone afterwards leaves its own in its place; what was expected fails once and for all.
        if let Some(stage) = stage.filter(|_| problem.gate)
            && let Err(kept) = job.store.keep_failed(&job.decision.key, stage)
        {
            let text = format!("its folder is not kept: {}", kept.what);
            pass(job.position, to.clone())(Say::Warning { text });
        }
        if problem.gate || job.stop.cancelled() {
            send(job.position, Err(problem), None, to);
        } else {
            self.again.push((job, problem));
        }
    }
}

/// What was spent between two readings. The memory is that of the process.
fn since(before: Costs, now: Costs) -> Costs {
    let cpu_ms = now.cpu_ms.map(|cpu| cpu.saturating_sub(before.cpu_ms.unwrap_or_default()));
    Costs { took_ms: now.took_ms.saturating_sub(before.took_ms), cpu_ms, peak_bytes: now.peak_bytes }
}

/// What one of them cost: its part of the time.
fn share(costs: Costs, weight: u64, whole: u128) -> Costs {
    let part = |ms: u64| (u128::from(ms) * u128::from(weight) / whole.max(1)) as u64;
    Costs { took_ms: part(costs.took_ms), cpu_ms: costs.cpu_ms.map(part), peak_bytes: costs.peak_bytes }
}
