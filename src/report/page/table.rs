//! Tables of a page: a caption, headers, and cells that are already text.
//! It does not know how they look, nor what stands in them.

use serde::Serialize;

use crate::report::chart::Plot;
use crate::report::delta::{figure, signed};

/// What is printed where a value does not exist.
pub const ABSENT: &str = "—";

/// A table.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Table {
    /// What it shows.
    pub caption: String,
    /// One for each column.
    pub headers: Vec<String>,
    /// Rows; the first cell of each is its title.
    pub rows: Vec<Vec<Cell>>,
    /// What must be known to read it; may be empty.
    pub note: String,
}

/// A cell.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cell {
    /// What it says.
    pub text: String,
    /// A second, smaller line; may be empty.
    pub below: String,
    /// True if it stands to the right.
    pub number: bool,
    /// CSS classes; may be empty.
    pub class: String,
    /// The row and column of `plots.csv` that say the same.
    pub plotted: Option<Plotted>,
}

/// Where a value stands in `plots.csv`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plotted {
    /// The chart.
    pub chart: String,
    /// The series.
    pub series: String,
    /// The place on x.
    pub x: String,
    /// The column.
    pub field: String,
}

impl Cell {
    /// Words.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// Something that is read as a number.
    pub fn number(text: impl Into<String>) -> Self {
        Self { text: text.into(), number: true, ..Self::default() }
    }

    /// A metric, or nothing.
    pub fn figure(value: Option<f64>) -> Self {
        Self::number(value.map_or_else(|| ABSENT.to_owned(), plain))
    }

    /// A count, or nothing.
    pub fn count(value: Option<u64>) -> Self {
        Self::number(value.map_or_else(|| ABSENT.to_owned(), count))
    }

    /// The same with a second line.
    #[must_use]
    pub fn below(mut self, text: impl Into<String>) -> Self {
        self.below = text.into();
        self
    }

    /// The same with a class.
    #[must_use]
    pub fn class(mut self, class: &str) -> Self {
        class.clone_into(&mut self.class);
        self
    }

    /// The same as a value that a plot shows of an arm.
    #[must_use]
    pub fn plotted(mut self, plot: Option<&Plot>, arm: &str, field: &str) -> Self {
        let found = plot.and_then(|plot| Some((plot, plot.mark_of(arm)?)));
        self.plotted = found.map(|(plot, (series, mark))| Plotted {
            chart: plot.id.clone(),
            series: series.to_owned(),
            x: mark.x.clone(),
            field: field.to_owned(),
        });
        self
    }
}

/// `0.3615`, with the typographic minus.
pub fn plain(value: f64) -> String {
    figure(value).replace('-', "−")
}

/// `+0.0892`, with the typographic minus.
pub fn change(value: f64) -> String {
    signed(value, 4).replace('-', "−")
}

/// `[0.3102; 0.4128]`.
pub fn interval(low: f64, high: f64) -> String {
    format!("[{}; {}]", plain(low), plain(high))
}

/// `4 211 200`: thousands apart by narrow spaces that do not break.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// `3e-4` and `0.003` as they are commonly written.
pub fn rate(value: f64) -> String {
    let text = format!("{value}");
    let text = if text.len() > 8 { format!("{value:.3e}") } else { text };
    text.replace('-', "−")
}

/// The first twelve characters of a digest.
pub fn digest(text: &str) -> String {
    let text = text.rsplit(':').next().unwrap_or(text);
    text.chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(count(0), "0");
        assert_eq!(count(4_211_200), "4\u{202f}211\u{202f}200");
        assert_eq!(count(1000), "1\u{202f}000");
    }

    #[test]
    fn digests_are_shortened_without_their_kind() {
        assert_eq!(digest("blake3:0123456789abcdef"), "0123456789ab");
        assert_eq!(digest("коротко"), "коротко");
    }
}
