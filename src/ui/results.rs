//! Which results are listed at the end of a run, and what is said of the others.
//! It does not print, nor does it know whether anybody reads.

use std::path::{Path, PathBuf};

/// A person looks at so many paths; a program gets all of them.
const LISTED: usize = 20;

/// The paths for stdout, and the line that tells of those left out.
pub fn listed(results: &[String], terminal: bool) -> (&[String], Option<String>) {
    let left = results.len().saturating_sub(LISTED);
    if !terminal || left == 0 {
        return (results, None);
    }
    let (shown, rest) = results.split_at(LISTED);
    let more = format!("… and {} more in {}", super::grouped(left as u64), around(rest).display());
    (shown, Some(more))
}

/// The innermost folder that holds all of them.
fn around(paths: &[String]) -> PathBuf {
    let folders = paths.iter().filter_map(|path| Path::new(path).parent());
    let shared = |a: PathBuf, b: PathBuf| {
        let same = a.components().zip(b.components()).take_while(|(a, b)| a == b);
        same.map(|(component, _)| component).collect()
    };
    folders.map(Path::to_owned).reduce(shared).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_gets_the_first_and_a_program_all() {
        let results: Vec<String> = (0..1050).map(|i| format!("cache/results/p/step-{i}/out.txt")).collect();
        assert_eq!(listed(&results, false), (&results[..], None));
        let more = "… and 1 030 more in cache/results/p".to_owned();
        assert_eq!(listed(&results, true), (&results[..20], Some(more)));
        assert_eq!(listed(&results[..20], true), (&results[..20], None));
        let more = "… and 1 more in cache/results/p/step-20".to_owned();
        assert_eq!(listed(&results[..21], true), (&results[..20], Some(more)));
    }
}
