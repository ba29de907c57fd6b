//! `pipe explain`.

use super::Exit;

/// Tells why a step runs or is reused.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Does it.
pub fn main(_args: &Args) -> Exit {
    unimplemented!()
}
