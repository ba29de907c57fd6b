//! `pipe help`.

use super::Exit;

/// Explains a step kind: inputs, outputs, parameters.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Does it.
pub fn main(_args: &Args) -> Exit {
    unimplemented!()
}
