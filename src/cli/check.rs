//! `pipe check`: every problem of a pipeline file, without running anything.
//! It does not know what is wrong with a file; `spec` does.

use std::collections::BTreeSet;

use super::{Exit, PipelineArgs};
use crate::spec::Pipeline;
use crate::ui;

/// Reports every problem of a pipeline file.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    pipe check pipelines/lora_vs_mlp.yaml\n  \
    pipe check pipelines/lora_vs_mlp.yaml --profile files --set files=../data")]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
}

/// Does it.
pub fn main(args: &Args) -> Exit {
    match args.pipeline.load(&[], &[]) {
        Ok(pipeline) => {
            ui::out(&summary(&pipeline));
            Exit::Done
        }
        Err(exit) => exit,
    }
}

/// One line: `lora_vs_mlp: 14 steps, 22 with the cells of matrices; targets: report`.
fn summary(pipeline: &Pipeline) -> String {
    let names: BTreeSet<&str> = pipeline.steps.iter().map(|step| step.name.as_str()).collect();
    let cells = pipeline.steps.iter().filter(|step| !step.coordinates.is_empty()).count();
    let cells = if cells == 0 { String::new() } else { format!(", {}", ui::count(cells, "matrix cell")) };
    let mut targets: Vec<&str> = Vec::new();
    for &target in &pipeline.targets {
        let name = pipeline.steps[target].name.as_str();
        if !targets.contains(&name) {
            targets.push(name);
        }
    }
    let targets = if targets.len() == names.len() { "all".to_owned() } else { targets.join(", ") };
    format!("{}: {}{cells}, targets: {targets}", pipeline.name, ui::count(names.len(), "step"))
}
