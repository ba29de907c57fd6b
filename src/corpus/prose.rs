//! Plain paragraphs for the base: news, village, sport, everyday life, nature and lists of names, one paragraph a line.
//! It does not know how the base is trained.

use std::collections::BTreeSet;

use rand_chacha::ChaCha8Rng;

use super::documents::document;
use super::markup::{Sentence, plain};
use super::prose_data::{DEEDS, OPENINGS, REMARKS, ROLL_CALLS, SUBJECTS, TIMES};
use super::{Domain, Part, below, chance, invented, pick};

/// At least `bytes` bytes of paragraphs; no sentence of `taken` is among the news and tales.
pub fn text(rng: &mut ChaCha8Rng, bytes: usize, taken: &BTreeSet<String>) -> String {
    let mut out = String::with_capacity(bytes + 4096);
    while out.len() < bytes {
        match below(rng, 10) {
            0..=1 => out.push_str(&told(&document(rng, Domain::News, Part::Seen, taken))),
            2..=3 => out.push_str(&told(&document(rng, Domain::Tales, Part::Whole, taken))),
            4..=7 => out.push_str(&roll_call(rng)),
            _ => story(rng, &mut out),
        }
        out.push('\n');
    }
    out
}

fn told(sentences: &[Sentence]) -> String {
    sentences.iter().map(Sentence::text).collect::<Vec<_>>().join(" ")
}

/// Names that come back, in the same order or another: what a reader learns from it is to look back.
fn roll_call(rng: &mut ChaCha8Rng) -> String {
    let names: Vec<String> = (0..3 + below(rng, 5))
        .map(|_| match below(rng, 4) {
            0 => invented::surname(rng),
            1 => invented::village(rng),
            2 => invented::town(rng),
            _ => format!("{} {}", invented::man(rng), invented::surname(rng)),
        })
        .collect();
    let (opening, again) = pick(rng, ROLL_CALLS);
    let mut shuffled = names.clone();
    for i in (1..shuffled.len()).rev() {
        shuffled.swap(i, below(rng, i + 1));
    }
    let second = if chance(rng, 60) { &names } else { &shuffled };
    format!("{opening} {}. {again} {}.", names.join(", "), second.join(", "))
}

fn story(rng: &mut ChaCha8Rng, out: &mut String) {
    out.push_str(pick::<&str>(rng, OPENINGS));
    for _ in 0..3 + below(rng, 4) {
        out.push(' ');
        if chance(rng, 30) {
            out.push_str(pick::<&str>(rng, REMARKS));
            continue;
        }
        let (subject, gender) = pick(rng, SUBJECTS);
        let (time, deed) = (pick(rng, TIMES), said(rng, *gender));
        let marked = match below(rng, 3) {
            0 => format!("{time} {subject} {deed}."),
            1 => format!("{subject} {time} {deed}."),
            _ => format!("{time} {subject} {deed}, а потом {}.", said(rng, *gender)),
        };
        out.push_str(&plain(&marked));
    }
}

fn said(rng: &mut ChaCha8Rng, gender: char) -> String {
    let (masculine, feminine, neuter, rest) = pick(rng, DEEDS);
    let verb = match gender {
        'm' => masculine,
        'f' => feminine,
        _ => neuter,
    };
    format!("{verb} {rest}")
}
