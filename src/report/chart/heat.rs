//! A field of cells over two axes of the matrix, each with its value: the colour only helps the eye.
//! It does not know what the values mean.

use std::fmt::Write as _;

use super::svg::{escape, fit, frame, minus, percent};
use super::{Chart, Mark, Plot, Series};
use crate::report::delta::figure;

/// Rows and columns that one picture has room for.
const MOST_ROWS: usize = 16;
const MOST_COLUMNS: usize = 9;
const ROW: f64 = 40.0;
const HEAD: f64 = 46.0;
/// Pixels of a column at the least, and of the rows' titles.
const COLUMN: u32 = 62;
const TITLES: u32 = 70;
/// Steps of the colour.
const SHADES: f64 = 7.0;

/// Draws it; of many rows and columns, the first ones.
pub fn draw(plot: &Plot) -> Chart {
    let mut columns: Vec<(f64, &str)> =
        plot.series.iter().flat_map(|series| &series.marks).map(|mark| (mark.at, mark.x.as_str())).collect();
    columns.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(b.1)));
    columns.dedup();
    let (all_columns, all_rows) = (columns.len(), plot.series.len());
    columns.truncate(MOST_COLUMNS);
    let rows = &plot.series[..all_rows.min(MOST_ROWS)];
    let least_width = TITLES + COLUMN * u32::try_from(columns.len()).unwrap_or(1);
    let titles = f64::from(TITLES) / f64::from(least_width);
    let width = (1.0 - titles) / columns.len().max(1) as f64;
    let values = || plot.series.iter().flat_map(|series| &series.marks).map(|mark| mark.y);
    let extent =
        Extent { low: values().fold(f64::INFINITY, f64::min), high: values().fold(f64::NEG_INFINITY, f64::max) };

    let mut body = String::new();
    let _ = write!(
        body,
        "<text class=\"side\" x=\"{}\" y=\"14\">{} →</text><text class=\"side\" x=\"0\" y=\"36\">{} ↓</text>",
        percent(titles),
        escape(&fit(&super::curves::axis(&plot.x), 150.0, 12.0)),
        escape(&fit(&super::curves::axis(&plot.rows), 56.0, 12.0)),
    );
    for (i, (_, column)) in columns.iter().enumerate() {
        let _ = write!(
            body,
            "<text class=\"tick\" x=\"{}\" y=\"36\" text-anchor=\"middle\">{}</text>",
            percent(titles + width * (i as f64 + 0.5)),
            escape(&fit(column, f64::from(COLUMN) - 4.0, 12.0))
        );
    }
    for (r, series) in rows.iter().enumerate() {
        let top = HEAD + ROW * r as f64;
        let _ = write!(
            body,
            "<text class=\"tick\" x=\"0\" y=\"{}\">{}</text>",
            top + ROW / 2.0 + 4.0,
            escape(&fit(&series.title, f64::from(TITLES) - 6.0, 12.0))
        );
        for (c, (at, column)) in columns.iter().enumerate() {
            if let Some(mark) = series.marks.iter().find(|mark| mark.at == *at && mark.x == *column) {
                cell(
                    &mut body,
                    mark,
                    titles + width * c as f64,
                    top,
                    width,
                    extent.shade(mark.y, plot.lower_is_better),
                );
            }
        }
    }
    let left_out = (all_columns - columns.len()).max(all_rows - rows.len());
    let mut note = format!(
        "чем дальше цвет от фона, тем лучше; {}",
        if plot.lower_is_better { "меньше — лучше" } else { "больше — лучше" }
    );
    if left_out > 0 {
        note.push_str(&format!(
            "; показаны первые строки и столбцы, не больше {MOST_ROWS} и {MOST_COLUMNS}, остальное — в plots.csv"
        ));
    }
    Chart {
        id: plot.id.clone(),
        title: plot.title.clone(),
        svg: frame(&plot.id, &plot.title, &described(rows), HEAD + ROW * rows.len() as f64 + 4.0, &body),
        least_width,
        legend: Vec::new(),
        note: super::svg::sentence(&note),
    }
}

/// The extent of all values.
struct Extent {
    low: f64,
    high: f64,
}

impl Extent {
    /// The step of the colour, from 0 to 6; the middle where all values print the same.
    fn shade(&self, value: f64, lower_is_better: bool) -> u32 {
        if figure(self.low) == figure(self.high) {
            return 3;
        }
        let place = (value / 2.0 - self.low / 2.0) / (self.high / 2.0 - self.low / 2.0);
        let place = if lower_is_better { 1.0 - place } else { place };
        (place * SHADES).floor().clamp(0.0, SHADES - 1.0) as u32
    }
}

fn cell(body: &mut String, mark: &Mark, left: f64, top: f64, width: f64, shade: u32) {
    let _ = write!(
        body,
        "<g class=\"q{shade}\"><rect class=\"cell\" x=\"{}\" y=\"{top}\" width=\"{}\" height=\"{ROW}\"/>\
         <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text></g>",
        percent(left),
        percent(width),
        percent(left + width / 2.0),
        top + ROW / 2.0 + 4.0,
        escape(&fit(&minus(&figure(mark.y)), f64::from(COLUMN) - 4.0, 12.0))
    );
}

fn described(rows: &[Series]) -> String {
    let one = |series: &Series| {
        let cells = series.marks.iter().map(|mark| format!("{} при {}", minus(&figure(mark.y)), mark.x));
        format!("{}: {}", series.title, cells.collect::<Vec<_>>().join(", "))
    };
    rows.iter().map(one).collect::<Vec<_>>().join("; ")
}
