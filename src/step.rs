//! What an author of a step kind writes (`Kind`) and all that a running step may touch (`Context`).
//! It does not know YAML, keys, the store or the order of steps: steps do not know that they are cached.

use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use schemars::{JsonSchema, Schema, schema_for};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::digest::Digest;
use crate::error::{Path, Problem, Result, Segment};
use crate::event::Say;
use crate::fetch::{Settings, Watch};
use crate::lockfile::Locked;

/// How many producers a port takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arity {
    /// Exactly one.
    One,
    /// One or none.
    Optional,
    /// One or more, in the order in which they are written; a matrix step gives all its cells.
    Many,
    /// Any number, also none.
    Any,
}

/// An input port of a step kind.
#[derive(Debug, Clone, Copy)]
pub struct Input {
    /// Its name under `in:`.
    pub name: &'static str,
    /// How many producers it takes.
    pub arity: Arity,
    /// True if the step writes the producers' names into its result, so that they belong to the key.
    pub named: bool,
    /// What it takes, in one sentence.
    pub doc: &'static str,
}

/// An output port of a step kind.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// Its name in references: `step.name`. The first output of a kind is meant by the bare `step`.
    pub name: &'static str,
    /// The file or folder that the step writes.
    pub file: &'static str,
    /// What it is, in one sentence.
    pub doc: &'static str,
}

/// A file or folder outside the store that a step reads; its content enters the key, its place does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name in the manifest.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
}

/// How much of the machine's cores a step wants while it runs. The number of threads depends on the machine
/// alone, never on `-j`, so that results do not depend on it either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// One core.
    One,
    /// Half of the cores, at least one.
    Half,
    /// All of them.
    All,
}

/// What of the machine may change an answer or choose a way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// `cpu` or `cuda:0`.
    pub device: String,
    /// Cores that libtorch may use.
    pub cores: usize,
    /// True if the device multiplies bf16 natively.
    pub bf16: bool,
}

impl Machine {
    /// The threads that a share of this machine is.
    pub fn threads(&self, share: Share) -> usize {
        match share {
            Share::One => 1,
            Share::Half => (self.cores / 2).max(1),
            Share::All => self.cores.max(1),
        }
    }

    /// What a step that computes with libtorch puts into its manifest.
    pub fn torch_environment(&self) -> BTreeMap<String, String> {
        let device = self.device.split(':').next().unwrap_or("cpu");
        BTreeMap::from([
            ("device".to_owned(), device.to_owned()),
            ("bf16".to_owned(), if self.bf16 { "native" } else { "emulated" }.to_owned()),
            ("libtorch".to_owned(), LIBTORCH.to_owned()),
        ])
    }
}

/// The libtorch that tch is pinned to.
pub const LIBTORCH: &str = "2.11.0";

/// A kind of step: everything about it stands in one file of `steps/`.
pub trait Kind: Send + Sync + 'static {
    /// Its name after `uses:`.
    const NAME: &'static str;
    /// Raised when the same inputs shall give another answer; its history stands beside it.
    const VERSION: u32;
    /// What it does, in one sentence.
    const SUMMARY: &'static str;
    /// A runnable example: the YAML of one step.
    const EXAMPLE: &'static str;
    /// What it takes.
    const INPUTS: &'static [Input];
    /// What it makes; not empty.
    const OUTPUTS: &'static [Output];
    /// Its parameters: doc comments, defaults (`#[serde(default = …)]`) and ranges (`#[schemars(range(…))]`)
    /// stand in the struct alone. `#[serde(deny_unknown_fields)]` on every struct.
    type Params: Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static;

    /// Mistakes that types and ranges cannot tell, with paths relative to `with:`.
    fn check(_params: &Self::Params) -> Vec<Problem> {
        Vec::new()
    }

    /// Files outside the store that it reads. Relative paths are below `root`.
    fn sources(_params: &Self::Params, _root: &FilePath) -> Vec<Source> {
        Vec::new()
    }

    /// The address of what it reads on another machine, as `pipe.lock` names it. Its content enters the key as
    /// `pipe.lock` has it, under the name `source`; where it is does not.
    fn remote(_params: &Self::Params) -> Option<String> {
        None
    }

    /// Brings what lies at [`Kind::remote`] to this machine and says what it is. It is asked for while `pipe.lock` does
    /// not know it; `run` follows, and gets the same bytes or fails.
    fn fetch(_params: &Self::Params, _cx: &mut Context) -> Result<Locked> {
        Err(Problem::new(format!("the step kind `{}` cannot fetch anything", Self::NAME)))
    }

    /// A name for what it brings in, for messages of the steps that read it.
    fn origin(_params: &Self::Params) -> Option<String> {
        None
    }

    /// The parameters that enter the key: all, but for those that only say where something is.
    fn keyed(params: &Self::Params) -> Value {
        to_value(params)
    }

    /// What can be said of its result before it is there, from the parameters and what can be said of its inputs, by
    /// port. `made` is where its first output lies, if that is there.
    fn outlook(_params: &Self::Params, _inputs: &BTreeMap<String, Vec<Outlook>>, _made: Option<&FilePath>) -> Outlook {
        Outlook::default()
    }

    /// What of the machine may change its answer.
    fn environment(_params: &Self::Params, _machine: &Machine) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// How much of the machine it wants.
    fn share(_params: &Self::Params) -> Share {
        Share::One
    }

    /// Does the work: reads inputs and sources, writes every output, and says what it does.
    fn run(params: &Self::Params, cx: &mut Context) -> Result<()>;
}

/// A step kind whose type is forgotten, as the registry `steps::KINDS` holds it.
pub trait AnyKind: Send + Sync {
    /// See [`Kind::NAME`].
    fn name(&self) -> &'static str;
    /// See [`Kind::VERSION`].
    fn version(&self) -> u32;
    /// See [`Kind::SUMMARY`].
    fn summary(&self) -> &'static str;
    /// See [`Kind::EXAMPLE`].
    fn example(&self) -> &'static str;
    /// See [`Kind::INPUTS`].
    fn inputs(&self) -> &'static [Input];
    /// See [`Kind::OUTPUTS`].
    fn outputs(&self) -> &'static [Output];
    /// The JSON Schema of its parameters.
    fn schema(&self) -> Schema;
    /// Reads `with:`; problems have paths relative to it.
    fn parse(&self, with: &Value) -> std::result::Result<Box<dyn AnyStep>, Vec<Problem>>;
}

/// A kind with its parameters, ready to run.
pub trait AnyStep: Send + Sync {
    /// All parameters, defaults spelled out.
    fn params(&self) -> Value;
    /// See [`Kind::keyed`].
    fn keyed(&self) -> Value;
    /// See [`Kind::sources`].
    fn sources(&self, root: &FilePath) -> Vec<Source>;
    /// See [`Kind::remote`].
    fn remote(&self) -> Option<String>;
    /// See [`Kind::fetch`].
    fn fetch(&self, cx: &mut Context) -> Result<Locked>;
    /// See [`Kind::origin`].
    fn origin(&self) -> Option<String>;
    /// See [`Kind::outlook`].
    fn outlook(&self, inputs: &BTreeMap<String, Vec<Outlook>>, made: Option<&FilePath>) -> Outlook;
    /// See [`Kind::environment`].
    fn environment(&self, machine: &Machine) -> BTreeMap<String, String>;
    /// See [`Kind::share`].
    fn share(&self) -> Share;
    /// See [`Kind::run`]; afterwards every declared output is there.
    fn run(&self, cx: &mut Context) -> Result<()>;
}

/// Forgets the type of a kind: `kind::<Train>()` is an entry of the registry.
pub const fn kind<K: Kind>() -> Erased<K> {
    Erased(std::marker::PhantomData)
}

/// See [`kind`].
pub struct Erased<K>(std::marker::PhantomData<K>);

struct Typed<K: Kind>(K::Params);

impl<K: Kind> AnyKind for Erased<K> {
    fn name(&self) -> &'static str {
        K::NAME
    }
    fn version(&self) -> u32 {
        K::VERSION
    }
    fn summary(&self) -> &'static str {
        K::SUMMARY
    }
    fn example(&self) -> &'static str {
        K::EXAMPLE
    }
    fn inputs(&self) -> &'static [Input] {
        K::INPUTS
    }
    fn outputs(&self) -> &'static [Output] {
        K::OUTPUTS
    }
    fn schema(&self) -> Schema {
        schema_for!(K::Params)
    }
    fn parse(&self, with: &Value) -> std::result::Result<Box<dyn AnyStep>, Vec<Problem>> {
        let params: K::Params = serde_path_to_error::deserialize(with).map_err(|error| {
            let path = path_of(error.path());
            vec![Problem::new(error.into_inner().to_string()).at(path)]
        })?;
        let problems = K::check(&params);
        if problems.is_empty() { Ok(Box::new(Typed::<K>(params))) } else { Err(problems) }
    }
}

impl<K: Kind> AnyStep for Typed<K> {
    fn params(&self) -> Value {
        to_value(&self.0)
    }
    fn keyed(&self) -> Value {
        K::keyed(&self.0)
    }
    fn sources(&self, root: &FilePath) -> Vec<Source> {
        K::sources(&self.0, root)
    }
    fn remote(&self) -> Option<String> {
        K::remote(&self.0)
    }
    fn fetch(&self, cx: &mut Context) -> Result<Locked> {
        K::fetch(&self.0, cx)
    }
    fn origin(&self) -> Option<String> {
        K::origin(&self.0)
    }
    fn outlook(&self, inputs: &BTreeMap<String, Vec<Outlook>>, made: Option<&FilePath>) -> Outlook {
        K::outlook(&self.0, inputs, made)
    }
    fn environment(&self, machine: &Machine) -> BTreeMap<String, String> {
        K::environment(&self.0, machine)
    }
    fn share(&self) -> Share {
        K::share(&self.0)
    }
    fn run(&self, cx: &mut Context) -> Result<()> {
        K::run(&self.0, cx)?;
        for output in K::OUTPUTS {
            let path = cx.frame.out.join(output.file);
            if !path.exists() {
                return Err(Problem::new(format!(
                    "the step kind `{}` did not write its output `{}` ({})",
                    K::NAME,
                    output.name,
                    output.file
                )));
            }
        }
        Ok(())
    }
}

fn to_value<T: Serialize>(params: &T) -> Value {
    serde_json::to_value(params).expect("parameters are plain data with string keys")
}

fn path_of(path: &serde_path_to_error::Path) -> Path {
    let segments = path.iter().filter_map(|segment| match segment {
        serde_path_to_error::Segment::Seq { index } => Some(Segment::Index(*index)),
        serde_path_to_error::Segment::Map { key } => Some(Segment::Key(key.clone())),
        serde_path_to_error::Segment::Enum { variant } => Some(Segment::Key(variant.clone())),
        serde_path_to_error::Segment::Unknown => None,
    });
    Path(segments.collect())
}

/// What came out of a step, as another step sees it.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// Id of the step that made it: `lora`, or `lora[rank=4]` for a cell of a matrix.
    pub name: String,
    /// The cell's coordinates: axis to value; empty outside a matrix.
    pub coordinates: BTreeMap<String, Value>,
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

/// What can be said of a result before it is there.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outlook {
    /// `config.json` of the model that it is, as far as it is known.
    pub config: Option<Value>,
    /// Numbers that are worth knowing before hours are spent, such as `trainable_parameters`.
    pub facts: BTreeMap<String, u64>,
    /// What will go wrong.
    pub problem: Option<Problem>,
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
}

impl Context {
    /// The engine and tests make contexts; steps only use them.
    pub fn new(frame: Frame) -> Self {
        Self { frame, outside: Outside::default(), figures: BTreeMap::new() }
    }

    /// The same with a way to other machines; without it there is none.
    #[must_use]
    pub fn with_outside(self, outside: Outside) -> Self {
        Self { outside, ..self }
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

    /// Where to write an output: `file` as declared in [`Output::file`].
    pub fn output(&self, file: &str) -> PathBuf {
        self.frame.out.join(file)
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
