//! `pipe plan`: what would run, and why, without running; it writes nothing.
//! It does not know how that is worked out.

use serde_json::json;

use super::{CacheArgs, Exit, PipelineArgs};
use crate::exec::{self, Decider, Planned, Verdict};
use crate::step::Outlook;
use crate::ui;

/// Tells what would run, and why, without running.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pipe plan pipelines/lora_vs_mlp.yaml --set lora.rank=8")]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Steps to bring up to date, with all that they need [default: the targets of the file].
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    #[command(flatten)]
    cache: CacheArgs,
    /// Tells each step as a line of JSON.
    #[arg(long)]
    json: bool,
}

/// Does it.
pub fn main(args: &Args) -> Exit {
    match plan(args) {
        Ok(exit) | Err(exit) => exit,
    }
}

fn plan(args: &Args) -> Result<Exit, Exit> {
    let pipeline = args.pipeline.load(&args.targets, &[])?;
    let (store, machine) = (args.cache.store(&pipeline), args.cache.machine()?);
    let lock = super::remote::lockfile(std::slice::from_ref(&pipeline))?;
    let decider = Decider { pipeline: &pipeline, store: &store, machine: &machine, lock: &lock };
    let (order, planned) = exec::plan(&decider);
    let width = order.iter().map(|&step| pipeline.steps[step].id.chars().count()).max().unwrap_or(0);
    for step in &order {
        let (id, plan) = (&pipeline.steps[*step].id, &planned[step]);
        if args.json {
            let key = plan.decision.as_ref().map(|decision| &decision.key);
            ui::out(
                &json!({"step": id, "plan": word(plan), "why": plan.why, "key": key, "facts": plan.outlook.facts})
                    .to_string(),
            );
        } else {
            let text = format!("{:7}  {id:width$}  {}", word(plan), why(plan));
            ui::out(&(text.trim_end().to_owned() + &foreseen(&plan.outlook)));
        }
    }
    if !args.json {
        ui::err(&counts(planned.values()));
    }
    Ok(Exit::Done)
}

/// `run`, `reuse`, `depends` or `fail`.
pub fn word(plan: &Planned) -> &'static str {
    match plan.verdict {
        Verdict::Reuse(_) => "reuse",
        Verdict::Run => "run",
        Verdict::Depends(_) => "depends",
        Verdict::Fail(_) => "fail",
    }
}

fn why(plan: &Planned) -> String {
    match &plan.verdict {
        Verdict::Reuse(record) => format!("saves {}", ui::duration(record.took_ms)),
        Verdict::Fail(problem) => problem.what.clone(),
        Verdict::Run | Verdict::Depends(_) => plan.why.join(", "),
    }
}

/// `; 2 097 152 trainable parameters`, and what will go wrong.
fn foreseen(outlook: &Outlook) -> String {
    let fact = |(name, value): (&String, &u64)| format!("; {} {}", ui::grouped(*value), name.replace('_', " "));
    let problem = outlook.problem.iter().map(|problem| format!("; it will fail: {}", problem.what));
    outlook.facts.iter().map(fact).chain(problem).collect()
}

fn counts<'a>(planned: impl Iterator<Item = &'a Planned>) -> String {
    let (mut run, mut reuse, mut depends, mut fail, mut saved) = (0, 0, 0, 0, 0);
    for plan in planned {
        match &plan.verdict {
            Verdict::Run => run += 1,
            Verdict::Depends(_) => depends += 1,
            Verdict::Fail(_) => fail += 1,
            Verdict::Reuse(record) => {
                reuse += 1;
                saved += record.took_ms;
            }
        }
    }
    let mut text = format!("{run} to run, {reuse} to reuse");
    if depends > 0 {
        text.push_str(&format!(", {depends} that depend on the results"));
    }
    if fail > 0 {
        text.push_str(&format!(", {fail} that cannot run"));
    }
    if saved > 0 {
        text.push_str(&format!("; the cache saves {}", ui::duration(saved)));
    }
    text
}
