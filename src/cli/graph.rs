//! `pipe graph`: a picture of a pipeline, coloured by what a run would do.
//! It does not know how it is drawn.

use std::collections::{BTreeMap, BTreeSet};

use clap::ValueEnum;

use super::{Exit, TargetArgs, fail, plan};
use crate::exec::{Planned, Verdict};
use crate::graph::Graph;
use crate::spec::Pipeline;
use crate::ui;
use crate::ui::drawing::{self, Drawing, Node, State};

/// Draws the steps that the targets need, coloured by what a run would do.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    pipe graph pipelines/lora_vs_mlp.yaml                              Mermaid, for a README or a notebook\n  \
    pipe graph pipelines/lora_vs_mlp.yaml --format svg > graph.svg\n  \
    pipe graph pipelines/lora_vs_mlp.yaml --format dot --cells | dot -Tpdf > graph.pdf")]
pub struct Args {
    #[command(flatten)]
    what: TargetArgs,
    /// How it is written.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Mermaid)]
    format: Format,
    /// Draws every cell of a matrix, not each matrix as one node.
    #[arg(long)]
    cells: bool,
}

/// How a picture is written.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// A flowchart of Mermaid.
    Mermaid,
    /// For Graphviz.
    Dot,
    /// A picture.
    Svg,
}

/// Does it.
pub fn main(args: &Args) -> Exit {
    match draw(args) {
        Ok(exit) | Err(exit) => exit,
    }
}

fn draw(args: &Args) -> Result<Exit, Exit> {
    let pipeline = args.what.pipeline.load(&args.what.targets, &[])?;
    let mut text = String::new();
    let exit = plan::with(&pipeline, &args.what.cache, |_, order, planned| {
        let drawing = drawing(&pipeline, order, planned, args.cells);
        text = match args.format {
            Format::Mermaid => drawing::mermaid(&drawing),
            Format::Dot => drawing::dot(&drawing),
            Format::Svg => drawing::svg(&drawing),
        };
    })?;
    ui::whole(&text).map_err(|problem| fail(&problem, Exit::Failed))?;
    Ok(exit)
}

/// The steps in this order as nodes; those of one matrix are one node, unless every cell is wanted.
fn drawing(pipeline: &Pipeline, order: &[usize], planned: &BTreeMap<usize, Planned>, cells: bool) -> Drawing {
    let mut members: Vec<Vec<usize>> = Vec::new();
    let (mut of_name, mut of_step) = (BTreeMap::new(), BTreeMap::new());
    for &step in order {
        let name = if cells { &pipeline.steps[step].id } else { &pipeline.steps[step].name };
        let node = *of_name.entry(name.as_str()).or_insert(members.len());
        if node == members.len() {
            members.push(Vec::new());
        }
        members[node].push(step);
        of_step.insert(step, node);
    }
    let graph = Graph::of(pipeline);
    let mut arrows = BTreeSet::new();
    for &step in order {
        let from = graph.producers(step).into_iter().map(|producer| of_step[&producer]);
        arrows.extend(from.map(|from| (from, of_step[&step])).filter(|(from, to)| from != to));
    }
    Drawing {
        title: pipeline.name.clone(),
        nodes: members.iter().map(|members| node(pipeline, members, planned, cells)).collect(),
        arrows: arrows.into_iter().collect(),
    }
}

fn node(pipeline: &Pipeline, members: &[usize], planned: &BTreeMap<usize, Planned>, cells: bool) -> Node {
    let step = &pipeline.steps[members[0]];
    let kind = step.kind.name();
    let states: Vec<State> = members.iter().map(|step| state(&planned[step])).collect();
    let count = |state: State| states.iter().filter(|found| **found == state).count();
    let counts: Vec<String> = State::ALL
        .into_iter()
        .filter(|state| count(*state) > 0)
        .map(|state| format!("{} {}", count(state), state.word()))
        .collect();
    let (name, detail, more) = if cells || step.coordinates.is_empty() {
        (&step.id, kind.to_owned(), format!("{kind}, {}", why(&planned[&members[0]])))
    } else {
        let cells = ui::count(members.len(), "cell");
        (&step.name, format!("{kind} · {cells}"), format!("{kind}, {cells}: {}", counts.join(", ")))
    };
    // The state that wants the most attention colours all.
    let state = states.into_iter().max().unwrap_or(State::Depends);
    Node { name: name.clone(), detail, more, state }
}

fn state(plan: &Planned) -> State {
    match &plan.verdict {
        Verdict::Fail(_) => State::Fails,
        _ if plan.outlook.problem.is_some() => State::Fails,
        Verdict::Reuse(_) => State::Reused,
        Verdict::Run => State::Run,
        Verdict::Depends(_) => State::Depends,
    }
}

fn why(plan: &Planned) -> String {
    let problem = match &plan.verdict {
        Verdict::Fail(problem) => Some(problem),
        _ => plan.outlook.problem.as_ref(),
    };
    match (problem, &plan.verdict) {
        (Some(problem), _) => format!("fails: {}", problem.what),
        (None, Verdict::Reuse(_)) => State::Reused.word().to_owned(),
        (None, Verdict::Run) => format!("to run: {}", plan.why.join(", ")),
        (None, _) => plan.why.join(", "),
    }
}
