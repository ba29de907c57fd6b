//! Arms with different numbers of trainable parameters, and not a word about it.
//! It does not know what else their trainings were given.

use crate::audit::Defect;
use crate::audit::layout::Report;
use crate::audit::statements::{Statement, statements};

/// Smaller differences come from rounding.
const SAME: f64 = 1.1;

/// Unequal budgets that are not pointed out.
pub fn unequal(report: &Report) -> Vec<Defect> {
    let subject = ["бюджет", "обучаемых параметров", "обучаемые параметры"];
    let said = ["различ", "отлича", "неравн", "не равн", " раза", " раз)", " раз,"];
    // That something else would be better (`при равном числе …`) is not said to be so, nor is that nothing differs.
    let told = |one: &Statement| one.has(&subject) && one.has(&said) && !one.has(&["не различа", "не отлича"]);
    if statements(report).iter().any(told) {
        return Vec::new();
    }
    let trained = || report.parameters.iter().filter(|(_, count)| *count > 0.0);
    let (Some(least), Some(most)) =
        (trained().min_by(|a, b| a.1.total_cmp(&b.1)), trained().max_by(|a, b| a.1.total_cmp(&b.1)))
    else {
        return Vec::new();
    };
    let ratio = most.1 / least.1;
    if ratio < SAME {
        return Vec::new();
    }
    vec![Defect {
        rule: "unequal_budgets",
        line: report.parameters_line,
        text: format!("число обучаемых параметров различается в {ratio:.1} раза, и об этом не сказано"),
        proof: format!("{} — {:.0}, {} — {:.0}", least.0, least.1, most.0, most.1),
    }]
}
