//! Columns of differences that do not follow from the columns of figures.
//! It does not know what the figures mean.

use super::shown;
use crate::audit::Defect;
use crate::audit::layout::Report;

/// Differences and percentages that the printed figures rule out.
pub fn differences(report: &Report) -> Vec<Defect> {
    let mut defects = Vec::new();
    for task in &report.tasks {
        for delta in &task.deltas {
            let figures = task.figure(&delta.metric, delta.arm).zip(task.figure(&delta.metric, delta.against));
            let Some((value, against)) = figures else { continue };
            let difference = value - against;
            let name = format!(
                "{}: {} {} против {}",
                task.title, delta.metric, task.arms[delta.arm], task.arms[delta.against]
            );
            if (difference - delta.difference).abs() > 3.0 * task.half {
                defects.push(Defect {
                    rule: "difference",
                    line: delta.line,
                    text: format!("{name}: разность не следует из значений"),
                    proof: format!(
                        "{} − {} = {:+.4}, а напечатано {:+.4}",
                        shown(value),
                        shown(against),
                        difference,
                        delta.difference
                    ),
                });
                continue;
            }
            let Some(percent) = delta.percent.filter(|_| against > 2.0 * task.half) else { continue };
            let doubt = task.half_percent + 1e-3;
            let (low, high) = quotients(difference, against, task.half);
            if percent < low - doubt || percent > high + doubt {
                defects.push(Defect {
                    rule: "percent",
                    line: delta.line,
                    text: format!("{name}: процент не следует из значений"),
                    proof: format!(
                        "100 · {difference:+.4} / {} = {:+.2} %, а напечатано {percent:+.2} %",
                        shown(against),
                        100.0 * difference / against
                    ),
                });
            }
        }
    }
    defects
}

/// The least and the largest percentage that rounded figures leave open.
fn quotients(difference: f64, against: f64, half: f64) -> (f64, f64) {
    let ends = [difference - 2.0 * half, difference + 2.0 * half];
    let all = ends.iter().flat_map(|d| [against - half, against + half].map(|b| 100.0 * d / b));
    all.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)))
}
