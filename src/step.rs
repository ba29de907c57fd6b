//! What an author of a step kind writes (`Kind`) and all that a running step may touch (`Context`).
//! It does not know YAML, keys, the store or the order of steps: steps do not know that they are cached.

mod checkpoints;
mod context;
mod machine;
mod named;
mod together;
mod work;

use std::any::Any;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};

use schemars::{JsonSchema, Schema, schema_for};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use checkpoints::{Checkpoints, Restored};
pub use context::{Artifact, Context, Frame, Outside, Traces, stream};
pub use machine::{LIBTORCH, Machine, Share};
pub use named::Named;
pub use together::{End, Ended, Together};
pub use work::Work;

use crate::error::{Path, Problem, Result, Segment};
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
    /// One, or a list, as it is written: a list stays one with a single producer in it, and its producers are told by
    /// name.
    OneOrList,
}

/// The name of a port that stands for any name, as usage texts write it: the step chooses the names.
pub const ANY_NAME: &str = "NAME";

/// An input port of a step kind.
#[derive(Debug, Clone, Copy)]
pub struct Input {
    /// Its name under `in:`; [`ANY_NAME`] for whatever name a step gives it.
    pub name: &'static str,
    /// How many producers it takes.
    pub arity: Arity,
    /// True if the step writes the producers' names into its result, so that they belong to the key. At
    /// [`Arity::OneOrList`] that is said of lists.
    pub named: bool,
    /// What it takes, in one sentence.
    pub doc: &'static str,
}

impl Input {
    /// The port of this name.
    pub fn find<'a>(inputs: &'a [Self], name: &str) -> Option<&'a Self> {
        inputs.iter().find(|input| input.name == name || input.name == ANY_NAME)
    }

    /// True if what is connected here is a list; `listed` tells whether it is written as one.
    pub fn is_list(&self, listed: bool) -> bool {
        match self.arity {
            Arity::One | Arity::Optional => false,
            Arity::Many | Arity::Any => true,
            Arity::OneOrList => listed,
        }
    }

    /// True if the names of what is connected here belong to the key.
    pub fn names(&self, listed: bool) -> bool {
        self.named && (self.arity != Arity::OneOrList || listed)
    }
}

/// An output port of a step kind.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// Its name in references: `step.name`. The first output of a kind is meant by the bare `step`. [`ANY_NAME`] where
    /// the parameters of a step say what it makes.
    pub name: &'static str,
    /// The file or folder that the step writes.
    pub file: &'static str,
    /// What it is, in one sentence.
    pub doc: &'static str,
}

/// An output of one step: the kind's, or what the step's parameters say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    /// See [`Output::name`].
    pub name: Cow<'static, str>,
    /// See [`Output::file`].
    pub file: Cow<'static, str>,
}

impl From<&Output> for Product {
    fn from(output: &Output) -> Self {
        Self { name: Cow::Borrowed(output.name), file: Cow::Borrowed(output.file) }
    }
}

/// A file or folder outside the store that a step reads; its content enters the key, its place does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name in the manifest.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
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

    /// What a step with these parameters makes; not empty, the names and files differ.
    fn outputs(_params: &Self::Params) -> Vec<Product> {
        Self::OUTPUTS.iter().map(Product::from).collect()
    }

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

    /// What of the machine may change its answer where that depends on its inputs, too, by port; only small files of
    /// theirs are read. It enters the manifest beside [`Kind::environment`].
    fn decided(
        _params: &Self::Params,
        _inputs: &BTreeMap<String, Vec<Artifact>>,
        _machine: &Machine,
    ) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// The environment variables that [`Kind::environment`] asks for, set or not.
    fn variables(_params: &Self::Params) -> Vec<String> {
        Vec::new()
    }

    /// The files and folders that decide, by where they lie and by what lies in them, which [`Kind::sources`] there are:
    /// beside them only the contents of the sources do. Nothing where parameters name every source.
    fn looked_at(_params: &Self::Params, _root: &FilePath) -> Vec<PathBuf> {
        Vec::new()
    }

    /// How much of the machine it wants.
    fn share(_params: &Self::Params) -> Share {
        Share::One
    }

    /// The parameters that say how long it works, and may be raised later. A kind that has some leaves checkpoints.
    const LENGTHS: &'static [&'static str] = &[];

    /// Why the work does not begin like this with a larger value of one of [`Kind::LENGTHS`], if it does not; the path
    /// is relative to `with:`.
    fn fixed(_params: &Self::Params, _length: &str) -> Option<Problem> {
        None
    }

    /// Whose work it may do together with its own. `inputs` are its artifacts by port; only small files of theirs are
    /// read.
    fn together(
        _params: &Self::Params,
        _inputs: &BTreeMap<String, Vec<Artifact>>,
        _machine: &Machine,
    ) -> Option<Together> {
        None
    }

    /// Does the work of several steps that [`Kind::together`] has told to belong together, and tells `ended` of each as
    /// soon as it has; an error is that of all that have not. With `exact`, the results must be those of [`Kind::run`]
    /// to the byte.
    fn run_together(members: &mut [(&Self::Params, &mut Context)], _exact: bool, ended: &mut Ended<'_>) -> Result<()> {
        for (at, (params, cx)) in members.iter_mut().enumerate() {
            let result = Self::run(params, cx);
            ended(vec![(at, cx, result)]);
        }
        Ok(())
    }

    /// True if its work needs libtorch.
    const TORCH: bool = false;

    /// True if another process does its work, whose costs it tells: this one is not measured.
    const OUTSIDE: bool = false;

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
    /// See [`Kind::TORCH`].
    fn needs_torch(&self) -> bool;
    /// See [`Kind::OUTSIDE`].
    fn works_outside(&self) -> bool;
    /// See [`Kind::LENGTHS`].
    fn lengths(&self) -> &'static [&'static str];
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
    /// See [`Kind::outputs`]; those of the kind alone are [`AnyKind::outputs`].
    fn outputs(&self) -> Vec<Product>;
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
    /// See [`Kind::decided`].
    fn decided(&self, inputs: &BTreeMap<String, Vec<Artifact>>, machine: &Machine) -> BTreeMap<String, String>;
    /// See [`Kind::variables`].
    fn variables(&self) -> Vec<String>;
    /// See [`Kind::looked_at`].
    fn looked_at(&self, root: &FilePath) -> Vec<PathBuf>;
    /// See [`Kind::share`].
    fn share(&self) -> Share;
    /// See [`Kind::fixed`].
    fn fixed(&self, length: &str) -> Option<Problem>;
    /// See [`Kind::together`].
    fn together(&self, inputs: &BTreeMap<String, Vec<Artifact>>, machine: &Machine) -> Option<Together>;
    /// See [`Kind::run`]; afterwards every declared output is there.
    fn run(&self, cx: &mut Context) -> Result<()>;
    /// See [`Kind::run_together`]; all steps are of its own kind, itself among them.
    fn run_together(
        &self,
        members: &mut [(&dyn AnyStep, &mut Context)],
        exact: bool,
        ended: &mut Ended<'_>,
    ) -> Result<()>;
    /// Itself, for those of its kind.
    fn any(&self) -> &dyn Any;
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
    fn needs_torch(&self) -> bool {
        K::TORCH
    }
    fn works_outside(&self) -> bool {
        K::OUTSIDE
    }
    fn lengths(&self) -> &'static [&'static str] {
        K::LENGTHS
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
    fn outputs(&self) -> Vec<Product> {
        K::outputs(&self.0)
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
    fn decided(&self, inputs: &BTreeMap<String, Vec<Artifact>>, machine: &Machine) -> BTreeMap<String, String> {
        K::decided(&self.0, inputs, machine)
    }
    fn variables(&self) -> Vec<String> {
        K::variables(&self.0)
    }
    fn looked_at(&self, root: &FilePath) -> Vec<PathBuf> {
        K::looked_at(&self.0, root)
    }
    fn share(&self) -> Share {
        K::share(&self.0)
    }
    fn fixed(&self, length: &str) -> Option<Problem> {
        K::fixed(&self.0, length)
    }
    fn together(&self, inputs: &BTreeMap<String, Vec<Artifact>>, machine: &Machine) -> Option<Together> {
        K::together(&self.0, inputs, machine)
    }
    fn run(&self, cx: &mut Context) -> Result<()> {
        K::run(&self.0, cx)?;
        all_there::<K>(&self.0, cx)
    }
    fn run_together(
        &self,
        members: &mut [(&dyn AnyStep, &mut Context)],
        exact: bool,
        ended: &mut Ended<'_>,
    ) -> Result<()> {
        let mut typed = Vec::with_capacity(members.len());
        for (step, cx) in members {
            let own = step.any().downcast_ref::<Self>();
            let own = own.ok_or_else(|| Problem::new(format!("a step is not of the kind `{}`", K::NAME)))?;
            typed.push((&own.0, &mut **cx));
        }
        let params: Vec<&K::Params> = typed.iter().map(|(params, _)| *params).collect();
        K::run_together(&mut typed, exact, &mut |ends| {
            let there = ends.into_iter().map(|(at, cx, result)| {
                let result = result.and_then(|()| all_there::<K>(params[at], cx));
                (at, cx, result)
            });
            ended(there.collect());
        })
    }
    fn any(&self) -> &dyn Any {
        self
    }
}

/// Fails if an output was not written.
fn all_there<K: Kind>(params: &K::Params, cx: &Context) -> Result<()> {
    let missing = K::outputs(params).into_iter().find(|output| !cx.output(&output.file).exists());
    missing.map_or(Ok(()), |output| {
        let what = format!("the step kind `{}` did not write its output `{}` ({})", K::NAME, output.name, output.file);
        Err(Problem::new(what))
    })
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
