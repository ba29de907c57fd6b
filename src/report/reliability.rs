//! How far the figures can be trusted, in lines of text: tests and intervals, certificates, budgets, leaks.
//! It does not know templates, nor who is recommended.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::comparison::{Arm, BASE, Comparison, Figures, Task};
use super::delta::figure;
use super::evidence::{Settings, Training};
use super::overview::MOST_COLUMNS;
use super::verdicts;
use super::wording;

/// Lines on one subject.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Section {
    /// The subject.
    pub title: String,
    /// What is known.
    pub lines: Vec<String>,
}

/// All subjects of which something is known.
pub fn reliability(comparison: &Comparison) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let mut add = |title: String, lines: Vec<String>| {
        if !lines.is_empty() {
            sections.push(Section { title, lines });
        }
    };
    if let Some(settings) = &comparison.settings {
        for task in &comparison.tasks {
            add(task.title.clone(), of_task(comparison, task, settings));
        }
    }
    add("Действие адаптеров".to_owned(), comparison.adapted().filter_map(effect).collect());
    add("Бюджеты".to_owned(), budgets(comparison));
    if comparison.settings.is_some() {
        add("Как повторить".to_owned(), repeat(comparison));
    }
    sections
}

fn of_task(comparison: &Comparison, task: &Task, settings: &Settings) -> Vec<String> {
    let mut lines = Vec::new();
    let metric = wording::metric(&task.metric);
    if let Some((what, count)) = &task.clusters {
        let by = match what.as_str() {
            "document" => "документы",
            "premise" => "посылки",
            _ => "примеры",
        };
        lines.push(format!(
            "интервалы {:.0} % и проверки — по {} перевыборкам; единица перевыборки — {by} ({count})",
            100.0 * (1.0 - settings.alpha),
            settings.resamples
        ));
    }
    let runs: BTreeSet<usize> = task.by_seed.values().map(BTreeMap::len).collect();
    if let Some((least, most)) = runs.first().zip(runs.last()) {
        let range = if least == most { most.to_string() } else { format!("от {least} до {most}") };
        lines.push(format!("обученные несколько раз: значения — средние по запускам; запусков {range}"));
    }
    for arm in shown(comparison) {
        let Some(interval) = task.intervals.get(&arm.name).and_then(|all| all.get(&task.metric)) else { continue };
        let value = task.figure(&arm.name, &task.metric).map(figure).unwrap_or_default();
        let mut line = format!("{}: {metric} {value} [{}; {}]", arm.title, figure(interval.low), figure(interval.high));
        if let Some(values) = task.by_seed.get(&arm.name) {
            let (low, high) = values.values().fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(*v), high.max(*v)));
            line.push_str(&format!("; запусков {}, от {} до {}", values.len(), figure(low), figure(high)));
        }
        lines.push(line);
    }
    if let Some(margin) = task.tests.first().map(|test| test.equivalence.margin) {
        lines.push(format!(
            "эквивалентными считаются варианты, если показано, что {metric} отличается меньше чем на {margin}, даже если само отличие значимо"
        ));
    }
    let detectable = task.tests.iter().filter(|test| test.against == BASE).filter_map(|test| {
        let pair = test.discordant?;
        let title = &comparison.arms.iter().find(|arm| arm.name == test.arm)?.title;
        let least = pair.detectable.map_or_else(|| "нет".to_owned(), |least| format!("{least:.3}"));
        Some(format!(
            "{title}: исправлено {}, испорчено {}; точный критерий Макнемара {}; обнаружимая разница {least}",
            pair.fixed,
            pair.broken,
            verdicts::p_equals(pair.exact_p)
        ))
    });
    if comparison.adapted().count() <= MOST_COLUMNS {
        lines.extend(detectable);
    }
    for shortcut in &task.shortcuts {
        lines.push(format!("без модели, {}: {}", shortcut.title, figures(&shortcut.figures, task)));
    }
    if let Some(leaks) = &task.leaks {
        let what = if leaks.what == "premise" { "посылка" } else { "предложение" };
        lines.push(format!("{what} есть и в обучающих данных: {} из {}", leaks.shared, leaks.total));
        for arm in shown(comparison).filter(|_| leaks.shared > 0) {
            if let Some(found) = leaks.leak_free.get(&arm.name).filter(|found| !found.is_empty()) {
                let rest = leaks.total - leaks.shared;
                lines.push(format!("{} на остальных {rest}: {}", arm.title, figures(found, task)));
            }
        }
    }
    for arm in shown(comparison) {
        if let Some(mass) = task.label_mass.get(&arm.name) {
            lines.push(format!("{}: доля вероятности на вариантах ответа {mass:.3}", arm.title));
        }
    }
    lines.extend(variants(comparison, task));
    lines.extend(task.findings.iter().map(|finding| finding.text.clone()));
    lines
}

/// The base and all adapters, or, of many, the base alone: the table of variants has the rest.
fn shown(comparison: &Comparison) -> impl Iterator<Item = &Arm> {
    let few = comparison.adapted().count() <= MOST_COLUMNS;
    comparison.base().into_iter().chain(comparison.adapted().filter(move |_| few))
}

/// `Accuracy 0.6091, F1 0.6083`.
fn figures(figures: &Figures, task: &Task) -> String {
    let known = task.metrics().into_iter().filter_map(|metric| {
        let value = figures.get(&metric)?;
        Some(format!("{} {}", wording::metric(&metric), figure(*value)))
    });
    known.collect::<Vec<_>>().join(", ")
}

/// What other prompts change: the worst and the mean of each arm, and whether the best arm changes.
fn variants(comparison: &Comparison, task: &Task) -> Vec<String> {
    if task.variants.is_empty() {
        return Vec::new();
    }
    let mut lines = Vec::new();
    let metric = wording::metric(&task.metric);
    for arm in shown(comparison) {
        let values: Vec<f64> =
            task.variants.iter().filter_map(|variant| variant.values.get(&arm.name)).copied().collect();
        if values.is_empty() {
            continue;
        }
        let worst = if task.lower_is_better { f64::max } else { f64::min };
        let least = values.iter().copied().reduce(worst).unwrap_or_default();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        lines.push(format!(
            "{}: формулировок {}, {metric} в худшем случае {}, в среднем {}",
            arm.title,
            values.len(),
            figure(least),
            figure(mean)
        ));
    }
    lines.push(
        if reorders(task) {
            "порядок вариантов зависит от формулировки"
        } else {
            "порядок вариантов от формулировки не зависит"
        }
        .to_owned(),
    );
    lines
}

/// True if two arms stand the one way round by one wording and the other way round by another, as figures print.
pub fn reorders(task: &Task) -> bool {
    let ways = |a: &str, b: &str| -> BTreeSet<Ordering> {
        let pairs = task.variants.iter().filter_map(|variant| variant.values.get(a).zip(variant.values.get(b)));
        pairs.filter(|(x, y)| figure(**x) != figure(**y)).map(|(x, y)| x.total_cmp(y)).collect()
    };
    let arms: BTreeSet<&String> = task.variants.iter().flat_map(|variant| variant.values.keys()).collect();
    arms.iter().any(|a| arms.iter().any(|b| ways(a, b).len() > 1))
}

fn effect(arm: &Arm) -> Option<String> {
    let certificate = arm.certificate.as_ref()?;
    let mut line = format!(
        "{}: {} — {}; тензоров на своих местах {} из {}",
        arm.title,
        verdicts::effect(certificate.state),
        certificate.reason,
        certificate.tensors.placed,
        certificate.tensors.expected
    );
    if let Some(probe) = &certificate.probe {
        line.push_str(&format!(
            "; на {} пробных входах логиты изменились до {:.3}, первый токен другой на {}",
            probe.inputs, probe.max_logit_change, probe.argmax_flips
        ));
    }
    Some(line)
}

/// By which commands and versions the same comes out again, and where time and machine are told: they stand in no
/// report, so that it depends on neither.
fn repeat(comparison: &Comparison) -> Vec<String> {
    let told = |values: &BTreeMap<String, String>| {
        values.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ")
    };
    let mut lines = vec![
        "`pipe run` с тем же файлом и теми же данными даёт на той же машине те же байты; внешние источники закреплены в `pipe.lock`"
            .to_owned(),
    ];
    if let Some(known) = &comparison.provenance {
        if !known.environment.is_empty() {
            lines.push(format!("среда, от которой зависят ответы: {}", told(&known.environment)));
        }
        if !known.data.is_empty() {
            lines.push(format!("хэши содержимого: {}", told(&known.data)));
        }
    }
    lines.push(
        "когда, сколько времени и на каком оборудовании шли запуски, показывает `pipe runs --run last`".to_owned(),
    );
    lines
}

/// What of trainings is compared, and how it is called.
type Compared = (&'static str, fn(&Training) -> String);

fn budgets(comparison: &Comparison) -> Vec<String> {
    let known: Vec<(&Arm, &Training)> =
        comparison.adapted().filter_map(|arm| Some((arm, arm.training.first()?))).collect();
    let line = |(arm, training): &(&Arm, &Training)| {
        let trials = arm.selection.as_ref().map_or(1, |selection| selection.trials);
        format!(
            "{}: обучаемых параметров {}, шагов {}, токенов {}, из них с ответом {}, скорость обучения {}, проб {trials}",
            arm.title, arm.trainable_parameters, training.steps, training.tokens, training.target_tokens, training.lr
        )
    };
    if known.len() > MOST_COLUMNS {
        let differ =
            |what: fn(&Training) -> String| known.iter().map(|(_, t)| what(t)).collect::<BTreeSet<_>>().len() > 1;
        let fields: [Compared; 5] = [
            ("данные", |t| t.data.clone()),
            ("шаги", |t| t.steps.to_string()),
            ("токены", |t| t.tokens.to_string()),
            ("скорость обучения", |t| t.lr.to_string()),
            ("размер шага", |t| t.batch_size.to_string()),
        ];
        let named: Vec<&str> = fields.iter().filter(|(_, what)| differ(*what)).map(|(name, _)| *name).collect();
        return vec![match named.as_slice() {
            [] => "данные, шаги, токены и скорость обучения у всех вариантов одинаковы".to_owned(),
            named => format!("у вариантов различаются: {}", named.join(", ")),
        }];
    }
    let mut lines: Vec<String> = known.iter().map(line).collect();
    if known.iter().map(|(_, training)| &training.data).collect::<BTreeSet<_>>().len() > 1 {
        lines.push("обучающие данные различаются".to_owned());
    }
    lines
}
