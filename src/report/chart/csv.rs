//! Everything that is plotted, as one tidy CSV: a row for each mark.
//! It does not know how marks are drawn; marks that a picture had no room for are here, too.

use super::{Plot, Shape, plots};
use crate::error::{Problem, Result};
use crate::report::comparison::Comparison;
use crate::report::verdicts;

const HEADER: [&str; 11] =
    ["chart", "shape", "series", "series_title", "arm", "x_name", "x", "y_name", "y", "low", "high"];

/// `plots.csv`: unrounded; empty cells where there is no interval.
pub fn csv(comparison: &Comparison) -> Result<String> {
    let broken = |what: String| Problem::new(format!("cannot write CSV: {what}"));
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    let header = HEADER.iter().copied().chain(["margin", "base", "verdict"]);
    writer.write_record(header).map_err(|error| broken(error.to_string()))?;
    for plot in plots(comparison) {
        for row in rows(&plot) {
            writer.write_record(&row).map_err(|error| broken(error.to_string()))?;
        }
    }
    let bytes = writer.into_inner().map_err(|error| broken(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| broken(error.to_string()))
}

fn rows(plot: &Plot) -> Vec<Vec<String>> {
    let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    let shape = match plot.shape {
        Shape::Forest => "forest",
        Shape::Curves => "curves",
        Shape::Heat => "heat",
    };
    let marks = plot.series.iter().flat_map(|series| series.marks.iter().map(move |mark| (series, mark)));
    let row = |(series, mark): (&super::Series, &super::Mark)| {
        vec![
            plot.id.clone(),
            shape.to_owned(),
            series.name.clone(),
            series.title.clone(),
            mark.arm.clone(),
            plot.x.clone(),
            mark.x.clone(),
            plot.y.clone(),
            mark.y.to_string(),
            number(mark.low),
            number(mark.high),
            number(plot.margin),
            number(plot.base),
            mark.verdict.map_or_else(String::new, |verdict| verdicts::word(verdict).to_owned()),
        ]
    };
    marks.map(row).collect()
}
