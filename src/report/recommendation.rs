//! What to do next, as it follows from the conclusions and from what was already tried.
//! It does not know templates.

use std::collections::BTreeSet;

use serde::Serialize;

use super::comparison::{Adapter, Arm, Comparison, Role};
use super::conclusion::{Conclusion, titles};
use super::decision::decision;
use super::wording::{enumerate, parameters};

/// A recommendation and its parts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recommendation {
    /// `choice` or `experiments`.
    pub subject: String,
    /// The sentence.
    pub text: String,
    /// The parts.
    pub points: Vec<String>,
}

/// Which adapters to use, and which experiments to make.
pub fn recommendations(comparison: &Comparison, conclusions: &[Conclusion]) -> Vec<Recommendation> {
    let mut all: Vec<Recommendation> = choice(comparison, conclusions).into_iter().collect();
    let points = experiments(comparison);
    if !points.is_empty() {
        let text = "Рекомендуемые дальнейшие эксперименты:".to_owned();
        all.push(Recommendation { subject: "experiments".to_owned(), text, points });
    }
    all
}

/// By the balance; by the special task where there is no balance.
fn choice(comparison: &Comparison, conclusions: &[Conclusion]) -> Option<Recommendation> {
    if let Some(decision) = decision(comparison) {
        return Some(Recommendation { subject: "choice".to_owned(), text: decision.text, points: decision.points });
    }
    let arms: Vec<&Arm> = comparison.adapted().collect();
    let special = comparison.tasks.iter().find(|task| task.role == Role::Special).or(comparison.tasks.first());
    let by_balance = conclusions.iter().find(|conclusion| conclusion.subject == "balance");
    let of_special = || conclusions.iter().find(|c| special.is_some_and(|task| task.id == c.subject));
    let deciding = by_balance.or_else(of_special)?;
    let leaders = titles(&arms, &deciding.ranking.leaders);
    let reason = if by_balance.is_some() {
        "для лучшего баланса между специализацией и общими способностями".to_owned()
    } else {
        format!("на датасете {}", special.map_or("", |task| task.title.as_str()))
    };
    let text = match (deciding.ranking.to_base?, leaders.as_slice()) {
        ("above", [one]) => format!("Рекомендуется использовать {one} адаптеры {reason}."),
        ("above", _) => {
            let sizes: Vec<String> = arms
                .iter()
                .filter(|arm| deciding.ranking.leaders.contains(&arm.name))
                .map(|arm| {
                    format!("{} — {}", arm.title, parameters(arm.trainable_parameters, arm.parameters_are_estimated))
                })
                .collect();
            format!(
                "Методы {} равны; выбор между ними может определить число обучаемых параметров: {}.",
                enumerate(&leaders, "и"),
                sizes.join(", ")
            )
        }
        _ => "Ни один из адаптеров не рекомендуется: выигрыша относительно базовой модели нет.".to_owned(),
    };
    Some(Recommendation { subject: "choice".to_owned(), text, points: Vec::new() })
}

fn experiments(comparison: &Comparison) -> Vec<String> {
    let mut points = Vec::new();
    let has_records = comparison.has_records();
    let idle = comparison.adapted().filter(|arm| {
        let mut pairs = comparison.tasks.iter().filter_map(|task| task.against_base(&arm.name)).peekable();
        pairs.peek().is_some() && pairs.all(|pair| pair.different == 0 && pair.scores_different.unwrap_or(0) == 0)
    });
    let idle: Vec<&str> = idle.map(|arm| arm.title.as_str()).collect();
    if !idle.is_empty() {
        points.push(format!(
            "Проверить обучение и загрузку адаптеров: ответы {} совпали с ответами базовой модели",
            enumerate(&idle, "и")
        ));
    }
    if tried(comparison, "lora", |a| (a.rank, a.alpha.map(f64::to_bits))) == 1 {
        points.push("Провести эксперименты с различными рангами (r) и alpha для LoRA".to_owned());
    }
    if tried(comparison, "mlp", |a| (a.hidden_size, None)) == 1 {
        points.push("Тестирование разных размеров скрытого слоя MLP адаптеров".to_owned());
    }
    let any = |test: fn(&Arm) -> bool| comparison.adapted().any(test);
    if any(|arm| arm.is_only("lora")) && any(|arm| arm.is_only("mlp")) && !any(|arm| arm.adapters.len() > 1) {
        points.push("Эксперименты с комбинированным подходом, использующим оба типа адаптеров".to_owned());
    }
    if has_records && budgets(comparison).len() > 1 {
        points.push("Сравнить адаптеры при равном числе обучаемых параметров".to_owned());
    }
    if has_records && comparison.generated {
        points.push("Повторить сравнение на настоящих данных".to_owned());
    }
    points
}

/// The different numbers of trainable parameters among the adapted arms.
pub fn budgets(comparison: &Comparison) -> BTreeSet<u64> {
    comparison.adapted().map(|arm| arm.trainable_parameters).collect()
}

/// How many settings of a kind of adapter were tried alone.
fn tried(comparison: &Comparison, kind: &str, setting: fn(&Adapter) -> (Option<u64>, Option<u64>)) -> usize {
    let arms = comparison.adapted().filter(|arm| arm.is_only(kind));
    arms.map(|arm| setting(&arm.adapters[0])).collect::<BTreeSet<_>>().len()
}
