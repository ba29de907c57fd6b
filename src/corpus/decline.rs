//! Russian declension of names and of the nouns that stand with them, by class of ending.
//! It does not know which names there are; a name outside the classes here must not enter the tables.

/// Grammatical gender, as verbs in the past tense agree with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gender {
    /// Masculine.
    Masculine,
    /// Feminine.
    Feminine,
    /// Neuter.
    Neuter,
}

/// Nominative, genitive, dative, accusative, instrumental, prepositional.
pub type Cases = [String; 6];

/// The letters of the cases in templates, in the order of [`Cases`].
pub const CASES: [char; 6] = ['n', 'g', 'd', 'a', 'i', 'l'];

/// Six forms: `stem` and an ending each.
fn forms(stem: &str, endings: [&str; 6]) -> Cases {
    endings.map(|ending| format!("{stem}{ending}"))
}

/// The same word in every case.
pub fn indeclinable(word: &str) -> Cases {
    forms(word, [""; 6])
}

fn cut<'a>(word: &'a str, tail: &str) -> &'a str {
    word.strip_suffix(tail).unwrap_or(word)
}

/// A noun in the singular. `animate` tells the masculine accusative; `gender` tells the nouns in -ь apart.
pub fn noun(word: &str, gender: Gender, animate: bool) -> Cases {
    let last = word.chars().last().unwrap_or(' ');
    match (last, gender) {
        _ if word.ends_with("ия") => forms(cut(word, "я"), ["я", "и", "и", "ю", "ей", "и"]),
        _ if word.ends_with("ие") => forms(cut(word, "е"), ["е", "я", "ю", "е", "ем", "и"]),
        ('а', _) => {
            let stem = cut(word, "а");
            let genitive = if stem.ends_with(['г', 'к', 'х', 'ж', 'ш', 'ч', 'щ']) { "и" } else { "ы" };
            let instrumental = if stem.ends_with(['ж', 'ш', 'ч', 'щ', 'ц']) { "ей" } else { "ой" };
            forms(stem, ["а", genitive, "е", "у", instrumental, "е"])
        }
        ('я', _) => {
            let instrumental = if word == "Илья" { "ёй" } else { "ей" };
            forms(cut(word, "я"), ["я", "и", "е", "ю", instrumental, "е"])
        }
        ('ь', Gender::Feminine) => forms(cut(word, "ь"), ["ь", "и", "и", "ь", "ью", "и"]),
        ('ь', _) => forms(cut(word, "ь"), ["ь", "я", "ю", if animate { "я" } else { "ь" }, "ем", "е"]),
        ('й', _) => {
            let locative = if word.ends_with("ий") { "и" } else { "е" };
            forms(cut(word, "й"), ["й", "я", "ю", if animate { "я" } else { "й" }, "ем", locative])
        }
        ('о', Gender::Neuter) => forms(cut(word, "о"), ["о", "а", "у", "о", "ом", "е"]),
        ('о' | 'е' | 'и' | 'у' | 'ы' | 'э' | 'ю', _) | (_, Gender::Feminine) => indeclinable(word),
        _ => {
            let instrumental = if word.ends_with(['ж', 'ш', 'ч', 'щ', 'ц']) { "ем" } else { "ом" };
            let stem = match word {
                "Павел" => "Павл",
                "Пётр" => "Петр",
                "боец" => "бойц",
                _ => word,
            };
            let mut cases = forms(stem, ["", "а", "у", if animate { "а" } else { "" }, instrumental, "е"]);
            cases[0] = word.to_owned();
            if !animate {
                cases[3] = word.to_owned();
            }
            cases
        }
    }
}

/// A first name.
pub fn first_name(name: &str, gender: Gender) -> Cases {
    noun(name, gender, true)
}

/// A surname, given in its masculine form.
pub fn surname(name: &str, gender: Gender) -> Cases {
    if name.ends_with("ский") || name.ends_with("цкий") {
        return match gender {
            Gender::Feminine => forms(cut(name, "ий"), ["ая", "ой", "ой", "ую", "ой", "ой"]),
            _ => forms(cut(name, "ий"), ["ий", "ого", "ому", "ого", "им", "ом"]),
        };
    }
    if ["ов", "ев", "ёв", "ин", "ын"].iter().any(|tail| name.ends_with(tail)) {
        return match gender {
            Gender::Feminine => forms(name, ["а", "ой", "ой", "у", "ой", "ой"]),
            _ => forms(name, ["", "а", "у", "а", "ым", "е"]),
        };
    }
    match gender {
        Gender::Masculine if name.ends_with(|last: char| !"аеёиоуыэюяйх".contains(last)) => {
            noun(name, gender, true)
        }
        _ => indeclinable(name),
    }
}

/// An adjective in -ий/-ый (masculine) or -ая (feminine) before an inanimate noun.
pub fn adjective(word: &str) -> Cases {
    if let Some(stem) = word.strip_suffix("ая") {
        return forms(stem, ["ая", "ой", "ой", "ую", "ой", "ой"]);
    }
    let masculine = if word.ends_with("ый") {
        ["ый", "ого", "ому", "ый", "ым", "ом"]
    } else {
        ["ий", "ого", "ому", "ий", "им", "ом"]
    };
    forms(word.strip_suffix("ий").or(word.strip_suffix("ый")).unwrap_or(word), masculine)
}

/// Words that decline together, joined by a space.
pub fn together(left: &Cases, right: &Cases) -> Cases {
    std::array::from_fn(|i| format!("{} {}", left[i], right[i]))
}

/// The form of a counted noun: 1 рубль, 2 рубля, 5 рублей.
pub fn counted<'a>(n: u32, one: &'a str, few: &'a str, many: &'a str) -> &'a str {
    match (n % 10, n % 100) {
        (_, 11..=14) => many,
        (1, _) => one,
        (2..=4, _) => few,
        _ => many,
    }
}
