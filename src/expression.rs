//! Expressions over names and numbers, as `when:` and `expect:` write them: Jinja's, evaluated by minijinja.
//! It does not know what the names stand for.
//!
//! An expression is untrusted text: it sees only the values it is given, calls only the functions below, and its
//! work is bounded.

mod cells;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use minijinja::value::Value as Jinja;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior};
use serde_json::Value;

pub use self::cells::of_cell;
use self::cells::{CELL, without_cells};
use crate::error::{Problem, Result};

/// Steps of the evaluation at most.
const FUEL: u64 = 10_000;

/// A longer text is not an expression.
const LONGEST: usize = 1000;

/// An expression whose syntax is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    text: String,
    /// The same with a plain name in place of each cell of a matrix, which Jinja has no word for.
    code: String,
    /// Those cells, as they are written: `lora[rank=4]`.
    cells: Vec<String>,
}

fn environment() -> &'static Environment<'static> {
    static ENVIRONMENT: OnceLock<Environment<'static>> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| {
        let mut environment = Environment::empty();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        environment.add_test("defined", |value: &Jinja| !value.is_undefined());
        environment.add_function("isfinite", |x: f64| x.is_finite());
        environment.add_function("abs", |x: f64| x.abs());
        // One that is not a number makes the answer none, unlike `f64::min`: it must not be lost.
        let either = |a: f64, b: f64, choose: fn(f64, f64) -> f64| if (a + b).is_nan() { a + b } else { choose(a, b) };
        environment.add_function("min", move |a: f64, b: f64| either(a, b, f64::min));
        environment.add_function("max", move |a: f64, b: f64| either(a, b, f64::max));
        environment
    })
}

/// The functions that an expression may call.
const FUNCTIONS: [&str; 4] = ["isfinite", "abs", "min", "max"];

impl Expression {
    /// Reads an expression. Whatever can be known without values is found here: syntax, functions that there are not,
    /// an answer that is neither true nor false.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > LONGEST {
            return Err(Problem::new(format!("this expression is longer than {LONGEST} bytes")));
        }
        let (code, cells) = without_cells(text);
        let compiled = environment().compile_expression(&code).map_err(|error| wrong(text, &error))?;
        // A text or a list times a number is that many of them, which no fuel counts.
        if code.contains('*') && code.contains(['[', '{', '\'', '"']) {
            let problem = Problem::new(format!("`{text}` multiplies beside texts or lists"));
            return Err(problem.help("make two expressions of it"));
        }
        let expression = Self { text: text.to_owned(), code: code.clone(), cells };
        let names = expression.plain_names();
        let pairs = names.iter().zip(names.iter().skip(1));
        if let Some((short, long)) =
            pairs.into_iter().find(|(a, b)| b.strip_prefix(*a).is_some_and(|r| r.starts_with('.')))
        {
            let problem = Problem::new(format!("`{text}` uses `{short}` and `{long}`, which cannot both be there"));
            return Err(problem.help("make two expressions of it"));
        }
        // Which numbers the names stand for seldom changes what sort of answer there is.
        match compiled.eval(&expression.values(|_| 0.5).0) {
            Ok(value) if bool::try_from(value.clone()).is_err() => Err(neither(text, &value)),
            Err(error) if is_of_the_text(error.kind()) => Err(wrong(text, &error)),
            _ => Ok(expression),
        }
    }

    /// True if it multiplies, so that nothing but numbers may come in.
    pub fn multiplies(&self) -> bool {
        self.code.contains('*')
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The names in it, with what is asked of them: `f1`, `base.f1`, `lora[rank=4].f1`. Functions are left out.
    pub fn names(&self) -> BTreeSet<String> {
        self.plain_names().iter().map(|name| self.written(name)).collect()
    }

    /// The same as the code has them.
    fn plain_names(&self) -> BTreeSet<String> {
        let names =
            environment().compile_expression(&self.code).map(|expression| expression.undeclared_variables(true));
        names.unwrap_or_default().into_iter().filter(|name| !FUNCTIONS.contains(&name.as_str())).collect()
    }

    /// A name of the code as it was written.
    fn written(&self, name: &str) -> String {
        let (first, rest) = name.find('.').map_or((name, ""), |at| name.split_at(at));
        let cell = first.strip_prefix(CELL).and_then(|number| self.cells.get(number.parse::<usize>().ok()?));
        format!("{}{rest}", cell.map_or(first, String::as_str))
    }

    /// What the names of it stand for, given the number of each.
    pub fn values(&self, number: impl Fn(&str) -> f64) -> Values {
        let names = self.plain_names();
        Values::tree(names.iter().map(|name| (name.as_str(), number(&self.written(name)))).collect())
    }

    /// What it says of these values, a mapping: true or false, and nothing else.
    pub fn holds(&self, values: &Values) -> Result<bool> {
        let value = environment()
            .compile_expression(&self.code)
            .and_then(|expression| expression.eval(&values.0))
            .map_err(|error| wrong(&self.text, &error))?;
        bool::try_from(value.clone()).map_err(|_| neither(&self.text, &value))
    }
}

fn neither(text: &str, value: &Jinja) -> Problem {
    let what = format!("`{text}` is {}, neither true nor false", value.kind());
    Problem::new(what).expected("a comparison, such as `f1 >= 0.5`")
}

/// True of mistakes that no values can mend.
fn is_of_the_text(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::UnknownFunction | ErrorKind::UnknownFilter | ErrorKind::UnknownTest | ErrorKind::UnknownMethod
    )
}

/// What the names of an expression stand for.
#[derive(Debug, Clone)]
pub struct Values(Jinja);

impl Values {
    /// A number, also one that JSON has no word for.
    pub fn number(number: f64) -> Self {
        Self(Jinja::from(number))
    }

    /// Numbers by their names, `base.f1` as an entry of `base`; no name is the beginning of another.
    fn tree(numbers: Vec<(&str, f64)>) -> Self {
        let mut groups: BTreeMap<&str, Vec<(&str, f64)>> = BTreeMap::new();
        let mut entries = Vec::new();
        for (name, number) in numbers {
            match name.split_once('.') {
                None => entries.push((name.to_owned(), Self::number(number))),
                Some((group, rest)) => groups.entry(group).or_default().push((rest, number)),
            }
        }
        entries.extend(groups.into_iter().map(|(group, numbers)| (group.to_owned(), Self::tree(numbers))));
        Self::group(entries)
    }

    /// Names and what they stand for.
    pub fn group(entries: impl IntoIterator<Item = (String, Self)>) -> Self {
        Self(Jinja::from_pairs(entries.into_iter().map(|(name, value)| (name, value.0))))
    }
}

impl From<&Value> for Values {
    fn from(value: &Value) -> Self {
        Self(match value {
            Value::Null => Jinja::from(()),
            Value::Bool(value) => Jinja::from(*value),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => Jinja::from(number),
                (_, Some(number)) => Jinja::from(number),
                _ => Jinja::from(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => Jinja::from(text.as_str()),
            Value::Array(items) => Jinja::from(items.iter().map(|item| Self::from(item).0).collect::<Vec<_>>()),
            Value::Object(map) => return Self::group(map.iter().map(|(name, value)| (name.clone(), value.into()))),
        })
    }
}

fn wrong(text: &str, error: &Error) -> Problem {
    let detail = error.detail().unwrap_or_default();
    let what = match error.kind() {
        ErrorKind::SyntaxError => format!("`{text}` is not an expression: {detail}"),
        ErrorKind::UndefinedError => format!("`{text}` names something that is not there"),
        kind if is_of_the_text(kind) => format!("`{text}` calls a function that is not there"),
        ErrorKind::OutOfFuel => format!("`{text}` takes too long"),
        _ => format!(
            "`{text}` cannot be worked out: {}",
            if detail.is_empty() { error.kind().to_string() } else { detail.to_owned() }
        ),
    };
    let problem = Problem::new(what);
    match error.kind() {
        ErrorKind::SyntaxError => problem.help("texts stand in quotes, and `==` compares: `matrix.kind == 'lora'`"),
        kind if is_of_the_text(kind) => problem.help(format!("the functions are `{}`", FUNCTIONS.join("`, `"))),
        _ => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn holds(text: &str) -> std::result::Result<bool, String> {
        let values = Values::from(&json!({ "f1": 0.31, "loss": 2, "kind": "lora", "base": { "f1": 0.35 } }));
        Expression::parse(text).and_then(|e| e.holds(&values)).map_err(|problem| problem.to_string())
    }

    #[test]
    fn comparisons_and_functions() {
        for (text, expected) in [
            ("f1 >= base.f1 - 0.05", true),
            ("f1 >= base.f1 - 0.02", false),
            ("isfinite(loss) and not f1 > 1", true),
            ("kind == 'lora' or loss < 0", true),
            ("abs(f1 - base.f1) < 0.05", true),
            ("loss in [1, 2]", true),
            ("nothing is defined", false),
            ("min(f1, base.f1) == f1", true),
            ("f1 >= 0.5 * base.f1", true),
        ] {
            assert_eq!(holds(text), Ok(expected), "{text}");
        }
        let names = Expression::parse("isfinite(loss) and f1 >= base.f1").unwrap().names();
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["base.f1", "f1", "loss"]);
    }

    #[test]
    fn mistakes_are_told() {
        for (text, word) in [
            ("f1 >", "is not an expression"),
            ("f1 = 2", "is not an expression"),
            ("f2 > 1", "something that is not there"),
            ("open('x')", "calls a function that is not there"),
            ("f1 + 1", "is number, neither true nor false"),
            ("f1 | abs > 0", "calls a function that is not there"),
            ("sqrt(f1) > 1", "calls a function that is not there"),
            ("base > 1 or base.f1 > 1", "cannot both be there"),
            // It would take hours: nothing counts the work of a multiplied list.
            ("([1] * 9000000) == ([1] * 9000000) or f1 == 1", "multiplies beside texts or lists"),
            ("", "is not an expression"),
            ("kind > 1 + kind", "cannot be worked out"),
        ] {
            let told = holds(text).unwrap_err();
            assert!(told.contains(word), "{text}: {told}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

        #[test]
        fn no_text_panics(text in "[a-z0-9 .()\\[\\]'\"<>=+*/%|~{}-]{0,40}") {
            let _ = holds(&text);
        }

        #[test]
        fn no_cell_panics(text in "[aя\\[\\]=,.\"' *]{0,24}") {
            let _ = holds(&text);
        }
    }
}
