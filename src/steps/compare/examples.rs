//! Items that arms answer differently, for people to look at.
//! It does not know how they are shown.

use std::collections::BTreeMap;

use super::assemble::Results;
use crate::report::clusters::is_right;
use crate::report::comparison::{Arm, BASE};
use crate::report::evidence::Example;
use crate::report::results::Record;

/// The most items of each kind, for each adapter: those that only it has right, and those that only the base has.
const EACH: usize = 3;
/// The most adapters that are shown.
const ARMS: usize = 3;

/// The first items, in the order of the records, that an adapter has right and the base has not, and the reverse.
/// Of several seeds the first is shown.
pub fn examples(arms: &[Arm], by_arm: &BTreeMap<&str, Results>) -> Vec<Example> {
    let records = |arm: &str| by_arm.get(arm).map(|results| results[0].result.records.as_slice());
    let Some(base) = records(BASE) else { return Vec::new() };
    let adapted = arms.iter().filter(|arm| arm.name != BASE);
    let shown: Vec<(&str, &[Record])> =
        adapted.filter_map(|arm| Some((arm.name.as_str(), records(&arm.name)?))).take(ARMS).collect();
    let mut places = std::collections::BTreeSet::new();
    for (_, records) in &shown {
        for fixed in [true, false] {
            let flipped = |i: &usize| is_right(&records[*i]) == fixed && is_right(&base[*i]) != fixed;
            places.extend((0..base.len()).filter(|i| base[*i].text.is_some()).filter(flipped).take(EACH));
        }
    }
    let example = |i: usize| {
        let all = || std::iter::once((BASE, base)).chain(shown.iter().copied());
        Some(Example {
            id: base[i].id.clone(),
            text: base[i].text.clone()?,
            gold: base[i].gold.clone(),
            answers: all().map(|(arm, records)| (arm.to_owned(), records[i].said().to_owned())).collect(),
            right: all().filter(|(_, records)| is_right(&records[i])).map(|(arm, _)| arm.to_owned()).collect(),
        })
    };
    places.into_iter().filter_map(example).collect()
}
