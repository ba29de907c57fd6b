//! The step kind `evaluate`: answers a task with a model, bare or with an adapter, and scores the answers.
//! It does not compare arms: one step evaluates one arm, also where several do their work together.

#[cfg(feature = "torch")]
pub(super) mod arms;
#[cfg(feature = "torch")]
pub mod certificate;
#[cfg(feature = "torch")]
mod compute;
mod gold;
#[cfg(feature = "torch")]
pub(super) mod loaded;
#[cfg(feature = "torch")]
mod neighbours;
pub mod nerus;
mod questions;
pub mod result;
pub mod terra;
pub(super) mod together;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path as FilePath;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::json;
use super::prompted::prompted;
#[cfg(not(feature = "torch"))]
use super::without_torch as compute;
use crate::error::{Path, Problem, Result};
use crate::ml::device::Dtype;
use crate::report::evidence::Finding;
use crate::step::{Arity, Artifact, Context, End, Ended, Input, Kind, Machine, Output, Share, Together};
use crate::task::Task;
use crate::task::gate::Code;
use questions::Questions;
use result::{Arm, Asked, FORMAT, Metrics};

/// See the module.
pub struct Evaluate;

/// How answers are got from the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The likelier of the answers that are possible.
    Loglik,
    /// What the model says, word by word, and how it is read.
    Generate,
}

prompted! {
/// What to answer, and how.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// How answers are got: `loglik` or `generate`. Without it TERRa is scored and Nerus generated.
    #[serde(default)]
    pub mode: Option<Mode>,
    /// The most ids of a generated answer; one that does not end by then counts as truncated.
    #[serde(default = "max_new_tokens")]
    #[schemars(range(min = 1, max = 4096))]
    pub max_new_tokens: u32,
    /// Texts that end a generated answer and do not belong to it. Without it a line end for Nerus, whose answers are
    /// one line, and nothing for TERRa.
    #[serde(default)]
    pub until: Option<Vec<String>>,
    /// The most ids, padding included, that go through the model at once. More is faster and takes more memory.
    #[serde(default = "batch_tokens")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub batch_tokens: u32,
    /// The precision of the base: `auto`, `f32` or `bf16`.
    #[serde(default)]
    pub dtype: Dtype,
    /// How many rows or sentences there must be, `limit` counted in: another number is an error, as of a file that was
    /// cut short.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub items: Option<u64>,
    /// Flaws of the data that are meant so: they are told and stand in the report instead of stopping the run.
    /// `duplicates`: items that stand there twice. `polarity`: labels that look turned round, types that look exchanged.
    /// `contradictions`: the same pair with both labels. `tags`: tags beside their words. `training_items`: items of the
    /// training data. `shared_texts`: sentences of the training data, a tenth of the long ones or more.
    #[serde(default)]
    pub allow: BTreeSet<Code>,
}
}

fn max_new_tokens() -> u32 {
    128
}
fn batch_tokens() -> u32 {
    4096
}

const FOLDER: &str = "result";

impl Params {
    fn mode(&self) -> Mode {
        self.mode.unwrap_or(match self.task {
            Task::Terra => Mode::Loglik,
            Task::Nerus => Mode::Generate,
        })
    }

    /// How the items are asked about.
    fn asked(&self) -> Asked {
        let answers = &self.answers;
        let answers: &[(&str, &str)] = match self.task {
            Task::Terra => &[("entailment", &answers.entailment), ("not_entailment", &answers.not_entailment)],
            Task::Nerus => &[("none", &answers.none)],
        };
        Asked {
            mode: match self.mode() {
                Mode::Loglik => "loglik".to_owned(),
                Mode::Generate => "generate".to_owned(),
            },
            prompt: self.keyed_prompt().unwrap_or_default(),
            answers: answers.iter().map(|(name, word)| ((*name).to_owned(), (*word).to_owned())).collect(),
        }
    }

    fn until(&self) -> Vec<String> {
        self.until.clone().unwrap_or_else(|| match self.task {
            Task::Terra => Vec::new(),
            Task::Nerus => vec!["\n".to_owned()],
        })
    }
}

impl Kind for Evaluate {
    const NAME: &'static str = "evaluate";
    /// 1: TERRa by log-likelihood or generation, Nerus by greedy generation.
    /// 2: the layers of an adapter that is on all of them are named.
    /// 3: answers to Nerus end with their line; generation_config.json and the tokenizer say what ends an answer, too.
    /// 4: records with the texts, how items were asked about, certificates, findings; scores that do not depend on
    /// batches.
    /// 5: findings about tags, types, repeated documents and shared sentences of Nerus; what is repeated may stop a run;
    /// products of f32 with all of the processor's instructions.
    /// 6: a context is read once for all its answers; keys and values in place.
    /// 7: ids that repeat what stands before are read several at a time, and keys by sixteens.
    /// 8: two batches beside each other, each of half as many ids.
    /// 9: products of 16 rows at least, answers in two halves, attention by blocks of queries.
    const VERSION: u32 = 9;
    const SUMMARY: &'static str = "Answers a task with a model, bare or with an adapter, and scores the answers";
    const EXAMPLE: &'static str = "lora_terra:\n  uses: evaluate\n  in: { model: base, adapter: lora, data: terra_val }\n  with: { task: terra }\n";
    const INPUTS: &'static [Input] = &[
        Input {
            name: "model",
            arity: Arity::One,
            named: false,
            doc: "The base: a folder in Hugging Face's layout with its tokenizer",
        },
        Input { name: "data", arity: Arity::One, named: false, doc: "TERRa's JSON lines with labels, or CoNLL-U" },
        Input {
            name: "adapter",
            arity: Arity::Optional,
            named: true,
            doc: "The adapter of this arm; without it the base alone is evaluated",
        },
        Input {
            name: "train",
            arity: Arity::Any,
            named: false,
            doc: "Data of the same kind that base or adapters were trained on: no item may stand in it",
        },
    ];
    const OUTPUTS: &'static [Output] = &[Output {
        name: "result",
        file: FOLDER,
        doc: "A folder with metrics.json, records.csv and, of an adapter, certificate.json",
    }];
    type Params = Params;
    const TORCH: bool = true;

    fn check(params: &Params) -> Vec<Problem> {
        let mut problems = params.prompt_problems();
        if params.task == Task::Nerus && params.mode == Some(Mode::Loglik) {
            problems.push(
                Problem::new("entities cannot be scored by log-likelihood: there is no list of possible answers")
                    .at(Path::root().key("mode"))
                    .expected("`generate`"),
            );
        }
        if let Some(empty) = params.until.iter().flatten().position(String::is_empty) {
            let path = Path::root().key("until").index(empty);
            problems.push(Problem::new("an empty text ends every answer before it begins").at(path));
        }
        problems
    }

    /// What is left to the task is spelled out, so that a new default makes a new key.
    fn keyed(params: &Params) -> Value {
        let until = Some(params.until());
        json!(Params { prompt: params.keyed_prompt(), mode: Some(params.mode()), until, ..params.clone() })
    }

    fn environment(_params: &Params, machine: &Machine) -> BTreeMap<String, String> {
        machine.torch_environment()
    }

    /// What was measured of the precision of the base, where `dtype: auto` goes by that.
    fn decided(
        params: &Params,
        inputs: &BTreeMap<String, Vec<Artifact>>,
        machine: &Machine,
    ) -> BTreeMap<String, String> {
        super::precision::decided(params.dtype, inputs, machine, machine.threads(Self::share(params)))
    }

    fn share(_params: &Params) -> Share {
        Share::Half
    }

    fn together(params: &Params, inputs: &BTreeMap<String, Vec<Artifact>>, machine: &Machine) -> Option<Together> {
        let pays = params.mode() == Mode::Loglik || machine.device.starts_with("cuda");
        Some(together::together(&Self::keyed(params), inputs, &["model", "data", "train"], pays))
    }

    fn run_together(members: &mut [(&Params, &mut Context)], _exact: bool, ended: &mut Ended<'_>) -> Result<()> {
        answer(members, ended)
    }

    fn run(params: &Params, cx: &mut Context) -> Result<()> {
        alone(params, cx, answer)
    }
}

/// What does the work of several steps, as [`Kind::run_together`] without a choice.
pub(super) type Work<P> = fn(&mut [(&P, &mut Context)], &mut Ended<'_>) -> Result<()>;

/// The work of several steps, with one.
pub(super) fn alone<P>(params: &P, cx: &mut Context, work: Work<P>) -> Result<()> {
    let mut result = Ok(());
    let mut ended = |ends: Vec<End<'_>>| ends.into_iter().for_each(|(_, _, how)| result = how);
    work(&mut [(params, cx)], &mut ended)?;
    result
}

/// Asks the same of the arms of several steps.
fn answer(members: &mut [(&Params, &mut Context)], ended: &mut Ended<'_>) -> Result<()> {
    let Some((params, cx)) = members.first() else { return Ok(()) };
    // The gold is looked at before anything is computed.
    let questions = Questions::read(params, cx)?;
    let mut about = Vec::new();
    for (at, (params, cx)) in members.iter_mut().enumerate() {
        match questions.about(params, cx) {
            Ok(told) => about.push(Some(told)),
            Err(problem) => {
                about.push(None);
                ended(vec![(at, cx, Err(problem))]);
            }
        }
    }
    if about.iter().all(Option::is_none) {
        return Ok(());
    }
    compute::answer(members, &questions, about, ended)
}

/// What is known of the items before they are answered.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// True if a generator made them.
    pub generated: bool,
    /// How they are asked about.
    pub asked: Asked,
    /// What was found about them.
    pub findings: Vec<Finding>,
}

/// Writes the result of TERRa and records its figures.
pub fn write_terra(cx: &mut Context, records: &[terra::Record], arm: Arm, about: About) -> Result<()> {
    let folder = fresh(cx, FOLDER)?;
    terra::write(&folder, records)?;
    finish(
        cx,
        &folder,
        Metrics {
            format: FORMAT.to_owned(),
            task: Task::Terra.name().to_owned(),
            generated: about.generated,
            arm,
            n: records.len() as u64,
            classes: terra::classes(records),
            documents: None,
            metrics: terra::metrics(records),
            parse: terra::parse(records),
            asked: about.asked,
            findings: about.findings,
            inputs: inputs(cx),
            environment: cx.machine().torch_environment(),
        },
    )
}

/// Writes the result of Nerus and records its figures.
pub fn write_nerus(cx: &mut Context, records: &[nerus::Record], arm: Arm, about: About) -> Result<()> {
    let folder = fresh(cx, FOLDER)?;
    nerus::write(&folder, records)?;
    finish(
        cx,
        &folder,
        Metrics {
            format: FORMAT.to_owned(),
            task: Task::Nerus.name().to_owned(),
            generated: about.generated,
            arm,
            n: records.len() as u64,
            classes: nerus::classes(records),
            documents: Some(nerus::documents(records)),
            metrics: nerus::metrics(records),
            parse: nerus::parse(records),
            asked: about.asked,
            findings: about.findings,
            inputs: inputs(cx),
            environment: cx.machine().torch_environment(),
        },
    )
}

/// What the result is made from, by content.
pub(super) fn inputs(cx: &Context) -> BTreeMap<String, String> {
    let ports = ["model", "data", "text", "adapter"].into_iter();
    ports.filter_map(|port| Some((port.to_owned(), cx.optional(port)?.digest.as_str().to_owned()))).collect()
}

/// The result's folder, made.
pub(super) fn fresh(cx: &Context, folder: &str) -> Result<std::path::PathBuf> {
    let folder = cx.output(folder);
    fs::create_dir_all(&folder).map_err(|e| Problem::io("create", &folder, &e))?;
    Ok(folder)
}

/// Writes metrics and certificate, and records the figures.
pub(super) fn finish(cx: &mut Context, folder: &FilePath, metrics: Metrics) -> Result<()> {
    metrics.write(folder)?;
    if let Some(certificate) = &metrics.arm.certificate {
        json::write(&folder.join("certificate.json"), certificate)?;
    }
    for metric in &metrics.metrics {
        let average = metric.average.as_ref().map(|average| format!(".{average}")).unwrap_or_default();
        cx.figure(format!("{}{average}", metric.name), metric.value);
    }
    let wrong = metrics.n - metrics.parse.valid;
    if wrong > 0 {
        cx.note(format!(
            "{wrong} of {} answers are not in the format: {} unparsed, {} truncated",
            metrics.n, metrics.parse.unparsed, metrics.parse.truncated
        ));
    }
    Ok(())
}
