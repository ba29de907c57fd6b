//! `pipe runs`: what has been run, and what became of each step of a run.
//! It does not know how logs are read.

use std::path::Path;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::{Exit, FolderArgs, existing, fail};
use crate::error::Problem;
use crate::event::Outcome;
use crate::run::find::{self, Found};
use crate::run::{self, Begun, End, Fate, Glance, Story, Told};
use crate::ui;

/// Tells what has been run, the newest first; with `--run`, what became of each step of a run.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A run that is `unfinished` was killed, or could not write its log to the end.\n\nExamples:\n  pipe runs\n  \
    pipe runs lora_vs_mlp -n 5\n  pipe runs --run last\n  pipe runs --json"
)]
pub struct Args {
    /// Only runs of this pipeline: its name, or its file.
    #[arg(value_name = "PIPELINE", conflicts_with = "run")]
    pipeline: Option<String>,
    /// Tells of the steps of one run: its name, the beginning of its name, `last`, or `last~1` for the one before.
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
    /// How many runs are listed.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20, conflicts_with = "run")]
    number: usize,
    /// Tells each run, or each step, as a line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    folder: FolderArgs,
}

/// Does it.
pub fn main(args: &Args) -> Exit {
    match runs(args) {
        Ok(exit) | Err(exit) => exit,
    }
}

fn runs(args: &Args) -> Result<Exit, Exit> {
    let store = existing(&args.folder.cache)?;
    let runs = find::all(&store.runs());
    match &args.run {
        Some(run) => {
            let (found, story) = story(&runs, run)?;
            if args.json {
                steps_json(&story);
            } else {
                steps(found, &story);
            }
            Ok(Exit::Done)
        }
        None => history(args, &runs),
    }
}

/// The run that is meant, and all that its log tells.
pub(super) fn story<'a>(runs: &'a [Found], text: &str) -> Result<(&'a Found, Story), Exit> {
    let found = find::resolve(runs, text).map_err(|problem| fail(&problem, Exit::Usage))?;
    let (_, events) = run::read(&found.path).map_err(|problem| fail(&problem, Exit::Failed))?;
    Ok((found, Story::of(events)))
}

// ---- the history ------------------------------------------------------------------------------------------------

fn history(args: &Args, runs: &[Found]) -> Result<Exit, Exit> {
    let mut damaged = 0;
    let glances = runs.iter().map(|found| (found, run::glance(&found.path)));
    let wanted = glances.filter(|(_, glance)| match (&args.pipeline, glance) {
        (None, _) => true,
        (Some(pipeline), Ok(glance)) => glance.begun.as_ref().is_some_and(|begun| is_of(begun, pipeline)),
        (Some(_), Err(_)) => {
            damaged += 1;
            false
        }
    });
    let shown: Vec<_> = wanted.take(args.number).collect();
    if args.json {
        shown.iter().for_each(|(found, glance)| ui::out(&line_json(found, glance).to_string()));
    } else if !shown.is_empty() {
        list(&shown);
    }
    if damaged > 0 {
        let logs = ui::count(damaged, "log");
        ui::err(&format!("of which pipeline is not known for {logs}; `pipe runs` says what is wrong"));
    }
    if !shown.is_empty() || args.number == 0 {
        return Ok(Exit::Done);
    }
    match &args.pipeline {
        Some(pipeline) => {
            let problem = Problem::new(format!("there is no run of `{pipeline}`"));
            Err(fail(&problem.help("`pipe runs` lists all runs, with the names of their pipelines"), Exit::Usage))
        }
        None => {
            ui::err("there is no run yet");
            Ok(Exit::Done)
        }
    }
}

/// Whether a run is one of the pipeline of this name or in this file.
fn is_of(begun: &Begun, pipeline: &str) -> bool {
    let (mine, wanted) = (Path::new(&begun.file), Path::new(pipeline));
    let plain = |path: &Path| path.strip_prefix(".").unwrap_or(path).to_owned();
    let same = || Some(mine.canonicalize().ok()? == wanted.canonicalize().ok()?);
    begun.pipeline == pipeline || plain(mine) == plain(wanted) || same() == Some(true)
}

fn list(shown: &[(&Found, Result<Glance, Problem>)]) {
    let now = SystemTime::now();
    let head = ["run", "ago", "pipeline", "outcome", "ran", "reused", "failed", "took", "saved"].map(str::to_owned);
    let row = |(found, glance): &(&Found, Result<Glance, Problem>)| {
        let ago = run::age(&found.name, now).map(|age| ago(age.as_secs())).unwrap_or_default();
        let begun = glance.as_ref().ok().and_then(|glance| glance.begun.as_ref());
        let mut row = vec![found.name.clone(), ago];
        row.push(begun.map(|begun| begun.pipeline.clone()).unwrap_or_default());
        row.push(outcome(found, glance).to_owned());
        if let Ok(Glance { end: Some(end), .. }) = glance {
            row.extend([end.ran, end.reused, end.failed].map(|n| n.to_string()));
            row.extend([end.took_ms, end.saved_ms].map(ui::duration));
        } else {
            row.extend(std::iter::repeat_n(String::new(), 5));
        }
        row
    };
    let table = ui::table(&head, &shown.iter().map(row).collect::<Vec<_>>());
    let problems = std::iter::once(None).chain(shown.iter().map(|(_, glance)| glance.as_ref().err()));
    for (line, problem) in table.lines().zip(problems) {
        let why = problem.map(|problem| format!(": {}", problem.what)).unwrap_or_default();
        ui::out(&ui::fitted(&format!("{line}{why}")));
    }
}

/// `5 s`, `12 m`, `3 h`, `5 d`.
fn ago(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} m", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

fn outcome(found: &Found, glance: &Result<Glance, Problem>) -> &'static str {
    match glance {
        Ok(glance) => ended(found, glance.end.as_ref()),
        // The first line of a run may not have been written yet.
        Err(_) if run::goes_on(&found.path) => "running",
        Err(_) => "damaged",
    }
}

/// How a run ended, in a word.
pub(super) fn ended(found: &Found, end: Option<&End>) -> &'static str {
    match end.map(|end| end.outcome) {
        None if run::goes_on(&found.path) => "running",
        None => "unfinished",
        Some(Outcome::Done) => "done",
        Some(Outcome::Failed) => "failed",
        Some(Outcome::Interrupted) => "interrupted",
    }
}

fn line_json(found: &Found, glance: &Result<Glance, Problem>) -> Value {
    let problem = glance.as_ref().err();
    let begun = glance.as_ref().ok().and_then(|glance| glance.begun.as_ref());
    let end = glance.as_ref().ok().and_then(|glance| glance.end.as_ref());
    json!({
        "run": found.name,
        "began": run::began(&found.name),
        "pipeline": begun.map(|begun| &begun.pipeline),
        "file": begun.map(|begun| &begun.file),
        "sets": begun.map(|begun| &begun.sets),
        "steps": begun.map(|begun| begun.steps.len()),
        "machine": end.map(|end| &end.machine).filter(|machine| !machine.is_empty()),
        "outcome": outcome(found, glance),
        "ran": end.map(|end| end.ran),
        "reused": end.map(|end| end.reused),
        "failed": end.map(|end| end.failed),
        "skipped": end.map(|end| end.skipped),
        "took_ms": end.map(|end| end.took_ms),
        "saved_ms": end.map(|end| end.saved_ms),
        "problem": problem,
    })
}

// ---- the steps of a run -----------------------------------------------------------------------------------------

/// `2026-11-25T12-05-24Z-cfe493, 2026-11-25 12:05:24 UTC: p, done in 1.2 s, with lora.rank=8`.
pub(super) fn title(found: &Found, story: &Story) -> String {
    let began = run::began(&found.name).map(|began| format!(", {began} UTC")).unwrap_or_default();
    let pipeline = story.begun.as_ref().map(|begun| format!("{}, ", begun.pipeline)).unwrap_or_default();
    let took = story.end.as_ref().map(|end| format!(" in {}", ui::duration(end.took_ms))).unwrap_or_default();
    let sets = story.begun.as_ref().map(|begun| begun.sets.join("  ")).filter(|sets| !sets.is_empty());
    let sets = sets.map(|sets| format!(", with {sets}")).unwrap_or_default();
    format!("{}{began}: {pipeline}{}{took}{sets}", found.name, ended(found, story.end.as_ref()))
}

fn steps(found: &Found, story: &Story) {
    ui::out(&title(found, story));
    if let Some(end) = story.end.as_ref().filter(|end| !end.machine.is_empty()) {
        ui::out(&format!("on {}", end.machine));
    }
    let head = ["step", "outcome", "costs", ""].map(str::to_owned);
    let row = |told: &Told| {
        let costs = told.fate.result().map(|result| ui::costs(&result.costs)).unwrap_or_default();
        vec![told.step.clone(), told.fate.word().to_owned(), costs, more(&told.fate)]
    };
    let table = ui::table(&head, &story.steps.iter().map(row).collect::<Vec<_>>());
    table.lines().for_each(|line| ui::out(&ui::fitted(line)));
}

/// The figures of a result, or why there is none.
fn more(fate: &Fate) -> String {
    match fate {
        Fate::Untouched | Fate::Begun => String::new(),
        Fate::Failed(what) => what.lines().next().unwrap_or_default().to_owned(),
        Fate::Skipped(because) => format!("({because} failed)"),
        Fate::Done(result) => {
            let mut parts: Vec<String> =
                result.figures.iter().map(|(name, value)| format!("{name} {}", ui::number(*value))).collect();
            if result.retries > 0 {
                parts.push(format!("after {}", ui::count(result.retries as usize, "failed attempt")));
            }
            parts.join(", ")
        }
    }
}

fn steps_json(story: &Story) {
    for Told { step, fate } in &story.steps {
        let result = fate.result();
        let problem = if let Fate::Failed(what) = fate { Some(what) } else { None };
        let because = if let Fate::Skipped(because) = fate { Some(because) } else { None };
        let line = json!({
            "step": step,
            "outcome": fate.word(),
            "key": result.map(|result| &result.key),
            "costs": result.map(|result| result.costs),
            "retries": result.map(|result| result.retries),
            "figures": result.map(|result| &result.figures),
            "outputs": result.map(|result| &result.outputs),
            "problem": problem,
            "because": because,
        });
        ui::out(&line.to_string());
    }
}
