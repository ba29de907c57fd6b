//! Seeded Russian text: news and tales with marked entities, premise–hypothesis pairs, plain prose.
//! It does not know steps, files or the models that learn from it.

pub mod decline;
pub mod documents;
pub mod frames;
pub mod frames_tales;
pub mod invented;
mod lexicon;
pub mod markup;
pub mod names;
pub mod news;
pub mod organisations;
pub mod pairs;
pub mod places;
pub mod prose;
pub mod prose_data;
pub mod tales;
pub mod template;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

/// The two domains: a base is shown tales, adapters learn the news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// Officials, companies, cities.
    News,
    /// Village, school and sport.
    Tales,
}

/// Which half of the names, verbs and templates may be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Everything: for a domain that is never held out.
    Whole,
    /// Only what training may see.
    Seen,
    /// What training sees and what it never sees, about half and half.
    Mixed,
}

/// A number below `n`, the same on every machine; `n` > 0.
pub fn below(rng: &mut ChaCha8Rng, n: usize) -> usize {
    ((u64::from(rng.next_u32()) * n as u64) >> 32) as usize
}

/// True `percent` times of a hundred.
pub fn chance(rng: &mut ChaCha8Rng, percent: usize) -> bool {
    below(rng, 100) < percent
}

/// One of the items; every fourth (the 4th, 8th, …) is held out of what training sees.
pub fn pick_part<'a, T>(rng: &mut ChaCha8Rng, items: &'a [T], part: Part) -> &'a T {
    let held = part == Part::Mixed && items.len() >= 4 && chance(rng, 50);
    loop {
        let i = below(rng, items.len());
        if part == Part::Whole || items.len() < 4 || (i % 4 == 3) == held {
            return &items[i];
        }
    }
}

/// One of the items.
pub fn pick<'a, T>(rng: &mut ChaCha8Rng, items: &'a [T]) -> &'a T {
    &items[below(rng, items.len())]
}
