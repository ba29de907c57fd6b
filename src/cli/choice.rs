//! What the flags of `pipe run` choose: steps by their names, and what of the machine may be used.
//! It does not know how steps are chosen or run by the engine.

use std::collections::BTreeSet;

use crate::error::{Problem, Result};
use crate::exec::{Capacity, Choice};
use crate::graph::Graph;
use crate::spec::{Pipeline, size, suggest};

/// Which steps run, and when a run ends.
#[derive(Debug, clap::Args)]
pub struct ChoiceArgs {
    /// After a failure, goes on with all that does not need what failed.
    #[arg(short, long)]
    keep_going: bool,
    /// Runs this step though its result is there, and says so if the same inputs now make other bytes. May be
    /// repeated.
    #[arg(long, value_name = "STEP")]
    force: Vec<String>,
    /// The same of this step and of all that need it. May be repeated.
    #[arg(long, value_name = "STEP")]
    from: Vec<String>,
    /// Brings only this step up to date: the results that it needs must be there. May be repeated.
    #[arg(long, value_name = "STEP", conflicts_with = "targets")]
    pub only: Vec<String>,
    /// Brings this step up to date with all that it needs, and goes no further: the same as naming it as TARGET. May be
    /// repeated.
    #[arg(long, value_name = "STEP", conflicts_with_all = ["targets", "only"])]
    pub until: Vec<String>,
    /// Lets up to N steps that can do so work together, such as adapters that are trained on the same base and rows;
    /// their figures may then differ from those of steps that ran alone by rounding. 1: never [default: where it was
    /// measured to pay and changes no byte, or where a GPU promises none].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    together: Option<u16>,
}

/// What of the machine steps may use.
#[derive(Debug, Default, clap::Args)]
pub struct CapacityArgs {
    /// How many steps may run side by side; a step that wants the whole machine still runs alone
    /// [default: the number of cores].
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// How much memory all steps together may hold, as their `resources` tell [default: what the machine has].
    #[arg(long, value_name = "SIZE", value_parser = amount)]
    memory: Option<u64>,
    /// The numbers of the GPUs that steps may use [default: that of `--device`, or else all that are visible].
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    gpus: Option<Vec<usize>>,
}

impl ChoiceArgs {
    /// The choice among the steps of this pipeline.
    pub(super) fn of(&self, pipeline: &Pipeline) -> Result<Choice> {
        let mut forced = named(pipeline, &self.force, "--force")?;
        let from = named(pipeline, &self.from, "--from")?;
        if !from.is_empty() {
            let graph = Graph::of(pipeline);
            let mut open: Vec<usize> = from.into_iter().collect();
            while let Some(step) = open.pop() {
                if forced.insert(step) {
                    open.extend(graph.consumers(step));
                }
            }
        }
        let only = named(pipeline, &self.only, "--only")?;
        let only = (!self.only.is_empty()).then_some(only);
        Ok(Choice { keep_going: self.keep_going, forced, only, together: self.together.map(usize::from) })
    }

    /// True if steps are decided by their keys alone.
    pub(super) fn is_plain(&self) -> bool {
        !self.forces() && self.only.is_empty()
    }

    /// The targets, if these flags name any.
    pub(super) fn targets(&self) -> Option<&[String]> {
        [&self.only, &self.until].into_iter().find(|names| !names.is_empty()).map(Vec::as_slice)
    }

    /// True if a step may have to run though its result is there.
    pub(super) fn forces(&self) -> bool {
        !self.force.is_empty() || !self.from.is_empty()
    }
}

impl CapacityArgs {
    /// What there is, as far as nothing else is said; `device` is what `--device` says.
    pub(super) fn of(&self, cores: usize, device: &str) -> Capacity {
        // Whoever names a GPU means that one.
        let named = device.strip_prefix("cuda:").and_then(|number| number.parse().ok()).map(|number| vec![number]);
        Capacity {
            cpu: self.jobs.map_or(cores, usize::from).max(1),
            memory: self.memory.or_else(all_memory),
            gpus: self.gpus.clone().or(named).unwrap_or_else(all_gpus),
        }
    }
}

/// The steps of these names: a step, all cells of a matrix, or one cell.
fn named(pipeline: &Pipeline, names: &[String], flag: &str) -> Result<BTreeSet<usize>> {
    let mut found = BTreeSet::new();
    for name in names {
        let before = found.len();
        let fits = |step: &crate::spec::Step| step.id == *name || step.name == *name;
        found.extend(pipeline.steps.iter().enumerate().filter(|(_, step)| fits(step)).map(|(at, _)| at));
        if found.len() == before && !pipeline.steps.iter().any(fits) {
            let known = pipeline.steps.iter().flat_map(|step| [step.name.as_str(), step.id.as_str()]);
            let known: BTreeSet<&str> = known.collect();
            return Err(Problem::new(format!("`{flag} {name}`: there is no step `{name}`")).help(suggest::help(
                name,
                known,
                "the steps are",
                "",
            )));
        }
    }
    Ok(found)
}

/// Reads a number of bytes: `16GB`.
pub(super) fn amount(text: &str) -> std::result::Result<u64, String> {
    size(text).ok_or_else(|| "a number of bytes is written like `500M`, `16GB` or `1.5GiB`".to_owned())
}

/// The memory of the machine, where it can be told.
fn all_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// The GPUs that are visible to this process: as CUDA counts them, from 0 among those that its variable lists, or else
/// those for which the driver made a device.
fn all_gpus() -> Vec<usize> {
    if let Some(list) = std::env::var("CUDA_VISIBLE_DEVICES").ok().filter(|list| !list.is_empty()) {
        return (0..list.split(',').count()).collect();
    }
    let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let number = |name: &str| name.strip_prefix("nvidia")?.parse().ok();
    let mut found: Vec<usize> = entries.filter_map(|entry| number(entry.file_name().to_str()?)).collect();
    found.sort_unstable();
    found
}
