//! Differences with their intervals, a row each, over the band of what does not matter.
//! It does not know how they were tested.

use std::fmt::Write as _;

use super::scale::Scale;
use super::svg::{escape, fit, frame, minus, percent};
use super::{Chart, Plot, Series};
use crate::report::delta::signed;
use crate::report::evidence::Verdict;
use crate::report::verdicts;

/// Rows that one picture has room for.
const MOST: usize = 24;
const ROW: f64 = 44.0;
const HEAD: f64 = 26.0;
/// Room for tick labels and the directions below the rows.
const FOOT: f64 = 44.0;
/// Pixels for a row's title on the narrowest screen, beside the word of its verdict.
const TITLE: f64 = 215.0;
/// The field's left edge and its width, as shares.
const FIELD: (f64, f64) = (0.07, 0.86);

/// Draws it; of many rows, those with the largest gain.
pub fn draw(plot: &Plot) -> Chart {
    let gain = |series: &Series| {
        let difference = series.marks.first().map_or(f64::NEG_INFINITY, |mark| mark.y);
        if plot.lower_is_better { -difference } else { difference }
    };
    let mut rows: Vec<&Series> = plot.series.iter().filter(|series| !series.marks.is_empty()).collect();
    let total = rows.len();
    if total > MOST {
        rows.sort_by(|a, b| gain(b).total_cmp(&gain(a)));
        rows.truncate(MOST);
    }
    let margin = plot.margin.unwrap_or(0.0);
    let marks = || rows.iter().filter_map(|series| series.marks.first());
    let ends = marks().flat_map(|mark| [mark.y, mark.low.unwrap_or(mark.y), mark.high.unwrap_or(mark.y)]);
    let scale = Scale::nice(ends.chain([0.0, -margin, margin]), 4);
    let x = |value: f64| percent(FIELD.0 + FIELD.1 * scale.place(value));
    let bottom = HEAD + ROW * rows.len() as f64;

    let mut body = String::new();
    if margin > 0.0 {
        let width = percent(FIELD.1 * (scale.place(margin) - scale.place(-margin)));
        let _ = write!(
            body,
            "<rect class=\"band\" x=\"{}\" y=\"{HEAD}\" width=\"{width}\" height=\"{}\"/>",
            x(-margin),
            bottom - HEAD
        );
    }
    for tick in scale.ticks() {
        let class = if tick == 0.0 { "zero" } else { "rule" };
        let at = x(tick);
        let _ = write!(
            body,
            "<line class=\"{class}\" x1=\"{at}\" x2=\"{at}\" y1=\"{HEAD}\" y2=\"{bottom}\"/>\
             <text class=\"tick\" x=\"{at}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            bottom + 16.0,
            scale.label(tick)
        );
    }
    let (left, right) =
        if plot.lower_is_better { ("← лучше", "хуже →") } else { ("← хуже", "лучше →") };
    let _ = write!(
        body,
        "<text class=\"side\" x=\"0\" y=\"{y}\">{left}</text>\
         <text class=\"side\" x=\"100%\" y=\"{y}\" text-anchor=\"end\">{right}</text>",
        y = bottom + 36.0
    );
    for (i, series) in rows.iter().enumerate() {
        if let Some(mark) = series.marks.first() {
            row(&mut body, series, mark, HEAD + ROW * i as f64, &x);
        }
    }
    let told: Vec<String> = rows.iter().filter_map(|series| told(series)).collect();
    let mut notes = Vec::new();
    if margin > 0.0 {
        notes.push(format!("полоса — разницы до ±{margin}, которые не имеют значения"));
    }
    if total > MOST {
        notes.push(format!("показаны {MOST} с наибольшим выигрышем, ещё {} — в таблице", total - MOST));
    }
    Chart {
        id: plot.id.clone(),
        title: plot.title.clone(),
        svg: frame(&plot.id, &plot.title, &told.join("; "), bottom + FOOT, &body),
        least_width: 300,
        legend: Vec::new(),
        note: super::svg::sentence(&notes.join("; ")),
    }
}

fn row(body: &mut String, series: &Series, mark: &super::Mark, top: f64, x: &dyn Fn(f64) -> String) {
    let (class, word) = mark.verdict.map_or(("open", ""), |verdict| (class(verdict), verdicts::word(verdict)));
    let (low, high) = (mark.low.unwrap_or(mark.y), mark.high.unwrap_or(mark.y));
    let (text, line) = (top + 14.0, top + 29.0);
    let _ = write!(
        body,
        "<g class=\"{class}\"><text class=\"label\" x=\"0\" y=\"{text}\">{}</text>\
         <text class=\"verdict\" x=\"100%\" y=\"{text}\" text-anchor=\"end\">{word}</text>\
         <line class=\"whisker\" x1=\"{}\" x2=\"{}\" y1=\"{line}\" y2=\"{line}\"/>",
        escape(&fit(&series.title, TITLE, 13.0)),
        x(low),
        x(high),
    );
    for end in [low, high] {
        let _ = write!(
            body,
            "<line class=\"whisker\" x1=\"{at}\" x2=\"{at}\" y1=\"{}\" y2=\"{}\"/>",
            line - 4.0,
            line + 4.0,
            at = x(end)
        );
    }
    let _ = write!(body, "{}</g>", sign(mark.verdict, &x(mark.y), line));
}

/// The mark itself: each verdict has its own form, not its colour alone.
fn sign(verdict: Option<Verdict>, x: &str, y: f64) -> String {
    // A nested picture has a place in percent, and coordinates of its own for the form.
    let form = match verdict {
        Some(Verdict::Better) => "<path class=\"sign\" d=\"M7 1 13 12 1 12Z\"/>",
        Some(Verdict::Worse) => "<path class=\"sign\" d=\"M1 2 13 2 7 13Z\"/>",
        Some(Verdict::Equivalent) => "<path class=\"sign\" d=\"M7 0.5 13.5 7 7 13.5 0.5 7Z\"/>",
        Some(Verdict::Indistinguishable) | None => "<circle class=\"sign hollow\" cx=\"7\" cy=\"7\" r=\"4.8\"/>",
    };
    format!("<svg x=\"{x}\" y=\"{}\" width=\"14\" height=\"14\" class=\"centred\">{form}</svg>", y - 7.0)
}

/// The CSS class of a verdict.
pub fn class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "better",
        Verdict::Worse => "worse",
        Verdict::Equivalent => "equivalent",
        Verdict::Indistinguishable => "open",
    }
}

/// `LoRA: +0.0892, от +0.0111 до +0.1500, лучше`.
fn told(series: &Series) -> Option<String> {
    let mark = series.marks.first()?;
    let interval = mark.low.zip(mark.high).map_or_else(String::new, |(low, high)| {
        format!(", от {} до {}", minus(&signed(low, 4)), minus(&signed(high, 4)))
    });
    let verdict = mark.verdict.map_or_else(String::new, |verdict| format!(", {}", verdicts::word(verdict)));
    Some(format!("{}: {}{interval}{verdict}", series.title, minus(&signed(mark.y, 4))))
}
