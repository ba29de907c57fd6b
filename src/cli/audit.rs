//! `pipe audit`: what is wrong with a finished report.
//! It does not know what can be wrong: it reads, asks `audit`, and tells.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Exit, fail};
use crate::audit::{Defect, audit};
use crate::error::{Problem, Result};
use crate::ui;

/// The largest report that is read.
const MOST_BYTES: u64 = 16 << 20;

/// Finds defects of a finished report, with the arithmetic that proves each.
///
/// The report has the layout of templates/report.ru.txt or report.ru.md, whoever made it. Exit code 5 says that defects
/// were found.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    pipe audit report.txt\n  \
    pipe audit report.txt --json | jq '.defects[].rule'\n  \
    pipe render templates/report.ru.txt --data tests/reference/report_2025-03-15.json | pipe audit -")]
pub struct Args {
    /// The report; `-` for standard input.
    #[arg(value_name = "REPORT")]
    pub report: PathBuf,
    /// Writes one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// Does it.
pub fn main(args: &Args) -> Exit {
    let label = args.report.display().to_string();
    let defects = match read(&args.report).and_then(|text| audit(&text, &label)) {
        Ok(defects) => defects,
        Err(problem) => return fail(&problem, Exit::Failed),
    };
    let told = if args.json { as_json(&label, &defects) } else { as_text(&defects) };
    if let Err(problem) = ui::whole(&told) {
        return fail(&problem, Exit::Failed);
    }
    if defects.is_empty() { Exit::Done } else { Exit::Defects }
}

fn as_json(label: &str, defects: &[Defect]) -> String {
    let document = json!({ "format": "pipe/audit@1", "report": label, "defects": defects });
    format!("{document:#}\n")
}

fn as_text(defects: &[Defect]) -> String {
    if defects.is_empty() {
        return "Дефектов не найдено.\n".to_owned();
    }
    let mut text = format!("Дефектов: {}\n", defects.len());
    for (at, defect) in defects.iter().enumerate() {
        text.push_str(&format!(
            "\n{}. {} (строка {}, {})\n   {}\n",
            at + 1,
            defect.text,
            defect.line,
            defect.rule,
            defect.proof
        ));
    }
    text
}

fn read(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        let read = std::io::stdin().lock().take(MOST_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(|error| Problem::io("read", path, &error))?;
    } else {
        let file = fs::File::open(path).map_err(|error| Problem::io("read", path, &error))?;
        let read = file.take(MOST_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(|error| Problem::io("read", path, &error))?;
    }
    if bytes.len() as u64 > MOST_BYTES {
        return Err(Problem::new(format!("{} has more than 16 MiB", path.display())));
    }
    String::from_utf8(bytes).map_err(|_| Problem::new(format!("{} is not UTF-8", path.display())))
}
