//! Flaws of Nerus's sentences: repeated ones, and sentences and documents of the training data.
//! It does not know models.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{Code, Flaw, Found, normal, words};
use crate::error::Result;
use crate::task::nerus::Reader;

/// Shorter sentences («Об этом сообщает РИА Новости») are the same in many documents by right.
const LONG: usize = 6;

/// A sentence that is evaluated.
pub struct Item<'a> {
    /// Its document.
    pub document: &'a str,
    /// Its id.
    pub id: &'a str,
    /// Its text.
    pub text: &'a str,
}

/// The sentences of training data, as far as a comparison needs them.
#[derive(Default)]
pub struct Texts(BTreeSet<[u8; 16]>);

impl Texts {
    /// Adds a sentence.
    pub fn add(&mut self, text: &str) {
        self.0.insert(key(text));
    }

    /// Adds the sentences of a file.
    pub fn read(&mut self, path: &Path, label: &str) -> Result<()> {
        for document in Reader::open(path, label)? {
            for sentence in document?.sentences {
                self.add(&sentence.text);
            }
        }
        Ok(())
    }

    /// True if a sentence stands in it, whatever its case and punctuation.
    pub fn has(&self, text: &str) -> bool {
        self.0.contains(&key(text))
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Half of a digest: a corpus has millions of sentences.
fn key(text: &str) -> [u8; 16] {
    let mut key = [0; 16];
    key.copy_from_slice(&blake3::hash(normal(text).as_bytes()).as_bytes()[..16]);
    key
}

/// Everything about the sentences themselves, and about what they share with sentences that something was trained on.
pub fn flaws(items: &[Item], train: &Texts) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    let long = |item: &&Item| words(item.text).len() >= LONG;
    let (count, examples) = super::repeated(items.iter().filter(long).map(|item| (normal(item.text), item.id)));
    if count > 0 {
        flaws.push(Flaw {
            code: Code::Duplicates,
            misleads: false,
            count,
            what: format!("{count} sentences stand there twice but for case, spaces and punctuation"),
            help: "a sentence must not count twice: remove the repeated ones".to_owned(),
            text: format!("предложений, повторённых с точностью до регистра, пробелов и знаков: {count}"),
            examples,
        });
    }
    if train.is_empty() {
        return flaws;
    }
    let mut shared = Found::default();
    let mut documents: BTreeMap<&str, (bool, bool)> = BTreeMap::new();
    for item in items {
        let known = train.has(item.text);
        let (whole, has_long) = documents.entry(item.document).or_insert((true, false));
        *whole &= known;
        *has_long |= long(&item);
        if known && long(&item) {
            shared.add(item.id);
        }
    }
    let mut copied = Found::default();
    documents.iter().filter(|(_, (whole, long))| *whole && *long).for_each(|(document, _)| copied.add(document));
    if copied.count > 0 {
        let all = documents.len();
        flaws.push(Flaw {
            code: Code::TrainingItems,
            misleads: true,
            count: copied.count,
            what: format!("{} of {all} documents stand whole in the training data", copied.count),
            help: "evaluate on documents that nothing was trained on; `split` parts a corpus by documents".to_owned(),
            text: format!("документов, которые целиком есть в обучающих данных: {} из {all}", copied.count),
            examples: copied.examples,
        });
    }
    if shared.count > 0 {
        flaws.push(Flaw {
            code: Code::SharedTexts,
            misleads: false,
            count: shared.count,
            what: format!("{} of {} sentences are in the training data, too", shared.count, items.len()),
            help: "look at the figures on the other sentences as well".to_owned(),
            text: format!("предложений, которые есть и в обучающих данных: {} из {}", shared.count, items.len()),
            examples: shared.examples,
        });
    }
    flaws
}
