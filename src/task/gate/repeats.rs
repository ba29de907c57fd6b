//! Documents and sentences of Nerus that stand there more than once.
//! It does not know tags, nor training data.

use std::collections::{BTreeMap, BTreeSet};

use super::nerus::{Item, key};
use super::{Code, Flaw, Found, WHOLE, normal};

/// A document is one that stood there before if this share of its long sentences stands in one earlier document. Of 500
/// documents of Nerus no two share more than .55 of them.
const SAME: f64 = 0.9;
/// Sentences that are repeated one by one are mostly news that quote earlier news: of 500 documents of Nerus, 2 % of the
/// long ones.
const REPEATED: f64 = 0.1;

/// Documents under another id, and further sentences that stand there twice.
pub fn flaws(items: &[Item]) -> Vec<Flaw> {
    let mut documents: Vec<(&str, Vec<[u8; 16]>)> = Vec::new();
    for item in items.iter().filter(|item| item.is_long()) {
        if documents.last().is_none_or(|(id, _)| *id != item.document) {
            documents.push((item.document, Vec::new()));
        }
        if let Some((_, keys)) = documents.last_mut() {
            keys.push(key(item.text));
        }
    }
    let again = again(&documents);
    let mut copies = Found::default();
    again.iter().for_each(|at| copies.add(documents[*at].0));
    let repeated: BTreeSet<&str> = again.iter().map(|at| documents[*at].0).collect();
    let rest = || items.iter().filter(|item| item.is_long() && !repeated.contains(item.document));
    let (count, examples) = super::repeated(rest().map(|item| (normal(item.text), item.id)));
    let all = documents.len() as u64;

    let mut flaws = Vec::new();
    if copies.count > 0 {
        flaws.push(Flaw {
            code: Code::Duplicates,
            misleads: copies.count as f64 > WHOLE * all as f64,
            count: copies.count,
            what: format!("{} of {all} documents stand there a second time under another id", copies.count),
            help: "a document must not count twice: remove the repeated ones".to_owned(),
            text: format!("документов, повторённых под другим номером: {} из {all}", copies.count),
            examples: copies.examples,
        });
    }
    if count > 0 {
        flaws.push(Flaw {
            code: Code::Duplicates,
            misleads: count as f64 >= REPEATED * rest().count() as f64,
            count,
            what: format!("{count} sentences stand there twice but for case, spaces and punctuation"),
            help: "a sentence must not count twice: remove the repeated ones".to_owned(),
            text: format!("предложений, повторённых с точностью до регистра, пробелов и знаков: {count}"),
            examples,
        });
    }
    flaws
}

/// Positions of the documents that an earlier one repeats.
fn again(documents: &[(&str, Vec<[u8; 16]>)]) -> Vec<usize> {
    let mut seen: BTreeMap<[u8; 16], Vec<usize>> = BTreeMap::new();
    let mut again = Vec::new();
    for (at, (_, keys)) in documents.iter().enumerate() {
        let own: BTreeSet<&[u8; 16]> = keys.iter().collect();
        let mut shared: BTreeMap<usize, usize> = BTreeMap::new();
        for before in own.iter().filter_map(|key| seen.get(*key)).flatten() {
            *shared.entry(*before).or_default() += 1;
        }
        if shared.values().any(|count| *count as f64 >= SAME * own.len() as f64) {
            again.push(at);
        }
        for key in own {
            seen.entry(*key).or_default().push(at);
        }
    }
    again
}
