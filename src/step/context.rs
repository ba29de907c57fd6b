//! All that a running step may touch: its inputs, a fresh output folder, randomness, and words for the user.
//! It does not know who runs the step, nor who listens.

use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde_json::Value;

use super::{Checkpoints, Machine, Work};
use crate::digest::Digest;
use crate::error::{Problem, Result};
use crate::event::Say;
use crate::fetch::{Settings, Watch};
use crate::lockfile::Locked;

/// What came out of a step, as another step sees it.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// Id of the step that made it: `lora`, or `lora[rank=4]` for a cell of a matrix.
    pub name: String,
    /// The cell's coordinates: axis to value; empty outside a matrix.
    pub coordinates: BTreeMap<String, Value>,
    /// True if it came in a list, or as a cell of a whole matrix: see [`super::Arity::OneOrList`].
    pub listed: bool,
    /// The producer's own name for it (a source's path as written), for messages.
    pub origin: Option<String>,
    /// File or folder, not to be changed.
    pub path: PathBuf,
    /// Its content.
    pub digest: Digest,
}

impl Artifact {
    /// How to call it in a message: its origin, or the step that made it.
    pub fn label(&self) -> String {
        self.origin.clone().unwrap_or_else(|| format!("the output of step `{}`", self.name))
    }
}

/// Where a step that starts other programs leaves what people want to read afterwards.
#[derive(Debug, Clone)]
pub struct Traces {
    /// A folder that the step makes and writes; it is kept with the result, but is no part of it.
    pub log: PathBuf,
    /// Where the log, and the outputs' folder as `work` in it, are to be found once the step has failed.
    pub failed: PathBuf,
    /// A folder beside that of the log that lasts as long as the process: what serves several steps may lie there.
    pub shared: PathBuf,
}

/// How other machines are reached, and what is known of what lies there.
#[derive(Debug, Clone, Default)]
pub struct Outside {
    /// How they are reached.
    pub settings: Arc<Settings>,
    /// What `pipe.lock` says of the step's remote source.
    pub known: Option<Locked>,
}

/// All that a [`Context`] is made of.
pub struct Frame {
    /// The step's id.
    pub step: String,
    /// Artifacts by input port, in order.
    pub inputs: BTreeMap<String, Vec<Artifact>>,
    /// A fresh, empty folder for the outputs.
    pub out: PathBuf,
    /// Where relative paths of the pipeline start.
    pub root: PathBuf,
    /// The machine.
    pub machine: Machine,
    /// The threads it may use.
    pub threads: usize,
    /// Set when the user wants to stop.
    pub cancel: Arc<AtomicBool>,
    /// Where its words go.
    pub sink: Box<dyn Fn(Say) + Send>,
}

/// All that a running step may touch.
pub struct Context {
    frame: Frame,
    outside: Outside,
    figures: BTreeMap<String, f64>,
    traces: Option<Traces>,
    damaged: Vec<Digest>,
    cost: (Option<u64>, Option<u64>),
    gpus: Vec<usize>,
    checkpoints: Option<Box<dyn Checkpoints>>,
    weight: u64,
    meter: Option<Box<dyn Fn(Work) + Send>>,
}

impl Context {
    /// The engine and tests make contexts; steps only use them.
    pub fn new(frame: Frame) -> Self {
        Self {
            frame,
            outside: Outside::default(),
            figures: BTreeMap::new(),
            traces: None,
            damaged: Vec::new(),
            cost: (None, None),
            gpus: Vec::new(),
            checkpoints: None,
            weight: 1,
            meter: None,
        }
    }

    /// The same with places to leave traces at.
    #[must_use]
    pub fn with_traces(self, traces: Traces) -> Self {
        Self { traces: Some(traces), ..self }
    }

    /// The same with GPUs that are the step's own.
    #[must_use]
    pub fn with_gpus(self, gpus: Vec<usize>) -> Self {
        Self { gpus, ..self }
    }

    /// The same with a way to other machines; without it there is none.
    #[must_use]
    pub fn with_outside(self, outside: Outside) -> Self {
        Self { outside, ..self }
    }

    /// The same with a place for states; without it a step begins at its beginning.
    #[must_use]
    pub fn with_checkpoints(self, checkpoints: Option<Box<dyn Checkpoints>>) -> Self {
        Self { checkpoints, ..self }
    }

    /// The same with somebody who hears what work it does; without, nobody does.
    #[must_use]
    pub fn with_meter(self, meter: Box<dyn Fn(Work) + Send>) -> Self {
        Self { meter: Some(meter), ..self }
    }

    /// The id of this step.
    pub fn step(&self) -> &str {
        &self.frame.step
    }

    /// The artifact at a port of arity one.
    pub fn input(&self, port: &str) -> Result<&Artifact> {
        self.optional(port).ok_or_else(|| Problem::new(format!("nothing is connected to the input `{port}`")))
    }

    /// The artifact at a port that may be left open.
    pub fn optional(&self, port: &str) -> Option<&Artifact> {
        self.inputs(port).first()
    }

    /// All artifacts at a port, in order.
    pub fn inputs(&self, port: &str) -> &[Artifact] {
        self.frame.inputs.get(port).map_or(&[], Vec::as_slice)
    }

    /// The names of the ports that something is connected to.
    pub fn ports(&self) -> impl Iterator<Item = &str> {
        self.frame.inputs.keys().map(String::as_str)
    }

    /// Where to write an output: `file` as declared in [`super::Output::file`].
    pub fn output(&self, file: &str) -> PathBuf {
        self.frame.out.join(file)
    }

    /// The numbers of the GPUs that are the step's own while it runs.
    pub fn gpus(&self) -> &[usize] {
        &self.gpus
    }

    /// The folder of the outputs.
    pub fn folder(&self) -> &FilePath {
        &self.frame.out
    }

    /// Where to leave a log.
    pub fn traces(&self) -> Option<&Traces> {
        self.traces.as_ref()
    }

    /// Tells that an artifact is not what it was any more: nobody shall get it again, whatever becomes of this step.
    pub fn damaged(&mut self, artifact: Digest) {
        self.damaged.push(artifact);
    }

    /// The artifacts that have been found damaged.
    pub fn all_damaged(&self) -> &[Digest] {
        &self.damaged
    }

    /// Records what other processes used that did the work: processor time in milliseconds, and the most memory that
    /// one of them held.
    pub fn cost(&mut self, cpu_ms: u64, peak_bytes: u64) {
        self.cost = (Some(cpu_ms), Some(peak_bytes));
    }

    /// What was recorded by [`Context::cost`].
    pub fn costs(&self) -> (Option<u64>, Option<u64>) {
        self.cost
    }

    /// Says how much of the work that several steps did together was its own, in a unit that they share.
    pub fn weigh(&mut self, weight: u64) {
        self.weight = weight.max(1);
    }

    /// What was said by [`Context::weigh`], or 1.
    pub fn weight(&self) -> u64 {
        self.weight
    }

    /// Where relative paths of the pipeline start.
    pub fn root(&self) -> &FilePath {
        &self.frame.root
    }

    /// A random stream of its own for each name; the same seed and name give the same stream anywhere.
    pub fn rng(&self, seed: u64, name: &str) -> ChaCha8Rng {
        stream(seed, name)
    }

    /// Says how far it is. Cheap enough to call for each item.
    pub fn progress(&self, done: u64, total: Option<u64>, unit: &str, text: &str) {
        (self.frame.sink)(Say::Progress { done, total, unit: unit.to_owned(), text: text.to_owned() });
    }

    /// Says a value along the way.
    pub fn metric(&self, name: &str, at: u64, value: f64) {
        (self.frame.sink)(Say::Metric { name: name.to_owned(), at, value });
    }

    /// Where to leave states, and to find those of an earlier run.
    pub fn checkpoints(&self) -> Option<&dyn Checkpoints> {
        self.checkpoints.as_deref()
    }

    /// Says that the work goes on from a state of an earlier run. That is no part of the result.
    pub fn resumed(&self, at: u64, total: u64, unit: &str, run: &str) {
        (self.frame.sink)(Say::Resumed { at, total, unit: unit.to_owned(), run: run.to_owned() });
    }

    /// Says something about this run alone, which will not be told with the result later.
    pub fn remark(&self, text: impl Into<String>) {
        (self.frame.sink)(Say::Remark { text: text.into() });
    }

    /// Says something that a person may want to know.
    pub fn note(&self, text: impl Into<String>) {
        (self.frame.sink)(Say::Note { text: text.into() });
    }

    /// Says something that a person should know.
    pub fn warn(&self, text: impl Into<String>) {
        (self.frame.sink)(Say::Warning { text: text.into() });
    }

    /// Records a final figure with the result; it is shown again when the result is reused.
    pub fn figure(&mut self, name: impl Into<String>, value: f64) {
        self.figures.insert(name.into(), value);
    }

    /// The figures recorded so far.
    pub fn figures(&self) -> &BTreeMap<String, f64> {
        &self.figures
    }

    /// Says what was computed since this was last said; once, with nothing, when all is ready and the work begins. `work`
    /// is asked only if somebody measures the step, and waits for a device that is still at it.
    pub fn work(&self, work: impl FnOnce() -> Work) {
        if let Some(meter) = &self.meter {
            meter(work());
        }
    }

    /// True once the user wants to stop.
    pub fn cancelled(&self) -> bool {
        self.frame.cancel.load(Ordering::Relaxed)
    }

    /// Leaves with `?` once the user wants to stop; to be called at least once a second.
    pub fn check_cancelled(&self) -> Result<()> {
        if self.cancelled() { Err(Problem::cancelled()) } else { Ok(()) }
    }

    /// The machine.
    pub fn machine(&self) -> &Machine {
        &self.frame.machine
    }

    /// The threads it may use.
    pub fn threads(&self) -> usize {
        self.frame.threads
    }

    /// Other machines.
    pub fn outside(&self) -> &Outside {
        &self.outside
    }
}

impl Watch for Context {
    fn cancelled(&self) -> bool {
        Self::cancelled(self)
    }
    fn progress(&self, done: u64, total: Option<u64>, text: &str) {
        Self::progress(self, done, total, "B", text);
    }
    fn note(&self, text: String) {
        Self::note(self, text);
    }
}

/// The random stream of this name: ChaCha8 seeded with blake3 of the seed and the name.
pub fn stream(seed: u64, name: &str) -> ChaCha8Rng {
    ChaCha8Rng::from_seed(*blake3::hash(format!("pipe stream 1\n{seed}\n{name}").as_bytes()).as_bytes())
}
