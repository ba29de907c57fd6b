//! Flaws of Nerus's sentences, and the sentences and documents that they share with training data.
//! It does not know models, nor how repeated documents and misplaced tags are found.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::names::Names;
use super::{Code, Flaw, Found, normal, repeats, tags, words};
use crate::error::Result;
use crate::task::nerus::{Entity, Reader};

/// Shorter sentences («Об этом сообщает РИА Новости») are the same in many documents by right.
const LONG: usize = 6;
/// News repeat sentences of earlier news: of 500 documents of Nerus, 4 % of the long ones. From this share on, figures on
/// them are no figures of new text.
const SHARED: f64 = 0.1;

/// A sentence that is evaluated.
pub struct Item<'a> {
    /// Its document.
    pub document: &'a str,
    /// Its id.
    pub id: &'a str,
    /// Its text.
    pub text: &'a str,
    /// Its entities.
    pub entities: &'a [Entity],
}

impl Item<'_> {
    /// True if no two documents have this sentence by right.
    pub(super) fn is_long(&self) -> bool {
        words(self.text).len() >= LONG
    }
}

/// The sentences of training data, as far as a comparison needs them.
#[derive(Default)]
pub struct Texts(BTreeSet<[u8; 16]>);

impl Texts {
    /// Adds a sentence.
    pub fn add(&mut self, text: &str) {
        self.0.insert(key(text));
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

/// What something was trained on, as far as a comparison needs it.
#[derive(Default)]
pub struct Train {
    /// Its sentences.
    pub texts: Texts,
    /// Its names.
    pub names: Names,
}

impl Train {
    /// Adds a file.
    pub fn read(&mut self, path: &Path, label: &str) -> Result<()> {
        for document in Reader::open(path, label)? {
            for sentence in document?.sentences {
                self.texts.add(&sentence.text);
                self.names.add(&sentence.entities);
            }
        }
        Ok(())
    }
}

/// Half of a digest: a corpus has millions of sentences.
pub(super) fn key(text: &str) -> [u8; 16] {
    let mut key = [0; 16];
    key.copy_from_slice(&blake3::hash(normal(text).as_bytes()).as_bytes()[..16]);
    key
}

/// Everything about the sentences themselves, and about what they share with sentences that something was trained on.
pub fn flaws(items: &[Item], train: &Train) -> Vec<Flaw> {
    let mut flaws: Vec<Flaw> = tags::misplaced(items).into_iter().collect();
    flaws.extend(repeats::flaws(items));
    if !train.texts.is_empty() {
        flaws.extend(train.names.exchanged(items));
        flaws.extend(shared(items, &train.texts));
    }
    flaws
}

/// Documents and sentences of the training data.
fn shared(items: &[Item], train: &Texts) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    let (mut sentences, mut long) = (Found::default(), 0);
    let mut documents: BTreeMap<&str, (bool, bool)> = BTreeMap::new();
    for item in items {
        let known = train.has(item.text);
        let (whole, has_long) = documents.entry(item.document).or_insert((true, false));
        *whole &= known;
        if item.is_long() {
            *has_long = true;
            long += 1;
            if known {
                sentences.add(item.id);
            }
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
    if sentences.count > 0 {
        flaws.push(Flaw {
            code: Code::SharedTexts,
            misleads: sentences.count as f64 >= SHARED * long as f64,
            count: sentences.count,
            what: format!(
                "{} of {long} sentences of {LONG} words and more are in the training data, too",
                sentences.count
            ),
            help: "leave them out, or look at the figures on the other sentences as well".to_owned(),
            text: format!(
                "предложений от {LONG} слов, которые есть и в обучающих данных: {} из {long}",
                sentences.count
            ),
            examples: sentences.examples,
        });
    }
    flaws
}
