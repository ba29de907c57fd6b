//! Lines over steps or over an axis of the matrix, with bands where there are several seeds.
//! It does not know what they measure.

use std::fmt::Write as _;

use super::scale::Scale;
use super::svg::{fit, frame, minus, percent, unit};
use super::{Chart, Key, Mark, Plot, Series};
use crate::report::delta::figure;

/// Lines that can be told apart in one picture.
const MOST: usize = 8;
const HEIGHT: f64 = 260.0;
const TOP: f64 = 14.0;
const FOOT: f64 = 44.0;
/// The field's left edge and its width, as shares.
const FIELD: (f64, f64) = (0.15, 0.82);
/// Steps need no marks at each point; values of an axis do.
const MOST_DOTS: usize = 16;
/// The share of the width that a tick's text needs on the narrowest screen.
const TICK: f64 = 0.11;

/// Draws it; of many lines, the first ones.
pub fn draw(plot: &Plot) -> Chart {
    let all: Vec<&Series> = plot.series.iter().filter(|series| !series.marks.is_empty()).collect();
    let shown = &all[..all.len().min(MOST)];
    let marks = || shown.iter().flat_map(|series| series.marks.iter());
    let ends = marks().flat_map(|mark| [mark.y, mark.low.unwrap_or(mark.y), mark.high.unwrap_or(mark.y)]);
    let y_scale = Scale::nice(ends.chain(plot.base), 4);
    let is_steps = plot.x == "step";
    let x_scale = if is_steps {
        Scale::nice(marks().map(|mark| mark.at).chain([0.0]), 4)
    } else {
        Scale::over(marks().map(|mark| mark.at))
    };
    let bottom = TOP + HEIGHT;
    let y = |value: f64| bottom - HEIGHT * y_scale.place(value);
    let inner = |at: f64| if is_steps { x_scale.place(at) } else { 0.04 + 0.92 * x_scale.place(at) };
    let x = |at: f64| percent(FIELD.0 + FIELD.1 * inner(at));

    let mut body = String::new();
    let edges = (percent(FIELD.0), percent(FIELD.0 + FIELD.1));
    for tick in y_scale.ticks() {
        let _ = write!(
            body,
            "<line class=\"rule\" x1=\"{}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"tick\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            edges.0,
            edges.1,
            percent(FIELD.0 - 0.015),
            y(tick) + 4.0,
            y_scale.label(tick),
            at = y(tick)
        );
    }
    let ticks: Vec<(f64, String)> = if is_steps {
        x_scale.ticks().into_iter().map(|tick| (tick, x_scale.label(tick))).collect()
    } else {
        let mut values: Vec<(f64, String)> = marks().map(|mark| (mark.at, mark.x.clone())).collect();
        values.sort_by(|a, b| a.0.total_cmp(&b.0));
        values.dedup_by(|a, b| a.0 == b.0);
        values
    };
    let mut last = f64::NEG_INFINITY;
    for (at, text) in ticks {
        if inner(at) - last >= TICK {
            last = inner(at);
            let text = super::svg::escape(&fit(&text, 70.0, 12.0));
            let _ = write!(
                body,
                "<text class=\"tick\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{text}</text>",
                x(at),
                bottom + 18.0
            );
        }
    }
    let name = super::svg::escape(&fit(&axis(&plot.x), 200.0, 12.0));
    let _ = write!(
        body,
        "<text class=\"side\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{name} →</text>",
        edges.1,
        bottom + 38.0
    );
    if let Some(base) = plot.base {
        let _ = write!(
            body,
            "<line class=\"base\" x1=\"{}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>",
            edges.0,
            edges.1,
            at = y(base)
        );
    }
    let _ = write!(
        body,
        "<svg x=\"{}\" y=\"{TOP}\" width=\"{}\" height=\"{HEIGHT}\" viewBox=\"0 0 1000 1000\" preserveAspectRatio=\"none\">",
        edges.0,
        percent(FIELD.1)
    );
    for (i, series) in shown.iter().enumerate() {
        lines(&mut body, i, &series.marks, &inner, &|value| 1.0 - y_scale.place(value));
    }
    body.push_str("</svg>");
    for (i, series) in shown.iter().enumerate().filter(|(_, series)| series.marks.len() <= MOST_DOTS) {
        for mark in &series.marks {
            let _ =
                write!(body, "<circle class=\"dot s{i}\" cx=\"{}\" cy=\"{:.1}\" r=\"3.5\"/>", x(mark.at), y(mark.y));
        }
    }
    Chart {
        id: plot.id.clone(),
        title: plot.title.clone(),
        svg: frame(&plot.id, &plot.title, &described(plot, shown), bottom + FOOT, &body),
        least_width: 300,
        legend: legend(plot, shown),
        note: note(plot, shown, all.len()),
    }
}

/// The band and the line of a series, inside a field that is stretched to its place.
fn lines(body: &mut String, i: usize, marks: &[Mark], x: &dyn Fn(f64) -> f64, y: &dyn Fn(f64) -> f64) {
    let point = |mark: &Mark, value: f64| format!("{},{}", unit(x(mark.at)), unit(y(value)));
    let banded: Vec<(&Mark, f64, f64)> = marks
        .iter()
        .filter_map(|mark| Some((mark, mark.low?, mark.high?)))
        .filter(|(_, low, high)| high > low)
        .collect();
    if banded.len() > 1 {
        let there = banded.iter().map(|(mark, low, _)| point(mark, *low));
        let back = banded.iter().rev().map(|(mark, _, high)| point(mark, *high));
        let points: Vec<String> = there.chain(back).collect();
        let _ = write!(body, "<polygon class=\"area s{i}\" points=\"{}\"/>", points.join(" "));
    }
    let points: Vec<String> = marks.iter().map(|mark| point(mark, mark.y)).collect();
    let _ = write!(body, "<polyline class=\"line s{i}\" points=\"{}\"/>", points.join(" "));
}

fn legend(plot: &Plot, shown: &[&Series]) -> Vec<Key> {
    let lines = shown.iter().enumerate().map(|(i, series)| Key { class: format!("s{i}"), title: series.title.clone() });
    let base = plot.base.map(|_| Key { class: "base".to_owned(), title: "базовая модель".to_owned() });
    lines.chain(base).collect()
}

fn note(plot: &Plot, shown: &[&Series], total: usize) -> String {
    let mut notes = Vec::new();
    if plot.lower_is_better {
        notes.push("меньше — лучше".to_owned());
    }
    if shown.iter().flat_map(|series| &series.marks).any(|mark| mark.low.is_some()) {
        notes.push("полоса — от наименьшего до наибольшего значения по seed".to_owned());
    }
    if total > shown.len() {
        notes.push(format!("показаны первые {MOST}, ещё {} — в plots.csv", total - shown.len()));
    }
    super::svg::sentence(&notes.join("; "))
}

fn described(plot: &Plot, shown: &[&Series]) -> String {
    let one = |series: &&Series| {
        let (first, last) = (series.marks.first()?, series.marks.last()?);
        let from = format!("{} при {}", minus(&figure(first.y)), first.x);
        let to = format!("{} при {}", minus(&figure(last.y)), last.x);
        Some(if series.marks.len() == 1 {
            format!("{}: {from}", series.title)
        } else {
            format!("{}: от {from} до {to}", series.title)
        })
    };
    format!("{}. {}", plot.y, shown.iter().filter_map(one).collect::<Vec<_>>().join("; "))
}

/// An axis for people.
pub fn axis(name: &str) -> String {
    match name.rsplit('.').next().unwrap_or(name) {
        "step" => "шаг".to_owned(),
        "rank" => "ранг r".to_owned(),
        "alpha" => "α".to_owned(),
        "hidden_size" => "скрытый размер".to_owned(),
        other => other.to_owned(),
    }
}
