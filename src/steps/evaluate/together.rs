//! Which evaluations are made together: those of several arms over one base that are asked the same.
//! It does not know how they are made.
//!
//! Whatever does not depend on the arm is done once then: reading and judging the data, the tokenizer, the base and what
//! it says to what adapters are tried on, and on the CPU the blocks below the lowest adapter. Everything is computed in
//! the shapes of an arm alone, so that the results are the same to the byte.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::step::{Artifact, Together};

/// The adapters of so many arms may be in memory at once.
const MOST: usize = 8;

/// For a step with these parameters; what is connected to `shared` is the same for all arms, its name in messages
/// included.
pub fn together(keyed: &Value, inputs: &BTreeMap<String, Vec<Artifact>>, shared: &[&str]) -> Together {
    let one = |artifact: &Artifact| json!([artifact.digest.as_str(), artifact.label()]);
    let port = |port: &&str| inputs.get(*port).into_iter().flatten().map(one).collect::<Vec<_>>();
    let with = json!([keyed, shared.iter().map(port).collect::<Vec<_>>()]);
    Together { with: with.to_string(), most: MOST, pays: true }
}
