//! Draws what fills the slots of templates: persons (P), places (L), countries (C), regions (R), organisations (O),
//! occupations (J), topics (T), dates (D), weekdays (W), scores (S), numbers (N).
//! It does not know the templates.

use rand_chacha::ChaCha8Rng;

use super::decline::{Cases, Gender, adjective, first_name, indeclinable, noun, surname, together};
use super::template::{Filler, Term};
use super::{Domain, Part, below, chance, invented, names, news, organisations, pick, pick_part, places, tales};

/// How many in a hundred names of the tales are invented on the spot; the others come from their tables.
const INVENTED: usize = 75;

/// Held-out names are the odd ones of their tables: half and half in a mixed part.
fn halved<'a, T>(rng: &mut ChaCha8Rng, items: &'a [T], part: Part) -> &'a T {
    if part == Part::Whole {
        return pick(rng, items);
    }
    let odd = usize::from(part == Part::Mixed && chance(rng, 45));
    &items[(below(rng, items.len() / 2) * 2 + odd) % items.len()]
}

fn mark(kind: &str, cases: &Cases) -> Cases {
    std::array::from_fn(|i| format!("[{kind} {}]", cases[i]))
}

fn term(forms: Cases, gender: Gender) -> Filler {
    Filler::Term(Box::new(Term { short: forms.clone(), forms, gender, hypernym: indeclinable("") }))
}

/// A filler for the slot.
pub fn draw(rng: &mut ChaCha8Rng, slot: &str, domain: Domain, part: Part) -> Filler {
    match slot.as_bytes().first() {
        Some(b'P') => person(rng, domain, part),
        Some(b'L') => place(rng, domain, part),
        Some(b'C') => {
            let (name, feminine) = halved(rng, places::COUNTRIES, part);
            let gender = if *feminine { Gender::Feminine } else { Gender::Masculine };
            term(mark("LOC", &noun(name, gender, false)), gender)
        }
        Some(b'R') => {
            let (left, right) = halved(rng, places::REGIONS, part);
            let gender = if right.ends_with('ь') { Gender::Feminine } else { Gender::Masculine };
            term(mark("LOC", &together(&adjective(left), &noun(right, gender, false))), gender)
        }
        Some(b'O') => organisation(rng, domain, part),
        Some(b'J') => {
            let (job, hypernym) = *pick(rng, if domain == Domain::News { names::JOBS } else { names::TALE_JOBS });
            let hypernym = if hypernym == "учёный" {
                ["учёный", "учёного", "учёному", "учёного", "учёным", "учёном"].map(str::to_owned)
            } else {
                noun(hypernym, Gender::Masculine, true)
            };
            let forms = noun(job, Gender::Masculine, true);
            Filler::Term(Box::new(Term { short: forms.clone(), forms, gender: Gender::Masculine, hypernym }))
        }
        Some(b'T') => {
            let topics = if domain == Domain::News { news::TOPICS } else { tales::TOPICS };
            Filler::Words((*pick_part(rng, topics, part)).to_owned())
        }
        Some(b'D') => Filler::Words(format!("{} {}", 1 + below(rng, 28), pick(rng, news::MONTHS))),
        Some(b'W') => Filler::Words((*pick(rng, news::WEEKDAYS)).to_owned()),
        Some(b'S') => Filler::Words((*pick(rng, tales::SCORES)).to_owned()),
        _ => Filler::Number(2 + u32::try_from(below(rng, 48)).unwrap_or(0)),
    }
}

fn person(rng: &mut ChaCha8Rng, domain: Domain, part: Part) -> Filler {
    let gender = if chance(rng, 50) { Gender::Masculine } else { Gender::Feminine };
    let (given, family) = match (domain, gender) {
        (Domain::News, Gender::Masculine) => (names::MEN, names::SURNAMES),
        (Domain::News, _) => (names::WOMEN, names::SURNAMES),
        (Domain::Tales, Gender::Masculine) => (names::TALE_MEN, names::TALE_SURNAMES),
        (Domain::Tales, _) => (names::TALE_WOMEN, names::TALE_SURNAMES),
    };
    // A cast of fixed pairs: three given names for each surname, so that actors recur between documents.
    let family_name = halved(rng, family, part);
    let at = family.iter().position(|name| name == family_name).unwrap_or(0);
    let given_name = match part {
        Part::Whole => *pick(rng, given),
        _ => given[(at * 7 + below(rng, 3) * 5) % given.len()],
    };
    let (mut family_name, mut given_name) = ((*family_name).to_owned(), given_name.to_owned());
    if domain == Domain::Tales && chance(rng, INVENTED) {
        family_name = invented::surname(rng);
        given_name = if gender == Gender::Masculine { invented::man(rng) } else { invented::woman(rng) };
    }
    let last = surname(&family_name, gender);
    let first = first_name(&given_name, gender);
    let short = if domain == Domain::News { &last } else { &first };
    Filler::Term(Box::new(Term {
        forms: mark("PER", &together(&first, &last)),
        short: mark("PER", short),
        gender,
        hypernym: indeclinable(""),
    }))
}

fn place(rng: &mut ChaCha8Rng, domain: Domain, part: Part) -> Filler {
    let (feminine, masculine) = match domain {
        Domain::News => (places::CITIES_FEMININE, places::CITIES_MASCULINE),
        Domain::Tales => (places::VILLAGES_FEMININE, places::VILLAGES_MASCULINE),
    };
    let roll = below(rng, 20);
    if domain == Domain::Tales && chance(rng, INVENTED) {
        let (name, gender) = if roll < 10 {
            (invented::village(rng), Gender::Feminine)
        } else {
            (invented::town(rng), Gender::Masculine)
        };
        return term(mark("LOC", &noun(&name, gender, false)), gender);
    }
    let (name, gender) = match (domain, roll) {
        (Domain::News, 0) => {
            let city = halved(rng, places::CITIES_FIXED, part);
            return term(mark("LOC", &indeclinable(city)), Gender::Masculine);
        }
        (_, 1..=9) => (halved(rng, feminine, part), Gender::Feminine),
        _ => (halved(rng, masculine, part), Gender::Masculine),
    };
    term(mark("LOC", &noun(name, gender, false)), gender)
}

fn organisation(rng: &mut ChaCha8Rng, domain: Domain, part: Part) -> Filler {
    let (heads, quoted) = match domain {
        Domain::News => (organisations::HEADS, organisations::QUOTED),
        Domain::Tales => (organisations::TALE_HEADS, organisations::TALE_QUOTED),
    };
    let roll = if domain == Domain::News { below(rng, 10) } else { 9 };
    if roll < 3 {
        let (name, gender) = *halved(rng, organisations::ABBREVIATIONS, part);
        let cases = if gender == Gender::Masculine { noun(name, gender, false) } else { indeclinable(name) };
        return term(mark("ORG", &cases), gender);
    }
    if roll < 6 {
        let (head, gender, tail) = *halved(rng, organisations::BODIES, part);
        return term(mark("ORG", &together(&noun(head, gender, false), &indeclinable(tail))), gender);
    }
    let mut name = (*halved(rng, quoted, part)).to_owned();
    let at = quoted.iter().position(|other| *other == name).unwrap_or(0);
    if domain == Domain::Tales && chance(rng, INVENTED) {
        name = invented::title(rng);
    }
    let (head, gender) = heads[at % heads.len()];
    let head = noun(head, gender, false);
    let named: Cases = std::array::from_fn(|i| format!("{} «[ORG {name}]»", head[i]));
    term(named, gender)
}
