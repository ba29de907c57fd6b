//! The bodies of the fuzz targets, on the seeds and on what a simple mutator makes of them: so that targets cannot rot
//! where there is no fuzzer. It does not search for new ways through the code: `make fuzz` does.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;

use pipe::step::stream;
use rand::{Rng, RngExt};

use crate::support::{long, repository};

#[path = "../../fuzz/readers.rs"]
mod readers;

use readers::{READERS, Reader};

/// Folders with what a target begins from, beside its own seeds.
const MORE: &[(&str, &[&str])] = &[("pipeline", &["pipelines", "tests/bad", "src/cli/init"])];

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let more = MORE.iter().filter(|(name, _)| *name == target).flat_map(|(_, folders)| folders.iter());
    let folders = more.map(PathBuf::from).chain([PathBuf::from("fuzz/seeds").join(target)]);
    let mut paths: Vec<PathBuf> = folders
        .flat_map(|folder| {
            fs::read_dir(repository().join(folder)).expect("a folder").map(|entry| entry.unwrap().path())
        })
        .filter(|path| path.is_file())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "`{target}` has no seeds");
    paths.into_iter().map(|path| fs::read(path).expect("read")).collect()
}

/// One of the seeds, changed in a few places.
fn mutated(seeds: &[Vec<u8>], rng: &mut impl Rng) -> Vec<u8> {
    let pick = |rng: &mut dyn Rng| &seeds[rng.random_range(0..seeds.len())];
    let mut data = pick(rng).clone();
    for _ in 0..rng.random_range(1..5) {
        let from = rng.random_range(0..=data.len());
        let to = (from + rng.random_range(0..20)).min(data.len());
        let piece = match rng.random_range(0..6) {
            0 => Vec::new(),
            1 => vec![rng.random()],
            2 => data[from..to].repeat(2),
            3 => {
                let other = pick(rng);
                let from = rng.random_range(0..=other.len());
                other[from..(from + rng.random_range(0..60)).min(other.len())].to_vec()
            }
            4 => {
                const TOKENS: &[&str] = &[
                    "null", "-1", "1e999", "\"", "'", "{", "}", "[", "]", ": ", "\n", "ж", "\u{feff}", "&x ", "*x", ".",
                ];
                TOKENS[rng.random_range(0..TOKENS.len())].into()
            }
            _ => {
                data.truncate(to);
                continue;
            }
        };
        data.splice(from..to, piece);
    }
    data
}

/// What is left of a failure for the one who looks into it.
fn tried(target: &str, reader: Reader, data: &[u8]) {
    if panic::catch_unwind(AssertUnwindSafe(|| reader(data))).is_err() {
        panic!("`{target}` panics on {:?}", String::from_utf8_lossy(data));
    }
}

fn all(mutations: usize) {
    for (target, reader) in READERS {
        let seeds = seeds(target);
        seeds.iter().for_each(|seed| tried(target, *reader, seed));
        let mut rng = stream(1, target);
        (0..mutations).for_each(|_| tried(target, *reader, &mutated(&seeds, &mut rng)));
    }
}

#[test]
fn readers_take_what_is_near_to_what_is_written() {
    all(400);
}

#[test]
fn long_readers_take_much_that_is_near_to_what_is_written() {
    if long() {
        all(10_000);
    }
}

/// A target is one file, an entry in `fuzz/Cargo.toml`, and seeds.
#[test]
fn every_reader_is_a_target() {
    let files = fs::read_dir(repository().join("fuzz/fuzz_targets")).expect("targets");
    let targets: BTreeMap<String, String> = files
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).expect("read")))
        .collect();
    assert_eq!(targets.keys().collect::<Vec<_>>(), READERS.iter().map(|(name, _)| name).collect::<Vec<_>>());
    let manifest = fs::read_to_string(repository().join("fuzz/Cargo.toml")).expect("a manifest");
    for (name, text) in targets {
        assert!(text.contains(&format!("readers::{name}(data)")), "{name}");
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
    }
}
