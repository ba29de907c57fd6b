//! Fills a template with data: Tera, strict about what is undefined, with the tables of this program.
//! It does not know where the data comes from. Text is not escaped, `.html` is.

use serde_json::Value;
use tera::{Context, ErrorKind, Kwargs, State, Tera, TeraResult};

use super::comparison::{Comparison, FORMAT};
use super::table::{self, Cell, Options, PerColumn};
use super::template::Templates;
use super::view::view;
use crate::error::{Place, Problem, Result};

/// Renders with a JSON object. A comparison (known by its `format`) becomes its view, with the raw figures
/// under `comparison`; any other object is given as it is. `label` names the data in messages.
pub fn render(templates: &Templates, data: &str, label: &str) -> Result<String> {
    let context = context(data, label)?;
    let mut tera = Tera::default();
    tera.register_function("grid", grid);
    tera.register_function("markdown_table", markdown_table);
    tera.register_filter("markdown", |text: &str, _: Kwargs, _: &State| markdown(text));
    tera.register_filter("fixed", fixed);
    tera.register_filter("minus", |text: &str, _: Kwargs, _: &State| minus(text));
    tera.add_raw_templates(templates.texts.iter()).map_err(|error| problem(&error, &templates.main))?;
    tera.render(&templates.main, &context).map_err(|error| problem(&error, &templates.main))
}

fn context(data: &str, label: &str) -> Result<Context> {
    let value: Value = serde_json::from_str(data).map_err(|error| {
        let line = u64::try_from(error.line()).ok().filter(|line| *line > 0);
        Problem::new(format!("the data is not JSON: {error}")).in_file(label, line)
    })?;
    if value.get("format").and_then(Value::as_str) == Some(FORMAT) {
        let comparison = Comparison::read(data, label)?;
        let mut context = filled(&view(&comparison), label)?;
        context.insert("comparison", &comparison);
        return Ok(context);
    }
    if !value.is_object() {
        return Err(Problem::new("the data is not a JSON object")
            .in_file(label, None)
            .help("give an object, whose fields the template can name"));
    }
    filled(&value, label)
}

fn filled<T: serde::Serialize>(value: &T, label: &str) -> Result<Context> {
    Context::from_serialize(value)
        .map_err(|error| Problem::new(format!("the data cannot be given to a template: {error}")).in_file(label, None))
}

/// Tera's error as ours: the template, line and column, and the causes behind it.
fn problem(error: &tera::Error, main: &str) -> Problem {
    let mut causes = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    let tail = if causes.is_empty() { String::new() } else { format!(": {}", causes.join(": ")) };
    match error.kind() {
        ErrorKind::SyntaxError(report) | ErrorKind::RenderingError(report) => {
            let span = report.span();
            let file = if report.filename().is_empty() { main } else { report.filename() };
            let mut problem = Problem::new(format!("{}{tail}", report.message()));
            problem.place = Place::File {
                file: file.to_owned(),
                line: Some(span.start_line as u64),
                column: Some(span.start_col as u64 + 1),
            };
            problem
        }
        _ => Problem::new(format!("{error}{tail}")).in_file(main, None),
    }
}

/// `grid(headers=[…], rows=[[…]], floatfmt="g", intfmt="", missingval="")`: a table as Python's tabulate draws it.
fn grid(kwargs: Kwargs, _: &State) -> TeraResult<String> {
    let (headers, rows) = sheet(&kwargs)?;
    let option = |name: &str| -> TeraResult<PerColumn> {
        Ok(kwargs.get::<String>(name)?.map_or(PerColumn::Default, PerColumn::All))
    };
    let options = Options {
        float_format: option("floatfmt")?,
        int_format: option("intfmt")?,
        missing: option("missingval")?,
        ..Options::default()
    };
    table::grid(&headers, &rows, &options).map_err(|problem| tera::Error::message(problem.to_string()))
}

/// `markdown_table(headers=[…], rows=[[…]], missingval="")`: a table in GitHub's style, its cells escaped.
fn markdown_table(kwargs: Kwargs, _: &State) -> TeraResult<String> {
    let (headers, rows) = sheet(&kwargs)?;
    let missing = kwargs.get::<String>("missingval")?.unwrap_or_default();
    let line = |cells: &[String]| format!("| {} |", cells.join(" | "));
    let escaped: Vec<String> = headers.iter().map(|header| markdown(header)).collect();
    let mut lines = vec![line(&escaped), line(&vec!["---".to_owned(); headers.len()])];
    for row in &rows {
        let cells =
            row.iter().map(|cell| if *cell == Cell::Missing { missing.clone() } else { markdown(&cell.text()) });
        lines.push(line(&cells.collect::<Vec<_>>()));
    }
    Ok(lines.join("\n"))
}

/// Text whose negative numbers have the typographic minus; hyphens in words stay.
fn minus(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let mut before = ' ';
    while let Some(c) = chars.next() {
        let is_minus = c == '-' && matches!(before, ' ' | '(' | '[') && chars.peek().is_some_and(char::is_ascii_digit);
        out.push(if is_minus { '−' } else { c });
        before = c;
    }
    out
}

/// `number | fixed(digits=4, sign=false)`: so many digits after the point, never a negative zero.
fn fixed(value: f64, kwargs: Kwargs, _: &State) -> TeraResult<String> {
    let digits = kwargs.get::<u32>("digits")?.unwrap_or(4).min(17) as usize;
    let text = super::delta::signed(value, digits);
    let with_sign = kwargs.get::<bool>("sign")?.unwrap_or(false);
    Ok(if with_sign { text } else { text.trim_start_matches('+').to_owned() })
}

fn sheet(kwargs: &Kwargs) -> TeraResult<(Vec<String>, Vec<Vec<Cell>>)> {
    let headers = kwargs.get::<Vec<tera::Value>>("headers")?.unwrap_or_default();
    let headers = headers.iter().map(|header| cell(header).map(|cell| cell.text())).collect::<TeraResult<_>>()?;
    let rows = kwargs.must_get::<Vec<tera::Value>>("rows")?;
    let rows = rows.iter().map(|row| {
        let cells = row.as_array().ok_or_else(|| tera::Error::message("a row of a table is not a list"))?;
        cells.iter().map(cell).collect::<TeraResult<Vec<_>>>()
    });
    Ok((headers, rows.collect::<TeraResult<_>>()?))
}

fn cell(value: &tera::Value) -> TeraResult<Cell> {
    if value.is_none() {
        return Ok(Cell::Missing);
    }
    if let Some(text) = value.as_str() {
        return Ok(Cell::Text(text.to_owned()));
    }
    if let Some(value) = value.as_bool() {
        return Ok(Cell::Bool(value));
    }
    // `as_i128` also takes floats without a fraction, and 2.0 is not 2 in a table.
    if value.is_f64() {
        return value.as_f64().map(Cell::Float).ok_or_else(|| not_a_cell(value));
    }
    value.as_i128().map(Cell::Int).ok_or_else(|| not_a_cell(value))
}

fn not_a_cell(value: &tera::Value) -> tera::Error {
    tera::Error::message(format!("a cell of a table is `{}`: it takes texts, numbers, booleans and none", value.name()))
}

/// Text that Markdown shows as it is: on one line, with its special characters escaped.
pub fn markdown(text: &str) -> String {
    let line = super::wording::one_line(text);
    let mut out = String::with_capacity(line.len());
    for c in line.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '~' => out.extend(['\\', c]),
            _ => out.push(c),
        }
    }
    out
}
