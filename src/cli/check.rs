//! `pipe check`.

use super::Exit;

/// Reports every problem of a pipeline file.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Does it.
pub fn main(_args: &Args) -> Exit {
    unimplemented!()
}
