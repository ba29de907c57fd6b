//! The page `pipelines/README.md`: the language by hand, the step kinds from the code.
//! It does not know how the page gets into its file; a test writes and compares it.

use crate::step::{AnyKind, Arity};

use super::parameters::rows;

/// The part that is written by hand.
const LANGUAGE: &str = include_str!("guide.md");

/// The whole page.
pub fn text(kinds: &[&dyn AnyKind]) -> String {
    let mut page = LANGUAGE.trim_end().to_owned();
    page.push_str("\n\n## Step kinds\n\n<!-- Written by `UPDATE=1 cargo test docs`; edit the step kinds in src/steps instead. -->\n");
    for kind in kinds {
        page.push_str(&section(*kind));
    }
    page
}

/// How many producers a port takes, in words.
pub fn arity(arity: Arity) -> &'static str {
    match arity {
        Arity::One => "one",
        Arity::Optional => "one or none",
        Arity::Many => "one or more",
        Arity::Any => "any number",
        Arity::OneOrList => "one or a list",
    }
}

fn section(kind: &dyn AnyKind) -> String {
    let mut text = format!("\n### `{}`\n\n{}\n", kind.name(), kind.summary());
    if !kind.inputs().is_empty() {
        text.push_str("\n| input | takes | |\n|---|---|---|\n");
        for input in kind.inputs() {
            text.push_str(&format!("| `{}` | {} | {} |\n", input.name, arity(input.arity), cell(input.doc)));
        }
    }
    text.push_str("\n| output | file | |\n|---|---|---|\n");
    for output in kind.outputs() {
        text.push_str(&format!("| `{}` | `{}` | {} |\n", output.name, output.file, cell(output.doc)));
    }
    let rows = rows(kind);
    if !rows.is_empty() {
        text.push_str("\n| parameter | takes | default | |\n|---|---|---|---|\n");
        for row in rows {
            let default = match &row.default {
                Some(default) => format!("`{}`", cell(&default.to_string())),
                None if row.required => "required".to_owned(),
                None => "—".to_owned(),
            };
            let (takes, doc) = (cell(&row.takes), cell(&row.doc));
            text.push_str(&format!("| `{}` | {takes} | {default} | {doc} |\n", row.name));
        }
    }
    text.push_str(&format!("\n```yaml\n{}\n```\n", kind.example().trim()));
    text
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
