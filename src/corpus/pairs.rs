//! Premise–hypothesis pairs whose label is right by construction, in TERRa's JSONL.
//! It does not know how many of them are wanted for what.
//!
//! Two worlds are drawn for one frame. The hypothesis is told of the first; the premise is such that it follows, or
//! such that it does not. Hypotheses are thus drawn alike for both labels, so the hypothesis alone tells nothing. In
//! most premises a second event has the words of the false hypothesis too; where it is left out, a false hypothesis
//! says a word that the premise lacks. So the overlap of words tells a little, as it does in the real TERRa.

use std::collections::BTreeSet;

use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::frames::{FRAMES, Frame, Test};
use super::frames_tales;
use super::markup::plain;
use super::template::{Filler, World, fill, slots};
use super::{Domain, Part, chance, lexicon, pick, pick_part};

/// How many in a hundred premises tell one event alone, of the frames that can tell two. What a base reads of its own
/// domain is the easy half of the task: a small one would learn nothing from the other.
fn alone(domain: Domain) -> usize {
    match domain {
        Domain::Tales => 100,
        Domain::News => 60,
    }
}

/// One line of the JSONL.
#[derive(Debug, Clone, Serialize)]
pub struct Pair {
    /// What is given.
    pub premise: String,
    /// What may follow from it.
    pub hypothesis: String,
    /// `entailment` or `not_entailment`.
    pub label: &'static str,
    /// Position in the file.
    pub idx: usize,
    /// Always true: the data is made, not collected.
    pub generated: bool,
}

/// `count` pairs, half of them entailments (of an odd count the last is one). No pair shares its premise with `taken`,
/// nor with another pair here; premises are added to `taken`.
pub fn pairs(
    rng: &mut ChaCha8Rng,
    count: usize,
    domain: Domain,
    part: Part,
    taken: &mut BTreeSet<String>,
) -> Vec<Pair> {
    let mut labels: Vec<bool> = (0..count).map(|i| i % 2 == 0).collect();
    for i in (1..labels.len()).rev() {
        labels.swap(i, super::below(rng, i + 1));
    }
    let mut made = Vec::with_capacity(count);
    while let Some(entails) = labels.get(made.len()).copied() {
        let frames = if domain == Domain::News { FRAMES } else { frames_tales::FRAMES };
        let frame = pick_part(rng, frames, part);
        let (premise, hypothesis) = pair(rng, frame, domain, part, entails);
        if !taken.insert(premise.clone()) {
            continue;
        }
        let label = if entails { "entailment" } else { "not_entailment" };
        made.push(Pair { premise, hypothesis, label, idx: made.len(), generated: true });
    }
    made
}

/// Premise and hypothesis of one frame.
pub fn pair(rng: &mut ChaCha8Rng, frame: &Frame, domain: Domain, part: Part, entails: bool) -> (String, String) {
    let a = world(rng, frame, domain, part, None);
    let b = world(rng, frame, domain, part, Some(&a));
    let tell = |rng: &mut ChaCha8Rng, ways: &[&str], world: &World| say(pick::<&str>(rng, ways), world);
    let alone = chance(rng, alone(domain));
    match frame.test {
        Test::Exchange(slot) => {
            let asked = if entails { a.clone() } else { with(&a, slot, &b[slot]) };
            let (one, other) = (tell(rng, frame.says, &a), tell(rng, frame.says, &b));
            let premise = if alone { one } else { two(rng, one, other) };
            (premise, tell(rng, frame.asks, &asked))
        }
        Test::Swap(left, right) => {
            let asked = if entails { a.clone() } else { with(&with(&a, left, &a[right]), right, &a[left]) };
            (tell(rng, frame.says, &a), tell(rng, frame.asks, &asked))
        }
        Test::Flip => {
            let affirmed = chance(rng, 50);
            let asked = if affirmed { frame.asks } else { frame.refutes };
            let said = if affirmed == entails { frame.says } else { frame.denials };
            (tell(rng, said, &a), tell(rng, asked, &a))
        }
        Test::Addition(slot) => {
            if alone {
                let ways = if entails { frame.says } else { frame.denials };
                return (tell(rng, ways, &a), tell(rng, frame.asks, &a));
            }
            // The other event carries the detail when this one lacks it.
            let (full, vague) = if entails { (a.clone(), b) } else { (with(&b, slot, &a[slot]), a.clone()) };
            let (one, other) = (tell(rng, frame.says, &full), tell(rng, frame.denials, &vague));
            (two(rng, one, other), tell(rng, frame.asks, &a))
        }
    }
}

fn with(world: &World, slot: &str, filler: &Filler) -> World {
    let mut world = world.clone();
    world.insert(slot.to_owned(), filler.clone());
    world
}

fn say(template: &str, world: &World) -> String {
    plain(&fill(template, world, &|_| false))
}

fn two(rng: &mut ChaCha8Rng, one: String, other: String) -> String {
    if chance(rng, 50) { format!("{one} {other}") } else { format!("{other} {one}") }
}

/// Fills every slot of the frame; no two slots are alike, nor is any like that of `other` (occupations differ in
/// their hypernym).
fn world(rng: &mut ChaCha8Rng, frame: &Frame, domain: Domain, part: Part, other: Option<&World>) -> World {
    let mut world = World::new();
    let templates = [frame.says, frame.denials, frame.asks, frame.refutes];
    for slot in templates.iter().flat_map(|ways| ways.iter()).flat_map(|template| slots(template)) {
        while !world.contains_key(&slot) {
            let filler = lexicon::draw(rng, &slot, domain, part);
            let clash = world.values().chain(other.into_iter().flat_map(World::values)).any(|old| alike(old, &filler));
            if !clash {
                world.insert(slot.clone(), filler);
            }
        }
    }
    world
}

fn alike(left: &Filler, right: &Filler) -> bool {
    match (left, right) {
        (Filler::Term(left), Filler::Term(right)) => {
            left.short[0] == right.short[0] || (!left.hypernym[0].is_empty() && left.hypernym[0] == right.hypernym[0])
        }
        _ => left == right,
    }
}
