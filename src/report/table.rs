//! Grid tables, byte for byte those of Python's `tabulate(rows, headers, tablefmt="grid")` 0.9 and 0.10.
//! It does not know what the cells mean. Widths count code points; ANSI codes are text like any other.

use super::number::{self, Format};
use crate::error::{Problem, Result};

/// A cell as tabulate sees it.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// `None`.
    Missing,
    /// `True` or `False`.
    Bool(bool),
    /// An integer.
    Int(i128),
    /// A float.
    Float(f64),
    /// A text; one that reads as a number counts as a number.
    Text(String),
}

/// How a column is padded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Flush left.
    Left,
    /// Flush right.
    Right,
    /// In the middle.
    Center,
    /// Decimal points below each other.
    Decimal,
}

/// The keyword arguments of `tabulate` that are known here. Lists go by column; the last value of a list
/// does not repeat, columns beyond it take the default.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `floatfmt`; default `g`.
    pub float_format: PerColumn,
    /// `intfmt`; default empty.
    pub int_format: PerColumn,
    /// `missingval`; default empty.
    pub missing: PerColumn,
    /// `numalign`; default decimal.
    pub number_align: Option<Align>,
    /// `stralign`; default left.
    pub text_align: Option<Align>,
    /// `colalign`: `None` leaves a column as it is.
    pub column_align: Vec<Option<Align>>,
    /// `disable_numparse`: texts are never numbers, and numbers are texts.
    pub no_numbers: bool,
}

/// One value for all columns, or one for each.
#[derive(Debug, Clone, Default)]
pub enum PerColumn {
    /// The default everywhere.
    #[default]
    Default,
    /// This everywhere.
    All(String),
    /// By column; the default beyond the end.
    Each(Vec<String>),
}

impl PerColumn {
    fn at<'a>(&'a self, column: usize, default: &'a str) -> &'a str {
        match self {
            Self::Default => default,
            Self::All(value) => value,
            Self::Each(values) => values.get(column).map_or(default, String::as_str),
        }
    }
}

/// The types of columns, from the least general to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Type {
    Missing,
    Bool,
    Int,
    Float,
    Text,
}

/// Draws the table, without a newline at the end. No headers and no rows draw nothing.
pub fn grid(headers: &[String], rows: &[Vec<Cell>], options: &Options) -> Result<String> {
    let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut headers = headers.to_vec();
    if let (false, Some(first)) = (headers.is_empty(), rows.first()) {
        let pad = first.len().saturating_sub(headers.len());
        headers.splice(0..0, std::iter::repeat_n(String::new(), pad));
    }
    let is_break = |c: char| c == '\n' || c == '\r';
    let multiline = headers.iter().any(|h| h.contains(is_break))
        || rows.iter().flatten().any(|cell| matches!(cell, Cell::Text(text) if text.contains(is_break)));

    // With headers, tabulate drops the columns that have none.
    let kept = if headers.is_empty() { longest } else { longest.min(headers.len()) };
    let mut columns = Vec::with_capacity(kept);
    let mut aligns = Vec::with_capacity(kept);
    for c in 0..kept {
        let cells: Vec<&Cell> = rows.iter().map(|row| row.get(c).unwrap_or(&Cell::Missing)).collect();
        let kind = cells.iter().map(|cell| type_of(cell, options)).max().unwrap_or(Type::Bool).max(Type::Bool);
        let align = if matches!(kind, Type::Int | Type::Float) {
            options.number_align.unwrap_or(Align::Decimal)
        } else {
            options.text_align.unwrap_or(Align::Left)
        };
        let align = options.column_align.get(c).copied().flatten().unwrap_or(align);
        let texts = cells.iter().map(|cell| text_of(cell, kind, c, options)).collect::<Result<Vec<_>>>()?;
        let least = headers.get(c).map_or(0, |header| width(header, multiline) + 2);
        columns.push(align_column(texts, align, least, multiline));
        aligns.push(align);
    }

    let mut widths: Vec<usize>;
    if headers.is_empty() {
        widths = columns.iter().map(|column| widest(column, multiline)).collect();
    } else {
        if longest == 0 {
            aligns = vec![options.text_align.unwrap_or(Align::Left); headers.len()];
        }
        headers.truncate(aligns.len());
        widths = headers.iter().map(|header| width(header, multiline) + 2).collect();
        for (least, column) in widths.iter_mut().zip(&columns) {
            *least = (*least).max(widest(column, multiline));
        }
        for ((header, align), width) in headers.iter_mut().zip(&aligns).zip(&widths) {
            let lines = if multiline { breaks(header) } else { vec![header.as_str()] };
            // A header is never stripped, and `decimal` means flush right for it.
            let padded: Vec<String> = lines.iter().map(|line| pad(line, *width, *align)).collect();
            *header = padded.join("\n");
        }
    }
    let count = if columns.is_empty() { 0 } else { rows.len() };
    Ok(draw(&headers, &columns, count, &widths, multiline))
}

fn draw(headers: &[String], columns: &[Vec<String>], rows: usize, widths: &[usize], multiline: bool) -> String {
    if headers.is_empty() && rows == 0 {
        return String::new();
    }
    let line = |fill: &str| {
        let cells: Vec<String> = widths.iter().map(|width| fill.repeat(width + 2)).collect();
        format!("+{}+", cells.join("+"))
    };
    let mut lines = vec![line("-")];
    if !headers.is_empty() {
        push_row(&mut lines, &headers.iter().map(String::as_str).collect::<Vec<_>>(), widths, multiline);
        lines.push(line("="));
    }
    for r in 0..rows {
        let cells: Vec<&str> = columns.iter().map(|column| column[r].as_str()).collect();
        push_row(&mut lines, &cells, widths, multiline);
        if r + 1 < rows {
            lines.push(line("-"));
        }
    }
    lines.push(line("-"));
    lines.join("\n")
}

fn push_row(lines: &mut Vec<String>, cells: &[&str], widths: &[usize], multiline: bool) {
    if !multiline {
        lines.push(format!("| {} |", cells.join(" | ")));
        return;
    }
    let split: Vec<Vec<&str>> = cells.iter().map(|cell| splitlines(cell)).collect();
    for i in 0..split.iter().map(Vec::len).max().unwrap_or(0) {
        let row: Vec<String> = split
            .iter()
            .zip(widths)
            .map(|(lines, width)| lines.get(i).map_or_else(|| " ".repeat(*width), |line| (*line).to_owned()))
            .collect();
        lines.push(format!("| {} |", row.join(" | ")));
    }
}

fn type_of(cell: &Cell, options: &Options) -> Type {
    match cell {
        Cell::Missing => Type::Missing,
        Cell::Bool(_) => Type::Bool,
        Cell::Text(text) if text.is_empty() => Type::Missing,
        Cell::Text(text) if text == "True" || text == "False" => Type::Bool,
        _ if options.no_numbers => Type::Text,
        Cell::Int(_) => Type::Int,
        Cell::Float(_) => Type::Float,
        Cell::Text(text) => {
            let thousands = number::has_thousands(text);
            if number::is_integer(text) || (thousands && !text.contains('.')) {
                Type::Int
            } else if is_number(text) || thousands {
                Type::Float
            } else {
                Type::Text
            }
        }
    }
}

/// A text that counts as a number: one that overflows does not.
fn is_number(text: &str) -> bool {
    number::read_float(text)
        .is_some_and(|value| value.is_finite() || matches!(text.to_lowercase().as_str(), "inf" | "-inf" | "nan"))
}

fn text_of(cell: &Cell, kind: Type, column: usize, options: &Options) -> Result<String> {
    let format = |which: &PerColumn, default: &str| {
        let spec = which.at(column, default).to_owned();
        let format = Format::parse(&spec).ok_or_else(|| bad_format(&spec));
        format.map(|format| (format, spec))
    };
    let float = |value: f64| {
        let (format, spec) = format(&options.float_format, "g")?;
        format.float(value).ok_or_else(|| bad_format(&spec))
    };
    match (cell, kind) {
        (Cell::Missing, _) => Ok(options.missing.at(column, "").to_owned()),
        (Cell::Text(text), Type::Float) => match number::read_float(&text.replace(',', "")) {
            Some(value) => float(value),
            None => Ok(text.clone()),
        },
        (Cell::Text(text), _) => Ok(text.clone()),
        (Cell::Float(value), Type::Float) => float(*value),
        (Cell::Int(value), Type::Float) => float(*value as f64),
        (Cell::Bool(value), Type::Float) => float(f64::from(u8::from(*value))),
        (Cell::Int(_) | Cell::Bool(_), Type::Int) => {
            let (format, spec) = format(&options.int_format, "")?;
            match cell {
                // `format(True, "")` is the word, any other format sees the number.
                Cell::Bool(value) if spec.is_empty() => Ok(python_bool(*value)),
                Cell::Bool(value) => format.integer(i128::from(*value)).ok_or_else(|| bad_format(&spec)),
                Cell::Int(value) => format.integer(*value).ok_or_else(|| bad_format(&spec)),
                _ => unreachable!("the outer pattern takes integers and booleans only"),
            }
        }
        _ => Ok(cell.text()),
    }
}

impl Cell {
    /// `str(cell)`.
    pub fn text(&self) -> String {
        match self {
            Self::Missing => "None".to_owned(),
            Self::Bool(value) => python_bool(*value),
            Self::Int(value) => value.to_string(),
            Self::Float(value) => number::repr(*value),
            Self::Text(text) => text.clone(),
        }
    }
}

fn python_bool(value: bool) -> String {
    if value { "True" } else { "False" }.to_owned()
}

fn bad_format(spec: &str) -> Problem {
    Problem::new(format!("the number format `{spec}` does not fit"))
        .help("formats are Python's, such as `g`, `.4f`, `.2%` or `,d`")
}

fn align_column(texts: Vec<String>, align: Align, least: usize, multiline: bool) -> Vec<String> {
    let texts: Vec<String> = if align == Align::Decimal {
        let decimals: Vec<Option<usize>> = texts.iter().map(|text| after_point(text)).collect();
        let most = decimals.iter().copied().max().flatten();
        // No point counts as one less than an empty fraction, so that `3` and `3.` line up.
        let rank = |decimals: Option<usize>| decimals.map_or(0, |n| n + 1);
        texts.iter().zip(&decimals).map(|(text, d)| format!("{text}{}", " ".repeat(rank(most) - rank(*d)))).collect()
    } else {
        texts.iter().map(|text| number::strip(text).to_owned()).collect()
    };
    let width = widest(&texts, multiline).max(least);
    let lines = |text: &str| splitlines(text).iter().map(|line| pad(line, width, align)).collect::<Vec<_>>().join("\n");
    texts.iter().map(|text| if multiline { lines(text) } else { pad(text, width, align) }).collect()
}

/// Characters after the decimal point of a number, or after the `e` where there is no point.
fn after_point(text: &str) -> Option<usize> {
    if number::is_integer(text) || !(is_number(text) || number::has_thousands(text)) {
        return None;
    }
    let at = text.rfind('.').or_else(|| text.rfind(['e', 'E']))?;
    Some(text[at + 1..].chars().count())
}

fn pad(text: &str, width: usize, align: Align) -> String {
    match align {
        Align::Left => format!("{text:<width$}"),
        Align::Center => format!("{text:^width$}"),
        Align::Right | Align::Decimal => format!("{text:>width$}"),
    }
}

fn widest(texts: &[String], multiline: bool) -> usize {
    texts.iter().map(|text| width(text, multiline)).max().unwrap_or(0)
}

fn width(text: &str, multiline: bool) -> usize {
    if multiline {
        breaks(text).iter().map(|line| line.chars().count()).max().unwrap_or(0)
    } else {
        text.chars().count()
    }
}

/// `re.split("[\r\n]", text)`, by which tabulate measures.
fn breaks(text: &str) -> Vec<&str> {
    text.split(['\r', '\n']).collect()
}

/// `text.splitlines()`, by which tabulate draws.
fn splitlines(text: &str) -> Vec<&str> {
    let is_end = |c: char| {
        matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
    };
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(is_end) {
        let end = rest[at..].chars().next().map_or(0, char::len_utf8);
        let end = if rest[at..].starts_with("\r\n") { 2 } else { end };
        lines.push(&rest[..at]);
        rest = &rest[at + end..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(cells: &[&str]) -> Vec<Cell> {
        cells.iter().map(|cell| Cell::Text((*cell).to_owned())).collect()
    }

    fn drawn(headers: &[&str], rows: &[Vec<Cell>]) -> Vec<String> {
        let headers: Vec<String> = headers.iter().map(|header| (*header).to_owned()).collect();
        let table = grid(&headers, rows, &Options::default()).expect("a table");
        table.lines().map(str::to_owned).collect()
    }

    #[test]
    fn numeric_texts_line_up_by_their_points() {
        let lines = drawn(&["v"], &[texts(&["0.5000"]), texts(&["10"]), texts(&["0.3056"])]);
        assert_eq!(lines[1], "|       v |");
        assert_eq!([&lines[3], &lines[5], &lines[7]], ["|  0.5    |", "| 10      |", "|  0.3056 |"]);
    }

    #[test]
    fn one_word_makes_a_column_of_texts() {
        let lines = drawn(&["v"], &[texts(&["0.50"]), texts(&["N/A"])]);
        assert_eq!([&lines[3], &lines[5]], ["| 0.50 |", "| N/A  |"]);
    }

    #[test]
    fn lines_of_a_cell_stay_in_it() {
        let lines = drawn(&["a", "b"], &[texts(&["x\ny", "1"])]);
        assert_eq!(lines[3..5], ["| x   |   1 |", "| y   |     |"]);
    }

    #[test]
    fn nothing_draws_nothing_and_headers_stand_alone() {
        assert!(drawn(&[], &[]).is_empty());
        assert_eq!(drawn(&["a"], &[]), ["+-----+", "| a   |", "+=====+", "+-----+"]);
    }

    #[test]
    fn a_format_that_is_none_is_refused() {
        let options = Options { float_format: PerColumn::All("wide".to_owned()), ..Options::default() };
        let problem = grid(&[], &[vec![Cell::Float(0.5)]], &options).expect_err("no such format");
        assert!(problem.what.contains("`wide`"));
    }
}
