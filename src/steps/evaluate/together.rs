//! Which evaluations are made together: those of several arms over one base that are asked the same.
//! It does not know how they are made.
//!
//! Whatever does not depend on the arm is done once then: reading and judging the data, the tokenizer, the base and what
//! it says to what adapters are tried on, and on the CPU the blocks below the lowest adapter. Everything is computed in
//! the shapes of an arm alone, so that the results are the same to the byte.
//!
//! Three arms on two labels of 300 prompts, 8 layers of width 256, one thread, processor seconds of the whole process alone
//! and together: 5.8 and 5.3 with adapters from the lowest block on, 5.4 and 3.6 with adapters in the upper half. Written
//! answers share nothing but their preparation (5.0 and 5.0), and unlike arms write for unlike times: there it pays only
//! where one step runs at a time anyway, which is taken for granted of a GPU.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::step::{Artifact, Together};

/// The adapters of so many arms may be in memory at once.
const MOST: usize = 8;

/// For a step with these parameters; what is connected to `shared` is the same for all arms, its name in messages
/// included. It pays if `pays`: see the module.
pub fn together(keyed: &Value, inputs: &BTreeMap<String, Vec<Artifact>>, shared: &[&str], pays: bool) -> Together {
    let one = |artifact: &Artifact| json!([artifact.digest.as_str(), artifact.label()]);
    let port = |port: &&str| inputs.get(*port).into_iter().flatten().map(one).collect::<Vec<_>>();
    let with = json!([keyed, shared.iter().map(port).collect::<Vec<_>>()]);
    Together { with: with.to_string(), most: MOST, pays }
}
