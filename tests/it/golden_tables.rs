//! Grid tables against those that tabulate drew.

use std::path::{Path, PathBuf};

use pipe::report::table::{Align, Cell, Options, PerColumn, grid};
use serde_json::Value;

use crate::support;

#[test]
fn every_golden_table_is_drawn_byte_for_byte() {
    let Some(golden) = support::golden() else { return };
    let mut cases = 0;
    let mut wrong = Vec::new();
    for folder in folders_of_kind(&golden, "tables") {
        let text = std::fs::read_to_string(folder.join("tables.json")).expect("tables.json is there");
        let list: Vec<Value> = serde_json::from_str(&text).expect("tables.json is a list");
        for case in &list {
            cases += 1;
            let drawn = draw(case);
            let accepted = [&case["expected"], &case["expected_alt"]];
            if !accepted.iter().any(|expected| expected.as_str() == Some(&drawn)) {
                wrong.push(format!(
                    "{}:\n{drawn}\nexpected\n{}",
                    case["name"],
                    case["expected"].as_str().unwrap_or("")
                ));
            }
        }
    }
    support::has_cases(cases, "tables");
    assert!(wrong.is_empty(), "{} of {cases} tables differ:\n{}", wrong.len(), wrong.join("\n\n"));
}

fn folders_of_kind(root: &Path, kind: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).expect("golden folders can be read").flatten() {
            if entry.path().is_dir() {
                open.push(entry.path());
            } else if entry.file_name() == "manifest.json" {
                let text = std::fs::read_to_string(entry.path()).expect("the manifest can be read");
                let manifest: Value = serde_json::from_str(&text).expect("the manifest is JSON");
                if manifest["kind"] == kind {
                    found.push(folder.clone());
                }
            }
        }
    }
    found.sort();
    found
}

fn draw(case: &Value) -> String {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let headers: Vec<String> = list(&case["headers"]).iter().map(|header| cell(header).text()).collect();
    let rows: Vec<Vec<Cell>> = list(&case["rows"]).iter().map(|row| list(row).iter().map(cell).collect()).collect();
    let mut options = Options::default();
    for (name, value) in case["kwargs"].as_object().into_iter().flatten() {
        match name.as_str() {
            "floatfmt" => options.float_format = per_column(value),
            "intfmt" => options.int_format = per_column(value),
            "missingval" => options.missing = per_column(value),
            "numalign" => options.number_align = align(value),
            "stralign" => options.text_align = align(value),
            "colalign" => options.column_align = list(value).iter().map(align).collect(),
            "disable_numparse" => options.no_numbers = value == true,
            other => panic!("the argument `{other}` of {} is not known here", case["name"]),
        }
    }
    grid(&headers, &rows, &options).unwrap_or_else(|problem| format!("{problem}"))
}

fn per_column(value: &Value) -> PerColumn {
    match value {
        Value::Array(list) => PerColumn::Each(list.iter().map(|v| v.as_str().unwrap_or("").to_owned()).collect()),
        other => PerColumn::All(other.as_str().unwrap_or("").to_owned()),
    }
}

fn align(value: &Value) -> Option<Align> {
    match value.as_str() {
        Some("left") => Some(Align::Left),
        Some("right") => Some(Align::Right),
        Some("center") => Some(Align::Center),
        Some("decimal") => Some(Align::Decimal),
        _ => None,
    }
}

fn cell(value: &Value) -> Cell {
    match value {
        Value::Null => Cell::Missing,
        Value::Bool(value) => Cell::Bool(*value),
        Value::String(text) => Cell::Text(text.clone()),
        Value::Number(number) => match number.as_i128() {
            Some(value) => Cell::Int(value),
            None => Cell::Float(number.as_f64().expect("a JSON number is a float")),
        },
        other => Cell::Text(other.to_string()),
    }
}
