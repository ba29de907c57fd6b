//! Answers in words: entities written out and read back, and which label an answer says.
//! It does not know prompts or models. What cannot be read is counted, never guessed.

use super::nerus::{Entity, TYPES};
use super::prompt::Answers;
use super::terra::Label;

/// Between entities.
const SEPARATOR: &str = ";";
/// Between an entity and its type.
const DASH: &str = " — ";

/// What became of a generated answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It was read to its end.
    Valid,
    /// Parts of it are not in the answer's format; the other parts count.
    Unparsed,
    /// It did not end within the limit; the parts that are whole count.
    Truncated,
}

impl State {
    /// Its name in `records.csv`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Unparsed => "unparsed",
            Self::Truncated => "truncated",
        }
    }
}

/// An entity that an answer names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mention {
    /// `PER`, `LOC` or `ORG`.
    pub kind: &'static str,
    /// Its words.
    pub surface: String,
}

/// An answer that has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// What it names, in order.
    pub mentions: Vec<Mention>,
    /// How far it could be read.
    pub state: State,
}

/// Where a mention stands in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Spot {
    /// From this character to the one after the last.
    At(usize, usize),
    /// Nowhere.
    Hallucinated,
    /// Nowhere any more: the answer names it more often than the text has it.
    Duplicate,
}

/// Writes entities in order of appearance, ` Анна Петрова — PER; Москва — LOC`, or `none` if there are none.
pub fn format(entities: &[Entity], none: &str) -> String {
    if entities.is_empty() {
        return none.to_owned();
    }
    let parts: Vec<String> =
        entities.iter().map(|entity| format!(" {}{DASH}{}", entity.surface, entity.kind)).collect();
    parts.join(SEPARATOR)
}

/// An answer up to the first of these texts, and whether there was one; each cuts what the one before it left, as in
/// lm-evaluation-harness (`postprocess_generated_text`).
pub fn until<'a>(answer: &'a str, ends: &[String]) -> (&'a str, bool) {
    let cut = ends
        .iter()
        .filter(|end| !end.is_empty())
        .fold(answer, |answer, end| answer.split_once(end.as_str()).map_or(answer, |(before, _)| before));
    (cut, cut.len() < answer.len())
}

/// Reads an answer: its first line, since the format has but one. `stopped` tells that the model ended it.
pub fn parse(answer: &str, stopped: bool, none: &str) -> Reading {
    let (line, ended) = match answer.split_once('\n') {
        Some((line, _)) => (line, true),
        None => (answer, stopped),
    };
    let line = line.trim();
    let mut reading = Reading { mentions: Vec::new(), state: State::Valid };
    if line != none.trim() {
        for part in line.split(SEPARATOR) {
            match mention(part) {
                Some(mention) => reading.mentions.push(mention),
                None => reading.state = State::Unparsed,
            }
        }
    }
    if !ended {
        reading.state = State::Truncated;
    }
    reading
}

/// `Анна Петрова — PER`; the last dash divides, because names have dashes, too.
fn mention(part: &str) -> Option<Mention> {
    let (surface, kind) = part.rsplit_once(DASH)?;
    let kind = TYPES.into_iter().find(|known| *known == kind.trim())?;
    let surface = surface.trim();
    (!surface.is_empty()).then(|| Mention { kind, surface: surface.to_owned() })
}

/// Finds the mentions in the text, from left to right: each takes the first free place of its words after the
/// mention before it, or else the first free place at all. Words match whole and exactly; places do not overlap.
pub fn align(text: &str, mentions: &[Mention]) -> Vec<Spot> {
    // Position of each byte that begins a character, counted in characters.
    let character = |byte: usize| text[..byte].chars().count();
    let mut taken: Vec<(usize, usize)> = Vec::new();
    let mut cursor = 0;
    let mut spots = Vec::with_capacity(mentions.len());
    for mention in mentions {
        let all = occurrences(text, &mention.surface);
        let free = |place: &&(usize, usize)| taken.iter().all(|other| place.1 <= other.0 || other.1 <= place.0);
        let place = all.iter().filter(free).find(|place| place.0 >= cursor).or_else(|| all.iter().find(free)).copied();
        spots.push(match place {
            Some((start, end)) => {
                taken.push((start, end));
                cursor = end;
                Spot::At(character(start), character(end))
            }
            None if all.is_empty() => Spot::Hallucinated,
            None => Spot::Duplicate,
        });
    }
    spots
}

/// Byte ranges where `words` stand whole in the text: not inside a longer word.
fn occurrences(text: &str, words: &str) -> Vec<(usize, usize)> {
    let inner = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let mut found = Vec::new();
    if words.is_empty() {
        return found;
    }
    for (start, _) in text.char_indices() {
        if text[start..].starts_with(words) {
            let end = start + words.len();
            let cut_before = inner(words.chars().next()) && inner(text[..start].chars().next_back());
            let cut_after = inner(words.chars().next_back()) && inner(text[end..].chars().next());
            if !cut_before && !cut_after {
                found.push((start, end));
            }
        }
    }
    found
}

/// The label that an answer says: the one whose word comes first in it, whole and in either case. «всегда» does
/// not say «да».
pub fn label(answer: &str, answers: &Answers) -> Option<Label> {
    let answer = answer.to_lowercase();
    let first = |label: Label| {
        let word = answers.of(label).trim().to_lowercase();
        // Where both begin at one place, the longer word is meant.
        occurrences(&answer, &word).first().map(|place| (place.0, std::cmp::Reverse(word.len()), label))
    };
    Label::ALL.into_iter().filter_map(first).min().map(|(.., label)| label)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "ФК Москва вернулся в город Москва. Ирак ждёт Иру, Ира — Жан-Поль.";

    fn told(answer: &str) -> String {
        let reading = parse(answer, true, " нет");
        let spots = align(TEXT, &reading.mentions);
        let mentions = reading.mentions.iter().zip(spots).map(|(m, spot)| format!("{}:{spot:?}", m.kind));
        format!("{} {}", reading.state.name(), mentions.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn an_answer_ends_before_the_first_of_its_ends() {
        let ends = |ends: &[&str]| ends.iter().map(|end| (*end).to_owned()).collect::<Vec<_>>();
        assert_eq!(until("да\nТекст", &ends(&["\n"])), ("да", true));
        assert_eq!(until("да", &ends(&["\n", ""])), ("да", false));
        // One after the other, so that the second finds nothing in what the first left.
        assert_eq!(until("abc", &ends(&["bc", "ab"])), ("a", true));
        assert_eq!(until("abc", &ends(&["ab", "bc"])), ("", true));
    }

    #[test]
    fn answers_are_read_and_found_in_the_text() {
        for (answer, expected) in [
            (" нет", "valid "),
            (" ФК Москва — ORG; Москва — LOC", "valid ORG:At(0, 9) LOC:At(27, 33)"),
            (" Москва — LOC", "valid LOC:At(3, 9)"),
            (" Ира — PER", "valid PER:At(50, 53)"),
            (" Ира — Жан-Поль — PER", "valid PER:At(50, 64)"),
            (" Пётр — PER", "valid PER:Hallucinated"),
            (" Ирак — LOC; Ирак — LOC", "valid LOC:At(35, 39) LOC:Duplicate"),
            (" Ирак — GPE; Ира — PER", "unparsed PER:At(50, 53)"),
            (" Ирак — LOC;", "unparsed LOC:At(35, 39)"),
            ("", "unparsed "),
            (" — PER", "unparsed "),
            (" Ирак — LOC\nТекст: Ира — PER", "valid LOC:At(35, 39)"),
            // Out of order is found all the same.
            (" Ира — PER; Ирак — LOC", "valid PER:At(50, 53) LOC:At(35, 39)"),
        ] {
            assert_eq!(told(answer), expected, "{answer}");
        }
    }

    #[test]
    fn an_answer_that_did_not_end_is_truncated_and_its_whole_parts_count() {
        let reading = parse(" Ирак — LOC; Ир", false, " нет");
        assert_eq!((reading.state, reading.mentions.len()), (State::Truncated, 1));
        assert_eq!(parse(" Ирак — LOC\n", false, " нет").state, State::Valid);
    }

    #[test]
    fn labels_are_whole_words() {
        let answers = Answers::default();
        for (answer, expected) in [
            (" да", Some(Label::Entailment)),
            ("Нет, не следует", Some(Label::NotEntailment)),
            ("всегда", None),
            ("всегда нет", Some(Label::NotEntailment)),
            ("", None),
        ] {
            assert_eq!(label(answer, &answers), expected, "{answer}");
        }
        let nested = Answers {
            entailment: " верно".into(), not_entailment: " верно не".into(), none: " нет".into()
        };
        assert_eq!(label("верно не следует", &nested), Some(Label::NotEntailment));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            words in prop::collection::vec(("[а-яА-Я0-9«»—-]{1,6}( [а-я—]{1,5}){0,2}", 0..3_usize), 0..6),
        ) {
            let entities: Vec<Entity> = words
                .iter()
                .map(|(surface, kind)| Entity { kind: TYPES[*kind].into(), start: 0, end: 0, surface: surface.clone() })
                .collect();
            let reading = parse(&format(&entities, " нет"), true, " нет");
            prop_assert_eq!(reading.state, State::Valid);
            let read: Vec<(&str, &str)> = reading.mentions.iter().map(|m| (m.surface.as_str(), m.kind)).collect();
            let written: Vec<(&str, &str)> = entities.iter().map(|e| (e.surface.as_str(), e.kind.as_str())).collect();
            prop_assert_eq!(read, written);
        }

        #[test]
        fn any_answer_is_read_without_a_panic(answer in any::<String>(), text in any::<String>()) {
            let reading = parse(&answer, true, " нет");
            let spots = align(&text, &reading.mentions);
            prop_assert_eq!(spots.len(), reading.mentions.len());
        }
    }
}
