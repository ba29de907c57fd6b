//! What follows from the figures: who leads on each task and in the balance, as data and as a sentence.
//! It does not know templates. Figures that print the same are equal: a tie is never called a lead.

use std::cmp::Ordering;

use serde::Serialize;

use super::comparison::{Arm, BASE, Comparison, Role, Task};
use super::delta::{Delta, NOTHING, figure, percent, signed};
use super::overview::MOST_COLUMNS;
use super::verdicts::{self, Standing};
use super::wording::{self, enumerate};

/// How the best arms stand to the others and to the base.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ranking {
    /// Names of the arms that share the best value; empty where no arm has one.
    pub leaders: Vec<String>,
    /// How many arms have a value.
    pub ranked: usize,
    /// Their value.
    pub best: Option<f64>,
    /// `above`, `equal` or `below`: the best value beside that of the base.
    pub to_base: Option<&'static str>,
}

/// A conclusion about one task, or about the balance of both.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Conclusion {
    /// The task's id, or `balance`.
    pub subject: String,
    /// What is ranked: the metric, or `sum_of_percent`.
    pub measure: String,
    /// Who leads.
    pub ranking: Ranking,
    /// The sentence.
    pub text: String,
    /// What supports it.
    pub points: Vec<Point>,
}

/// A line below a conclusion.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// The arm that it is about; none for a remark.
    pub arm: Option<String>,
    /// The relative change or the balance in percent, where there is one.
    pub percent: Option<f64>,
    /// The words.
    pub text: String,
}

/// The conclusion about each task in order, then about the balance if tasks of both roles are there.
pub fn conclusions(comparison: &Comparison) -> Vec<Conclusion> {
    let mut all: Vec<Conclusion> = comparison.tasks.iter().map(|task| of_task(comparison, task)).collect();
    all.extend(of_balance(comparison));
    all
}

/// Ranks values as they are printed.
fn rank(values: &[(&Arm, f64)], base: f64, printed: fn(f64) -> String) -> Ranking {
    let best = values.iter().map(|(_, value)| *value).max_by(f64::total_cmp);
    let same = |a: f64, b: f64| printed(a) == printed(b);
    let leaders = values.iter().filter(|(_, value)| best.is_some_and(|best| same(*value, best)));
    let to_base = best.map(|best| match best.total_cmp(&base) {
        _ if same(best, base) => "equal",
        Ordering::Less => "below",
        _ => "above",
    });
    Ranking { leaders: leaders.map(|(arm, _)| arm.name.clone()).collect(), ranked: values.len(), best, to_base }
}

/// By the tests: who is better than the base, and whether one is better than all; each arm's own test below.
fn by_tests(comparison: &Comparison, task: &Task) -> Conclusion {
    let standing = Standing::of(comparison, task);
    let leaders: Vec<&Arm> = standing.winner.map_or_else(|| standing.unbeaten.clone(), |winner| vec![winner]);
    let to_base = match (standing.better.is_empty(), standing.worse.len() == standing.ranked.len()) {
        (false, _) => "above",
        (true, true) => "below",
        (true, false) => "equal",
    };
    let ranking = Ranking {
        best: leaders.iter().filter_map(|arm| task.figure(&arm.name, &task.metric)).reduce(if task.lower_is_better {
            f64::min
        } else {
            f64::max
        }),
        leaders: leaders.iter().map(|arm| arm.name.clone()).collect(),
        ranked: standing.ranked.len(),
        to_base: (!standing.ranked.is_empty()).then_some(to_base),
    };
    let arms: Vec<&Arm> = comparison.adapted().collect();
    let many = arms.len() > MOST_COLUMNS;
    let mut points = Vec::new();
    for arm in &arms {
        let Some(test) = verdicts::beside(task, &arm.name, BASE) else { continue };
        // What does nothing has no verdict.
        let is_told = verdicts::is_effective(arm);
        if is_told && !many || standing.better.iter().any(|better| better.name == arm.name) {
            let text = format!("{} против базовой модели: {}", arm.title, verdicts::told(task, &test));
            points.push(Point { arm: Some(arm.name.clone()), percent: None, text });
        }
        points.extend(same_answers(task, arm));
    }
    for (i, against) in standing.ranked.iter().enumerate() {
        for arm in standing.ranked[i + 1..].iter().filter(|_| !many) {
            let Some(test) = verdicts::beside(task, &arm.name, &against.name) else { continue };
            let text = format!("{} против {}: {}", arm.title, against.title, verdicts::told(task, &test));
            points.push(Point { arm: Some(arm.name.clone()), percent: None, text });
        }
    }
    let (subject, measure) = (task.id.clone(), task.metric.clone());
    Conclusion { subject, measure, ranking, text: verdicts::conclusion(comparison, task), points }
}

/// What is said of an arm all of whose answers are the base's, or whose figure is, whatever it answers.
fn same_answers(task: &Task, arm: &Arm) -> Option<Point> {
    let same_figure = task.figure(&arm.name, &task.metric).map(figure) == task.figure(BASE, &task.metric).map(figure);
    let (answers, n) = task.against_base(&arm.name).zip(task.n)?;
    let text = match (answers.different, answers.scores_different) {
        (0, Some(scores)) if scores > 0 => {
            format!("{}: все {n} ответов те же, хотя оценки вариантов изменились в {scores} из {n}", arm.title)
        }
        (0, _) => format!(
            "{}: все ответы совпали с ответами базовой модели — адаптер не подействовал или не обучен",
            arm.title
        ),
        (different, _) if same_figure => format!(
            "{}: {} та же, что у базовой модели, хотя ответы различаются в {different} из {n}",
            arm.title,
            wording::metric(&task.metric)
        ),
        _ => return None,
    };
    Some(Point { arm: Some(arm.name.clone()), percent: None, text })
}

fn of_task(comparison: &Comparison, task: &Task) -> Conclusion {
    if !task.tests.is_empty() {
        return by_tests(comparison, task);
    }
    let arms: Vec<&Arm> = comparison.adapted().collect();
    let metric = wording::metric(&task.metric);
    let place = format!("На датасете {} ({})", task.title, wording::role(task.role));
    let base = task.figure(BASE, &task.metric);
    let values: Vec<(&Arm, f64)> =
        arms.iter().filter_map(|arm| Some((*arm, task.figure(&arm.name, &task.metric)?))).collect();
    let ranking = match base {
        Some(base) => rank(&values, base, figure),
        None => Ranking { to_base: None, ..rank(&values, 0.0, figure) },
    };
    let leaders = titles(&arms, &ranking.leaders);
    let names = enumerate(&leaders, "и");
    let text = match (leaders.len(), ranking.to_base) {
        (0, _) => format!("{place} ни один адаптер не оценён."),
        (_, None) => format!("{place} базовая модель не оценена по {metric}."),
        (1, Some(to_base)) if arms.len() == 1 => match to_base {
            "above" => format!("{place} метод {names} превзошёл базовую модель по {metric}."),
            "below" => format!("{place} метод {names} уступил базовой модели по {metric}."),
            _ => format!("{place} метод {names} не отличается от базовой модели по {metric}."),
        },
        // Figures alone (no records) say how adapters stand to each other; with records the base counts too.
        (_, Some("equal")) if task.n.is_some() => {
            let verb = if leaders.len() == 1 { "не отличается" } else { "не отличаются" };
            format!("{place} ни один метод не превзошёл базовую модель: {names} {verb} от неё по {metric}.")
        }
        (_, Some("below")) if task.n.is_some() => {
            format!("{place} ни один метод не превзошёл базовую модель; ближе всех к ней {names}.")
        }
        (1, _) => format!("{place} лучшие результаты показал метод {names}."),
        (n, _) if n == ranking.ranked => format!("{place} методы {names} показали одинаковые результаты."),
        _ => format!("{place} лучшие результаты одинаковы у методов {names}."),
    };
    let points = arms.iter().flat_map(|arm| points_of(task, arm, &ranking, arms.len() > MOST_COLUMNS)).collect();
    Conclusion { subject: task.id.clone(), measure: task.metric.clone(), ranking, text, points }
}

/// What is said about one arm on one task; among many arms only leaders and oddities are named.
fn points_of(task: &Task, arm: &Arm, ranking: &Ranking, many: bool) -> Vec<Point> {
    let metric = wording::metric(&task.metric);
    let point = |percent, text| Point { arm: Some(arm.name.clone()), percent, text };
    let Some(value) = task.figure(&arm.name, &task.metric) else {
        return vec![point(None, format!("{}: нет результатов на этом датасете", arm.title))];
    };
    let Some(base) = task.figure(BASE, &task.metric) else { return Vec::new() };
    let change = Delta::of(value, base).percent;
    let mut points = Vec::new();
    if !many || ranking.leaders.contains(&arm.name) {
        let text = format!("{}: изменение {metric} {} относительно базовой модели", arm.title, percent(change));
        points.push(point(change, text));
    }
    if let Some((answers, n)) = task.against_base(&arm.name).zip(task.n) {
        let same_figure = figure(value) == figure(base);
        let text = match (answers.different, answers.scores_different) {
            (0, Some(scores)) if scores > 0 => Some(format!(
                "{}: не отличается от базовой модели: все {n} ответов те же, хотя оценки вариантов изменились в {scores} из {n}",
                arm.title
            )),
            (0, _) => Some(format!(
                "{}: все ответы совпали с ответами базовой модели — адаптер не подействовал или не обучен",
                arm.title
            )),
            (different, _) if same_figure => Some(format!(
                "{}: не отличается от базовой модели по {metric}, хотя ответы различаются в {different} из {n}",
                arm.title
            )),
            _ => None,
        };
        points.extend(text.map(|text| point(None, text)));
    }
    points
}

fn of_balance(comparison: &Comparison) -> Option<Conclusion> {
    let has = |role| comparison.tasks.iter().any(|task| task.role == role);
    if !(has(Role::General) && has(Role::Special)) {
        return None;
    }
    let arms: Vec<&Arm> = comparison.adapted().collect();
    let balances: Vec<(&Arm, Option<f64>)> = arms.iter().map(|arm| (*arm, balance(comparison, arm))).collect();
    let values: Vec<(&Arm, f64)> = balances.iter().filter_map(|(arm, value)| Some((*arm, (*value)?))).collect();
    let ranking = rank(&values, 0.0, |value| signed(value, 2));
    let names = enumerate(&titles(&arms, &ranking.leaders), "и");
    let place = "С точки зрения баланса между специализацией и сохранением общих способностей";
    let tested = comparison.tasks.iter().any(|task| !task.tests.is_empty());
    let text = match (ranking.leaders.len(), ranking.to_base) {
        _ if tested => "Сумма относительных изменений, как в прежних отчётах: по ней ничего не решается.".to_owned(),
        (0, _) | (_, None) => format!("{place} методы не сравнимы: баланс не определён."),
        (1, Some(to_base)) if arms.len() == 1 => match to_base {
            "above" => format!("{place} метод {names} выигрывает у базовой модели."),
            "below" => format!("{place} метод {names} проигрывает базовой модели."),
            _ => format!("{place} метод {names} не отличается от базовой модели."),
        },
        (_, Some("equal" | "below")) if comparison.has_records() => {
            format!("{place} ни один метод не дал выигрыша; лучшее значение у {names}.")
        }
        (1, _) => format!("{place} лучше справился метод {names}."),
        (n, _) if n == ranking.ranked => format!("{place} методы {names} справились одинаково."),
        _ => format!("{place} лучше и одинаково справились методы {names}."),
    };
    let many = arms.len() > MOST_COLUMNS;
    let shown = balances.iter().filter(|(arm, _)| !many || ranking.leaders.contains(&arm.name));
    let mut points: Vec<Point> = shown
        .map(|(arm, value)| {
            let words = value.map_or_else(|| NOTHING.to_owned(), |value| signed(value, 2));
            Point {
                arm: Some(arm.name.clone()), percent: *value, text: format!("{}: общий баланс {words}", arm.title)
            }
        })
        .collect();
    if comparison.has_records() {
        let parts: Vec<String> = balanced(comparison).map(measured).collect();
        let text = format!(
            "баланс — сумма относительных изменений в процентах: {}; складываются разные величины, поэтому это лишь ориентир",
            enumerate(&parts, "и")
        );
        points.push(Point { arm: None, percent: None, text });
    }
    Some(Conclusion { subject: "balance".to_owned(), measure: "sum_of_percent".to_owned(), ranking, text, points })
}

/// `F1 (macro) на TERRa`.
fn measured(task: &Task) -> String {
    let average = task.average_of(&task.metric).map_or_else(String::new, |average| format!(" ({average})"));
    format!("{}{average} на {}", wording::metric(&task.metric), task.title)
}

/// The tasks whose relative changes are added up: those where more is better.
fn balanced(comparison: &Comparison) -> impl Iterator<Item = &Task> {
    comparison.tasks.iter().filter(|task| task.role != Role::Retention)
}

/// The sum of an arm's relative changes over all tasks; `None` where one of them does not exist.
pub fn balance(comparison: &Comparison, arm: &Arm) -> Option<f64> {
    balanced(comparison).try_fold(0.0, |sum, task| {
        let value = task.figure(&arm.name, &task.metric)?;
        let base = task.figure(BASE, &task.metric)?;
        Some(sum + Delta::of(value, base).percent?)
    })
}

/// The titles of the arms with these names.
pub fn titles(arms: &[&Arm], names: &[String]) -> Vec<String> {
    arms.iter().filter(|arm| names.contains(&arm.name)).map(|arm| arm.title.clone()).collect()
}
