//! `pipe` without libtorch, in front of the one that has it: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    pipe::cli::main()
}
