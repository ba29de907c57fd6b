//! The environment of a program: little of that of `pipe`, so that what it depends on is written down.
//! It does not know what the program is.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Params;
use crate::error::{self, Problem, Result};
use crate::step::Machine;

/// What tells where programs, libraries and settings of this machine are. Values differ from machine to machine, and
/// results should not, so they do not enter the key. Python finds a virtual environment through `PATH`; some tools
/// look at `VIRTUAL_ENV` or `CONDA_PREFIX`; `HOME` holds pyenv, `~/.local` and the caches of models; drivers and MPI
/// of a cluster are found through `LD_LIBRARY_PATH`.
const PLACES: &[&str] = &["PATH", "HOME", "USER", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX"];

/// The variables of the program. A locale other than that of the user would sort and print otherwise, so all get one:
/// characters are UTF-8, all else is as in C, which a program need not read a dozen files for.
pub(super) fn variables(params: &Params, machine: &Machine, tmp: &Path) -> Result<BTreeMap<String, OsString>> {
    let passed = |name: &str| machine.variables.get(name).map(|value| (name.to_owned(), value.clone()));
    let mut all: BTreeMap<String, OsString> = PLACES.iter().filter_map(|name| passed(name)).collect();
    all.insert("LC_CTYPE".to_owned(), "C.UTF-8".into());
    all.insert("TMPDIR".to_owned(), tmp.into());
    for (i, name) in params.pass_env.iter().enumerate() {
        let Some((name, value)) = passed(name) else { continue };
        if value.to_str().is_none() {
            let problem = Problem::new(format!("the environment variable `{name}` is not UTF-8"));
            return Err(problem.at(error::Path::root().key("pass_env").index(i)));
        }
        all.insert(name, value);
    }
    all.extend(params.secrets.iter().filter_map(|name| passed(name)));
    all.extend(params.env.iter().map(|(name, value)| (name.clone(), value.as_str().into())));
    Ok(all)
}

/// Which GPUs a program sees.
pub(super) const GPUS: &str = "CUDA_VISIBLE_DEVICES";

/// The GPUs of these numbers among those that this process sees, as a program is told them: a number counts from 0
/// among what `outside` lists, or means the device itself where nothing is listed.
pub(super) fn gpus(numbers: &[usize], outside: Option<&OsString>) -> OsString {
    let outside = outside.and_then(|list| list.to_str()).unwrap_or_default();
    let list: Vec<&str> = outside.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let name = |number: &usize| list.get(*number).map_or_else(|| number.to_string(), |name| (*name).to_owned());
    numbers.iter().map(name).collect::<Vec<_>>().join(",").into()
}

/// Where a program is: in the working folder if its name has a `/`, else along `PATH`.
///
/// It is looked for here and not by the system, which would then start it in a slower way, and whose words do not tell
/// a missing program from a missing folder.
pub(super) fn find(program: &str, folder: &Path, path: Option<&OsString>) -> Result<PathBuf> {
    let runs = |file: &Path| file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    let at = |problem: Problem| problem.at(error::Path::root().key("run").index(0));
    if program.contains('/') {
        let file = folder.join(program);
        if runs(&file) {
            return Ok(file);
        }
        let problem = if file.is_file() {
            Problem::new(format!("the file `{program}` is not a program"))
                .help(format!("make it one (`chmod +x {program}`), or name what reads it: `run: [python3, {program}]`"))
        } else if Path::new(program).is_absolute() {
            Problem::new(format!("there is no program {program}"))
        } else {
            Problem::new(format!("there is no program `{program}` in its working folder"))
                .help(format!("declare it: `code: [{program}]`"))
        };
        return Err(at(problem));
    }
    let folders = path.map(std::env::split_paths).into_iter().flatten().filter(|folder| folder.is_absolute());
    let found = folders.map(|folder| folder.join(program)).find(|file| runs(file));
    found.ok_or_else(|| {
        at(Problem::new(format!("there is no program `{program}` along PATH"))
            .help("install it, or activate the environment that has it before `pipe run`"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_counted_among_those_that_are_visible() {
        assert_eq!(gpus(&[0, 2], None), "0,2");
        assert_eq!(gpus(&[0, 1], Some(&"3, GPU-5ab".into())), "3,GPU-5ab");
    }
}
