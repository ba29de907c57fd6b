//! `pipe init`: a first pipeline that runs, to be read and changed.
//! It does not know what the pipeline does.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::{Exit, fail};
use crate::error::{Problem, Result};
use crate::steps::command::quoted;
use crate::ui;

/// What is written, by path below the folder.
const FILES: [(&str, &str); 2] =
    [("pipelines/first.yaml", include_str!("init/first.yaml")), ("data/fables.txt", include_str!("init/fables.txt"))];

/// Writes a first pipeline that runs: a text, and which words it uses most.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    pipe init words && cd words && pipe run pipelines/first.yaml\n  \
    pipe init\n\n\
    Nothing is ever overwritten.")]
pub struct Args {
    /// Where to; the folder is made if it is not there [default: this one].
    #[arg(value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

/// Does it.
pub fn main(args: &Args) -> Exit {
    let folder = args.folder.as_deref().unwrap_or(Path::new(""));
    match write(folder).and_then(|()| ui::whole(&next(folder))) {
        Ok(()) => Exit::Done,
        Err(problem) => fail(&problem, Exit::Failed),
    }
}

/// Looks for all files before it writes the first one.
fn write(folder: &Path) -> Result<()> {
    for (name, _) in FILES {
        let path = folder.join(name);
        match path.symlink_metadata() {
            Ok(_) => return Err(is_there(&path)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(Problem::io("look at", &path, &error)),
        }
    }
    for (name, text) in FILES {
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|error| Problem::io("make", parent, &error))?;
        }
        // Somebody may have made it meanwhile.
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(|error| {
            if error.kind() == ErrorKind::AlreadyExists { is_there(&path) } else { Problem::io("write", &path, &error) }
        })?;
        file.write_all(text.as_bytes()).map_err(|error| Problem::io("write", &path, &error))?;
    }
    Ok(())
}

fn is_there(path: &Path) -> Problem {
    Problem::new(format!("{} is there already, and is not overwritten", path.display()))
        .help("name another folder: `pipe init FOLDER`")
}

/// What was written, and what to type now.
fn next(folder: &Path) -> String {
    let written: String = FILES.iter().map(|(name, _)| format!("  {}\n", folder.join(name).display())).collect();
    let enter = match folder.as_os_str().is_empty() {
        true => String::new(),
        false => format!("  cd {}\n", quoted(&folder.display().to_string())),
    };
    format!(
        "Written:\n{written}\nNow type:\n{enter}  \
         pipe run pipelines/first.yaml               # everything runs\n  \
         pipe run pipelines/first.yaml               # nothing does: it is all there\n  \
         pipe run pipelines/first.yaml --set top=3   # only what depends on it\n"
    )
}
