//! Files and folders of this machine.
//! It does not unpack.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Pump, parent, size};
use crate::digest::files_below;
use crate::error::{Problem, Result};
use crate::step::Context;

/// The place of a path as written; relative paths start at `root`.
pub fn find(written: &Path, root: &Path) -> Result<PathBuf> {
    let path = root.join(written);
    match fs::metadata(&path) {
        Ok(_) => Ok(path),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let whole = std::path::absolute(&path).unwrap_or(path);
            Err(Problem::new(format!("{} does not exist", written.display()))
                .help(format!("it was looked for at {}", whole.display())))
        }
        Err(e) => Err(Problem::io("read", &path, &e)),
    }
}

/// Copies a file.
pub fn copy_file(from: &Path, to: &Path, most: u64, cx: &Context) -> Result<()> {
    let mut pump = Pump { cx, most, done: 0, total: Some(size(from)?) };
    copy(&mut pump, from, to)
}

/// Copies a folder with all files below; empty folders are left out.
pub fn copy_folder(from: &Path, to: &Path, most: u64, cx: &Context) -> Result<()> {
    let files = files_below(from)?;
    if files.is_empty() {
        return Err(Problem::new(format!("the folder {} is empty", from.display())));
    }
    let total = files.iter().map(|name| size(&from.join(name))).sum::<Result<u64>>()?;
    let mut pump = Pump { cx, most, done: 0, total: Some(total) };
    for name in files {
        let target = to.join(&name);
        let folder = parent(&target);
        fs::create_dir_all(&folder).map_err(|e| Problem::io("create", &folder, &e))?;
        copy(&mut pump, &from.join(&name), &target)?;
    }
    Ok(())
}

fn copy(pump: &mut Pump, from: &Path, to: &Path) -> Result<()> {
    let mut file = fs::File::open(from).map_err(|e| Problem::io("open", from, &e))?;
    pump.run(&mut file, to, &|e| Problem::io("read", from, &e), None)
}
