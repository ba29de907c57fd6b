//! Cells of matrices in expressions, as `lora[rank=4].f1`: Jinja has no word for them, so its code has plain names instead.
//! It does not know which steps and matrices there are.

/// How the names of cells begin in the code; their numbers follow.
pub(super) const CELL: &str = "__cell";

/// The cell of a matrix and what is asked of it, in `lora[rank=4].f1`; `None` for any other name.
pub fn of_cell(name: &str) -> Option<(&str, &str)> {
    let end = name.rfind(']')? + 1;
    Some((&name[..end], name[end..].strip_prefix('.')?))
}

/// The end of a cell's brackets, in the text behind the opening one; `None` if what begins there is no cell but a list or
/// an index.
fn end_of_cell(inside: &str) -> Option<usize> {
    let (mut quoted, mut escaped, mut end, mut axis) = (false, false, None, true);
    for (at, c) in inside.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ']' if !quoted => {
                end = Some(at);
                break;
            }
            // The name of the first axis, and then its value.
            '=' if axis => {
                if at == 0 || inside[at + 1..].starts_with('=') {
                    return None;
                }
                axis = false;
            }
            c if axis && !(c.is_alphanumeric() || "_- ".contains(c)) => return None,
            _ => {}
        }
    }
    end.filter(|_| !axis)
}

/// The text with a plain name in place of each cell, and the cells.
pub(super) fn without_cells(text: &str) -> (String, Vec<String>) {
    let (mut code, mut cells) = (String::with_capacity(text.len()), Vec::<String>::new());
    // Where the name that is being read begins in the code, and the quotes that are open.
    let (mut name, mut open): (Option<usize>, Option<char>) = (None, None);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let (before, behind) = (rest, &rest[c.len_utf8()..]);
        rest = behind;
        match (open, c) {
            (Some(quote), _) => {
                if c == quote {
                    open = None;
                }
            }
            (None, '"' | '\'') => (open, name) = (Some(c), None),
            (None, '[') if name.is_some() => {
                if let (Some(begin), Some(end)) = (name, end_of_cell(behind)) {
                    let cell = format!("{}{}", &code[begin..], &before[..end + 2]);
                    let number = cells.iter().position(|known| *known == cell).unwrap_or(cells.len());
                    if number == cells.len() {
                        cells.push(cell);
                    }
                    code.truncate(begin);
                    code.push_str(&format!("{CELL}{number}"));
                    (rest, name) = (&behind[end + 1..], None);
                    continue;
                }
                name = None;
            }
            (None, _) if c.is_alphanumeric() || c == '_' => {
                name.get_or_insert(code.len());
            }
            _ => name = None,
        }
        code.push(c);
    }
    (code, cells)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::Expression;

    #[test]
    fn cells_are_names_like_others() {
        let cells = |text: &str| {
            let expression = Expression::parse(text).unwrap();
            (expression.names().into_iter().collect::<Vec<_>>(), expression.text().to_owned())
        };
        let text = "f1 >= lora[rank=4, lr=0.5].dev.f1 * 0.9 and lora[rank=4, lr=0.5].dev.f1 > мера[имя=\"a ] b\"].f1";
        let names = ["f1", "lora[rank=4, lr=0.5].dev.f1", "мера[имя=\"a ] b\"].f1"].map(str::to_owned);
        assert_eq!(cells(text), (names.to_vec(), text.to_owned()));
        let number = |name: &str| match name {
            "a[x=1].f1" => 1.0,
            "a[x=2].f1" => 2.0,
            _ => f64::NAN,
        };
        for (text, expected) in [("a[x=1].f1 < a[x=2].f1", true), ("a[x=1].f1 + 1 < a[x=2].f1", false)] {
            let expression = Expression::parse(text).unwrap();
            assert_eq!(expression.holds(&expression.values(number)), Ok(expected), "{text}");
        }
        // As ids show a text that has a quote in it.
        let quoted = r#"a[n="x\"]"].f1"#;
        assert_eq!(cells(&format!("{quoted} > 0")).0, [quoted]);
        // Neither lists nor texts are cells.
        for text in ["loss in [1, 2]", "loss in[1 == 1, 2]", "kind == 'a[x=1].f1'", "kind in ['a[x=1]', \"b[x=1]\"]"] {
            assert!(!cells(text).0.iter().any(|name| name.contains('[')), "{text}");
        }
        assert_eq!(of_cell("lora[lr=0.5].dev.f1"), Some(("lora[lr=0.5]", "dev.f1")));
        assert_eq!((of_cell("lora[lr=0.5]"), of_cell("base.f1")), (None, None));
    }
}
