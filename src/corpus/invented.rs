//! Names put together from syllables: so many that nobody can know them by heart, only read and repeat them.
//! It does not know what they name, nor how they decline.

use rand_chacha::ChaCha8Rng;

use super::{below, pick};

const ONSETS: &[&str] = &[
    "б", "в", "г", "д", "ж", "з", "к", "л", "м", "н", "п", "р", "с", "т", "ф", "х", "ц", "ч", "ш", "бр", "гр", "др",
    "кр", "тр", "пл", "сл", "св", "ст",
];
const VOWELS: &[&str] = &["а", "е", "и", "о", "у", "я"];
const CODAS: &[&str] = &["л", "м", "н", "р", "т", "в", "д", "б", "г", "з"];
const SURNAME_ENDINGS: &[&str] = &["ов", "ин", "ский", "енко"];
const VILLAGE_ENDINGS: &[&str] = &["овка", "инка", "иха"];
const TOWN_ENDINGS: &[&str] = &["ск", "град", "горск"];

/// `syllables` open syllables and a closing consonant, the first letter large: `Бамотир`.
fn stem(rng: &mut ChaCha8Rng, syllables: usize) -> String {
    let mut word = String::new();
    for _ in 0..syllables {
        word.push_str(pick::<&str>(rng, ONSETS));
        word.push_str(pick::<&str>(rng, VOWELS));
    }
    word.push_str(pick::<&str>(rng, CODAS));
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// A man's given name: `Камир`.
pub fn man(rng: &mut ChaCha8Rng) -> String {
    stem(rng, 1)
}

/// A woman's given name: `Камира`.
pub fn woman(rng: &mut ChaCha8Rng) -> String {
    stem(rng, 1) + "а"
}

/// A surname in the masculine: `Вабодин`, `Трулевский`.
pub fn surname(rng: &mut ChaCha8Rng) -> String {
    let syllables = 1 + below(rng, 2);
    stem(rng, syllables) + pick::<&str>(rng, SURNAME_ENDINGS)
}

/// A village, in the feminine: `Житаровка`.
pub fn village(rng: &mut ChaCha8Rng) -> String {
    let syllables = 1 + below(rng, 2);
    stem(rng, syllables) + pick::<&str>(rng, VILLAGE_ENDINGS)
}

/// A town, in the masculine: `Хонорск`.
pub fn town(rng: &mut ChaCha8Rng) -> String {
    let syllables = 1 + below(rng, 2);
    stem(rng, syllables) + pick::<&str>(rng, TOWN_ENDINGS)
}

/// What stands between the quotes of a team, a school, a choir: `Варус`.
pub fn title(rng: &mut ChaCha8Rng) -> String {
    let syllables = 1 + below(rng, 2);
    stem(rng, syllables)
}
