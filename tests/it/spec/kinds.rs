//! Step kinds for tests of pipeline files: small, and with every sort of port and parameter.

use pipe::error::{Path, Problem, Result};
use pipe::step::{AnyKind, Arity, Context, Input, Kind, Output, kind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The kinds that the files in `tests/bad` use.
pub static KINDS: &[&dyn AnyKind] = &[&kind::<Fetch>(), &kind::<Tokenize>(), &kind::<Train>(), &kind::<Gather>()];

const fn input(name: &'static str, arity: Arity, doc: &'static str) -> Input {
    Input { name, arity, named: false, doc }
}

const fn output(name: &'static str, doc: &'static str) -> Output {
    Output { name, file: name, doc }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FetchParams {
    /// Where it comes from.
    source: String,
    /// How many bytes it may have.
    #[serde(default)]
    #[schemars(range(min = 1, max = 100))]
    limit: Option<u32>,
}

pub struct Fetch;
impl Kind for Fetch {
    const NAME: &'static str = "fetch";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Brings a file in.";
    const EXAMPLE: &'static str = "text: { uses: fetch, with: { source: a.txt } }";
    const INPUTS: &'static [Input] = &[];
    const OUTPUTS: &'static [Output] = &[output("file", "The file."), output("index", "Its index.")];
    type Params = FetchParams;
    fn run(_: &FetchParams, _: &mut Context) -> Result<()> {
        Ok(())
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenizeParams {
    /// What to read.
    #[serde(default)]
    task: Task,
    /// Names for labels.
    #[serde(default)]
    labels: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Entailment.
    #[default]
    Terra,
    /// Names.
    Nerus,
}

pub struct Tokenize;
impl Kind for Tokenize {
    const NAME: &'static str = "tokenize";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Cuts text into tokens.";
    const EXAMPLE: &'static str = "tokens: { uses: tokenize, in: { data: text } }";
    const INPUTS: &'static [Input] = &[input("data", Arity::One, "The text.")];
    const OUTPUTS: &'static [Output] = &[output("tokens", "The tokens.")];
    type Params = TokenizeParams;
    fn run(_: &TokenizeParams, _: &mut Context) -> Result<()> {
        Ok(())
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lora {
    /// Its rank.
    #[schemars(range(min = 1, max = 512))]
    rank: u32,
    /// Its scale.
    #[serde(default = "eight")]
    #[schemars(range(min = 0.0))]
    alpha: f64,
    /// Where it sits.
    #[serde(default)]
    target_modules: Vec<String>,
}

fn eight() -> f64 {
    8.0
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Adapter {
    /// The low-rank part.
    #[serde(default)]
    lora: Option<Lora>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainParams {
    /// What to train.
    #[serde(default)]
    adapter: Option<Adapter>,
    /// Steps of the optimiser.
    #[serde(default = "hundred")]
    #[schemars(range(min = 1, max = 1_000_000))]
    steps: u64,
    /// Steps of the warm-up.
    #[serde(default)]
    warmup: u64,
    /// Whether to say much.
    #[serde(default)]
    verbose: bool,
}

fn hundred() -> u64 {
    100
}

pub struct Train;
impl Kind for Train {
    const NAME: &'static str = "train";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Trains an adapter.";
    const EXAMPLE: &'static str = "lora: { uses: train, in: { data: tokens } }";
    const INPUTS: &'static [Input] =
        &[input("data", Arity::One, "The tokens."), input("start", Arity::Optional, "An adapter to start from.")];
    const OUTPUTS: &'static [Output] = &[output("adapter", "The adapter."), output("curve", "The losses.")];
    type Params = TrainParams;
    fn check(params: &TrainParams) -> Vec<Problem> {
        if params.warmup <= params.steps {
            return Vec::new();
        }
        let problem = Problem::new("the warm-up is longer than the training").at(Path::root().key("warmup"));
        vec![problem.expected(format!("at most {}", params.steps))]
    }
    fn run(_: &TrainParams, _: &mut Context) -> Result<()> {
        Ok(())
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GatherParams {
    /// A heading.
    #[serde(default)]
    title: String,
}

pub struct Gather;
impl Kind for Gather {
    const NAME: &'static str = "gather";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Puts results side by side.";
    const EXAMPLE: &'static str = "all: { uses: gather, in: { results: [lora] } }";
    const INPUTS: &'static [Input] = &[
        Input { named: true, ..input("results", Arity::Many, "The results.") },
        input("notes", Arity::Any, "What else to tell."),
    ];
    const OUTPUTS: &'static [Output] = &[output("table", "The table.")];
    type Params = GatherParams;
    fn run(_: &GatherParams, _: &mut Context) -> Result<()> {
        Ok(())
    }
}
