//! The command line: one verb per file, exit codes in one place.
//! It does not know how any verb does its work.

pub mod audit;
pub mod bench;
pub mod cache;
pub mod check;
mod choice;
pub mod completions;
pub mod diff;
pub mod explain;
pub mod export;
mod front;
pub mod graph;
mod grid;
pub mod help;
pub mod init;
pub mod logs;
pub mod plan;
mod recall;
mod remote;
pub mod render;
pub mod run;
pub mod runs;
pub mod schema;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::error::Problem;
use crate::spec::{self, Pipeline, Problems};
use crate::step::Machine;
use crate::store::Store;
use crate::ui::{self, problem};

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything asked for is done.
    Done = 0,
    /// A step failed, or a result could not be made.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The pipeline file is wrong.
    Pipeline = 3,
    /// Steps failed, all of them because of what `expect:` says.
    Gate = 4,
    /// A report has defects.
    Defects = 5,
    /// Interrupted by Ctrl-C.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Runs adapter experiments from a YAML file, and only what changed.
#[derive(Debug, Parser)]
#[command(
    name = "pipe",
    version,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
#[command(
    after_help = "Exit codes: 0 done, 1 a step failed, 2 wrong usage, 3 the pipeline is wrong, 4 an expectation was not met, 5 a report has defects, 130 interrupted.\n\nExample:\n  pipe run pipelines/lora_vs_mlp.yaml --set lora.rank=8"
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Init(init::Args),
    Run(run::Args),
    Plan(plan::Args),
    #[command(visible_alias = "why")]
    Explain(explain::Args),
    Check(check::Args),
    Graph(graph::Args),
    Bench(bench::Args),
    Logs(logs::Args),
    Help(help::Args),
    Schema(schema::Args),
    Render(render::Args),
    Audit(audit::Args),
    Export(export::Args),
    Runs(runs::Args),
    Diff(diff::Args),
    Cache(cache::Args),
    Completions(completions::Args),
}

/// Which pipeline, with which parameters.
#[derive(Debug, Clone, Args)]
pub struct PipelineArgs {
    /// The pipeline file.
    #[arg(value_name = "PIPELINE.yaml")]
    pub pipeline: PathBuf,
    /// Sets a parameter: `--set lora.rank=8`. May be repeated; the value is read as YAML.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub sets: Vec<String>,
    /// Uses a named set of parameters of the file.
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
}

/// Where results are kept and what computes.
#[derive(Debug, Clone, Args)]
pub struct CacheArgs {
    /// The cache folder [default: `cache/` beside the pipelines].
    #[arg(long, value_name = "DIR", env = "PIPE_CACHE")]
    pub cache: Option<PathBuf>,
    /// Reads everything anew: files outside the cache that look as they did when they were last read, and the results
    /// that are reused. One that is damaged is made again.
    #[arg(long)]
    pub paranoid: bool,
    /// What computes: `cpu`, `cuda:0`, or `auto` for the first GPU that libtorch can use.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: String,
}

/// Where results are kept, for verbs that read no pipeline.
#[derive(Debug, Clone, Args)]
pub struct FolderArgs {
    /// The cache folder.
    #[arg(long, value_name = "DIR", env = "PIPE_CACHE", default_value = "cache")]
    pub cache: PathBuf,
}

/// What is to be brought up to date, from what, and where.
#[derive(Debug, Clone, Args)]
pub struct TargetArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Steps to bring up to date, with all that they need [default: the targets of the file].
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    #[command(flatten)]
    cache: CacheArgs,
}

impl PipelineArgs {
    /// Reads the pipeline, with these targets and settings after its own.
    fn read(&self, targets: &[String], sets: &[String]) -> Result<Pipeline, Problems> {
        spec::load(&self.pipeline, &self.options(targets, sets))
    }

    fn options(&self, targets: &[String], sets: &[String]) -> spec::Options {
        spec::Options {
            profile: self.profile.clone(),
            sets: self.sets.iter().chain(sets).cloned().collect(),
            targets: targets.to_vec(),
            ..spec::Options::default()
        }
    }

    /// Where parameters were written; `None` if the file is gone meanwhile.
    fn origins(&self) -> Option<spec::Origins> {
        spec::Origins::read(&self.pipeline, &self.options(&[], &[]))
    }

    /// The same; shows every problem of it.
    fn load(&self, targets: &[String], sets: &[String]) -> Result<Pipeline, Exit> {
        self.read(targets, sets).map_err(|problems| refuse(&problems))
    }
}

impl CacheArgs {
    /// The cache for a pipeline whose paths start at `root`.
    fn store(&self, root: &Path) -> Store {
        let beside = root.join("cache");
        // Paths are shown to the user, who does not want to read `./`.
        let beside = beside.strip_prefix(".").unwrap_or(&beside);
        Store::at(self.cache.as_deref().unwrap_or(beside)).paranoid(self.paranoid)
    }

    /// What computes, with what the cache knows of it.
    fn machine(&self, store: &Store) -> Result<Machine, Problem> {
        front::device(&self.device)?;
        let device = crate::ml::device::device(&self.device)?;
        let variables = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        let variables = std::sync::Arc::new(variables.collect());
        let mut machine = Machine {
            device: device.name,
            cores: device.cores,
            bf16: device.bf16,
            variables,
            precisions: std::sync::Arc::default(),
        };
        // Most caches know nothing, and then nobody has to ask what this processor is.
        if !store.dtypes()?.is_empty()
            && let Some(processor) = crate::exec::processor(&machine)
        {
            machine.precisions = std::sync::Arc::new(store.precisions(&processor)?);
        }
        Ok(machine)
    }
}

/// The cache in this folder, if there is one.
fn existing(folder: &Path) -> Result<Store, Exit> {
    if folder.is_dir() {
        return Ok(Store::at(folder));
    }
    let problem = Problem::new(format!("there is no cache at {}", folder.display()));
    Err(fail(&problem.help("name its folder with --cache DIR"), Exit::Usage))
}

/// The only step that a name on the command line means: of a matrix one cell.
fn only(pipeline: &Pipeline, name: &str) -> Result<usize, Exit> {
    let &[step] = pipeline.targets.as_slice() else {
        let ids: Vec<&str> = pipeline.targets.iter().map(|&step| pipeline.steps[step].id.as_str()).collect();
        let problem = Problem::new(format!("`{name}` is {} steps", ids.len()));
        return Err(fail(&problem.help(format!("name one of them, such as `{}`", ids[0])), Exit::Usage));
    };
    Ok(step)
}

/// Shows the problems of a pipeline file with its text.
fn refuse(problems: &Problems) -> Exit {
    ui::err(problem::render(problems, ui::look()).trim_end());
    Exit::Pipeline
}

/// Shows a problem and answers how the command ends.
fn fail(problem: &Problem, exit: Exit) -> Exit {
    ui::err(problem::render_one(problem, ui::look()).trim_end());
    exit
}

/// Reads the arguments, does what they say, and tells how it went.
pub fn main() -> ExitCode {
    let exit = match Cli::parse().verb {
        Verb::Init(args) => init::main(&args),
        Verb::Run(args) => run::main(&args),
        Verb::Plan(args) => plan::main(&args),
        Verb::Explain(args) => explain::main(&args),
        Verb::Check(args) => check::main(&args),
        Verb::Graph(args) => graph::main(&args),
        Verb::Bench(args) => bench::main(&args),
        Verb::Logs(args) => logs::main(&args),
        Verb::Help(args) => help::main(&args),
        Verb::Schema(args) => schema::main(&args),
        Verb::Render(args) => render::main(&args),
        Verb::Audit(args) => audit::main(&args),
        Verb::Export(args) => export::main(&args),
        Verb::Runs(args) => runs::main(&args),
        Verb::Diff(args) => diff::main(&args),
        Verb::Cache(args) => cache::main(&args),
        Verb::Completions(args) => completions::main(&args),
    };
    exit.into()
}
