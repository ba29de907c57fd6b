//! Documents with marked entities, and their CoNLL-U as Nerus writes it.
//! It does not know splits' sizes nor where the text goes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use rand_chacha::ChaCha8Rng;

use super::markup::{Sentence, parse};
use super::template::{Filler, World, fill, slots};
use super::{Domain, Part, below, chance, lexicon, news, pick, pick_part, tales};

/// The first line of every generated CoNLL-U file.
pub const HEADER: &str = "# generator = pipe";

/// How many actors of each sort a document has.
const CAST: [(char, usize); 5] = [('P', 3), ('L', 2), ('O', 2), ('C', 1), ('R', 1)];

/// One document: 3 to 8 sentences about the same few actors. No sentence of `taken` (other splits) appears in it.
pub fn document(rng: &mut ChaCha8Rng, domain: Domain, part: Part, taken: &BTreeSet<String>) -> Vec<Sentence> {
    let templates = if domain == Domain::News { news::SENTENCES } else { tales::SENTENCES };
    let mut cast: BTreeMap<char, Vec<Filler>> = BTreeMap::new();
    for (letter, count) in CAST {
        let actors = cast.entry(letter).or_default();
        while actors.len() < count {
            let actor = lexicon::draw(rng, &letter.to_string(), domain, part);
            if !actors.contains(&actor) {
                actors.push(actor);
            }
        }
    }
    let length = 3 + below(rng, 6);
    let mut used: Vec<&str> = Vec::new();
    let mut mentioned: Vec<Filler> = Vec::new();
    let mut sentences = Vec::new();
    let mut tries = 0;
    while sentences.len() < length {
        tries += 1;
        let template = *pick_part(rng, templates, part);
        if used.contains(&template) && tries < 200 {
            continue;
        }
        let told = if domain == Domain::Tales { framed(rng, template) } else { template.to_owned() };
        let world = assign(rng, &told, &cast, domain, part);
        let short: BTreeSet<String> = world
            .iter()
            .filter(|(_, filler)| mentioned.contains(filler) && chance(rng, 60))
            .map(|(slot, _)| slot.clone())
            .collect();
        let sentence = parse(&fill(&told, &world, &|slot| short.contains(slot)));
        if taken.contains(&sentence.text()) {
            continue;
        }
        used.push(template);
        mentioned.extend(world.into_values());
        sentences.push(sentence);
    }
    sentences
}

/// The sentence of a tale with something before or behind it, each in one of three: a base that had seen a name at the
/// same few places alone would look for names there, not at what stands around them.
fn framed(rng: &mut ChaCha8Rng, template: &str) -> String {
    let mut told = template.to_owned();
    if chance(rng, 33) {
        let mut letters = told.chars();
        let first: String = letters.next().into_iter().flat_map(char::to_lowercase).collect();
        told = format!("{} {first}{}", pick(rng, tales::OPENERS), letters.as_str());
    }
    if chance(rng, 33) {
        told = format!("{}{}.", told.trim_end_matches('.'), pick(rng, tales::CLOSERS));
    }
    told
}

fn assign(
    rng: &mut ChaCha8Rng,
    template: &str,
    cast: &BTreeMap<char, Vec<Filler>>,
    domain: Domain,
    part: Part,
) -> World {
    let mut world = World::new();
    let mut shifts: BTreeMap<char, usize> = BTreeMap::new();
    for slot in slots(template) {
        let letter = slot.chars().next().unwrap_or('N');
        let number = slot[1..].parse::<usize>().unwrap_or(1);
        let filler = match cast.get(&letter) {
            Some(actors) => {
                let shift = *shifts.entry(letter).or_insert_with(|| below(rng, actors.len()));
                actors[(number - 1 + shift) % actors.len()].clone()
            }
            None => lexicon::draw(rng, &slot, domain, part),
        };
        world.insert(slot, filler);
    }
    world
}

/// The documents of one split; every sentence text is added to `taken` afterwards, so that the next split avoids it.
pub fn split(
    rng: &mut ChaCha8Rng,
    count: usize,
    domain: Domain,
    part: Part,
    taken: &mut BTreeSet<String>,
) -> Vec<Vec<Sentence>> {
    let documents: Vec<_> = (0..count).map(|_| document(rng, domain, part, taken)).collect();
    taken.extend(documents.iter().flatten().map(Sentence::text));
    documents
}

/// CoNLL-U in Nerus's ten columns; what is not known is `_`.
pub fn conllu(documents: &[Vec<Sentence>]) -> String {
    let mut out = format!("{HEADER}\n");
    for (d, document) in documents.iter().enumerate() {
        let _ = writeln!(out, "# newdoc id = {d}");
        for (s, sentence) in document.iter().enumerate() {
            let _ = writeln!(out, "# sent_id = {d}_{s}\n# text = {}", sentence.text());
            for (t, token) in sentence.tokens.iter().enumerate() {
                let _ = writeln!(out, "{}\t{}\t_\t_\t_\t_\t_\t_\t_\tTag={}", t + 1, token.form, token.tag);
            }
            out.push('\n');
        }
    }
    out
}

/// Entities of each type.
pub fn entity_counts(documents: &[Vec<Sentence>]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for (kind, _) in documents.iter().flatten().flat_map(Sentence::entities) {
        *counts.entry(kind).or_insert(0) += 1;
    }
    counts
}
