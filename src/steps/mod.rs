//! The step kinds, one file each; `KINDS` is the only list.
//! A new kind is one file here, one `pub mod` and one entry.

pub mod command;
pub mod compare;
pub mod download;
pub mod evaluate;
pub mod generate;
pub mod perplexity;
pub mod pretrain;
pub mod render;
pub mod select;
pub mod shortcuts;
pub mod split;
pub mod tokenize;
pub mod tokenizer;
pub mod train;

#[cfg(feature = "torch")]
mod base;
pub mod facts;
mod json;
mod optimiser;
mod precision;
mod prompted;
#[cfg(not(feature = "torch"))]
mod without_torch;

use std::path::Path;

use serde_json::Value;

use crate::step::{AnyKind, kind};

/// Every step kind, in the order of a pipeline.
pub static KINDS: &[&dyn AnyKind] = &[
    &kind::<download::Download>(),
    &kind::<generate::Generate>(),
    &kind::<split::Split>(),
    &kind::<tokenizer::Tokenizer>(),
    &kind::<pretrain::Pretrain>(),
    &kind::<tokenize::Tokenize>(),
    &kind::<train::Train>(),
    &kind::<evaluate::Evaluate>(),
    &kind::<select::Select>(),
    &kind::<perplexity::Perplexity>(),
    &kind::<shortcuts::Shortcuts>(),
    &kind::<compare::Compare>(),
    &kind::<render::Render>(),
    &kind::<command::Command>(),
];

/// The kind of this name.
pub fn find(name: &str) -> Option<&'static dyn AnyKind> {
    KINDS.iter().copied().find(|kind| kind.name() == name)
}

/// `config.json` of a model's folder; nothing if it is no such folder.
fn config_of(folder: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(folder.join("config.json")).ok()?).ok()
}
