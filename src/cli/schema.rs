//! `pipe schema`: the JSON Schema of pipeline files, for editors.
//! It does not know what the schema says.

use std::path::PathBuf;

use super::{Exit, fail};
use crate::error::{Problem, Result};
use crate::spec::editor;
use crate::steps::KINDS;
use crate::ui;

/// Prints the JSON Schema of pipeline files.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    pipe schema -o pipelines/pipe.schema.json\n  \
    pipe schema --check pipelines/pipe.schema.json")]
pub struct Args {
    /// Writes it to a file.
    #[arg(short, long, value_name = "FILE", conflicts_with = "check")]
    output: Option<PathBuf>,
    /// Fails if the file is not what would be written.
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
}

/// Does it.
pub fn main(args: &Args) -> Exit {
    match write(args) {
        Ok(()) => Exit::Done,
        Err(problem) => fail(&problem, Exit::Failed),
    }
}

fn write(args: &Args) -> Result<()> {
    let text = editor::text(KINDS);
    if let Some(path) = &args.check {
        let found = std::fs::read_to_string(path).map_err(|error| Problem::io("read", path, &error))?;
        if found == text {
            return Ok(());
        }
        return Err(Problem::new(format!("{} is not what the step kinds say", path.display()))
            .help(format!("write it anew: `pipe schema -o {}`", path.display())));
    }
    match &args.output {
        Some(path) => std::fs::write(path, text).map_err(|error| Problem::io("write", path, &error)),
        None => ui::whole(&text),
    }
}
