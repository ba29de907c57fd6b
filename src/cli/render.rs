//! `pipe render`.

use super::Exit;

/// Renders a template with data.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Does it.
pub fn main(_args: &Args) -> Exit {
    unimplemented!()
}
