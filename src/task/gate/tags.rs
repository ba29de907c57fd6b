//! Tags that stand beside the names they are meant for, as of columns that were moved against each other.
//! It does not know training data.

use super::nerus::Item;
use super::{Code, Flaw, Found, chance};

/// How often an entity of right data begins with a small letter at most: .002 in Nerus, .12 in factRuEval-2016; .67 and
/// more where the tags are moved by a word or two.
const SMALL: f64 = 0.2;
/// Documents with fewer entities are not looked at by themselves.
const FEW: u64 = 5;
/// If more than this share of the documents looks so, it is no oddity of some.
const SOME: f64 = 0.05;

/// What is counted of a document, or of all.
#[derive(Default, Clone, Copy)]
struct Letters {
    /// Entities that begin with a letter.
    entities: u64,
    /// Of them, those that begin with a small one.
    small: u64,
    /// Words with a capital that no entity has; without the first of each sentence.
    passed: u64,
}

impl Letters {
    fn add(&mut self, item: &Item) {
        for first in item.entities.iter().filter_map(|entity| entity.surface.chars().find(|c| c.is_alphanumeric())) {
            self.entities += u64::from(first.is_alphabetic());
            self.small += u64::from(first.is_lowercase());
        }
        let mut before: Option<char> = None;
        let mut is_first = true;
        for (at, c) in item.text.chars().enumerate() {
            if c.is_alphanumeric() && before.is_none_or(|before| !before.is_alphanumeric()) {
                let inside = item.entities.iter().any(|entity| (entity.start..entity.end).contains(&at));
                self.passed += u64::from(c.is_uppercase() && !is_first && !inside);
                is_first = false;
            }
            before = Some(c);
        }
    }

    /// Most entities begin with a small letter, while names stand beside them. Text without capitals says nothing.
    fn are_beside(self) -> bool {
        2 * self.small > self.entities && 2 * self.passed >= self.small
    }
}

/// Entities that are no names, next to names that are no entities.
pub fn misplaced(items: &[Item]) -> Option<Flaw> {
    let mut documents: Vec<(&str, Letters)> = Vec::new();
    let mut all = Letters::default();
    for item in items {
        if documents.last().is_none_or(|(id, _)| *id != item.document) {
            documents.push((item.document, Letters::default()));
        }
        if let Some((_, letters)) = documents.last_mut() {
            letters.add(item);
        }
        all.add(item);
    }
    let whole = all.are_beside() && chance::shown(all.entities, all.small, SMALL);
    let looked_at = || documents.iter().filter(|(_, letters)| letters.entities >= FEW);
    let mut found = Found::default();
    looked_at().filter(|(_, letters)| letters.are_beside()).for_each(|(id, _)| found.add(id));
    let some = found.count > 1 && found.count as f64 > SOME * looked_at().count() as f64;
    (whole || found.count > 0).then(|| Flaw {
        code: Code::Tags,
        misleads: whole || some,
        count: found.count,
        what: format!(
            "tags look moved beside their words: {} of {} entities begin with a small letter, {} words with a capital are no entity; so in most entities of {} documents",
            all.small, all.entities, all.passed, found.count
        ),
        help: "compare the tags with the words of these documents: a column may have been moved".to_owned(),
        text: format!(
            "разметка может быть сдвинута относительно слов: со строчной буквы начинаются {} из {} сущностей; документов, где таких большинство: {}",
            all.small, all.entities, found.count
        ),
        examples: found.examples,
    })
}
