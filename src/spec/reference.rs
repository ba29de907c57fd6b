//! References in `in:` and `targets:`: `step`, `step.output`, `step[axis=value,…]`, `step[axis=value].output`.
//! It does not know which steps there are.

use serde_json::{Number, Value};

use crate::error::Problem;

use super::node::parse_value;

/// A reference as it is written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reference {
    /// The name of the step.
    pub step: String,
    /// The coordinates in brackets, if there are brackets.
    pub cell: Option<Vec<(String, Value)>>,
    /// The output after the dot.
    pub output: Option<String>,
}

/// True for a name that a step, an axis or an output may have: letters, digits, `_` and `-`.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-')
}

/// Reads a reference.
pub(super) fn parse(text: &str) -> Result<Reference, Problem> {
    let wrong = || {
        Problem::new(format!("`{text}` is not a reference to a step"))
            .help("write `step`, `step.output`, `step[axis=value]` or `step[axis=value].output`")
    };
    let text = text.trim();
    let end = text.find(['[', '.']).unwrap_or(text.len());
    let (step, mut rest) = text.split_at(end);
    if !is_name(step) {
        return Err(wrong());
    }
    let mut cell = None;
    if let Some(inside) = rest.strip_prefix('[') {
        let close = closing(inside).ok_or_else(wrong)?;
        let mut coordinates = Vec::new();
        for part in split(&inside[..close]) {
            let (axis, value) = part.split_once('=').ok_or_else(wrong)?;
            let axis = axis.trim();
            if !is_name(axis) || coordinates.iter().any(|(known, _)| known == axis) {
                return Err(wrong());
            }
            coordinates.push((axis.to_owned(), parse_value(value.trim()).map_err(|_| wrong())?));
        }
        cell = Some(coordinates);
        rest = &inside[close + 1..];
    }
    let output = match rest.strip_prefix('.') {
        Some(output) if is_name(output) => Some(output.to_owned()),
        Some(_) => return Err(wrong()),
        None if rest.is_empty() => None,
        None => return Err(wrong()),
    };
    Ok(Reference { step: step.to_owned(), cell, output })
}

/// Characters outside quotes, with their places.
fn unquoted(text: &str) -> impl Iterator<Item = (usize, char)> {
    let mut quoted = false;
    let mut escaped = false;
    text.char_indices().filter(move |&(_, c)| {
        let was = quoted;
        if c == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = c == '\\' && was && !escaped;
        !was && c != '"'
    })
}

fn closing(text: &str) -> Option<usize> {
    unquoted(text).find(|&(_, c)| c == ']').map(|(at, _)| at)
}

fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    for (at, _) in unquoted(text).filter(|&(_, c)| c == ',') {
        parts.push(&text[start..at]);
        start = at + 1;
    }
    parts.push(&text[start..]);
    parts
}

/// The id of a cell: `lora[rank=4,alpha=8]`, axes in the order of the file.
pub(super) fn id(step: &str, cell: &[(String, Value)]) -> String {
    if cell.is_empty() {
        return step.to_owned();
    }
    let coordinates: Vec<String> = cell.iter().map(|(axis, value)| format!("{axis}={}", show(value))).collect();
    format!("{step}[{}]", coordinates.join(","))
}

/// A coordinate as an id shows it, and as YAML reads it back. Text that would not come back as it is stands
/// in quotes, so ids of different cells differ.
fn show(value: &Value) -> String {
    match value {
        Value::String(text) => {
            let plain = !text.is_empty()
                && text.chars().all(|c| c.is_alphanumeric() || "_-./+".contains(c))
                && parse_value(text).as_ref() == Ok(value);
            if plain { text.clone() } else { value.to_string() }
        }
        _ => value.to_string(),
    }
}

/// Coordinates compare as YAML values: `4`, `0x4` and `4.0` are one number, `"4"` is text.
pub(super) fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || (is_float(a) || is_float(b)) && a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

fn is_float(number: &Number) -> bool {
    number.is_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn all_four_forms() {
        assert_eq!(parse("a").unwrap(), Reference { step: "a".into(), cell: None, output: None });
        assert_eq!(parse("a.b").unwrap().output.as_deref(), Some("b"));
        let full = parse("a[rank=4, mode=\"x],y\"].out").unwrap();
        assert_eq!(full.cell.unwrap(), [("rank".to_owned(), json!(4)), ("mode".to_owned(), json!("x],y"))]);
        assert_eq!(full.output.as_deref(), Some("out"));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", ".", "a.", "a[", "a[]", "a[b]", "a[b=1", "a[b=1]c", "a b", "a.b.c", "a[b=1,b=2]"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_id_reads_back_as_its_cell() {
        let cell = [("a".to_owned(), json!("4")), ("b".to_owned(), json!(4)), ("c".to_owned(), json!("x,]=\"y"))];
        assert_eq!(id("s", &cell[..2]), "s[a=\"4\",b=4]");
        assert_eq!(parse(&id("s", &cell)).unwrap().cell.unwrap(), cell);
    }

    #[test]
    fn numbers_compare_by_value() {
        assert!(equal(&json!(4), &json!(4.0)));
        assert!(!equal(&json!("4"), &json!(4)));
    }
}
