//! Gold of one class: then macro averages over two classes are P = 1/2, R = acc/2, F1 = acc/(1 + acc), whatever the
//! answers are. It does not know how the labels got lost.

use super::shown;
use crate::audit::Defect;
use crate::audit::layout::{Report, Task};

/// Sizes of data that are tried: TERRa's validation split has 307 rows.
const MOST_ITEMS: u64 = 400;

/// Tasks all of whose figures have the signature.
pub fn one_class(report: &Report) -> Vec<Defect> {
    let signed = report.tasks.iter().filter(|task| (0..task.arms.len()).all(|arm| has_signature(task, arm)));
    let defect = |task: &Task| {
        let accuracies: Vec<f64> = (0..task.arms.len()).filter_map(|arm| task.figure("accuracy", arm)).collect();
        let one = accuracies[0];
        let sizes: Vec<String> = (2..=MOST_ITEMS)
            .filter(|n| accuracies.iter().all(|a| ((a * *n as f64).round() / *n as f64 - a).abs() <= task.half))
            .take(4)
            .map(|n| n.to_string())
            .collect();
        let sizes =
            if sizes.is_empty() { String::new() } else { format!("; возможные n: {}", sizes.join(", ")) };
        Defect {
            rule: "one_class_gold",
            line: task.line,
            text: format!("{}: все эталонные метки одного класса — данные были без меток", task.title),
            proof: format!(
                "у каждого варианта P = 1/2, R = acc/2, F1 = acc/(1+acc): {} → R {}, F1 {}; macro по двум классам даёт это только при одном классе в эталоне, и accuracy тогда — лишь доля ответов одного вида{sizes}",
                shown(one),
                shown(one / 2.0),
                shown(one / (1.0 + one))
            ),
        }
    };
    signed.map(defect).collect()
}

fn has_signature(task: &Task, arm: usize) -> bool {
    let figure = |metric: &str| task.figure(metric, arm);
    let (Some(a), Some(p), Some(r), Some(f1)) =
        (figure("accuracy"), figure("precision"), figure("recall"), figure("f1"))
    else {
        return false;
    };
    // With nothing right there is no precision at all.
    a > task.half
        && (p - 0.5).abs() <= task.half
        && (r - a / 2.0).abs() <= 2.0 * task.half
        && (f1 - a / (1.0 + a)).abs() <= 2.0 * task.half
}
