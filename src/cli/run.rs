//! `pipe run`: brings the targets of a pipeline up to date, once or once per combination of a grid.
//! It does not know how steps are chosen, run or kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::{CacheArgs, Exit, PipelineArgs, fail, grid, remote};
use crate::error::Problem;
use crate::event::{Event, Outcome, Stamped};
use crate::exec::{self, Options, Summary};
use crate::fetch::Settings;
use crate::lockfile::Lockfile;
use crate::run::{self, Log};
use crate::spec::Pipeline;
use crate::step::Machine;
use crate::store::Store;
use crate::ui::{Mode, Ui};

/// Runs a pipeline: only what is not in the cache yet.
///
/// What happens is told on stderr; the files of the targets are printed on stdout, one path per line.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    pipe run pipelines/lora_vs_mlp.yaml\n  \
    pipe run pipelines/lora_vs_mlp.yaml --set lora.rank=8\n  \
    pipe run pipelines/lora_vs_mlp.yaml --grid lora.rank=2,4,8 --grid mlp.hidden_size=32,64")]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Steps to bring up to date, with all that they need [default: the targets of the file].
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    #[command(flatten)]
    cache: CacheArgs,
    /// How many steps may run side by side; a step that wants the whole machine still runs alone
    /// [default: the number of cores].
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Runs the pipeline once for each of these values: `--grid lora.rank=2,4,8`. Repeated, it makes all
    /// combinations, and ends with one table over them.
    #[arg(long = "grid", value_name = "NAME=V1,V2,…")]
    grid: Vec<String>,
    /// Fetches nothing: remote sources are taken from the caches, or are missing. So does HF_HUB_OFFLINE=1.
    #[arg(long)]
    offline: bool,
    /// Asks the servers anew what the remote sources are, and rewrites `pipe.lock`; with a TARGET, only those that it
    /// needs.
    #[arg(long, conflicts_with = "offline")]
    update: bool,
    /// Tells every event as a line of JSON on stdout.
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    /// Tells errors only.
    #[arg(short, long)]
    quiet: bool,
}

/// Does it.
pub fn main(args: &Args) -> Exit {
    match run(args) {
        Ok(exit) | Err(exit) => exit,
    }
}

fn run(args: &Args) -> Result<Exit, Exit> {
    let axes = grid::axes(&args.grid).map_err(|problem| fail(&problem, Exit::Usage))?;
    let machine = args.cache.machine()?;
    // All combinations are read before the first one runs: a mistake in the last must not cost hours.
    let combinations = grid::combinations(&axes);
    let load = |sets: &Vec<String>| args.pipeline.load(&args.targets, sets);
    let pipelines = combinations.iter().map(load).collect::<Result<Vec<Pipeline>, Exit>>()?;
    let store = args.cache.store(&pipelines[0]);
    let settings = Arc::new(remote::settings(args.offline, &store)?);
    let lock = remote::lockfile(&pipelines)?;
    let lock = Arc::new(if args.update { lock.renewed() } else { lock });
    let mode = match (args.json, args.quiet) {
        (true, _) => Mode::Json,
        (_, true) => Mode::Quiet,
        _ => Mode::Human,
    };
    let cancel = Arc::new(AtomicBool::new(false));
    let mut runner = Runner {
        ui: Ui::new(mode),
        store: &store,
        slots: args.jobs.map_or(machine.cores, usize::from),
        machine,
        settings,
        lock,
        cancel: cancel.clone(),
    };
    listen(&runner.ui, cancel)?;
    let mut rows = Vec::new();
    let mut worst = Exit::Done;
    for (sets, pipeline) in combinations.iter().zip(&pipelines) {
        if !axes.is_empty() {
            runner.ui.handle().line(&format!("── {} ──", sets.join("  ")));
        }
        let summary = runner.run(pipeline);
        rows.push(grid::figures(pipeline, &summary.records));
        match summary.outcome {
            Outcome::Done => {}
            Outcome::Failed => worst = Exit::Failed,
            Outcome::Interrupted => return Ok(Exit::Interrupted),
        }
    }
    if !axes.is_empty() {
        let table = grid::Table::new(&axes, &combinations, rows);
        if mode != Mode::Json {
            crate::ui::out(&table.text());
        }
        let place = store
            .publish_text(&pipelines[0].name, "grid.csv", &table.csv())
            .map_err(|problem| fail(&problem, Exit::Failed))?;
        runner.ui.handle().line(&format!("the table is in {}", place.display()));
    }
    Ok(worst)
}

struct Runner<'a> {
    ui: Ui,
    store: &'a Store,
    slots: usize,
    machine: Machine,
    settings: Arc<Settings>,
    lock: Arc<Lockfile>,
    cancel: Arc<AtomicBool>,
}

impl Runner<'_> {
    /// One run: every event goes to the log and to the eyes, with the time since its beginning.
    fn run(&mut self, pipeline: &Pipeline) -> Summary {
        let name = run::name();
        let mut log = match Log::create(&self.store.runs(), &name) {
            Ok(log) => Some(log),
            Err(problem) => {
                self.ui.warn(&format!("this run leaves no log: {}", problem.what));
                None
            }
        };
        let options = Options {
            run: name,
            slots: self.slots,
            machine: self.machine.clone(),
            settings: self.settings.clone(),
            lock: self.lock.clone(),
            cancel: self.cancel.clone(),
        };
        let started = Instant::now();
        let ui = &mut self.ui;
        exec::run(pipeline, self.store, &options, &mut |event: Event| {
            let stamped = Stamped { at_ms: started.elapsed().as_millis() as u64, event };
            if let Some(Err(problem)) = log.as_mut().map(|log| log.write(&stamped)) {
                // A run is worth more than its log.
                ui.warn(&format!("the log of this run ends here: {}", problem.what));
                log = None;
            }
            ui.event(&stamped);
        })
    }
}

/// The first Ctrl-C asks the steps to leave, the second leaves at once: what is half written then lies in the
/// scratch folder, and the next run clears it away.
fn listen(ui: &Ui, cancel: Arc<AtomicBool>) -> Result<(), Exit> {
    let handle = ui.handle();
    let heard = ctrlc::set_handler(move || {
        if cancel.swap(true, Ordering::Relaxed) {
            std::process::exit(Exit::Interrupted as i32);
        }
        handle.line("stopping… (again to leave at once)");
    });
    heard.map_err(|error| fail(&Problem::new(format!("cannot listen to Ctrl-C: {error}")), Exit::Failed))
}
