//! What `expect:` says of a step's figures: held before the result is kept, and again whenever it is used.
//! It does not know where figures come from.

use std::collections::BTreeMap;

use crate::error::{Problem, Result};
use crate::expression::{Expression, Values};

/// Figures by name.
pub(super) type Figures = BTreeMap<String, f64>;

/// Figures as an expression sees them: `dev.documents` is an entry of `dev`.
enum Tree {
    Figure(f64),
    Group(BTreeMap<String, Tree>),
}

/// Holds every expectation against the step's own figures, and those of other steps by their names.
pub(super) fn check(expect: &[Expression], own: &Figures, others: &BTreeMap<String, Figures>) -> Result<()> {
    if expect.is_empty() {
        return Ok(());
    }
    let prefixed = |(step, figures): (&String, &Figures)| {
        figures.iter().map(|(name, value)| (format!("{step}.{name}"), *value)).collect::<Vec<_>>()
    };
    let mut all: Figures = others.iter().flat_map(prefixed).collect();
    // A figure of its own is meant before one of another step.
    all.extend(own.iter().map(|(name, value)| (name.clone(), *value)));
    let mut tree = BTreeMap::new();
    all.iter().for_each(|(name, value)| plant(&mut tree, name, *value));
    let values = group(tree);
    for expression in expect {
        let names = expression.names();
        if let Some(name) = names.iter().find(|name| !all.contains_key(*name)) {
            let known: Vec<&str> = all.keys().map(String::as_str).collect();
            let there = if known.is_empty() { "none".to_owned() } else { format!("`{}`", known.join("`, `")) };
            return Err(Problem::new(format!("`{}` asks for the figure `{name}`", expression.text()))
                .help(format!("there is no such figure; there is: {there}"))
                .of_gate());
        }
        if !expression.holds(&values).map_err(Problem::of_gate)? {
            let shown: Vec<String> = names.iter().map(|name| format!("{name} = {}", all[name])).collect();
            let what = format!("it was expected that {}, and {}", expression.text(), shown.join(", "));
            return Err(Problem::new(what).help("its result is not used, and nothing that needs it runs").of_gate());
        }
    }
    Ok(())
}

fn group(tree: BTreeMap<String, Tree>) -> Values {
    Values::group(tree.into_iter().map(|(name, branch)| match branch {
        Tree::Figure(value) => (name, Values::number(value)),
        Tree::Group(tree) => (name, group(tree)),
    }))
}

/// Puts a figure where its name says; a name that goes through another figure has no place.
fn plant(tree: &mut BTreeMap<String, Tree>, name: &str, value: f64) {
    match name.split_once('.') {
        None => {
            tree.entry(name.to_owned()).or_insert(Tree::Figure(value));
        }
        Some((group, rest)) => {
            let group = tree.entry(group.to_owned()).or_insert_with(|| Tree::Group(BTreeMap::new()));
            if let Tree::Group(group) = group {
                plant(group, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(expect: &str, own: &[(&str, f64)]) -> Option<String> {
        let figures = |list: &[(&str, f64)]| list.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let others = BTreeMap::from([("base".to_owned(), figures(&[("f1", 0.35), ("dev.items", 3.0)]))]);
        check(&[Expression::parse(expect).unwrap()], &figures(own), &others).err().map(|problem| {
            assert!(problem.gate);
            problem.to_string()
        })
    }

    #[test]
    fn what_does_not_hold_is_told_with_its_values() {
        assert_eq!(told("f1 >= base.f1 - 0.05", &[("f1", 0.31)]), None);
        assert_eq!(told("dev.items == base.dev.items", &[("dev.items", 3.0)]), None);
        let text = told("f1 >= base.f1", &[("f1", 0.31)]).unwrap();
        assert!(text.starts_with("it was expected that f1 >= base.f1, and base.f1 = 0.35, f1 = 0.31"), "{text}");
        assert!(told("isfinite(loss)", &[("loss", f64::NAN)]).is_some());
        assert_eq!(told("isfinite(loss)", &[("loss", 1.5)]), None);
        let text = told("recall > 0", &[("f1", 0.31)]).unwrap();
        assert!(text.contains("the figure `recall`") && text.contains("`base.f1`, `f1`"), "{text}");
    }
}
