//! Which runs there are, and which of them a person means.
//! It does not read their logs.

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::{Problem, Result};

/// The log of a run, unread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The run's name.
    pub name: String,
    /// Where its log is.
    pub path: PathBuf,
}

/// The runs whose logs are in this folder, newest first.
pub fn all(runs: &Path) -> Vec<Found> {
    let entries = fs::read_dir(runs).into_iter().flatten().flatten();
    let log = |entry: fs::DirEntry| {
        let path = entry.path();
        let name = path.file_name()?.to_str()?.strip_suffix(".jsonl")?.to_owned();
        let changed = entry.metadata().and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        // A name tells when its run began, in seconds: those of one second go by their ends.
        Some(((super::began(&name), changed), Found { name, path }))
    };
    let mut logs: Vec<_> = entries.filter_map(log).collect();
    logs.sort_by(|(a, one), (b, other)| (Reverse(a), &one.name).cmp(&(Reverse(b), &other.name)));
    logs.into_iter().map(|(_, found)| found).collect()
}

/// The run that `text` means: its name, how the name begins, the digits at the end of the name, `last`, or `last~1`
/// for the one before. `runs` are those of [`all`].
pub fn resolve<'a>(runs: &'a [Found], text: &str) -> Result<&'a Found> {
    if let Some(back) = back(text) {
        let missing = || {
            let there = match runs.len() {
                0 => "there is no run yet".to_owned(),
                1 => "there is only one run".to_owned(),
                n => format!("there are only {n} runs"),
            };
            Problem::new(format!("there is no run `{text}`: {there}"))
        };
        return runs.get(back).ok_or_else(missing);
    }
    if let Some(found) = runs.iter().find(|found| found.name == text) {
        return Ok(found);
    }
    let which = |fits: &dyn Fn(&str) -> bool| runs.iter().filter(|found| fits(&found.name)).collect::<Vec<_>>();
    let mut meant = if text.is_empty() { Vec::new() } else { which(&|name| name.starts_with(text)) };
    if meant.is_empty() && !text.is_empty() {
        meant = which(&|name| name.rsplit_once('-').is_some_and(|(_, digits)| digits.starts_with(text)));
    }
    match meant.as_slice() {
        [one] => Ok(one),
        [] => Err(Problem::new(format!("there is no run `{text}`"))
            .help("`pipe runs` lists them; the beginning of a name is enough, and `last` is the latest")),
        many => {
            const SHOWN: usize = 5;
            let names: Vec<&str> = many.iter().take(SHOWN).map(|found| found.name.as_str()).collect();
            let more = many.len().saturating_sub(SHOWN);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            Err(Problem::new(format!("`{text}` may mean {} runs", many.len()))
                .help(format!("they are {}{more}", names.join(", "))))
        }
    }
}

/// How many runs back from the latest: of `last` and `last~2`.
fn back(text: &str) -> Option<usize> {
    let rest = text.strip_prefix("last")?;
    if rest.is_empty() { Some(0) } else { rest.strip_prefix('~')?.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(names: &[&str]) -> Vec<Found> {
        names.iter().map(|name| Found { name: (*name).to_owned(), path: PathBuf::new() }).collect()
    }

    const NAMES: [&str; 4] = [
        "2026-11-25T12-05-24Z-cfe493",
        "2026-11-25T12-05-24Z-cfa000",
        "2026-11-24T12-05-24Z-2026ab",
        "2025-01-01T00-00-00Z-cfe111",
    ];

    #[test]
    fn names_beginnings_ends_and_places_are_understood() {
        let runs = runs(&NAMES);
        let name = |text: &str| resolve(&runs, text).map(|found| found.name.as_str()).unwrap();
        assert_eq!(name(NAMES[1]), NAMES[1]);
        assert_eq!(name("2026-11-24"), NAMES[2]);
        assert_eq!(name("2025"), NAMES[3]);
        assert_eq!(name("cfe4"), NAMES[0]);
        assert_eq!((name("last"), name("last~0"), name("last~3")), (NAMES[0], NAMES[0], NAMES[3]));
    }

    #[test]
    fn what_means_several_or_none_is_refused() {
        let runs = runs(&NAMES);
        let refused = |text: &str| {
            let problem = resolve(&runs, text).unwrap_err();
            format!("{}; {}", problem.what, problem.help.unwrap_or_default())
        };
        assert_eq!(refused("cfe"), format!("`cfe` may mean 2 runs; they are {}, {}", NAMES[0], NAMES[3]));
        // A beginning goes before an end.
        assert!(refused("2026").starts_with("`2026` may mean 3 runs"));
        for none in ["", "x", "last~", "last~-1", "last~x", "LAST", "прогон"] {
            assert!(refused(none).starts_with(&format!("there is no run `{none}`")), "{none}");
        }
        assert!(refused("last~4").contains("there are only 4 runs"));
        assert!(resolve(&[], "last").unwrap_err().what.contains("no run yet"));
    }

    #[test]
    fn a_whole_name_is_not_taken_for_a_beginning() {
        let runs = runs(&["r-1", "r-11", "r"]);
        for name in ["r-1", "r", "r-11"] {
            assert_eq!(resolve(&runs, name).unwrap().name, name);
        }
    }

    #[test]
    fn newest_come_first_and_other_files_are_no_runs() {
        let folder = tempfile::tempdir().unwrap();
        for name in [NAMES[3], NAMES[0], NAMES[2], "чужой"] {
            fs::write(folder.path().join(format!("{name}.jsonl")), "").unwrap();
        }
        fs::write(folder.path().join("README.md"), "").unwrap();
        let names: Vec<String> = all(folder.path()).into_iter().map(|found| found.name).collect();
        assert_eq!(names, [NAMES[0], NAMES[2], NAMES[3], "чужой"]);
        assert!(all(&folder.path().join("none")).is_empty());
    }
}
