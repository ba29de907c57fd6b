//! The gold gate: what is wrong with the data stops the run, or becomes a finding that reaches the report.
//! It does not know how flaws are found.

use super::{Params, nerus, terra};
use crate::error::{Problem, Result};
use crate::report::evidence::Finding;
use crate::step::Context;
use crate::task::gate::{self, Flaw};
use crate::task::terra::labelled;

/// What is wrong with rows of TERRa, and what they share with the training data of the input `train`.
pub fn terra(params: &Params, cx: &Context, items: &[terra::Item]) -> Result<Vec<Flaw>> {
    let mut train = Vec::new();
    for artifact in cx.inputs("train") {
        train.extend(labelled(&artifact.path, &artifact.label(), None, params.label2id)?);
    }
    let rows: Vec<_> = items.iter().map(|item| item.row.clone()).collect();
    Ok(gate::terra::flaws(&rows, &train))
}

/// The same of sentences of Nerus.
pub fn nerus<'a>(cx: &Context, items: &'a [nerus::Item]) -> Result<Vec<Flaw>> {
    let mut train = gate::nerus::Train::default();
    for artifact in cx.inputs("train") {
        train.read(&artifact.path, &artifact.label())?;
    }
    let item = |item: &'a nerus::Item| gate::nerus::Item {
        document: &item.document,
        id: &item.sentence.id,
        text: &item.sentence.text,
        entities: &item.sentence.entities,
    };
    let items: Vec<gate::nerus::Item> = items.iter().map(item).collect();
    Ok(gate::nerus::flaws(&items, &train))
}

/// The first flaw that misleads and is not allowed is an error; all others are told and kept.
pub fn judge(params: &Params, cx: &Context, n: usize, flaws: &[Flaw]) -> Result<Vec<Finding>> {
    let data = cx.input("data")?.label();
    if let Some(wanted) = params.items.filter(|wanted| *wanted != n as u64) {
        return Err(Problem::new(format!("{data} has {n} items, and `items` says {wanted}"))
            .help("was the file cut short, or is it another one?"));
    }
    if let Some(flaw) = flaws.iter().find(|flaw| flaw.misleads && !params.allow.contains(&flaw.code)) {
        let ids = if flaw.examples.is_empty() { String::new() } else { format!(": {}", flaw.examples.join(", ")) };
        return Err(Problem::new(format!("{data}: {}{ids}", flaw.what)).help(format!(
            "{}; where it is meant so, `allow: [{}]`",
            flaw.help,
            flaw.code.name()
        )));
    }
    let finding = |flaw: &Flaw| {
        cx.warn(format!("{data}: {}", flaw.what));
        Finding {
            code: flaw.code.name().to_owned(),
            severity: "warning".to_owned(),
            count: flaw.count,
            text: flaw.text.clone(),
            examples: flaw.examples.clone(),
        }
    };
    Ok(flaws.iter().map(finding).collect())
}
