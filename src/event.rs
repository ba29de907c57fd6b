//! Everything the engine ever says: one enum, read by the bars, the plain lines, `--json` and the run log.
//! It does not know who listens.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::Problem;

/// What a running step says about itself; the engine adds which step it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Say {
    /// How far it is. Lossy: only the latest matters, and it is never logged.
    Progress {
        /// Units done.
        done: u64,
        /// Units in all, if known.
        total: Option<u64>,
        /// What is counted: `steps`, `items`, `B`.
        unit: String,
        /// A few words beside the bar, such as `loss 1.234  3.1k tok/s`.
        text: String,
    },
    /// A value along the way, such as the loss at a step.
    Metric {
        /// Its name.
        name: String,
        /// The position (optimiser step, item).
        at: u64,
        /// The value.
        value: f64,
    },
    /// It goes on from a state that an earlier run left.
    Resumed {
        /// How far the work was.
        at: u64,
        /// How far it goes.
        total: u64,
        /// What is counted: `steps`.
        unit: String,
        /// The run that left the state.
        run: String,
    },
    /// Something about this run alone: it is not told again with the result.
    Remark {
        /// The sentence.
        text: String,
    },
    /// Something a person may want to know.
    Note {
        /// The sentence.
        text: String,
    },
    /// Something a person should know.
    Warning {
        /// The sentence.
        text: String,
    },
}

/// One output of a finished step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Its content.
    pub digest: Digest,
    /// Its size in bytes; a folder's is the sum of its files.
    pub bytes: u64,
    /// Where it lies in the store.
    pub path: String,
}

/// What a result cost when it was made; stored with it and told again when it is reused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Costs {
    /// How long the step took, in milliseconds.
    pub took_ms: u64,
    /// Time of all its processors together, in milliseconds, where that could be measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    /// The most memory that the process held that did the work, in bytes, where that could be measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_bytes: Option<u64>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything that was asked for is there.
    Done,
    /// At least one step failed.
    Failed,
    /// The user stopped it.
    Interrupted,
}

/// What the engine says, in the order in which it happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// First of all.
    RunStarted {
        /// The run's name, also that of its log.
        run: String,
        /// The pipeline's name.
        pipeline: String,
        /// The pipeline's file as the user gave it.
        file: String,
        /// What was set on the command line, also by `--grid`: `lora.rank=8`.
        #[serde(default)]
        sets: Vec<String>,
        /// The ids of the steps that are needed, in order.
        steps: Vec<String>,
    },
    /// A step's result was already in the store.
    StepReused {
        /// The step's id.
        step: String,
        /// The key it was found under.
        key: Digest,
        /// How long it had taken when it ran, in milliseconds.
        saved_ms: u64,
        /// All that it had cost; logs of earlier versions do not tell.
        #[serde(default)]
        costs: Costs,
        /// Its outputs.
        outputs: BTreeMap<String, Made>,
        /// The figures it had recorded.
        figures: BTreeMap<String, f64>,
    },
    /// A step began to bring its remote source, of which nothing was known; whether it has to run shows afterwards.
    StepFetching {
        /// The step's id.
        step: String,
        /// The address.
        source: String,
    },
    /// Another process is making the step's result just now; it is waited for.
    StepJoined {
        /// The step's id.
        step: String,
        /// The key of the result.
        key: Digest,
    },
    /// An attempt of a running step failed, and there will be another one.
    StepRetrying {
        /// The step's id.
        step: String,
        /// Why the attempt failed.
        problem: Problem,
        /// How long until the next one, in milliseconds.
        wait_ms: u64,
    },
    /// A step began to run.
    StepStarted {
        /// The step's id.
        step: String,
        /// The key its result will have.
        key: Digest,
        /// Why it runs: `never run before`, or the fields that changed.
        why: Vec<String>,
    },
    /// A step said something. Progress may come before it is started: while its sources are read.
    StepSaid {
        /// The step's id.
        step: String,
        /// What it said.
        say: Say,
    },
    /// A step's result is in the store.
    StepFinished {
        /// The step's id.
        step: String,
        /// Its key.
        key: Digest,
        /// How long it took, in milliseconds.
        took_ms: u64,
        /// All that it cost; logs of earlier versions do not tell.
        #[serde(default)]
        costs: Costs,
        /// How many attempts failed before.
        #[serde(default)]
        retries: u32,
        /// Its outputs.
        outputs: BTreeMap<String, Made>,
        /// The figures it recorded.
        figures: BTreeMap<String, f64>,
    },
    /// A step failed; nothing of it was kept.
    StepFailed {
        /// The step's id.
        step: String,
        /// Why.
        problem: Problem,
    },
    /// A step could not run because one that it needs failed.
    StepSkipped {
        /// The step's id.
        step: String,
        /// The id of the step that failed.
        because: String,
    },
    /// How long the run will go on, by how long its steps took before. Never logged: it says nothing once it is over.
    Forecast {
        /// If every step is as fast as it ever was, in milliseconds.
        low_ms: u64,
        /// If every step is as slow as it ever was, in milliseconds.
        high_ms: u64,
        /// How many steps are in neither, because nothing like them ever ran.
        unknown: usize,
    },
    /// Last of all.
    RunFinished {
        /// How it ended.
        outcome: Outcome,
        /// Steps that ran.
        ran: usize,
        /// Steps whose result was reused.
        reused: usize,
        /// Steps that failed.
        failed: usize,
        /// Steps that were skipped.
        skipped: usize,
        /// How long the run took, in milliseconds.
        took_ms: u64,
        /// How much time the cache saved, in milliseconds.
        saved_ms: u64,
        /// Files for the user: results of the targets.
        results: Vec<String>,
        /// What steps ran on; empty where none ran, and in logs of earlier versions.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        machine: String,
    },
    /// Instead of a run: the command line or the pipeline file is wrong.
    Refused {
        /// Everything that is wrong, each with its place.
        problems: Vec<Problem>,
    },
    /// After the runs of a `--grid`.
    GridFinished {
        /// The table over the combinations.
        file: String,
    },
}

/// An event and when it happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stamped {
    /// Milliseconds since the run began.
    pub at_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}
