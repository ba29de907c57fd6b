//! What tests say, in words: an arm beside another, the standing of arms on a task, and the four words of a verdict.
//! It does not know templates, nor how tests are computed.

use super::comparison::{Arm, BASE, Comparison, Role, Task};
use super::delta::signed;
use super::evidence::{Effect, Test, Verdict};
use super::wording;

/// The word of a verdict.
pub fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "лучше",
        Verdict::Worse => "хуже",
        Verdict::Equivalent => "эквивалентно",
        Verdict::Indistinguishable => "не различимо",
    }
}

/// The state of an adapter in a word.
pub fn effect(effect: Effect) -> &'static str {
    match effect {
        Effect::Untrained => "не обучен",
        Effect::NotLoaded => "не загружен",
        Effect::Disabled => "отключён",
        Effect::NoEffect => "без эффекта",
        Effect::Active => "действует",
    }
}

/// True unless its certificate says that it does nothing; only such arms are ranked.
pub fn is_effective(arm: &Arm) -> bool {
    arm.certificate.as_ref().is_none_or(|certificate| certificate.state == Effect::Active)
}

/// The test of `arm` beside `against`, whichever of the two it was written for.
pub fn beside(task: &Task, arm: &str, against: &str) -> Option<Test> {
    let written = |a: &str, b: &str| task.tests.iter().find(|test| test.arm == a && test.against == b);
    written(arm, against).cloned().or_else(|| written(against, arm).map(Test::turned))
}

/// How the arms stand on a task, by its tests.
pub struct Standing<'a> {
    /// Adapters that do something and were tested, in order.
    pub ranked: Vec<&'a Arm>,
    /// Of them, those that are better than the base.
    pub better: Vec<&'a Arm>,
    /// Those that are worse than it.
    pub worse: Vec<&'a Arm>,
    /// Of the better ones, those that no other ranked adapter is better than.
    pub unbeaten: Vec<&'a Arm>,
    /// The one that is better than the base and than every other ranked adapter.
    pub winner: Option<&'a Arm>,
}

impl<'a> Standing<'a> {
    /// The standing on a task with tests.
    pub fn of(comparison: &'a Comparison, task: &Task) -> Self {
        let verdict = |arm: &Arm, against: &str| beside(task, &arm.name, against).map(|test| test.verdict);
        let ranked: Vec<&Arm> =
            comparison.adapted().filter(|arm| is_effective(arm) && verdict(arm, BASE).is_some()).collect();
        let with = |wanted| ranked.iter().copied().filter(move |arm| verdict(arm, BASE) == Some(wanted));
        let better: Vec<&Arm> = with(Verdict::Better).collect();
        let worse = with(Verdict::Worse).collect();
        let beaten = |arm: &Arm| ranked.iter().any(|other| verdict(other, &arm.name) == Some(Verdict::Better));
        let unbeaten: Vec<&Arm> = better.iter().copied().filter(|arm| !beaten(arm)).collect();
        let beats_all = |arm: &&Arm| {
            let mut others = ranked.iter().filter(|other| other.name != arm.name);
            others.all(|other| verdict(arm, &other.name) == Some(Verdict::Better))
        };
        let winner = unbeaten.iter().copied().find(|arm| beats_all(arm));
        Self { ranked, better, worse, unbeaten, winner }
    }

    /// True if the arm is shown to be as good as the base.
    fn is_kept(&self, task: &Task, arm: &Arm) -> bool {
        beside(task, &arm.name, BASE).is_some_and(|test| test.verdict == Verdict::Equivalent)
    }
}

/// `F1 +0.0512 [+0.0101; +0.0934], p = 0.012 (Холм 0.024) — лучше`.
pub fn told(task: &Task, test: &Test) -> String {
    format!(
        "{} {} [{}; {}], {} (Холм {}) — {}",
        wording::metric(&task.metric),
        signed(test.difference, 4),
        signed(test.interval.low, 4),
        signed(test.interval.high, 4),
        p_equals(test.p),
        p_value(test.p_holm),
        word(test.verdict)
    )
}

/// `0.012`, or `< 0.001`.
pub fn p_value(p: f64) -> String {
    if p < 0.001 { "< 0.001".to_owned() } else { format!("{p:.3}") }
}

/// `p = 0.012`, or `p < 0.001`.
pub fn p_equals(p: f64) -> String {
    if p < 0.001 { format!("p {}", p_value(p)) } else { format!("p = {}", p_value(p)) }
}

/// The conclusion about a task: who is better than the base, and whether one of them is better than all.
pub fn conclusion(comparison: &Comparison, task: &Task) -> String {
    let place = format!("На датасете {} ({})", task.title, wording::role(task.role));
    let metric = wording::metric(&task.metric);
    let standing = Standing::of(comparison, task);
    let names = |arms: &[&Arm]| wording::few(&arms.iter().map(|arm| arm.title.as_str()).collect::<Vec<_>>());
    if standing.ranked.is_empty() {
        return format!("{place} сравнивать нечего: действующих адаптеров нет.");
    }
    if let Some(winner) = standing.winner {
        return match standing.ranked.len() {
            1 => format!("{place} {} лучше базовой модели по {metric}.", winner.title),
            _ => format!("{place} {} лучше базовой модели и всех остальных адаптеров по {metric}.", winner.title),
        };
    }
    let losses = match standing.worse.as_slice() {
        [] => String::new(),
        worse => format!("; хуже неё: {}", names(worse)),
    };
    match (standing.better.len(), standing.unbeaten.len()) {
        (0, _) if task.role == Role::Special => {
            format!("{place} ни для одного адаптера не показано, что он лучше базовой модели по {metric}{losses}.")
        }
        (0, _) => match standing.worse.as_slice() {
            [] => {
                let kept: Vec<&Arm> =
                    standing.ranked.iter().copied().filter(|arm| standing.is_kept(task, arm)).collect();
                let margin = task.tests.first().map_or(0.0, |test| test.equivalence.margin);
                let kept = match kept.as_slice() {
                    [] => format!("; что разница меньше {margin}, не показано тоже"),
                    kept if kept.len() == standing.ranked.len() => format!("; разница меньше {margin}"),
                    kept => format!("; разница меньше {margin} показана для {}", names(kept)),
                };
                format!("{place} ухудшения по {metric} ни для одного адаптера не показано{kept}.")
            }
            worse => format!("{place} хуже базовой модели по {metric}: {}.", names(worse)),
        },
        (_, 0 | 1) => format!("{place} лучше базовой модели по {metric}: {}{losses}.", names(&standing.better)),
        _ => format!(
            "{place} лучше базовой модели по {metric}: {}{losses}; лучший среди них не определён: {} между собой не различимы.",
            names(&standing.better),
            names(&standing.unbeaten)
        ),
    }
}
