//! Runs one step for the sake of its speed, alone and in a folder that goes away with it: nothing of it is kept.
//! It does not know what is measured, nor what the step does.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::costs::Crowd;
use super::decide::Decider;
use super::{Records, panics};
use crate::error::{Problem, Result};
use crate::event::{Costs, Say};
use crate::fetch::Settings;
use crate::step::{AnyStep, Context, Frame, Outside, Work};

/// A step that is run to be measured.
pub struct Trial<'a> {
    /// Where its inputs lie.
    pub decider: &'a Decider<'a>,
    /// Its position in the pipeline.
    pub position: usize,
    /// What runs: the step's own action, or one with other parameters.
    pub action: &'a dyn AnyStep,
    /// The records of its producers.
    pub records: &'a Records,
    /// How other machines are reached.
    pub settings: Arc<Settings>,
    /// Set by whoever has seen enough; the step then ends where it looks next.
    pub enough: Arc<AtomicBool>,
}

/// Who follows a trial.
pub struct Followers<'f> {
    /// Hears the work of the step, on the thread that does it.
    pub meter: Box<dyn Fn(Work) + Send>,
    /// Hears what it says.
    pub say: Box<dyn Fn(Say) + Send>,
    /// Called on the same thread once it has ended well or been stopped.
    pub end: Box<dyn FnOnce() + Send + 'f>,
}

/// Runs it and answers what all of it cost.
pub fn run(trial: &Trial, followers: Followers) -> Result<Costs> {
    let step = &trial.decider.pipeline.steps[trial.position];
    let stage = trial.decider.store.stage()?;
    let out = stage.out();
    fs::create_dir(&out).map_err(|e| Problem::io("make the folder", &out, &e))?;
    let machine = trial.decider.machine.clone();
    let Followers { meter, say, end } = followers;
    let gpus = machine.device.strip_prefix("cuda:").and_then(|number| number.parse().ok()).into_iter().collect();
    let known = trial.action.remote().and_then(|address| trial.decider.lock.get(&address));
    let frame = Frame {
        step: step.id.clone(),
        inputs: trial.decider.artifacts(trial.position, trial.records),
        out,
        root: trial.decider.pipeline.root.clone(),
        threads: machine.threads(trial.action.share()),
        machine,
        cancel: trial.enough.clone(),
        sink: say,
    };
    let works = move || {
        let outside = Outside { settings: trial.settings.clone(), known };
        let cx = Context::new(frame).with_gpus(gpus).with_outside(outside);
        let mut cx = cx.with_meter(meter);
        let crowd = Crowd::default();
        let costs = crowd.enter(!step.kind.works_outside());
        let ran = panics::caught(step.kind.name(), || trial.action.run(&mut cx));
        let (here, elsewhere) = (costs.read(), cx.costs());
        // What became of its inputs counts however it is run.
        cx.all_damaged().iter().try_for_each(|artifact| trial.decider.store.discard(artifact))?;
        match ran {
            Err(problem) if !(problem.cancelled && trial.enough.load(Ordering::Relaxed)) => Err(problem),
            _ => {
                end();
                let Costs { took_ms, cpu_ms, peak_bytes } = here;
                Ok(Costs { took_ms, cpu_ms: elsewhere.0.or(cpu_ms), peak_bytes: elsewhere.1.or(peak_bytes) })
            }
        }
    };
    // As steps run: not on the main thread, whose memory the allocator handles in another way, and on none that has
    // worked before.
    thread::scope(|scope| scope.spawn(works).join().unwrap_or_else(|_| Err(Problem::new("the step panicked"))))
}
