//! Pictures of a comparison: what is plotted as plain data, drawn as SVG or written as CSV.
//! It does not know templates, nor how a page is laid out.

pub mod csv;
mod curves;
mod forest;
mod heat;
mod plots;
mod scale;
mod svg;

use serde::Serialize;

use super::evidence::Verdict;

pub use self::csv::csv;
pub use self::curves::axis;
pub use self::forest::class;
pub use self::plots::{forest, grids, learning, plots};
pub use self::svg::sentence;

/// Everything about one picture but how it looks.
#[derive(Debug, Clone, PartialEq)]
pub struct Plot {
    /// Its name: `forest.terra`.
    pub id: String,
    /// What kind of picture it is.
    pub shape: Shape,
    /// Its heading, in Russian.
    pub title: String,
    /// What lies along x: an axis of the matrix, `step`, or for a forest the arms set against.
    pub x: String,
    /// What is measured.
    pub y: String,
    /// What tells series apart: an axis of the matrix for a heat map, else nothing.
    pub rows: String,
    /// True if less is better.
    pub lower_is_better: bool,
    /// What is drawn, in order.
    pub series: Vec<Series>,
    /// The margin of equivalence, of a forest.
    pub margin: Option<f64>,
    /// The base's value, where the picture has a line for it.
    pub base: Option<f64>,
}

/// Kinds of pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Differences with their intervals, a row each.
    Forest,
    /// Lines with bands.
    Curves,
    /// A field of coloured cells.
    Heat,
}

/// Marks that belong together: a row of a forest or a heat map, a line.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its name: an arm, or coordinates.
    pub name: String,
    /// The same for people.
    pub title: String,
    /// Its marks.
    pub marks: Vec<Mark>,
}

/// A value that is drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    /// Where it stands, as text: `8`.
    pub x: String,
    /// Where it stands, as a number; its place in the order where the axis has no numbers.
    pub at: f64,
    /// The value.
    pub y: f64,
    /// The lower end of its interval or band.
    pub low: Option<f64>,
    /// The upper end.
    pub high: Option<f64>,
    /// What a test says of it.
    pub verdict: Option<Verdict>,
    /// The arm that it shows.
    pub arm: String,
}

/// A picture, and what must be said beside it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Chart {
    /// Its name, unique on a page.
    pub id: String,
    /// Its heading.
    pub title: String,
    /// The `<svg>` element, safe to be put into a page.
    pub svg: String,
    /// The width in pixels below which it would not be readable.
    pub least_width: u32,
    /// What lines mean.
    pub legend: Vec<Key>,
    /// What a reader must know: directions, bands, what was left out.
    pub note: String,
}

/// A line of a legend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Key {
    /// The CSS class of the line.
    pub class: String,
    /// What it stands for.
    pub title: String,
}

impl Plot {
    /// The picture.
    pub fn draw(&self) -> Chart {
        match self.shape {
            Shape::Forest => forest::draw(self),
            Shape::Curves => curves::draw(self),
            Shape::Heat => heat::draw(self),
        }
    }

    /// The mark that shows an arm, with the name of its series.
    pub fn mark_of(&self, arm: &str) -> Option<(&str, &Mark)> {
        let marks = self.series.iter().flat_map(|series| series.marks.iter().map(move |mark| (&series.name, mark)));
        marks.filter(|(_, mark)| mark.arm == arm).map(|(series, mark)| (series.as_str(), mark)).next()
    }
}
