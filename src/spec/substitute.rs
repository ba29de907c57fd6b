//! `${params.a.b}` and `${matrix.x}` in texts: one pass, no code; a whole-value `${…}` keeps its type.
//! It does not know which part of a step the text belongs to.

use serde_json::Value;

use crate::error::{Path, Problem};

use super::node::{Node, type_name};
use super::problems::{Finding, Focus};
use super::suggest;

/// What names may stand for.
pub(super) struct Scope<'a> {
    /// The parameters after profile and `--set`.
    pub params: &'a Value,
    /// The coordinates of the cell; `None` where there is no matrix.
    pub cell: Option<&'a [(String, Value)]>,
}

/// What came along with a substitution.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// What is wrong in any case.
    pub findings: Vec<Finding>,
    /// What is wrong because a parameter is null: forgiven in a step that no target needs.
    pub missing: Vec<Finding>,
    /// Values that are null because a parameter is.
    pub nulls: Vec<Path>,
}

/// A part of a text.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'t> {
    Literal(&'t str),
    /// The inside of `${…}`.
    Name(&'t str),
    /// `${` without its `}`.
    Open(&'t str),
}

/// True if the text would be changed by a substitution.
pub(super) fn has_names(text: &str) -> bool {
    pieces(text).iter().any(|piece| matches!(piece, Piece::Name(_)))
}

/// The name in a text that is nothing but `${name}`.
pub(super) fn whole_name(text: &str) -> Option<&str> {
    match pieces(text).as_slice() {
        [Piece::Name(name)] => Some(name.trim()),
        _ => None,
    }
}

/// All names in a text.
pub(super) fn names(text: &str) -> Vec<&str> {
    let name = |piece| if let Piece::Name(name) = piece { Some(name.trim()) } else { None };
    pieces(text).into_iter().filter_map(name).collect()
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            // `$${` writes `${`: the first dollar goes.
            pieces.push(Piece::Literal(&rest[..at - 1]));
            pieces.push(Piece::Literal("${"));
            rest = &rest[at + 2..];
            continue;
        }
        if at > 0 {
            pieces.push(Piece::Literal(&rest[..at]));
        }
        let Some(end) = rest[at..].find('}') else {
            pieces.push(Piece::Open(&rest[at..]));
            return pieces;
        };
        pieces.push(Piece::Name(&rest[at + 2..at + end]));
        rest = &rest[at + end + 1..];
    }
    if !rest.is_empty() {
        pieces.push(Piece::Literal(rest));
    }
    pieces
}

impl Scope<'_> {
    /// The value at `path` with every `${…}` replaced. What is wrong is replaced by null.
    pub fn apply(&self, node: &Node, path: &Path, outcome: &mut Outcome) -> Value {
        match node {
            Node::Text(text) => self.text(text, path, outcome),
            Node::List(items) => Value::Array(
                items.iter().enumerate().map(|(i, item)| self.apply(item, &path.index(i), outcome)).collect(),
            ),
            Node::Map(entries) => Value::Object(
                entries.iter().map(|(key, item)| (key.clone(), self.apply(item, &path.key(key), outcome))).collect(),
            ),
            _ => node.to_json(),
        }
    }

    fn text(&self, text: &str, path: &Path, outcome: &mut Outcome) -> Value {
        let pieces = pieces(text);
        let wrong =
            |part: String, problem: Problem| Finding { problem: problem.at(path.clone()), focus: Focus::Within(part) };
        if let [Piece::Name(name)] = pieces.as_slice() {
            return match self.find(name) {
                Ok(value) => {
                    record_nulls(value, path, &mut outcome.nulls);
                    value.clone()
                }
                Err(problem) => {
                    outcome.findings.push(wrong(format!("${{{name}}}"), problem));
                    outcome.nulls.push(path.clone());
                    Value::Null
                }
            };
        }
        let mut result = String::with_capacity(text.len());
        for piece in &pieces {
            match piece {
                Piece::Literal(literal) => result.push_str(literal),
                Piece::Open(open) => {
                    let problem =
                        Problem::new("`${` without its `}`").help("close it, or write `$${` for a plain `${`");
                    outcome.findings.push(wrong((*open).to_owned(), problem));
                }
                Piece::Name(name) => match self.find(name) {
                    Ok(Value::String(value)) => result.push_str(value),
                    Ok(value @ (Value::Bool(_) | Value::Number(_))) => result.push_str(&value.to_string()),
                    Ok(Value::Null) => {
                        let problem = Problem::new(format!("`{name}` is null, and stands inside a text"))
                            .expected("a value")
                            .help(format!("give it a value: `--set {}=…`", name.trim_start_matches("params.")));
                        outcome.missing.push(wrong(format!("${{{name}}}"), problem));
                    }
                    Ok(value) => {
                        let problem =
                            Problem::new(format!("`{name}` is {}, and stands inside a text", type_name(value)))
                                .expected("text or a number")
                                .help("make the `${…}` the whole value to keep its type");
                        outcome.findings.push(wrong(format!("${{{name}}}"), problem));
                    }
                    Err(problem) => outcome.findings.push(wrong(format!("${{{name}}}"), problem)),
                },
            }
        }
        Value::String(result)
    }

    fn find(&self, name: &str) -> Result<&Value, Problem> {
        let mut segments = name.split('.').map(str::trim);
        match segments.next() {
            Some("params") => {
                let mut value = self.params;
                let mut so_far = "params".to_owned();
                let mut any = false;
                for segment in segments {
                    let Some(entries) = value.as_object() else {
                        return Err(Problem::new(format!("`{so_far}` is {}, it has no `{segment}`", type_name(value))));
                    };
                    value = entries.get(segment).ok_or_else(|| {
                        Problem::new(format!("there is no `{segment}` in `{so_far}`"))
                            .expected("a name under `params:`")
                            .help(suggest::help(
                                segment,
                                entries.keys().map(String::as_str),
                                "there is",
                                "add it under `params:`",
                            ))
                    })?;
                    so_far = format!("{so_far}.{segment}");
                    any = true;
                }
                if any {
                    Ok(value)
                } else {
                    Err(Problem::new("`params` alone is not a value").help("write `${params.name}`"))
                }
            }
            Some("matrix") => {
                let Some(cell) = self.cell else {
                    return Err(Problem::new(format!("`{name}`, but there is no matrix here"))
                        .help("`${matrix.…}` has a meaning in the `uses`, `in` and `with` of a step with a `matrix`"));
                };
                let axis = segments.collect::<Vec<_>>().join(".");
                cell.iter().find(|(known, _)| *known == axis).map(|(_, value)| value).ok_or_else(|| {
                    Problem::new(format!("the matrix has no axis `{axis}`")).expected("an axis of this step").help(
                        suggest::help(
                            &axis,
                            cell.iter().map(|(known, _)| known.as_str()),
                            "the axes are",
                            "add the axis",
                        ),
                    )
                })
            }
            first => {
                let first = first.unwrap_or_default();
                let known = self.params.as_object().is_some_and(|params| params.contains_key(first));
                let help = if known {
                    format!("did you mean `${{params.{}}}`?", name.trim())
                } else if let Some(near) = suggest::nearest(first, ["params", "matrix"]) {
                    format!("did you mean `{near}`?")
                } else {
                    "write `${params.name}` or `${matrix.axis}`; `$${` writes a plain `${`".to_owned()
                };
                Err(Problem::new(format!("`${{{name}}}` is not a parameter")).help(help))
            }
        }
    }
}

fn record_nulls(value: &Value, path: &Path, nulls: &mut Vec<Path>) {
    match value {
        Value::Null => nulls.push(path.clone()),
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                record_nulls(item, &path.index(i), nulls);
            }
        }
        Value::Object(entries) => {
            for (key, item) in entries {
                record_nulls(item, &path.key(key), nulls);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn apply(text: &str) -> (Value, Outcome) {
        let params = json!({ "rank": 4, "name": "a", "list": [1, 2], "none": null, "lora": { "alpha": 8.5 } });
        let cell = [("seed".to_owned(), json!(7))];
        let mut outcome = Outcome::default();
        let value = Scope { params: &params, cell: Some(&cell) }.apply(
            &Node::Text(text.to_owned()),
            &Path::root(),
            &mut outcome,
        );
        (value, outcome)
    }

    #[test]
    fn a_whole_value_keeps_its_type_and_an_embedded_one_is_text() {
        assert_eq!(apply("${params.rank}").0, json!(4));
        assert_eq!(apply("${params.list}").0, json!([1, 2]));
        assert_eq!(apply("${ params.lora.alpha }").0, json!(8.5));
        assert_eq!(apply("r${params.rank}-${matrix.seed}").0, json!("r4-7"));
    }

    #[test]
    fn a_doubled_dollar_is_a_plain_one() {
        assert_eq!(apply("$${params.rank}").0, json!("${params.rank}"));
        assert_eq!(apply("a $5 $${x} ${params.name}").0, json!("a $5 ${x} a"));
    }

    #[test]
    fn mistakes_are_told_with_what_was_meant() {
        let help = |text: &str| apply(text).1.findings[0].problem.help.clone().unwrap_or_default();
        assert_eq!(help("${params.rnak}"), "did you mean `rank`?");
        assert_eq!(help("${rank}"), "did you mean `${params.rank}`?");
        assert_eq!(help("${matrix.sead}"), "did you mean `seed`?");
        assert!(help("x ${params.rank").contains("close it"));
        assert!(help("x ${params.list}").contains("whole value"));
        let (_, outcome) = apply("x/${params.none}");
        assert!(outcome.findings.is_empty());
        assert_eq!(outcome.missing.len(), 1);
    }
}
