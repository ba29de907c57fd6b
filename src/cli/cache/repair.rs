//! `pipe cache verify --repair`: lets the steps run again whose results were put aside.
//! It does not know what was damaged, nor how a step is run: it finds the pipelines, and `pipe run` does the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::{CacheArgs, PipelineArgs, plan};
use crate::digest::Digest;
use crate::error::{Problem, Result};
use crate::event::Event;
use crate::exec::Verdict;
use crate::run;
use crate::store::{Lookup, Store};

/// A pipeline as it was run: its file, and what was set.
type Case = (PathBuf, Vec<String>);

/// Makes these results again with the pipelines that used them last, as far as those still say the same; answers the keys
/// of those that no pipeline makes as it is now. A run that fails is a problem.
pub(super) fn repair(store: &Store, lost: BTreeSet<Digest>) -> Result<BTreeSet<Digest>> {
    let mut left = lost;
    for case in cases(store, &left)? {
        // What is made again shows what depends on it.
        loop {
            let steps = steps(store, &case, &left);
            if steps.is_empty() {
                break;
            }
            run_again(store, &case, steps.values())?;
            // A source may have become another one just then.
            let before = left.len();
            left.retain(|key| !steps.contains_key(key) || !matches!(store.find(key), Lookup::Hit(_)));
            if left.len() == before {
                break;
            }
        }
    }
    Ok(left)
}

/// The pipelines whose runs had one of these results, the last first.
fn cases(store: &Store, lost: &BTreeSet<Digest>) -> Result<Vec<Case>> {
    let mut logs = store.survey("runs");
    logs.sort_by_key(|log| std::cmp::Reverse(log.changed));
    let mut cases: Vec<Case> = Vec::new();
    for log in logs {
        // A log that cannot be read names nothing.
        let Ok((_, events)) = run::read(&log.path) else { continue };
        let (mut case, mut had) = (None, false);
        for stamped in events {
            match stamped.event {
                Event::RunStarted { file, sets, .. } => case = Some((PathBuf::from(file), sets)),
                Event::StepFinished { key, .. } | Event::StepReused { key, .. } => had |= lost.contains(&key),
                _ => {}
            }
        }
        if let Some(case) = case.filter(|(file, _)| had && file.is_file())
            && !cases.contains(&case)
        {
            cases.push(case);
        }
    }
    Ok(cases)
}

/// The steps of a pipeline, as it is now, whose results are among these and can be made now.
fn steps(store: &Store, (file, sets): &Case, lost: &BTreeSet<Digest>) -> BTreeMap<Digest, String> {
    let arguments = PipelineArgs { pipeline: file.clone(), sets: sets.clone(), profile: None };
    // A pipeline that is wrong now makes nothing.
    let Ok(pipeline) = arguments.read(&[], &[]) else { return BTreeMap::new() };
    let cache = CacheArgs { cache: Some(store.root().to_owned()), paranoid: false, device: "auto".to_owned() };
    let mut found = BTreeMap::new();
    // What cannot be planned is told by `plan`, and makes nothing.
    let _ = plan::with(&pipeline, &cache, |_, _, planned| {
        for (step, plan) in planned {
            if let (Verdict::Run, Some(decision)) = (&plan.verdict, &plan.decision)
                && lost.contains(&decision.key)
            {
                found.insert(decision.key.clone(), pipeline.steps[*step].id.clone());
            }
        }
    });
    found
}

/// In a process of its own: one that listens to Ctrl-C, and has libtorch if that is needed.
fn run_again<'a>(store: &Store, (file, sets): &Case, steps: impl Iterator<Item = &'a String>) -> Result<()> {
    let this = std::env::current_exe().map_err(|e| Problem::io("find", Path::new("pipe"), &e))?;
    let mut command = Command::new(&this);
    command.arg("run").arg("--cache").arg(store.root());
    command.args(sets.iter().map(|set| format!("--set={set}"))).arg(file).args(steps);
    let status = command.stdout(std::process::Stdio::null()).status().map_err(|e| Problem::io("start", &this, &e))?;
    if status.success() {
        return Ok(());
    }
    let what = format!("{} did not make again what was damaged", file.display());
    Err(Problem::new(what).help("what was damaged is put aside: the next run makes it, too"))
}
