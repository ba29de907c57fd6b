//! What a worker thread does: runs one step in its own folder and keeps the result.
//! It does not know about other steps.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::ahead::Ahead;
use super::costs::Crowd;
use super::decide::Decision;
use super::panics::caught;
use super::slots::Rank;
use super::sources::{self, Sources};
use super::stop::Stop;
use super::{Message, Options, gate};
use crate::digest::bytes_of;
use crate::error::{Problem, Result};
use crate::event::{Costs, Say};
use crate::spec::Step;
use crate::spec::policy::CHECKPOINT;
use crate::step::{Artifact, Checkpoints, Context, Frame, Machine, Outside, Traces};
use crate::store::{Draft, Lease, Record, Stage, Store, Work};

/// Everything that one step needs to run.
pub(super) struct Job<'a> {
    pub step: &'a Step,
    pub position: usize,
    pub root: PathBuf,
    pub inputs: BTreeMap<String, Vec<Artifact>>,
    pub decision: Arc<Decision>,
    pub outside: Outside,
    /// How long its remote source took to fetch.
    pub fetched: Duration,
    pub store: &'a Store,
    pub options: &'a Options,
    /// The GPUs that are its own.
    pub gpus: Vec<usize>,
    pub stop: Arc<Stop>,
    pub crowd: Arc<Crowd>,
    /// Figures of other steps that its expectations name.
    pub others: BTreeMap<String, gate::Figures>,
    /// The first of those that its end may let go on, if another step may go on in its place.
    pub heirs: Option<Rank>,
    /// Held until its record can be seen; `None` as long as it only waits.
    pub lease: Option<Lease>,
}

/// Notes and warnings of a step, for its record.
pub(super) type Said = Arc<Mutex<Vec<Say>>>;

/// A step that is done.
pub(super) struct Ended {
    pub record: Box<Record>,
    /// How many attempts failed before.
    pub retries: u32,
}

/// How often progress is passed on at most: bars are not drawn more often anyway.
const PROGRESS: Duration = Duration::from_millis(50);

/// How often a wait between two attempts looks whether it is to end.
const PATIENCE: Duration = Duration::from_millis(50);

impl<'a> Job<'a> {
    /// Runs the step and sends what became of it, and then those that go on in its place.
    pub fn work(self, to: &Sender<Message>, ahead: &Ahead<'a>) {
        let mut next = Some(self);
        while let Some(job) = next {
            let (position, heirs) = (job.position, job.heirs);
            let keeps_going = job.options.choice.keep_going;
            let result = job.attempts(to);
            if result.is_err() && !keeps_going {
                ahead.close();
            }
            next = heirs.filter(|_| result.is_ok()).and_then(|heirs| ahead.take(heirs, to));
            send(position, result, next.as_ref().map(|next| next.position), to);
        }
    }

    /// Tries as often as the step may, and waits twice as long each time.
    fn attempts(self, to: &Sender<Message>) -> Result<(Ended, Stage)> {
        let (times, mut pause) = (self.step.policy.retries, self.step.policy.backoff);
        let mut retries = 0;
        loop {
            let problem = match self.attempt(to) {
                Ok(made) => {
                    let (record, stage) = self.keep(made, to)?;
                    return Ok((Ended { record: Box::new(record), retries }, stage));
                }
                Err(problem) => problem,
            };
            // What is expected of the figures of a step says nothing of its attempts.
            if problem.cancelled || problem.gate || retries == times {
                return Err(problem);
            }
            retries += 1;
            let _ = to.send(Message::Retrying(self.position, problem, pause));
            let until = Instant::now() + pause;
            while Instant::now() < until {
                if self.stop.cancelled() {
                    return Err(Problem::cancelled());
                }
                std::thread::sleep(PATIENCE.min(until.saturating_duration_since(Instant::now())));
            }
            pause = pause.saturating_mul(2);
        }
    }

    fn attempt(&self, to: &Sender<Message>) -> Result<Made> {
        let stage = self.store.stage()?;
        match self.in_stage(&stage, to) {
            Ok((draft, replaces)) => Ok(Made { stage, draft, replaces }),
            // Whoever stops a run knows why it did not end well.
            Err(problem) if problem.cancelled && self.stop.cancelled() => Err(problem),
            Err(problem) => {
                if let Err(problem) = self.store.keep_failed(&self.decision.key, &stage) {
                    let text = format!("its folder is not kept: {}", problem.what);
                    pass(self.position, to.clone())(Say::Warning { text });
                }
                Err(match self.stop.late() {
                    Some(limit) => too_long(limit, &problem),
                    None => problem,
                })
            }
        }
    }

    fn in_stage(&self, stage: &Stage, to: &Sender<Message>) -> Result<(Draft, bool)> {
        let meter = self.crowd.enter(!self.step.kind.works_outside());
        let (mut cx, said) = self.open(stage, to)?;
        let ran = caught(self.step.kind.name(), || self.step.action.run(&mut cx));
        let close = || meter.read();
        self.close(&mut cx, &said, ran, stage, close, to)
    }

    /// What the step will touch, for one attempt.
    pub(super) fn open(&self, stage: &Stage, to: &Sender<Message>) -> Result<(Context, Said)> {
        let out = stage.out();
        fs::create_dir(&out).map_err(|e| Problem::io("make the folder", &out, &e))?;
        let said = Arc::new(Mutex::new(Vec::new()));
        let cx = Context::new(Frame {
            step: self.step.id.clone(),
            inputs: self.inputs.clone(),
            out,
            root: self.root.clone(),
            machine: self.machine(),
            threads: self.options.machine.threads(self.step.action.share()),
            cancel: self.stop.begin(),
            sink: sink(pass(self.position, to.clone()), said.clone()),
        })
        .with_gpus(self.gpus.clone())
        .with_outside(self.outside.clone())
        .with_traces(Traces { log: stage.log(), failed: self.store.failed(&self.decision.key), shared: stage.shared() })
        .with_checkpoints(
            self.work_of_it().map(|work| Box::new(self.store.series(work, stage)) as Box<dyn Checkpoints>),
        );
        Ok((cx, said))
    }

    /// What is to be kept of an attempt that ended so, at the costs that are then read.
    pub(super) fn close(
        &self,
        cx: &mut Context,
        said: &Said,
        ran: Result<()>,
        stage: &Stage,
        costs: impl FnOnce() -> Costs,
        to: &Sender<Message>,
    ) -> Result<(Draft, bool)> {
        let say = thinned(pass(self.position, to.clone()));
        for artifact in cx.all_damaged() {
            self.store.discard(artifact)?;
        }
        ran?;
        // A step that left its loop early may not have said so.
        cx.check_cancelled()?;
        let cancelled = || cx.cancelled();
        unchanged(
            self.store,
            &self.decision.sources,
            &mut sources::told("reading its sources again", &say, &cancelled),
        )?;
        gate::check(&self.step.policy.expect, cx.figures(), &self.others)?;
        let (figures, bad): (BTreeMap<_, _>, BTreeMap<_, _>) =
            cx.figures().clone().into_iter().partition(|(_, value)| value.is_finite());
        for (name, value) in bad {
            cx.warn(format!("the figure `{name}` is {value} and is not recorded"));
        }
        self.store.keep_log(&self.decision.key, stage)?;
        let (here, elsewhere) = (costs(), cx.costs());
        // What it cost is what it would have cost in one go; how much of the processors that is nobody knows.
        let spent = cx.checkpoints().map(Checkpoints::spent).unwrap_or_default();
        let cpu_ms = elsewhere.0.or(here.cpu_ms).filter(|_| spent.is_zero());
        let outputs = self.step.outputs.iter();
        let draft = Draft {
            // It comes when the result is kept: until then there may be another attempt.
            manifest: serde_json::Value::Null,
            outputs: outputs.map(|output| (output.name.to_string(), output.file.to_string())).collect(),
            figures,
            said: said.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            costs: Costs {
                took_ms: (self.fetched.saturating_add(spent).as_millis() as u64).saturating_add(here.took_ms),
                cpu_ms,
                peak_bytes: elsewhere.1.or(here.peak_bytes),
            },
            run: self.options.run.clone(),
            step: self.step.id.clone(),
        };
        Ok((draft, self.forced()))
    }

    /// True if it runs though its result may be there.
    pub(super) fn forced(&self) -> bool {
        self.options.choice.forced.contains(&self.position)
    }

    /// What its states on the way belong to, if it is of a kind that leaves any.
    fn work_of_it(&self) -> Option<Work> {
        if self.step.kind.lengths().is_empty() {
            return None;
        }
        let policy = &self.step.policy;
        Some(Work {
            series: self.decision.series(policy),
            key: self.decision.key.clone(),
            run: self.options.run.clone(),
            every: policy.checkpoint.unwrap_or(CHECKPOINT),
            lasting: policy.extends.is_some(),
            afresh: self.forced(),
        })
    }

    /// The machine as the step sees it: of several GPUs, its own.
    fn machine(&self) -> Machine {
        let mut machine = self.options.machine.clone();
        if let (true, [first, ..]) = (machine.device.starts_with("cuda"), self.gpus.as_slice()) {
            machine.device = format!("cuda:{first}");
        }
        machine
    }

    /// Lets the result be recorded.
    pub(super) fn keep(self, made: Made, to: &Sender<Message>) -> Result<(Record, Stage)> {
        let say = thinned(pass(self.position, to.clone()));
        let work = self.work_of_it();
        let Made { stage, draft, replaces } = made;
        let before = if replaces { self.store.forget(&self.decision.key)? } else { None };
        // The loop may still read it, for the reason why the step ran.
        let Decision { manifest, .. } = Arc::unwrap_or_clone(self.decision);
        let draft = Draft { manifest, ..draft };
        let mut done = 0;
        let never = || false;
        let mut tell = sources::told("keeping the result", &say, &never);
        let total =
            draft.outputs.values().map(|file| bytes_of(&stage.out().join(file)).unwrap_or_default()).sum::<u64>();
        let record = self.store.commit(&stage, draft, self.lease, &mut |bytes| {
            done += bytes;
            tell(done, total.max(done))
        })?;
        if let Some(work) = work {
            self.store.settle(&work.series, &work.key, work.lasting);
        }
        for (name, object) in before.iter().flat_map(|before| before.outputs.iter()) {
            if record.outputs.get(name) != Some(object) {
                let text = format!("its output `{name}` is not what it was when the same step ran before");
                say(Say::Warning { text });
            }
        }
        Ok((record, stage))
    }
}

/// Tells the loop what became of a step, and who goes on in its place.
pub(super) fn send(position: usize, result: Result<(Ended, Stage)>, next: Option<usize>, to: &Sender<Message>) {
    let (result, stage) = match result {
        Ok((ended, stage)) => (Ok(ended), Some(stage)),
        Err(problem) => (Err(problem), None),
    };
    // The loop waits for this message, so nobody is gone who could receive it.
    let _ = to.send(Message::Ended(position, Box::new(result), next));
    // What the step left is deleted while the loop goes on, which may be waiting for this processor.
    if next.is_none() {
        std::thread::yield_now();
    }
    drop(stage);
}

/// What a step has made, before it is kept.
pub(super) struct Made {
    pub stage: Stage,
    pub draft: Draft,
    /// True if it is kept in place of an earlier result.
    pub replaces: bool,
}

/// What a step that was ended is told to have died of, with its own last words.
fn too_long(limit: Duration, problem: &Problem) -> Problem {
    let what = format!("it ran longer than its `timeout` of {limit:?} and was ended");
    let problem =
        if problem.cancelled { Problem::new(what) } else { Problem { what, cancelled: false, ..problem.clone() } };
    problem.help("raise `timeout`, or look what it waited for")
}

/// A result must not be recorded under the key of other sources than it was made from.
fn unchanged(store: &Store, before: &Sources, watch: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<()> {
    if before.iter().all(|(source, digest)| store.remembered(&source.path).as_ref() == Some(digest)) {
        return Ok(());
    }
    let list = before.iter().map(|(source, _)| source.clone()).collect();
    let now = sources::read(store, list, watch)?;
    match now.iter().zip(before).find(|(now, before)| now != before) {
        None => Ok(()),
        Some(((source, _), _)) => {
            let what = format!("its input {} changed while the step ran", source.path.display());
            Err(Problem::new(what).help("nothing was recorded; run again once the file is complete"))
        }
    }
}

/// Sends what a step says to the loop.
pub(super) fn pass(position: usize, to: Sender<Message>) -> impl Fn(Say) + Send + 'static {
    move |say| {
        let _ = to.send(Message::Said(position, say));
    }
}

/// Passes on what a step says, progress not too often.
pub(super) fn thinned(pass: impl Fn(Say) + Send + 'static) -> impl Fn(Say) + Send + 'static {
    let last: Cell<Option<Instant>> = Cell::new(None);
    let bad: RefCell<BTreeSet<String>> = RefCell::new(BTreeSet::new());
    move |say| {
        let say = match say {
            Say::Progress { done, total, .. } if total != Some(done) => {
                if last.get().is_some_and(|last| last.elapsed() < PROGRESS) {
                    return;
                }
                last.set(Some(Instant::now()));
                say
            }
            // JSON has no such numbers: the first one is worth a warning, the others tell nothing new.
            Say::Metric { name, at, value } if !value.is_finite() => {
                if !bad.borrow_mut().insert(name.clone()) {
                    return;
                }
                Say::Warning { text: format!("`{name}` is {value} at {at}") }
            }
            say => say,
        };
        pass(say);
    }
}

/// Passes on what a step says, and keeps its notes and warnings for the record.
pub(super) fn sink(pass: impl Fn(Say) + Send + 'static, said: Said) -> Box<dyn Fn(Say) + Send> {
    Box::new(thinned(move |say| {
        if matches!(say, Say::Note { .. } | Say::Warning { .. }) {
            said.lock().unwrap_or_else(PoisonError::into_inner).push(say.clone());
        }
        pass(say);
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_thinned_out_but_its_end_is_not() {
        let (to, from) = std::sync::mpsc::channel();
        let said = Arc::new(Mutex::new(Vec::new()));
        let sink = sink(pass(0, to), said.clone());
        for done in 0..=1000 {
            sink(Say::Progress { done, total: Some(1000), unit: String::new(), text: String::new() });
        }
        sink(Say::Metric { name: "loss".into(), at: 1, value: f64::NAN });
        sink(Say::Metric { name: "loss".into(), at: 2, value: f64::NAN });
        drop(sink);
        let got: Vec<Message> = from.iter().collect();
        assert!((3..100).contains(&got.len()), "{}", got.len());
        let last = &got[got.len() - 2];
        assert!(matches!(last, Message::Said(0, Say::Progress { done: 1000, .. })));
        assert_eq!(*said.lock().unwrap(), [Say::Warning { text: "`loss` is NaN at 1".into() }]);
    }
}
