//! Reads a finished report in the reference layout and finds what in it cannot be right, or cannot be known.
//! It does not know how the report was made: figures and sentences are all that it has.

mod layout;
mod rules;
mod statements;

use serde::Serialize;

use crate::error::{Problem, Result};
use layout::Report;

/// Something wrong, with the arithmetic that proves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Defect {
    /// The rule that found it.
    pub rule: &'static str,
    /// The line of the report that it begins at, counted from 1.
    pub line: usize,
    /// What is wrong, in Russian.
    pub text: String,
    /// Why that is so: the numbers.
    pub proof: String,
}

/// All defects of a report, in the order of its lines; `label` names it in messages.
///
/// # Errors
/// If the text has no table of figures: then it is no such report, and nothing can be said of it.
pub fn audit(text: &str, label: &str) -> Result<Vec<Defect>> {
    let report = Report::read(text);
    if report.tasks.is_empty() {
        return Err(Problem::new("no table of figures is found: a header with `Метрика` or `Вариант`, and rows below")
            .in_file(label, None)
            .help("give a report in the layout of templates/report.ru.txt or report.ru.md"));
    }
    let mut defects: Vec<Defect> = rules::RULES.iter().flat_map(|rule| rule(&report)).collect();
    defects.sort_by_key(|defect| defect.line);
    Ok(defects)
}
