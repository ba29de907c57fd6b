//! Files and folders of this machine.
//! It does not unpack.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{parent, size, too_much};
use crate::error::{Problem, Result};
use crate::fetch::require_space;
use crate::step::Context;

/// The place of a path as written; relative paths start at `root`.
pub fn find(written: &Path, root: &Path) -> Result<PathBuf> {
    let path = root.join(written);
    match fs::metadata(&path) {
        Ok(_) => Ok(path),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let whole = std::path::absolute(&path).unwrap_or(path);
            Err(Problem::new(format!("{} does not exist", written.display()))
                .help(format!("it was looked for at {}", whole.display())))
        }
        Err(e) => Err(Problem::io("read", &path, &e)),
    }
}

/// Copies a file.
pub fn copy_file(from: &Path, to: &Path, most: u64, cx: &Context) -> Result<()> {
    let total = size(from)?;
    let mut copying = Copying { cx, most, done: 0, total };
    copying.begin(to)?;
    copying.one(from, to)
}

/// Copies these files of a folder.
pub fn copy_folder(from: &Path, names: &[String], to: &Path, most: u64, cx: &Context) -> Result<()> {
    if names.is_empty() {
        return Err(Problem::new(format!("the folder {} is empty", from.display())));
    }
    let total = names.iter().map(|name| size(&from.join(name))).sum::<Result<u64>>()?;
    let mut copying = Copying { cx, most, done: 0, total };
    copying.begin(to)?;
    for name in names {
        let target = to.join(name);
        let folder = parent(&target);
        fs::create_dir_all(&folder).map_err(|e| Problem::io("create", &folder, &e))?;
        copying.one(&from.join(name), &target)?;
    }
    Ok(())
}

struct Copying<'a> {
    cx: &'a Context,
    most: u64,
    done: u64,
    total: u64,
}

/// Between two looks at whether the user wants to stop.
const CHUNK: u64 = 32 << 20;

impl Copying<'_> {
    fn begin(&self, to: &Path) -> Result<()> {
        if self.total > self.most {
            return Err(too_much(self.most));
        }
        require_space(&parent(to), self.total, "a copy in the cache")
    }

    /// The system copies, which on some file systems costs neither time nor space. A link would cost nothing anywhere,
    /// but an object must not change with a file that is not ours.
    fn one(&mut self, from: &Path, to: &Path) -> Result<()> {
        let source = File::open(from).map_err(|e| Problem::io("open", from, &e))?;
        let mut target = File::create(to).map_err(|e| Problem::io("write", to, &e))?;
        loop {
            self.cx.check_cancelled()?;
            let copied = io::copy(&mut (&source).take(CHUNK), &mut target).map_err(|e| Problem::io("write", to, &e))?;
            if copied == 0 {
                return Ok(());
            }
            self.done += copied;
            if self.done > self.most {
                return Err(too_much(self.most));
            }
            self.cx.progress(self.done, Some(self.total.max(self.done)), "B", "");
        }
    }
}
