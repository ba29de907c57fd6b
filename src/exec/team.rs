//! What a worker thread does with several steps that do their work together, each in its own folder and with a result
//! of its own; one that fails beside the others is tried alone. It does not know who belongs together.

use std::sync::mpsc::Sender;

use super::Message;
use super::ahead::Ahead;
use super::work::{Ended, Job, Made, Said, caught, pass, send};
use crate::error::Result;
use crate::event::{Costs, Say};
use crate::step::{AnyStep, Context};
use crate::store::Stage;

/// Steps of one kind, at least one.
pub(super) struct Team<'a> {
    pub jobs: Vec<Job<'a>>,
    /// True if their results must be those of steps that ran alone, to the byte.
    pub exact: bool,
}

/// A step of a team, ready to run.
struct Opened {
    stage: Stage,
    cx: Context,
    said: Said,
}

impl<'a> Team<'a> {
    /// Runs the steps and sends what became of each.
    pub fn work(mut self, to: &Sender<Message>, ahead: &Ahead<'a>) {
        if self.jobs.len() == 1
            && let Some(job) = self.jobs.pop()
        {
            return job.work(to, ahead);
        }
        let results = match self.attempt(to) {
            Ok(results) => results,
            Err(problem) => self.jobs.iter().map(|_| Err(problem.clone())).collect(),
        };
        let mut again = Vec::new();
        for (job, result) in self.jobs.into_iter().zip(results) {
            match result {
                Ok(made) => {
                    let position = job.position;
                    let kept = job.keep(made, to);
                    send(
                        position,
                        kept.map(|(record, stage)| (Ended { record: Box::new(record), retries: 0 }, stage)),
                        None,
                        to,
                    );
                }
                Err(problem) if problem.gate || job.stop.cancelled() => send(job.position, Err(problem), None, to),
                Err(problem) => again.push((job, problem)),
            }
        }
        // The others may have been the reason, or its time was up because of them.
        for (job, problem) in again {
            let text = format!("it failed beside the others ({}) and is tried alone", problem.what);
            pass(job.position, to.clone())(Say::Remark { text });
            job.work(to, ahead);
        }
    }

    fn attempt(&self, to: &Sender<Message>) -> Result<Vec<Result<Made>>> {
        let [first, ..] = self.jobs.as_slice() else { return Ok(Vec::new()) };
        let meter = first.crowd.enter(!first.step.kind.works_outside());
        let mut opened = Vec::new();
        for job in &self.jobs {
            let stage = job.store.stage()?;
            let (cx, said) = job.open(&stage, to)?;
            opened.push(Opened { stage, cx, said });
        }
        let members = self.jobs.iter().zip(&mut opened);
        let mut members: Vec<(&dyn AnyStep, &mut Context)> =
            members.map(|(job, opened)| (&*job.step.action, &mut opened.cx)).collect();
        let ran = caught(first.step.kind.name(), || first.step.action.run_together(&mut members, self.exact))?;
        let (costs, whole) = (meter.read(), opened.iter().map(|one| u128::from(one.cx.weight())).sum::<u128>());
        let closed = self.jobs.iter().zip(opened).zip(ran).map(|((job, opened), ran)| {
            let Opened { stage, mut cx, said } = opened;
            let share = share(costs, cx.weight(), whole);
            match job.close(&mut cx, &said, ran, &stage, || share, to) {
                Ok((draft, replaces)) => Ok(Made { stage, draft, replaces }),
                Err(problem) => {
                    // Who fails alone afterwards leaves its own in its place; what was expected fails once and for all.
                    if problem.gate
                        && let Err(kept) = job.store.keep_failed(&job.decision.key, &stage)
                    {
                        let text = format!("its folder is not kept: {}", kept.what);
                        pass(job.position, to.clone())(Say::Warning { text });
                    }
                    Err(problem)
                }
            }
        });
        Ok(closed.collect())
    }
}

/// What one of them cost: its part of the time. The memory is that of the process.
fn share(costs: Costs, weight: u64, whole: u128) -> Costs {
    let part = |ms: u64| (u128::from(ms) * u128::from(weight) / whole.max(1)) as u64;
    Costs { took_ms: part(costs.took_ms), cpu_ms: costs.cpu_ms.map(part), peak_bytes: costs.peak_bytes }
}
