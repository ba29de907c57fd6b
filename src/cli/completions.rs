//! `pipe completions`: what a shell has to know to complete the command line.
//! It does not know any verb: it reads the command line itself.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Exit, fail};
use crate::ui;

/// Prints a script with which a shell completes verbs and options.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    pipe completions bash > ~/.local/share/bash-completion/completions/pipe\n  \
    pipe completions zsh > ~/.zfunc/_pipe      # with `fpath+=~/.zfunc` before `compinit` in ~/.zshrc\n  \
    pipe completions fish > ~/.config/fish/completions/pipe.fish")]
pub struct Args {
    /// The shell.
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Does it.
pub fn main(args: &Args) -> Exit {
    // Made in memory: the generator panics where its writer fails, and a reader may leave early.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "pipe", &mut script);
    match ui::whole(&String::from_utf8_lossy(&script)) {
        Ok(()) => Exit::Done,
        Err(problem) => fail(&problem, Exit::Failed),
    }
}
