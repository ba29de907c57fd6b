//! `pipe explain`: why a step runs or is reused, down to the fields of its manifest; it writes nothing.
//! It does not know how that is worked out.

use std::collections::BTreeMap;

use super::plan::{self, word};
use super::{CacheArgs, Exit, PipelineArgs};
use crate::exec::{self, Decider, Planned, Verdict};
use crate::store::Record;
use crate::ui;

/// Tells why a step runs or is reused.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  pipe explain pipelines/lora_vs_mlp.yaml lora --set lora.rank=8\n  \
    pipe explain pipelines/ablation.yaml 'lora[rank=4]'")]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The step; of a matrix, all its cells or one: `lora[rank=4]`.
    #[arg(value_name = "STEP")]
    step: String,
    #[command(flatten)]
    cache: CacheArgs,
}

/// Does it.
pub fn main(args: &Args) -> Exit {
    match explain(args) {
        Ok(exit) | Err(exit) => exit,
    }
}

fn explain(args: &Args) -> Result<Exit, Exit> {
    let pipeline = args.pipeline.load(std::slice::from_ref(&args.step), &[])?;
    plan::with(&pipeline, &args.cache, |decider, _, planned| {
        for (i, &step) in pipeline.targets.iter().enumerate() {
            if i > 0 {
                ui::out("");
            }
            one(decider, planned, step);
        }
    })
}

fn one(decider: &Decider, planned: &BTreeMap<usize, Planned>, step: usize) {
    let (id, plan) = (&decider.pipeline.steps[step].id, &planned[&step]);
    ui::out(&format!("{id}: {}", decision(plan)));
    if let Verdict::Reuse(record) = &plan.verdict {
        ui::out(&format!("  {}", made(record)));
    }
    let changes = match (&plan.verdict, &plan.decision) {
        // Back to earlier values: a hit, though the step had others when it was last run.
        (Verdict::Reuse(_), Some(decision)) => decider.changes(step, decision),
        (Verdict::Run | Verdict::Fail(_), _) => plan.why.clone(),
        _ => Vec::new(),
    };
    list(if word(plan) == "reuse" { "since it was last used in this pipeline:" } else { "why:" }, &changes);
    let causes = exec::causes(decider, planned, step);
    list(
        "where that comes from:",
        &causes.iter().map(|c| format!("{}: {}", c.step, c.why.join(", "))).collect::<Vec<_>>(),
    );
    if let Some(decision) = &plan.decision {
        ui::out(&format!("\nkey {}\n= blake3 of this manifest:", decision.key));
        ui::out(&serde_json::to_string_pretty(&decision.manifest).unwrap_or_default());
    }
}

fn decision(plan: &Planned) -> String {
    match &plan.verdict {
        Verdict::Reuse(_) => "is reused".to_owned(),
        Verdict::Run => "runs".to_owned(),
        Verdict::Depends(_) => format!("is {}", plan.why.join(", ")),
        Verdict::Fail(_) => "cannot run".to_owned(),
    }
}

fn made(record: &Record) -> String {
    let took = ui::duration(record.costs.took_ms);
    // The name of a run begins with its time.
    let when = record.run.split_once('Z').map_or("", |(time, _)| time).replacen('T', " ", 1);
    let when = match when.split_once(' ') {
        Some((day, time)) => format!(", {day} {} UTC", time.replace('-', ":")),
        None => String::new(),
    };
    format!("made by the step {} of run {}{when}, in {took}", record.step, record.run)
}

fn list(head: &str, lines: &[String]) {
    if !lines.is_empty() {
        ui::out(&format!("  {head}"));
        lines.iter().for_each(|line| ui::out(&format!("    {line}")));
    }
}
