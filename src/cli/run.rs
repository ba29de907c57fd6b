//! `pipe run`.

use super::Exit;

/// Runs a pipeline: only what is not in the cache yet.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Does it.
pub fn main(_args: &Args) -> Exit {
    unimplemented!()
}
