//! Templates with slots: `{P1.d}` (case), `{P1:сказал|сказала|сказало}` (agreement), `{N1#рубль|рубля|рублей}`
//! (counting), `{J1^.n}` (hypernym). It does not know what the slots are filled with.

use std::collections::BTreeMap;

use super::decline::{CASES, Cases, Gender, counted};

/// What fills a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filler {
    /// A name or noun that declines; forms carry entity marks.
    Term(Box<Term>),
    /// A number.
    Number(u32),
    /// Words that do not change.
    Words(String),
}

/// A name or noun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// Its forms, with entity marks.
    pub forms: Cases,
    /// The forms of a later mention (a surname); the same as `forms` where there is no shorter one.
    pub short: Cases,
    /// What agrees with it agrees in this gender.
    pub gender: Gender,
    /// The forms of its hypernym, empty where it has none.
    pub hypernym: Cases,
}

/// Slot to filler.
pub type World = BTreeMap<String, Filler>;

/// The slots of a template, in order, each once.
pub fn slots(template: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for part in template.split('{').skip(1) {
        let name: String = part.chars().take_while(char::is_ascii_alphanumeric).collect();
        if !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

/// Fills a template. `short` says for a slot whether its term is mentioned again.
///
/// # Panics
/// If the template is malformed or a slot has no filler: templates are tables of this module, and a test fills them all.
pub fn fill(template: &str, world: &World, short: &dyn Fn(&str) -> bool) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let (slot, tail) = after.split_once('}').expect("a slot is closed");
        let split = slot.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(slot.len());
        let (name, how) = slot.split_at(split);
        let filler = world.get(name).unwrap_or_else(|| panic!("no filler for `{name}` of `{template}`"));
        out.push_str(&one(filler, how, short(name)));
        rest = tail;
    }
    out.push_str(rest);
    out
}

fn one(filler: &Filler, how: &str, short: bool) -> String {
    match filler {
        Filler::Words(words) => words.clone(),
        Filler::Number(n) => match how.strip_prefix('#') {
            Some(forms) => {
                let forms: Vec<&str> = forms.split('|').collect();
                format!("{n} {}", counted(*n, forms[0], forms[1], forms[2]))
            }
            None => n.to_string(),
        },
        Filler::Term(term) => {
            if let Some(forms) = how.strip_prefix(':') {
                let forms: Vec<&str> = forms.split('|').collect();
                let i = match term.gender {
                    Gender::Masculine => 0,
                    Gender::Feminine => 1,
                    Gender::Neuter => 2,
                };
                return forms[i.min(forms.len() - 1)].to_owned();
            }
            let (cases, letter) = match how.strip_prefix('^') {
                Some(case) => (&term.hypernym, case),
                None => (if short { &term.short } else { &term.forms }, how),
            };
            let letter = letter.trim_start_matches('.').chars().next().unwrap_or('n');
            let i = CASES.iter().position(|case| *case == letter).expect("a case is one of n g d a i l");
            cases[i].clone()
        }
    }
}
