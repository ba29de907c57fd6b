//! `pipe run`: brings the targets of a pipeline up to date, once or once per combination of a grid.
//! It does not know how steps are chosen, run or kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::choice::{CapacityArgs, ChoiceArgs};
use super::{Exit, TargetArgs, front, grid, recall, remote};
use crate::error::Problem;
use crate::event::{Event, Outcome, Stamped};
use crate::exec::recall::{Found, Recall, Told};
use crate::exec::{self, Capacity, Choice, Decider, Options, Summary};
use crate::fetch::Settings;
use crate::lockfile::Lockfile;
use crate::run::{self, Log};
use crate::spec::{self, Pipeline, Problems};
use crate::step::Machine;
use crate::steps::KINDS;
use crate::store::Store;
use crate::ui::{Handle, Mode, Ui};

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
    what: TargetArgs,
    #[command(flatten)]
    capacity: CapacityArgs,
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
    #[command(flatten)]
    choice: ChoiceArgs,
    /// Tells every event as a line of JSON on stdout, also what is wrong with the pipeline.
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    /// Tells errors only.
    #[arg(short, long)]
    quiet: bool,
}

/// Does it.
pub fn main(args: &Args) -> Exit {
    let mode = match (args.json, args.quiet) {
        (true, _) => Mode::Json,
        (_, true) => Mode::Quiet,
        _ => Mode::Human,
    };
    let mut ui = Ui::new(mode);
    match run(args, mode, &mut ui) {
        Ok(exit) => exit,
        Err(Refusal::Command(problem)) => refused(&mut ui, vec![problem], Exit::Usage),
        Err(Refusal::Pipeline(problems)) if mode == Mode::Json => refused(&mut ui, problems.placed(), Exit::Pipeline),
        Err(Refusal::Pipeline(problems)) => super::refuse(&problems),
        Err(Refusal::Lock(problem)) => refused(&mut ui, vec![problem], Exit::Pipeline),
        Err(Refusal::Machine(problem)) => refused(&mut ui, vec![problem], Exit::Failed),
    }
}

/// Why there is no run, or no end of it.
enum Refusal {
    Command(Problem),
    Pipeline(Problems),
    Lock(Problem),
    Machine(Problem),
}

fn refused(ui: &mut Ui, problems: Vec<Problem>, exit: Exit) -> Exit {
    ui.event(&Stamped { at_ms: 0, event: Event::Refused { problems } });
    exit
}

fn run(args: &Args, mode: Mode, ui: &mut Ui) -> Result<Exit, Refusal> {
    let axes = grid::axes(&args.grid).map_err(Refusal::Command)?;
    // All combinations are read before the first one runs: a mistake in the last must not cost hours.
    let combinations = grid::combinations(&axes);
    let targets = args.choice.targets().unwrap_or(&args.what.targets);
    let store = args.what.cache.store(&spec::root_of(&args.what.pipeline.pipeline));
    let machine = args.what.cache.machine(&store).map_err(Refusal::Command)?;
    let is_plain = axes.is_empty() && !args.update && args.choice.is_plain();
    let mut recall = if is_plain { recall::asked(&args.what, targets, &store) } else { None }.map(|asked| Recall {
        found: exec::recall::check(&store, &machine, &asked),
        asked,
        compiled: false,
    });
    if let Some(Recall { asked, found, .. }) = recall.take_if(|recall| recall.found.as_ref().is_some_and(Found::whole))
        && let Some(found) = found
    {
        // Nothing is fetched; but settings that are wrong are told.
        remote::settings(args.offline, &store).map_err(Refusal::Command)?;
        let told = Told {
            run: run::name(),
            file: args.what.pipeline.pipeline.display().to_string(),
            sets: args.what.pipeline.sets.clone(),
        };
        let mut listener = Listener::new(ui, &store, &told.run);
        exec::recall::tell(&store, &asked, found, told, &mut |events| listener.hear(events));
        return Ok(Exit::Done);
    }
    let load = |sets: &Vec<String>| args.what.pipeline.read(targets, sets).map_err(Refusal::Pipeline);
    let compiled = recall.as_mut().and_then(|recall| {
        let found = exec::recall::compiled(&store, &recall.asked, &args.what.pipeline.pipeline, KINDS);
        recall.compiled = found.is_some();
        found
    });
    let pipelines = match compiled {
        Some(pipeline) => vec![pipeline],
        None => combinations.iter().map(load).collect::<Result<Vec<Pipeline>, Refusal>>()?,
    };
    // The file may have become another one since it was looked at.
    recall = recall.filter(|recall| recall.asked.text == pipelines[0].text);
    let settings = Arc::new(remote::settings(args.offline, &store).map_err(Refusal::Command)?);
    let lock = remote::lockfile(&pipelines).map_err(Refusal::Lock)?;
    let lock = Arc::new(if args.update { lock.renewed() } else { lock });
    for pipeline in &pipelines {
        let decider = Decider { pipeline, store: &store, machine: &machine, lock: &lock };
        front::run(&decider, args.choice.forces()).map_err(Refusal::Machine)?;
    }
    let choices = pipelines.iter().map(|pipeline| args.choice.of(pipeline));
    let choices: Vec<Choice> = choices.collect::<Result<_, Problem>>().map_err(Refusal::Command)?;
    let cancel = Arc::new(AtomicBool::new(false));
    listen(ui.handle(), cancel.clone()).map_err(Refusal::Machine)?;
    let capacity = args.capacity.of(machine.cores, &args.what.cache.device);
    let mut runner = Runner { ui, store: &store, capacity, machine, settings, lock, cancel, started: Instant::now() };
    let mut rows = Vec::new();
    let mut worst = Exit::Done;
    for ((sets, pipeline), choice) in combinations.iter().zip(&pipelines).zip(choices) {
        if !axes.is_empty() && mode == Mode::Human {
            runner.ui.handle().line(&format!("── {} ──", sets.join("  ")));
        }
        let sets = args.what.pipeline.sets.iter().chain(sets).cloned().collect();
        let summary = runner.run(pipeline, choice, sets, recall.take());
        if !axes.is_empty() {
            rows.push(grid::figures(pipeline, &summary.records));
        }
        match summary.outcome {
            Outcome::Done => {}
            Outcome::Failed if summary.gated && worst != Exit::Failed => worst = Exit::Gate,
            Outcome::Failed => worst = Exit::Failed,
            Outcome::Interrupted => return Ok(Exit::Interrupted),
        }
    }
    if !axes.is_empty() {
        let table = grid::Table::new(&axes, &combinations, rows);
        if mode != Mode::Json {
            crate::ui::out(&table.text());
        }
        let place = store.publish_text(&pipelines[0].name, "grid.csv", &table.csv()).map_err(Refusal::Machine)?;
        runner.tell(Event::GridFinished { file: place.display().to_string() });
    }
    Ok(worst)
}

/// Every event of a run goes to the log and to the eyes, with the time since its beginning.
struct Listener<'a> {
    ui: &'a mut Ui,
    log: Option<Log>,
    started: Instant,
}

impl<'a> Listener<'a> {
    fn new(ui: &'a mut Ui, store: &Store, run: &str) -> Self {
        let log = match Log::create(&store.runs(), run) {
            Ok(log) => Some(log),
            Err(problem) => {
                ui.warn(&format!("this run leaves no log: {}", problem.what));
                None
            }
        };
        Self { ui, log, started: Instant::now() }
    }

    fn hear(&mut self, events: Vec<Event>) {
        let at_ms = self.started.elapsed().as_millis() as u64;
        let stamped: Vec<Stamped> = events.into_iter().map(|event| Stamped { at_ms, event }).collect();
        if let Some(Err(problem)) = self.log.as_mut().map(|log| log.write(&stamped)) {
            // A run is worth more than its log.
            self.ui.warn(&format!("the log of this run ends here: {}", problem.what));
            self.log = None;
        }
        self.ui.events(&stamped);
    }
}

struct Runner<'a> {
    ui: &'a mut Ui,
    store: &'a Store,
    capacity: Capacity,
    machine: Machine,
    settings: Arc<Settings>,
    lock: Arc<Lockfile>,
    cancel: Arc<AtomicBool>,
    /// When the latest run began.
    started: Instant,
}

impl Runner<'_> {
    fn run(&mut self, pipeline: &Pipeline, choice: Choice, sets: Vec<String>, recall: Option<Recall>) -> Summary {
        let options = Options {
            run: run::name(),
            sets,
            capacity: self.capacity.clone(),
            choice,
            machine: self.machine.clone(),
            settings: self.settings.clone(),
            lock: self.lock.clone(),
            cancel: self.cancel.clone(),
            recall,
        };
        let mut listener = Listener::new(self.ui, self.store, &options.run);
        self.started = listener.started;
        exec::run(pipeline, self.store, &options, &mut |events| listener.hear(events))
    }

    fn tell(&mut self, event: Event) {
        self.ui.event(&Stamped { at_ms: self.started.elapsed().as_millis() as u64, event });
    }
}

/// The first Ctrl-C asks the steps to leave, the second leaves at once: what is half written then lies in the
/// scratch folder, and the next run clears it away.
fn listen(handle: Handle, cancel: Arc<AtomicBool>) -> Result<(), Problem> {
    let heard = ctrlc::set_handler(move || {
        if cancel.swap(true, Ordering::Relaxed) {
            leave(&handle);
        }
        handle.line("stopping… (again to leave at once)");
    });
    heard.map_err(|error| Problem::new(format!("cannot listen to Ctrl-C: {error}")))
}

/// Ends the process, whatever its threads do. Whoever draws just then may hold the screen for ever, so it is
/// cleaned beside, and not waited for long.
fn leave(handle: &Handle) -> ! {
    let (done, heard) = channel();
    let handle = handle.clone();
    std::thread::spawn(move || {
        handle.clear();
        let _ = done.send(());
    });
    let _ = heard.recv_timeout(Duration::from_millis(200));
    std::process::exit(Exit::Interrupted as i32)
}
