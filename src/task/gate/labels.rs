//! Labels of TERRa's rows that contradict each other, or what the training data tells of the same premises.
//! It does not know models.

use std::collections::{BTreeMap, BTreeSet};

use super::chance::shown;
use super::{Code, Flaw, Found, normal};
use crate::task::terra::{Label, Labelled};

/// The same pair with both labels, and hypotheses that are their premise and are said not to follow from it.
pub fn contradictions(rows: &[Labelled]) -> Option<Flaw> {
    let mut first: BTreeMap<(String, String), Label> = BTreeMap::new();
    let (mut both, mut same) = (0_u64, 0_u64);
    let mut found = Found::default();
    for row in rows {
        let (premise, hypothesis) = (normal(&row.row.premise), normal(&row.row.hypothesis));
        // Texts without a word say nothing after normalisation.
        let itself = !premise.is_empty() && premise == hypothesis && row.label == Label::NotEntailment;
        let other = *first.entry((premise, hypothesis)).or_insert(row.label) != row.label;
        both += u64::from(other);
        same += u64::from(itself);
        if itself || other {
            found.add(row.row.idx);
        }
    }
    (found.count > 0).then(|| Flaw {
        code: Code::Contradictions,
        misleads: true,
        count: found.count,
        what: format!(
            "labels contradict themselves: {both} pairs stand there with the other label, too, and {same} hypotheses that are the premise itself are `not_entailment`"
        ),
        help: "one of the labels is wrong: mend the data".to_owned(),
        text: format!(
            "метки противоречат себе: пар, у которых есть и другая метка: {both}; гипотез, которые совпадают с посылкой, но имеют метку not_entailment: {same}"
        ),
        examples: found.examples,
    })
}

/// If rows of the training data with one premise mostly differ in their label, so must rows of both sides; and the same
/// where they mostly agree. A premise counts once, and only where training has one label of it more often.
pub fn shared_premises(rows: &[Labelled], train: &[Labelled]) -> Option<Flaw> {
    let mut known: BTreeMap<&str, Vec<Label>> = BTreeMap::new();
    for row in train {
        known.entry(&row.row.premise).or_default().push(row.label);
    }
    let several = known.values().filter(|labels| labels.len() > 1).count() as u64;
    let differ = known.values().filter(|labels| labels.len() > 1 && labels[0] != labels[1]).count() as u64;

    let mut premises = BTreeSet::new();
    let (mut same, mut different) = (Found::default(), Found::default());
    for row in rows {
        let Some(usual) = known.get(row.row.premise.as_str()).and_then(|labels| usual(labels)) else { continue };
        if premises.insert(row.row.premise.as_str()) {
            (if usual == row.label { &mut same } else { &mut different }).add(row.row.idx);
        }
    }
    let n = same.count + different.count;
    for (inside, outside, word, russian) in
        [(differ, same, "differ", "различны"), (several - differ, different, "agree", "совпадают")]
    {
        let k = outside.count;
        if shown(several, inside, 0.5) && shown(n, k, 0.5) {
            return Some(Flaw {
                code: Code::Polarity,
                misleads: true,
                count: k,
                what: format!(
                    "the labels look turned round: rows of the training data with one premise {word} in their label ({inside} of {several}), but against these rows it is the other way round ({k} of {n})"
                ),
                help: "check which label each of the two files calls which".to_owned(),
                text: format!(
                    "метки могут быть перевёрнуты: при общей посылке метки в обучающих данных чаще {russian} ({inside} из {several}), а здесь наоборот ({k} из {n})"
                ),
                examples: outside.examples,
            });
        }
    }
    None
}

/// The label that is more frequent, if one is.
fn usual(labels: &[Label]) -> Option<Label> {
    let entailed = labels.iter().filter(|label| **label == Label::Entailment).count();
    match (2 * entailed).cmp(&labels.len()) {
        std::cmp::Ordering::Greater => Some(Label::Entailment),
        std::cmp::Ordering::Less => Some(Label::NotEntailment),
        std::cmp::Ordering::Equal => None,
    }
}
