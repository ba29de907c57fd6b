//! F1 that is not the harmonic mean of the printed precision and recall: an average, and which one is not said.
//! It does not know which one it is.

use super::shown;
use crate::audit::Defect;
use crate::audit::layout::{Report, Task};

/// Tasks whose F1 is an unnamed average.
pub fn unnamed(report: &Report) -> Vec<Defect> {
    report.tasks.iter().filter_map(of_task).collect()
}

fn of_task(task: &Task) -> Option<Defect> {
    let named = ["усреднение", "macro", "micro", "mean_documents", "среднее по"];
    let prose = task.prose();
    if named.iter().any(|name| prose.contains(name)) && !prose.contains("усреднение не названо") {
        return None;
    }
    let mut proofs = Vec::new();
    let mut above = false;
    for arm in 0..task.arms.len() {
        let figure = |metric: &str| task.figure(metric, arm);
        let (Some(p), Some(r), Some(f1)) = (figure("precision"), figure("recall"), figure("f1")) else { continue };
        if p + r <= task.half {
            continue;
        }
        let harmonic = 2.0 * p * r / (p + r);
        if (harmonic - f1).abs() > 2.0 * task.half {
            above |= f1 > harmonic;
            let (p, r) = (shown(p), shown(r));
            let name = &task.arms[arm];
            proofs.push(format!("{name}: 2·{p}·{r}/({p}+{r}) = {}, а напечатано {}", shown(harmonic), shown(f1)));
        }
    }
    let line = task.row("f1")?.line;
    let proof = proofs.first()?.clone();
    let kind = if above {
        "F1 выше гармонического среднего: это не среднее ни по чему"
    } else {
        "среднее F1 не больше F1 от средних, так что это среднее по документам или по типам — по чему, не сказано"
    };
    Some(Defect {
        rule: "unnamed_average",
        line,
        text: format!("{}: F1 не равна 2PR/(P+R), и усреднение не названо", task.title),
        proof: format!("{proof}; {kind}"),
    })
}
