//! `pipe help`: what a verb or a step kind does and takes.
//! It does not know any of them by name; it reads the command line and the registry.

use clap::{Command, CommandFactory};

use super::{Cli, Exit, fail};
use crate::error::Problem;
use crate::spec::parameters::rows;
use crate::spec::{guide, suggest};
use crate::step::AnyKind;
use crate::steps::KINDS;
use crate::ui;

/// Explains a verb, or a step kind: inputs, outputs, parameters.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  pipe help train\n  pipe help run")]
pub struct Args {
    /// A verb or a step kind; without it, all of them are listed.
    #[arg(value_name = "STEP|VERB")]
    topic: Option<String>,
}

/// Does it.
pub fn main(args: &Args) -> Exit {
    let mut command = Cli::command();
    command.build();
    let text = match text(&mut command, KINDS, args.topic.as_deref()) {
        Ok(text) => text,
        Err(problem) => return fail(&problem, Exit::Usage),
    };
    match ui::whole(&text) {
        Ok(()) => Exit::Done,
        Err(problem) => fail(&problem, Exit::Failed),
    }
}

fn text(command: &mut Command, kinds: &[&dyn AnyKind], topic: Option<&str>) -> Result<String, Problem> {
    let Some(topic) = topic else { return Ok(overview(command, kinds)) };
    let kind = kinds.iter().find(|kind| kind.name() == topic).map(|kind| describe(*kind));
    let verb = command.find_subcommand_mut(topic).map(|verb| verb.render_long_help().to_string());
    match (kind, verb) {
        (None, None) => {
            let names = kinds.iter().map(|kind| kind.name()).chain(command.get_subcommands().map(Command::get_name));
            let help = suggest::help(topic, names, "there is", "");
            Err(Problem::new(format!("there is no verb and no step kind `{topic}`")).help(help))
        }
        (Some(kind), None) => Ok(kind),
        (None, Some(verb)) => Ok(verb),
        // `render` is both.
        (Some(kind), Some(verb)) => Ok(format!("The verb:\n\n{verb}\nThe step kind:\n\n{kind}")),
    }
}

fn overview(command: &Command, kinds: &[&dyn AnyKind]) -> String {
    let verbs = command.get_subcommands().map(|verb| {
        let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
        (verb.get_name().to_owned(), about)
    });
    let kinds = kinds.iter().map(|kind| (kind.name().to_owned(), kind.summary().to_owned()));
    format!("Verbs:\n{}\nStep kinds:\n{}\n`pipe help NAME` tells more.\n", table(verbs), table(kinds))
}

/// Two columns, the first as wide as its widest cell.
fn table(rows: impl Iterator<Item = (String, String)>) -> String {
    let rows: Vec<(String, String)> = rows.collect();
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let line = |(name, text): &(String, String)| format!("  {name:width$}  {text}").trim_end().to_owned();
    rows.iter().map(|row| ui::wrapped(&line(row), width + 4) + "\n").collect()
}

fn describe(kind: &dyn AnyKind) -> String {
    let mut text = format!("{}: {}\n", kind.name(), kind.summary());
    if !kind.inputs().is_empty() {
        let rows = kind
            .inputs()
            .iter()
            .map(|input| (input.name.to_owned(), format!("{} [{}]", input.doc, guide::arity(input.arity))));
        text.push_str(&format!("\nInputs:\n{}", table(rows)));
    }
    let outputs = kind.outputs().iter().map(|output| (output.name.to_owned(), output.doc.to_owned()));
    text.push_str(&format!("\nOutputs:\n{}", table(outputs)));
    let parameters = rows(kind);
    if !parameters.is_empty() {
        text.push_str("\nParameters:\n");
    }
    for row in parameters {
        let default = match &row.default {
            Some(default) => format!(" [default: {default}]"),
            None if row.required => " [required]".to_owned(),
            None => String::new(),
        };
        text.push_str(&(ui::wrapped(&format!("  {}: {}{default}", row.name, row.takes), 6) + "\n"));
        if !row.doc.is_empty() {
            text.push_str(&(ui::wrapped(&format!("      {}", row.doc), 6) + "\n"));
        }
    }
    let example: String = kind.example().trim().lines().map(|line| format!("  {line}\n")).collect();
    text.push_str(&format!("\nExample:\n{example}"));
    text
}
