//! Who is called best, and whether the figures say so.
//! It does not know tests: a lead by the printed figures is all that is asked here.

use super::shown;
use crate::audit::Defect;
use crate::audit::layout::{Report, Task};

/// What reports say of the one with the best figure.
const BEST: &str = "лучшие результаты показал";

/// A sentence that calls one arm best on a task.
struct Claim<'a> {
    line: usize,
    task: &'a Task,
    arm: usize,
    figures: Vec<(usize, f64)>,
}

/// Arms that are called best with the same figure as another.
pub fn ties(report: &Report) -> Vec<Defect> {
    let tie = |claim: &Claim| {
        let own = claim.figures.iter().find(|(arm, _)| *arm == claim.arm)?.1;
        let same: Vec<&str> = claim
            .figures
            .iter()
            .filter(|(arm, value)| *arm != claim.arm && *value == own)
            .map(|(arm, _)| claim.task.arms[*arm].as_str())
            .collect();
        (!same.is_empty() && claim.figures.iter().all(|(_, value)| *value <= own)).then(|| Defect {
            rule: "tie_called_best",
            line: claim.line,
            text: format!("{}: лучшим назван {}, хотя это ничья", claim.task.title, claim.task.arms[claim.arm]),
            proof: format!("F1 = {} и у {}", shown(own), same.join(", ")),
        })
    };
    claims(report).iter().filter_map(tie).collect()
}

/// Arms that are called best, or recommended, though another has a higher figure.
pub fn losers(report: &Report) -> Vec<Defect> {
    let lost = |claim: &Claim| {
        let own = claim.figures.iter().find(|(arm, _)| *arm == claim.arm)?.1;
        // The base may be ahead of all: then an adapter may still be the best adapter, but not the best.
        let (best, value) = claim.figures.iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
        (*value > own).then(|| Defect {
            rule: "not_the_best",
            line: claim.line,
            text: format!("{}: лучшим назван {}, но F1 выше у другого", claim.task.title, claim.task.arms[claim.arm]),
            proof: format!(
                "{} — {}, {} — {}",
                claim.task.arms[claim.arm],
                shown(own),
                claim.task.arms[*best],
                shown(*value)
            ),
        })
    };
    claims(report).iter().filter_map(lost).collect()
}

fn claims(report: &Report) -> Vec<Claim<'_>> {
    let mut claims = Vec::new();
    for (line, text) in &report.lines {
        if !text.to_lowercase().contains(BEST) {
            continue;
        }
        let Some(task) = report.tasks.iter().find(|task| text.to_lowercase().contains(&task.title.to_lowercase()))
        else {
            continue;
        };
        let tail = text.to_lowercase();
        let tail = tail.split(BEST).nth(1).unwrap_or_default();
        let named = |arm: &usize| tail.contains(&task.arms[*arm].to_lowercase());
        // Of names that contain one another, the longest is meant.
        let arm = (0..task.arms.len()).filter(named).max_by_key(|arm| task.arms[*arm].len());
        let Some((arm, row)) = arm.zip(task.row("f1")) else { continue };
        let figures = row.figures.iter().enumerate().filter_map(|(at, value)| Some((at, (*value)?))).collect();
        claims.push(Claim { line: *line, task, arm, figures });
    }
    claims
}
