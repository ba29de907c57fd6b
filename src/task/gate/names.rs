//! Names whose type is another one than in the training data: types that were exchanged.
//! It does not know texts.

use std::collections::{BTreeMap, BTreeSet};

use super::nerus::Item;
use super::{Code, Flaw, Found, chance, normal};
use crate::task::nerus::{Entity, TYPES};

/// How often the training data gives each name each type.
#[derive(Default)]
pub struct Names(BTreeMap<String, [u64; TYPES.len()]>);

impl Names {
    /// Adds the entities of a sentence.
    pub fn add(&mut self, entities: &[Entity]) {
        for entity in entities {
            if let Some(at) = TYPES.iter().position(|kind| *kind == entity.kind) {
                self.0.entry(normal(&entity.surface)).or_default()[at] += 1;
            }
        }
    }

    /// If most names of a type that training knows have another type there, and that is no chance, types were exchanged.
    /// Of Nerus's own names one in fifty has another type elsewhere.
    pub fn exchanged(&self, items: &[Item]) -> Option<Flaw> {
        let mut names = BTreeSet::new();
        let mut counts: BTreeMap<&str, (u64, Found)> = BTreeMap::new();
        for (item, entity) in items.iter().flat_map(|item| item.entities.iter().map(move |entity| (item, entity))) {
            let name = normal(&entity.surface);
            let Some(usual) = self.0.get(&name).and_then(usual) else { continue };
            if names.insert((name, &entity.kind)) {
                let (known, other) = counts.entry(&entity.kind).or_default();
                *known += 1;
                if usual != entity.kind {
                    other.add(item.id);
                }
            }
        }
        counts.retain(|_, (known, other)| chance::shown(*known, other.count, 0.5));
        if counts.is_empty() {
            return None;
        }
        let told: Vec<String> =
            counts.iter().map(|(kind, (known, other))| format!("{kind} {}/{known}", other.count)).collect();
        let told = told.join(", ");
        Some(Flaw {
            code: Code::Polarity,
            misleads: true,
            count: counts.values().map(|(_, other)| other.count).sum(),
            what: format!("types look exchanged: most of these names have another type in the training data: {told}"),
            help: "check what each of the two files calls a person, a place and an organisation".to_owned(),
            text: format!(
                "типы сущностей могут быть перепутаны: имён, у которых в обучающих данных другой тип: {told}"
            ),
            examples: counts.into_values().flat_map(|(_, other)| other.examples).take(super::SHOWN).collect(),
        })
    }
}

/// The type that is more frequent than every other, if one is.
fn usual(counts: &[u64; TYPES.len()]) -> Option<&'static str> {
    let most = counts.iter().max()?;
    let mut all = counts.iter().zip(TYPES).filter(|(count, _)| *count == most);
    all.next().filter(|_| all.next().is_none()).map(|(_, kind)| kind)
}
