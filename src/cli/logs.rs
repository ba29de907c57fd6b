//! `pipe logs`: what the program of a step printed, also of a result that is reused, and of a failure.
//! It does not know which kinds of steps leave logs.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{CacheArgs, Exit, PipelineArgs, fail, plan};
use crate::error::Problem;
use crate::exec::{Decider, Verdict};
use crate::ui;

/// Shows what the program of a `command` step printed.
///
/// It is the log of the result that the pipeline uses now; without one, that of the last failure.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  pipe logs pipelines/features.yaml features\n  \
    pipe logs pipelines/features.yaml features --stderr\n  \
    less \"$(pipe logs pipelines/features.yaml features --path)/stdout\"")]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The step, or one cell of a matrix: `features[size=4]`.
    #[arg(value_name = "STEP")]
    step: String,
    /// Shows what it printed to stderr instead of stdout.
    #[arg(long)]
    stderr: bool,
    /// Shows the folder of the log instead: `command.json`, and `stdout` and `stderr` if anything was printed there.
    #[arg(long, conflicts_with = "stderr")]
    path: bool,
    #[command(flatten)]
    cache: CacheArgs,
}

/// Does it.
pub fn main(args: &Args) -> Exit {
    match logs(args) {
        Ok(exit) | Err(exit) => exit,
    }
}

fn logs(args: &Args) -> Result<Exit, Exit> {
    let pipeline = args.pipeline.load(std::slice::from_ref(&args.step), &[])?;
    let step = super::only(&pipeline, &args.step)?;
    let mut found = None;
    plan::with(&pipeline, &args.cache, |decider, _, planned| {
        let plan = &planned[&step];
        let key = match &plan.verdict {
            Verdict::Reuse(record) => Some(record.key.clone()),
            _ => plan.decision.as_ref().map(|decision| decision.key.clone()),
        };
        found = key.and_then(|key| {
            let (kept, failed) = (decider.store.log(&key), decider.store.failed(&key));
            [(kept, false), (failed, true)].into_iter().find(|(folder, _)| folder.is_dir())
        });
        found = found.take().or_else(|| earlier(decider, step));
    })?;
    let id = &pipeline.steps[step].id;
    let Some((folder, failed)) = found else {
        let problem = if pipeline.steps[step].kind.name() == "command" {
            Problem::new(format!("`{id}` has not run")).help("run it first")
        } else {
            Problem::new(format!("`{id}` starts no program, so it leaves no log"))
                .help("what it noted stands in the log of its run, in `runs/` of the cache")
        };
        return Err(fail(&problem, Exit::Failed));
    };
    if failed {
        ui::err(&format!("the last attempt failed, {}; all that it left is in {}", ended(&folder), folder.display()));
    }
    if args.path {
        ui::out(&folder.display().to_string());
        return Ok(Exit::Done);
    }
    let file = folder.join(if args.stderr { "stderr" } else { "stdout" });
    let copied = File::open(&file).and_then(|mut file| std::io::copy(&mut file, &mut std::io::stdout().lock()));
    match copied {
        Ok(_) => Ok(Exit::Done),
        // It printed nothing there.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Exit::Done),
        // Whoever reads has read enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(Exit::Done),
        Err(error) => Err(fail(&Problem::io("read", &file, &error), Exit::Failed)),
    }
}

/// The log of the result that the step had last, where its present key is not known or was never made.
fn earlier(decider: &Decider, step: usize) -> Option<(PathBuf, bool)> {
    let keys = decider.store.keys(&decider.pipeline.name, &decider.pipeline.steps[step].id)?;
    let folder = decider.store.log(keys.last());
    folder.is_dir().then_some((folder, false)).inspect(|_| {
        ui::err("its present parameters and inputs have not been run; this is the log of the result before");
    })
}

/// How the command of a log ended.
fn ended(folder: &Path) -> String {
    let text = std::fs::read(folder.join("command.json")).unwrap_or_default();
    let log: Value = serde_json::from_slice(&text).unwrap_or_default();
    match (log["exit_code"].as_i64(), log["signal"].as_i64()) {
        (Some(0), _) => "though the command ended well".to_owned(),
        (Some(code), _) => format!("with exit status {code}"),
        (_, Some(signal)) => format!("by signal {signal}"),
        _ => "before the command began".to_owned(),
    }
}
