//! `pipe plan`.

use super::Exit;

/// Tells what would run, and why, without running.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Does it.
pub fn main(_args: &Args) -> Exit {
    unimplemented!()
}
