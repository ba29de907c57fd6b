//! Which adapter to take, and how sure that is, as far as the tests carry it.
//! It does not know templates; sums of relative changes have no part in it.

use std::collections::BTreeSet;

use serde::Serialize;

use super::comparison::{Arm, BASE, Comparison, Role, Task};
use super::delta::signed;
use super::evidence::Verdict;
use super::verdicts::{self, Standing};
use super::wording;

/// What is decided, and what it rests on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Decision {
    /// The sentence.
    pub text: String,
    /// How sure it is, and what stands against it.
    pub points: Vec<String>,
    /// Names of the arms that may be taken; one, if the tests name it.
    pub arms: Vec<String>,
}

/// The decision; `None` where no task was tested.
pub fn decision(comparison: &Comparison) -> Option<Decision> {
    let tested = || comparison.tasks.iter().filter(|task| !task.tests.is_empty());
    let deciding = tested().find(|task| task.role == Role::Special).or_else(|| tested().next())?;
    let kept: Vec<&Task> = tested().filter(|task| task.id != deciding.id).collect();
    let standing = Standing::of(comparison, deciding);
    // Hardly any training leaves the loss on other text as it was: that is a price, told below, and no veto.
    let harmed = |arm: &Arm| -> Vec<&Task> {
        let worse = kept.iter().copied().filter(|task| is(task, arm, Verdict::Worse));
        worse.filter(|task| task.role != Role::Retention).collect()
    };
    let safe: Vec<&Arm> = standing.better.iter().copied().filter(|arm| harmed(arm).is_empty()).collect();
    let beaten = |arm: &Arm| safe.iter().any(|other| against(deciding, other, &arm.name) == Some(Verdict::Better));
    let candidates: Vec<&Arm> = safe.iter().copied().filter(|arm| !beaten(arm)).collect();

    let mut points = Vec::new();
    let text = match candidates.as_slice() {
        [] if standing.better.is_empty() => {
            points.extend(undetected(deciding));
            format!(
                "Ни один из адаптеров не рекомендуется: на датасете {} не показано, что он лучше базовой модели.",
                deciding.title
            )
        }
        [] => {
            for arm in &standing.better {
                let tasks: Vec<&str> = harmed(arm).iter().map(|task| task.title.as_str()).collect();
                points.push(format!("{}: хуже базовой модели — {}", arm.title, tasks.join(", ")));
            }
            format!(
                "Выбор зависит от цены ухудшения: на датасете {} лучше базовой модели {}, но каждый из них хуже её на другом.",
                deciding.title,
                titles(&standing.better)
            )
        }
        [one] => match uneven_trials(&standing.ranked) {
            Some(trials) if standing.ranked.len() > 1 => {
                points.push(trials);
                format!(
                    "Лучший адаптер не назван: на датасете {} впереди {}, но настройки подбирались с разным числом проб.",
                    deciding.title, one.title
                )
            }
            _ => format!("Рекомендуется {}: {}.", one.title, reasons(deciding, &kept, one)),
        },
        several => {
            let least = several.iter().min_by_key(|arm| arm.trainable_parameters).map_or("", |arm| arm.title.as_str());
            format!(
                "Выбор между {} тестами не решается: каждый лучше базовой модели на датасете {}; меньше всего обучаемых параметров у {least}.",
                titles(several),
                deciding.title
            )
        }
    };
    for arm in &candidates {
        for task in std::iter::once(deciding).chain(kept.iter().copied()) {
            let Some(test) = verdicts::beside(task, &arm.name, BASE) else { continue };
            let mut line = format!("{}, {}: {}", arm.title, task.title, verdicts::told(task, &test));
            if test.verdict == Verdict::Indistinguishable {
                let worst = if task.lower_is_better { test.interval.high } else { test.interval.low };
                line.push_str(&format!("; ухудшение до {} не исключено", signed(worst, 4)));
            }
            points.push(line);
        }
    }
    if let [one] = candidates.as_slice() {
        points.extend(unproven(deciding, &standing.ranked, one));
    }
    points.extend(outdone(deciding, &candidates));
    points.extend(cautions(comparison, &candidates));
    Some(Decision { text, points, arms: candidates.iter().map(|arm| arm.name.clone()).collect() })
}

fn against(task: &Task, arm: &Arm, other: &str) -> Option<Verdict> {
    verdicts::beside(task, &arm.name, other).map(|test| test.verdict)
}

fn is(task: &Task, arm: &Arm, verdict: Verdict) -> bool {
    against(task, arm, BASE) == Some(verdict)
}

fn titles(arms: &[&Arm]) -> String {
    wording::few(&arms.iter().map(|arm| arm.title.as_str()).collect::<Vec<_>>())
}

/// Why it is taken: what it gains, and what it keeps.
fn reasons(deciding: &Task, kept: &[&Task], arm: &Arm) -> String {
    let metric = wording::metric(&deciding.metric);
    let gain = verdicts::beside(deciding, &arm.name, BASE).map_or(0.0, |test| test.difference);
    let mut parts = vec![format!("на датасете {} {metric} {}", deciding.title, signed(gain, 4))];
    for task in kept {
        let Some(verdict) = against(task, arm, BASE) else { continue };
        parts.push(match verdict {
            Verdict::Worse => format!("но на датасете {} хуже базовой модели", task.title),
            Verdict::Better => format!("на датасете {} лучше базовой модели", task.title),
            Verdict::Equivalent => format!("на датасете {} эквивалентно базовой модели", task.title),
            Verdict::Indistinguishable => format!("на датасете {} ухудшение не показано", task.title),
        });
    }
    parts.join(", ")
}

/// What difference would have been found, where none was.
fn undetected(task: &Task) -> Option<String> {
    let smallest = |test: &super::evidence::Test| test.discordant.and_then(|pair| pair.detectable);
    let found: Vec<f64> = task.tests.iter().filter(|test| test.against == BASE).filter_map(smallest).collect();
    let most = found.into_iter().reduce(f64::max)?;
    Some(format!("разницу долей правильных ответов меньше {most:.3} при этом числе примеров обычно не обнаружить"))
}

/// Adapters that the recommended one is not shown to be better than: that they are not shown to be better than the base
/// is no proof of a difference.
fn unproven(task: &Task, ranked: &[&Arm], one: &Arm) -> Option<String> {
    let open: Vec<&Arm> = ranked
        .iter()
        .copied()
        .filter(|other| other.name != one.name && against(task, one, &other.name) != Some(Verdict::Better))
        .collect();
    (!open.is_empty())
        .then(|| format!("что {} лучше, чем {}, на датасете {} не показано", one.title, titles(&open), task.title))
}

/// Rules without a model that reach more than an arm.
fn outdone(task: &Task, arms: &[&Arm]) -> Vec<String> {
    let value = |arm: &Arm| task.figure(&arm.name, &task.metric);
    let ahead = |arm: &&&Arm, rule: f64| value(arm).is_some_and(|value| value <= rule);
    let told = |shortcut: &super::evidence::Shortcut| {
        let rule = *shortcut.figures.get(&task.metric)?;
        let behind: Vec<&Arm> = arms.iter().filter(|arm| ahead(arm, rule)).copied().collect();
        (!behind.is_empty()).then(|| {
            format!(
                "на датасете {} правило без модели («{}») даёт {} {}: не меньше, чем {}",
                task.title,
                shortcut.title,
                wording::metric(&task.metric),
                super::delta::figure(rule),
                titles(&behind)
            )
        })
    };
    task.shortcuts.iter().filter_map(told).collect()
}

/// Arms that were chosen among different numbers of trials.
fn uneven_trials(arms: &[&Arm]) -> Option<String> {
    let trials = |arm: &Arm| arm.selection.as_ref().map_or(1, |selection| selection.trials);
    let all: BTreeSet<u64> = arms.iter().map(|arm| trials(arm)).collect();
    let told = || arms.iter().map(|arm| format!("{} — {}", arm.title, trials(arm))).collect::<Vec<_>>().join(", ");
    (all.len() > 1).then(|| format!("число проб при подборе настроек: {}", told()))
}

/// What stands against a decision: one run each, unequal budgets, adapters without effect.
fn cautions(comparison: &Comparison, candidates: &[&Arm]) -> Vec<String> {
    let mut points = Vec::new();
    let idle = comparison.adapted().filter(|arm| !verdicts::is_effective(arm));
    for arm in idle {
        let state = arm.certificate.as_ref().map_or("", |certificate| verdicts::effect(certificate.state));
        points.push(format!("{} не сравнивается: адаптер {state}", arm.title));
    }
    if comparison.adapted().all(|arm| arm.seeds.is_empty()) && comparison.adapted().next().is_some() {
        points.push("каждый вариант обучен один раз: разброс между запусками не измерен".to_owned());
    }
    let budgets: BTreeSet<u64> = candidates.iter().map(|arm| arm.trainable_parameters).collect();
    if budgets.len() > 1 {
        points.push("число обучаемых параметров у них различается".to_owned());
    }
    points
}
