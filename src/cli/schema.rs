//! `pipe schema`.

use super::Exit;

/// Prints the JSON Schema of pipeline files.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Does it.
pub fn main(_args: &Args) -> Exit {
    unimplemented!()
}
