//! The same task asked in other words: other prompts, other words for the labels, scored or generated.
//! It does not know what the words mean.

use std::collections::BTreeMap;

use super::Labelled;
use super::arms::Arms;
use super::assemble::main_value;
use crate::error::{Problem, Result};
use crate::report::comparison::{BASE, Task};
use crate::report::evidence::Variant;
use crate::report::results::Asked;

/// The longest part of a prompt that a name of a variant shows.
const SHOWN: usize = 60;

/// The results that were asked like `main`, and the others.
pub fn divide<'a>(results: &[&'a Labelled], main: &Asked) -> (Vec<&'a Labelled>, Vec<&'a Labelled>) {
    results.iter().partition(|one| one.result.metrics.asked == *main)
}

/// The metric of the task by arm for every way of asking, the main one first; empty where there is only that.
pub fn variants(task: &Task, arms: &Arms, main: &Asked, others: &[&Labelled]) -> Result<Vec<Variant>> {
    if others.is_empty() {
        return Ok(Vec::new());
    }
    let main_values = task.results.iter().filter_map(|(arm, figures)| Some((arm.clone(), *figures.get(&task.metric)?)));
    let mut variants = vec![Variant { name: name(main, None), values: main_values.collect() }];
    let mut asked: Vec<&Asked> = Vec::new();
    for one in others {
        if !asked.contains(&&one.result.metrics.asked) {
            asked.push(&one.result.metrics.asked);
        }
    }
    for way in asked {
        let mut values: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for one in others.iter().filter(|one| one.result.metrics.asked == *way) {
            let (arm, _) = arms.member(&one.result.metrics.arm.name);
            values.entry(arm.to_owned()).or_default().extend(main_value(task, one));
        }
        if !values.contains_key(BASE) {
            return Err(Problem::new(format!(
                "on the task `{}` no result of the base was asked as the others: {}",
                task.id,
                name(way, Some(main))
            ))
            .help("evaluate the base with the same prompts and answers as the adapters"));
        }
        let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let values = values.into_iter().map(|(arm, values)| (arm, mean(values))).collect();
        variants.push(Variant { name: name(way, Some(main)), values });
    }
    Ok(variants)
}

/// What is told of a way of asking: all of it, or what differs from the main one.
fn name(asked: &Asked, main: Option<&Asked>) -> String {
    let mut parts = Vec::new();
    if main.is_none_or(|main| main.mode != asked.mode) {
        parts.push(asked.mode.clone());
    }
    if main.is_none_or(|main| main.answers != asked.answers) {
        let words: Vec<&str> = asked.answers.values().map(|word| word.trim()).collect();
        parts.push(words.join(" / "));
    }
    if main.is_none_or(|main| main.prompt != asked.prompt) {
        let line = asked.prompt.split_whitespace().collect::<Vec<_>>().join(" ");
        let cut: String = line.chars().take(SHOWN).collect();
        parts.push(if cut.len() < line.len() { format!("«{cut}…»") } else { format!("«{cut}»") });
    }
    parts.retain(|part| !part.is_empty());
    parts.join("; ")
}
