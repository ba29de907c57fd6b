//! `pipe render`: a template and a JSON file make a text.
//! It does not know what a report is: it reads, asks `report`, and writes.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{Exit, fail};
use crate::error::{Problem, Result};
use crate::report::render::render;
use crate::report::template::Templates;
use crate::ui;

/// The largest data file that is read.
const MOST_BYTES: u64 = 256 << 20;

/// Renders a template with data.
///
/// The data is a JSON object. A comparison (as `compare` writes it) becomes everything that a report shows:
/// differences, rankings, conclusions; any other object is given to the template as it is.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    pipe render templates/report.ru.txt --data tests/reference/report_2025-03-15.json\n\n\
    Templates are Tera 2. Included templates lie in the template's folder. Besides Tera's own there are\n\
    `grid(headers=…, rows=…, floatfmt=…, intfmt=…, missingval=…)`, a table as Python's tabulate draws it,\n\
    `markdown_table(headers=…, rows=…, missingval=…)` and the filter `markdown`.")]
pub struct Args {
    /// The template, such as `templates/report.ru.txt`.
    #[arg(value_name = "TEMPLATE")]
    pub template: PathBuf,
    /// The JSON file.
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// Where to write [default: standard output].
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Does it.
pub fn main(args: &Args) -> Exit {
    match run(args) {
        Ok(()) => Exit::Done,
        Err(problem) => fail(&problem, Exit::Failed),
    }
}

fn run(args: &Args) -> Result<()> {
    let templates = Templates::read(&args.template)?;
    let text = render(&templates, &read(&args.data)?, &args.data.display().to_string())?;
    match &args.output {
        Some(path) => write_whole(path, &text),
        None => ui::whole(&text),
    }
}

fn read(path: &Path) -> Result<String> {
    let meta = fs::metadata(path).map_err(|error| Problem::io("read", path, &error))?;
    if !meta.is_file() {
        return Err(Problem::new(format!("{} is not a file", path.display())).help("give one JSON file"));
    }
    if meta.len() > MOST_BYTES {
        return Err(Problem::new(format!("{} has more than 256 MiB", path.display())));
    }
    let bytes = fs::read(path).map_err(|error| Problem::io("read", path, &error))?;
    String::from_utf8(bytes).map_err(|_| Problem::new(format!("{} is not UTF-8", path.display())))
}

/// Written aside and moved in, so that no one ever sees half a file.
fn write_whole(path: &Path, text: &str) -> Result<()> {
    let problem = |error: &std::io::Error| Problem::io("write", path, error);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.prefix(".pipe-").tempfile_in(folder).map_err(|error| problem(&error))?;
    file.write_all(text.as_bytes()).map_err(|error| problem(&error))?;
    file.persist(path).map_err(|error| problem(&error.error))?;
    Ok(())
}
