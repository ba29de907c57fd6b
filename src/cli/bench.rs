//! `pipe bench`: how fast a step is, and how near to what libtorch can do here; nothing of it is kept.
//! It does not know what steps do: they say what work they did, and when.

mod card;
mod clock;
mod dtype;
mod limit;
mod told;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::clock::{Clock, Measured, Span};
use self::limit::Limit;
use super::{CacheArgs, Exit, PipelineArgs, fail, front, plan, remote};
use crate::error::{Problem, Result};
use crate::event::{Costs, Say};
use crate::exec::bench::{Followers, Trial};
use crate::exec::{self, Decider, Planned, Records, Verdict};
use crate::fetch::Settings;
use crate::spec::{Pipeline, Step};
use crate::step::{AnyStep, Work};
use crate::ui;

/// Measures how fast a step is: ids and operations a second, the share of what libtorch's own products of the same shapes
/// reach on this machine, time and memory.
///
/// The step runs alone, with the threads that it has in a run, in a folder that goes away: no result, record or run comes
/// of it. Its inputs must be in the cache. An operation is a multiplication or an addition: 2 a weight of the model and
/// id, as many again for the gradient at what goes in and for that of the weights where there is one, and those of
/// attention; padding is left out, and what one reading serves several answers with counts once.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  pipe bench pipelines/lora_vs_mlp.yaml lora\n  \
    pipe bench pipelines/ablation.yaml 'lora[rank=4]' --steps 50\n  \
    pipe bench pipelines/lora_vs_mlp.yaml terra_base --json\n  \
    pipe bench pipelines/lora_vs_mlp.yaml lora --dtype --keep")]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The step; of a matrix, one cell: `lora[rank=4]`.
    #[arg(value_name = "STEP")]
    step: String,
    /// Ends after so many pieces of work: optimiser steps of a training, else what goes through the model at once
    /// [default: what a training does in ten seconds, and everything of other steps].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    steps: Option<u32>,
    /// Pieces of work that are not measured before those [default: 3 of a training, else none].
    #[arg(long, value_name = "N")]
    warm_up: Option<u32>,
    /// Measures the step with its base in f32 and in bf16 instead, by turns, and tells which is faster.
    #[arg(long)]
    dtype: bool,
    /// Lets `dtype: auto` be the faster one from now on, for bases of this shape on processors like this one, if it was
    /// faster in every round. Steps whose base then has another precision than before run again.
    #[arg(long, requires = "dtype")]
    keep: bool,
    #[command(flatten)]
    cache: CacheArgs,
    /// Tells it as a line of JSON.
    #[arg(long)]
    json: bool,
}

/// A training is measured for so long, in seconds, if nothing else is said.
const SECONDS: f64 = 10.0;
/// And so many of its steps are not: the first ones ask for memory, pack weights and wake threads.
const WARM_UP: usize = 3;

/// Does it.
pub fn main(args: &Args) -> Exit {
    match bench(args) {
        Ok(exit) | Err(exit) => exit,
    }
}

fn bench(args: &Args) -> Result<Exit, Exit> {
    let pipeline = args.pipeline.load(std::slice::from_ref(&args.step), &[])?;
    let step = super::only(&pipeline, &args.step)?;
    if pipeline.steps[step].kind.needs_torch() {
        front::hand_over(&args.cache.device).map_err(|problem| fail(&problem, Exit::Failed))?;
    }
    let mut done = Ok(());
    plan::with(&pipeline, &args.cache, |decider, _, planned| done = at(args, decider, planned, step))?;
    done.map_err(|problem| fail(&problem, Exit::Failed)).map(|()| Exit::Done)
}

fn at(args: &Args, decider: &Decider, planned: &BTreeMap<usize, Planned>, position: usize) -> Result<()> {
    let step = &decider.pipeline.steps[position];
    if args.dtype {
        dtype::check(step)?;
    }
    let records = inputs(decider.pipeline, planned, position)?;
    let settings = Arc::new(remote::settings(false, decider.store)?);
    let bench = Bench { decider, position, records, settings };
    if args.dtype {
        return dtype::run(args, &bench, step);
    }
    let outcome = bench.run(&*step.action, span(args, step), true)?;
    if args.json {
        ui::out(&told::json(decider, step, &outcome).to_string());
    } else {
        outcome.said.iter().for_each(|text| ui::err(text));
        told::lines(decider, step, &outcome).iter().for_each(|line| ui::out(line));
    }
    Ok(())
}

fn span(args: &Args, step: &Step) -> Span {
    let is_training = !step.kind.lengths().is_empty();
    let pieces = args.steps.map(|steps| steps as usize);
    Span {
        warm_up: args.warm_up.map_or(if is_training { WARM_UP } else { 0 }, |steps| steps as usize),
        pieces,
        seconds: (is_training && pieces.is_none()).then_some(SECONDS),
    }
}

/// The records of the producers of a step, which must all be there.
fn inputs(pipeline: &Pipeline, planned: &BTreeMap<usize, Planned>, position: usize) -> Result<Records> {
    let step = &pipeline.steps[position];
    if let Some(Planned { verdict: Verdict::Fail(problem), .. }) = planned.get(&position) {
        return Err(problem.clone());
    }
    let record = |producer: usize| match planned.get(&producer).map(|plan| &plan.verdict) {
        Some(Verdict::Reuse(record)) => Some(record.clone()),
        _ => None,
    };
    let (mut records, mut missing) = (Records::new(), Vec::new());
    for producer in step.inputs.values().flatten().map(|edge| edge.step) {
        match record(producer) {
            Some(record) => drop(records.insert(producer, record)),
            None => missing.push(pipeline.steps[producer].id.as_str()),
        }
    }
    missing.dedup();
    if missing.is_empty() {
        return Ok(records);
    }
    let names = missing.iter().map(|id| format!("`{id}`")).collect::<Vec<_>>().join(", ");
    let until = missing.iter().map(|id| format!(" --until '{id}'")).collect::<String>();
    let what =
        format!("`{}` cannot be measured yet: it reads {names}, not in the cache as the pipeline is now", step.id);
    Err(Problem::new(what).help(format!("make that first: `pipe run {}{until}`", pipeline.file.display())))
}

/// What is measured, and where.
struct Bench<'a> {
    decider: &'a Decider<'a>,
    position: usize,
    records: Records,
    settings: Arc<Settings>,
}

/// What came of it.
struct Outcome {
    /// The work of a step that tells some.
    measured: Option<Measured>,
    limit: Limit,
    /// Of all of it, loading included.
    costs: Costs,
    /// The memory of its card, where there is one: `None` in it where nobody can tell.
    card: Option<Option<u64>>,
    /// What the step noted.
    said: Vec<String>,
}

/// What is known on the way.
struct Watch {
    clock: Clock,
    limit: Limit,
    /// The most memory before the limit was measured.
    peak: Option<u64>,
    card: Option<u64>,
}

impl Bench<'_> {
    /// Runs the step with these parameters; with `limited`, libtorch's own rate is measured after its first piece of work
    /// and at its end.
    fn run(&self, action: &dyn AnyStep, span: Span, limited: bool) -> Result<Outcome> {
        let device = self.decider.machine.device.clone();
        let on_card = device.starts_with("cuda");
        let watch = Watch { clock: Clock::new(span), limit: Limit::default(), peak: None, card: None };
        let (watch, enough) = (Arc::new(Mutex::new(watch)), Arc::new(AtomicBool::new(false)));
        let said = Arc::new(Mutex::new(Vec::new()));
        let meter = {
            let (watch, enough, device) = (watch.clone(), enough.clone(), device.clone());
            move |work: Work| {
                let Watch { clock, limit, peak, .. } = &mut *held(&watch);
                if clock.hear(work) {
                    enough.store(true, Ordering::Relaxed);
                }
                if limited && work.flop > 0 && limit.rates.is_empty() {
                    *peak = exec::peak();
                    clock.pause(|| limit.measure(&device));
                    exec::forget_peak();
                }
            }
        };
        let say = {
            let said = said.clone();
            move |say| {
                if let Say::Note { text } | Say::Warning { text } | Say::Remark { text } = say {
                    held(&said).push(text);
                }
            }
        };
        let end = || {
            let Watch { limit, card, .. } = &mut *held(&watch);
            *card = if on_card { card::memory() } else { None };
            if !limit.rates.is_empty() {
                limit.measure(&device);
            }
        };
        let trial = Trial {
            decider: self.decider,
            position: self.position,
            action,
            records: &self.records,
            settings: self.settings.clone(),
            enough,
        };
        let followers = Followers { meter: Box::new(meter), say: Box::new(say), end: Box::new(end) };
        let mut costs = exec::bench::run(&trial, followers)?;
        let Watch { clock, limit, peak, card } = &*held(&watch);
        let (seconds, cpu_ms) = clock.paused();
        costs.took_ms = costs.took_ms.saturating_sub((seconds * 1000.0) as u64);
        costs.cpu_ms = costs.cpu_ms.map(|ms| ms.saturating_sub(cpu_ms));
        costs.peak_bytes = costs.peak_bytes.map(|last| last.max(peak.unwrap_or(0)));
        let said = held(&said).clone();
        Ok(Outcome { measured: clock.measured(), limit: limit.clone(), costs, card: on_card.then_some(*card), said })
    }
}

/// A lock whose holder died is worth what it holds.
fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
