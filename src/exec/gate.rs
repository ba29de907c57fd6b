//! What `expect:` says of a step's figures: held before the result is kept, and again whenever it is used.
//! It does not know where figures come from.

use std::collections::BTreeMap;

use crate::error::{Problem, Result};
use crate::expression::{Expression, of_cell};
use crate::spec::suggest;

/// Figures by name.
pub(super) type Figures = BTreeMap<String, f64>;

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
    for expression in expect {
        let names = expression.names();
        for name in &names {
            // All that it names are others, but for the cell that it is itself.
            if let Some((cell, figure)) = of_cell(name).filter(|(cell, _)| !others.contains_key(*cell))
                && let Some(value) = own.get(figure)
            {
                all.insert(format!("{cell}.{figure}"), *value);
            }
        }
        if let Some(name) = names.iter().find(|name| !all.contains_key(*name)) {
            let known = all.keys().map(String::as_str);
            let help = suggest::help(name, known, "there is", "there are no figures at all");
            let what = format!("`{}` asks for the figure `{name}`, which there is not", expression.text());
            return Err(Problem::new(what).help(help).of_gate());
        }
        let values = expression.values(|name| all[name]);
        // Jinja's order has a place for what is not a number; a comparison with it says nothing.
        let finite = names.iter().all(|name| all[name].is_finite());
        if !finite || !expression.holds(&values).map_err(Problem::of_gate)? {
            let shown: Vec<String> = names.iter().map(|name| format!("{name} = {}", all[name])).collect();
            let what = format!("it was expected that {}, and {}", expression.text(), shown.join(", "));
            return Err(Problem::new(what).help("its result is not used, and nothing that needs it runs").of_gate());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(expect: &str, own: &[(&str, f64)]) -> Option<String> {
        let figures = |list: &[(&str, f64)]| list.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let others = BTreeMap::from([
            ("base".to_owned(), figures(&[("f1", 0.35), ("dev.items", 3.0)])),
            ("lora[rank=4,lr=0.5]".to_owned(), figures(&[("f1", 0.3)])),
        ]);
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
        assert!(told("loss > 0", &[("loss", f64::NAN)]).is_some());
        assert_eq!(told("dev.f1 > 0", &[("dev", 1.0), ("dev.f1", 0.5)]), None);
        assert_eq!(told("isfinite(loss)", &[("loss", 1.5)]), None);
        assert_eq!(told("f1 > lora[rank=4,lr=0.5].f1 * 1.0", &[("f1", 0.31)]), None);
        let text = told("f1 > 2 * lora[rank=4,lr=0.5].f1", &[("f1", 0.31)]).unwrap();
        assert!(text.contains(", and f1 = 0.31, lora[rank=4,lr=0.5].f1 = 0.3"), "{text}");
        assert_eq!(told("f1 >= lora[rank=8,lr=0.5].f1", &[("f1", 0.31)]), None, "the cell that it is itself");
        let text = told("f1 >= lora[rank=4,lr=0.5].loss", &[("f1", 0.31), ("loss", 0.0)]).unwrap();
        assert!(text.contains("the figure `lora[rank=4,lr=0.5].loss`, which there is not"), "{text}");
        let text = told("recall > 0", &[("f1", 0.31)]).unwrap();
        assert!(text.contains("the figure `recall`") && text.contains("`base.f1`, `f1`"), "{text}");
    }
}
