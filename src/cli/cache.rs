//! `pipe cache`: what lies in the cache, whether it is sound, and what of it nobody needs.
//! It does not know how any of that is found out.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

use serde_json::json;

use super::choice::amount;
use super::{CacheArgs, Exit, PipelineArgs, existing, fail, plan};
use crate::digest::Digest;
use crate::error::Problem;
use crate::event::{Event, Say, Stamped};
use crate::run;
use crate::store::{Found, Keep, PARTS, Store};
use crate::ui::{self, Mode, Ui};

/// Looks after the cache: what lies in it, whether it is sound, and what nobody needs any more.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  pipe cache stats\n  pipe cache verify --repair\n  \
    pipe cache gc --keep-runs 5 --yes\n  pipe cache pin 2026-11-25T12-05-24Z-cfe493")]
pub struct Args {
    #[command(subcommand)]
    what: What,
    /// The cache folder.
    #[arg(long, value_name = "DIR", env = "PIPE_CACHE", default_value = "cache", global = true)]
    cache: PathBuf,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Tells what lies where, how large it is, and what `gc` would remove.
    #[command(after_help = "Example:\n  pipe cache stats --json")]
    Stats {
        #[command(flatten)]
        keep: KeepArgs,
        /// Tells it as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Reads everything, and tells what is damaged or missing; it ends with 1 if something is.
    #[command(after_help = "Examples:\n  pipe cache verify\n  pipe cache verify --repair")]
    Verify {
        /// Puts what is damaged aside, to `damaged/`; the steps that made it run again with the next run.
        #[arg(long)]
        repair: bool,
    },
    /// Removes what nobody needs: what neither the last runs of each pipeline nor pinned runs used. Without `--yes` it
    /// only tells what that is.
    #[command(after_help = "Examples:\n  pipe cache gc\n  pipe cache gc --max-size 20G --yes\n  \
        pipe cache gc pipelines/lora_vs_mlp.yaml --keep-runs 1 --yes")]
    Gc {
        #[command(flatten)]
        keep: KeepArgs,
        /// Removes it.
        #[arg(short, long)]
        yes: bool,
    },
    /// Keeps the results of a run whatever `gc` removes; without a run, tells which are kept.
    #[command(
        after_help = "Examples:\n  pipe cache pin last\n  pipe cache pin 2026-11-25T12-05-24Z-cfe493\n  pipe cache pin"
    )]
    Pin {
        /// The run: its name, the beginning of its name, `last`, or `last~1` for the one before.
        #[arg(value_name = "RUN")]
        run: Option<String>,
    },
    /// Lets a pinned run go again.
    #[command(after_help = "Example:\n  pipe cache unpin 2026-11-25T12-05-24Z-cfe493")]
    Unpin {
        /// The run, as `pin` takes it.
        #[arg(value_name = "RUN")]
        run: String,
    },
}

#[derive(Debug, clap::Args)]
struct KeepArgs {
    /// Pipelines whose present results are kept, too.
    #[arg(value_name = "PIPELINE.yaml")]
    pipelines: Vec<PathBuf>,
    /// How many of the last runs of each pipeline keep their results.
    #[arg(long, value_name = "N", default_value_t = 10)]
    keep_runs: usize,
    /// How large all results may be: `20G`, `500M`; those that were not used for the longest time go first.
    #[arg(long, value_name = "SIZE", value_parser = amount)]
    max_size: Option<u64>,
}

/// Does it.
pub fn main(args: &Args) -> Exit {
    let store = match existing(&args.cache) {
        Ok(store) => store,
        Err(exit) => return exit,
    };
    let done = match &args.what {
        What::Stats { keep, json } => stats(&store, keep, *json),
        What::Verify { repair } => verify(&store, *repair),
        What::Gc { keep, yes } => gc(&store, keep, *yes),
        What::Pin { run: Some(run) } => pin(&store, run, true),
        What::Pin { run: None } => {
            store.pins().iter().for_each(|run| ui::out(run));
            Ok(Exit::Done)
        }
        What::Unpin { run } => pin(&store, run, false),
    };
    done.unwrap_or_else(|problem| fail(&problem, Exit::Failed))
}

fn stats(store: &Store, keep: &KeepArgs, json: bool) -> Result<Exit, Problem> {
    let needed = needed(store, keep)?;
    let garbage = sums(&store.garbage(&needed));
    let mut parts = serde_json::Map::new();
    for (part, _) in PARTS {
        let found = store.survey(part);
        let (count, bytes) = (found.len(), found.iter().map(|found| found.bytes).sum::<u64>());
        let age = |found: Option<&Found>| found.map(|found| found.changed.elapsed().unwrap_or_default().as_secs());
        let (oldest, newest) = (found.iter().min_by_key(|f| f.changed), found.iter().max_by_key(|f| f.changed));
        let (garbage_count, garbage_bytes) = garbage.get(part).copied().unwrap_or_default();
        if json {
            parts.insert(
                (*part).to_owned(),
                json!({
                    "count": count, "bytes": bytes,
                    "oldest_unix_s": oldest.map(|f| unix(f.changed)), "newest_unix_s": newest.map(|f| unix(f.changed)),
                    "garbage": {"count": garbage_count, "bytes": garbage_bytes},
                }),
            );
        } else if count > 0 {
            let ages = match (age(oldest), age(newest)) {
                (Some(oldest), Some(newest)) => {
                    format!("{} to {} old", ui::duration(newest * 1000), ui::duration(oldest * 1000))
                }
                _ => String::new(),
            };
            let free = if garbage_count > 0 {
                format!("; gc would remove {garbage_count}, {}", ui::size(garbage_bytes))
            } else {
                String::new()
            };
            ui::out(&format!("{part:12} {count:>8}  {:>9}  {ages}{free}", ui::size(bytes)));
        }
    }
    let pins = store.pins();
    if json {
        let all = json!({"cache": store.root().display().to_string(), "parts": parts, "pins": pins});
        ui::out(&serde_json::to_string_pretty(&all).unwrap_or_default());
    } else if !pins.is_empty() {
        ui::out(&format!("pinned: {}", pins.into_iter().collect::<Vec<_>>().join(", ")));
    }
    Ok(Exit::Done)
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn verify(store: &Store, repair: bool) -> Result<Exit, Problem> {
    let (ui, begun) = (RefCell::new(Ui::new(Mode::Human)), Instant::now());
    let verified = store.verify(&mut |done, total| {
        let text = "reading the cache".to_owned();
        let say = Say::Progress { done, total: Some(total), unit: "B".to_owned(), text };
        let event = Event::StepSaid { step: "verify".to_owned(), say };
        ui.borrow_mut().event(&Stamped { at_ms: begun.elapsed().as_millis() as u64, event });
        Ok(())
    });
    ui.borrow().end();
    let verified = verified?;
    for damage in &verified.damage {
        let steps = damage.steps.iter().cloned().collect::<Vec<_>>().join(", ");
        let of = if steps.is_empty() { String::new() } else { format!("; of {steps}") };
        ui::out(&format!("{}{of}", damage.what));
        if repair {
            store.put_aside(damage)?;
        }
    }
    let (records, objects) = (verified.records, verified.objects);
    let mut sum = format!("{records} records, {objects} objects, {}", ui::size(verified.bytes));
    if verified.unreferenced > 0 {
        sum.push_str(&format!(", {} of which no record names", verified.unreferenced));
    }
    ui::err(&format!(
        "{sum}: {}",
        if verified.damage.is_empty() {
            "all sound".to_owned()
        } else {
            format!("{} damaged or missing", verified.damage.len())
        }
    ));
    if verified.damage.is_empty() {
        return Ok(Exit::Done);
    }
    let steps: BTreeSet<&String> = verified.damage.iter().flat_map(|damage| &damage.steps).collect();
    let steps: Vec<&str> = steps.into_iter().map(String::as_str).collect();
    ui::err(&match (repair, steps.is_empty()) {
        (false, _) => "`pipe cache verify --repair` puts it aside, so that it can never be served".to_owned(),
        (true, true) => "put aside".to_owned(),
        (true, false) => {
            format!("put aside; with the next run of their pipelines, these run again: {}", steps.join(", "))
        }
    });
    Ok(if repair { Exit::Done } else { Exit::Failed })
}

fn gc(store: &Store, keep: &KeepArgs, yes: bool) -> Result<Exit, Problem> {
    let needed = needed(store, keep)?;
    let gone = if yes { store.collect(&needed)? } else { store.garbage(&needed) };
    for (part, (count, bytes)) in sums(&gone) {
        ui::out(&format!("{part:12} {count:>8}  {:>9}", ui::size(bytes)));
    }
    let bytes = ui::size(gone.iter().map(|found| found.bytes).sum());
    ui::err(&match (yes, gone.is_empty()) {
        (_, true) => "there is nothing that nobody needs".to_owned(),
        (true, _) => format!("removed {bytes}"),
        (false, _) => format!("{bytes} that nobody needs; --yes removes it"),
    });
    Ok(Exit::Done)
}

fn sums(found: &[Found]) -> BTreeMap<&'static str, (usize, u64)> {
    let mut sums = BTreeMap::<_, (usize, u64)>::new();
    for found in found {
        let sum = sums.entry(found.part).or_default();
        *sum = (sum.0 + 1, sum.1 + found.bytes);
    }
    sums
}

/// What the last runs of each pipeline, pinned runs and the named pipelines use.
fn needed(store: &Store, args: &KeepArgs) -> Result<Keep, Problem> {
    let mut keep = Keep { most: args.max_size, ..Keep::default() };
    let pins = store.pins();
    let mut seen = BTreeMap::<String, usize>::new();
    let mut logs = store.survey("runs");
    // By their ends: names tell seconds only.
    logs.sort_by_key(|log| std::cmp::Reverse(log.changed));
    for (age, log) in logs.iter().enumerate() {
        let events = match run::read(&log.path) {
            Ok((_, events)) => events,
            Err(problem) => {
                ui::err(&format!("what the run {} used is not known: {}", log.name, problem.what));
                keep.runs.insert(log.name.clone());
                continue;
            }
        };
        let (mut pipeline, mut keys) = (String::new(), Vec::new());
        for stamped in events {
            match stamped.event {
                Event::RunStarted { pipeline: name, .. } => pipeline = name,
                // What was only begun may have left checkpoints.
                Event::StepFinished { key, .. } | Event::StepReused { key, .. } | Event::StepStarted { key, .. } => {
                    keys.push(key);
                }
                _ => {}
            }
        }
        for key in &keys {
            keep.used.entry(key.clone()).or_insert(usize::MAX - age);
        }
        let count = seen.entry(pipeline).or_default();
        *count += 1;
        let pinned = pins.contains(&log.name);
        if *count <= args.keep_runs || pinned {
            keep.runs.insert(log.name.clone());
            keep.keys.extend(keys.iter().cloned());
        }
        if pinned {
            keep.pinned.extend(keys);
        }
    }
    for file in &args.pipelines {
        keep.keys.extend(present(store, file)?);
    }
    Ok(keep)
}

/// The keys that a pipeline has as its file is now.
fn present(store: &Store, file: &std::path::Path) -> Result<Vec<Digest>, Problem> {
    let pipeline = PipelineArgs { pipeline: file.to_owned(), sets: Vec::new(), profile: None };
    let read = pipeline.read(&[], &[]).map_err(|problems| {
        let first = problems.placed().into_iter().next();
        first.unwrap_or_else(|| Problem::new(format!("{} cannot be read", file.display())))
    })?;
    let cache = CacheArgs { cache: Some(store.root().to_owned()), paranoid: false, device: "auto".to_owned() };
    let mut keys = Vec::new();
    let planned = plan::with(&read, &cache, |_, _, planned| {
        keys.extend(planned.values().filter_map(|plan| plan.decision.as_ref()).map(|decision| decision.key.clone()));
    });
    planned.map(|_| keys).map_err(|_| Problem::new(format!("what {} needs is not known", file.display())))
}

fn pin(store: &Store, run: &str, pinned: bool) -> Result<Exit, Problem> {
    let runs = run::find::all(&store.runs());
    let run = match run::find::resolve(&runs, run) {
        Ok(found) => found.name.as_str(),
        // The log of a pinned run may be gone, if somebody deleted it.
        Err(_) if !pinned && store.pins().contains(run) => run,
        Err(problem) => return Err(problem),
    };
    let changed = store.pin(run, pinned)?;
    let word = match (pinned, changed) {
        (true, true) => "is pinned",
        (true, false) => "was pinned already",
        (false, true) => "is not pinned any more",
        (false, false) => "was not pinned",
    };
    ui::err(&format!("{run} {word}"));
    Ok(Exit::Done)
}
