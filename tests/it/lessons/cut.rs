//! State files that were cut short, at many lengths: the next run does not fail for it, and is right.
//! It does not look at how each format notices: that is tested beside the code, at every length.

use std::fs;
use std::path::Path;

use pipe::digest::files_below;

use super::Case;

const YAML: &str = "name: p
params: { x: 1 }
steps:
  raw: { uses: download, with: { source: raw.txt } }
  a: { uses: command, in: { r: raw }, with: { shell: 'cat in/r > o; echo ${params.x} >> o', outputs: { o: o } } }
  b: { uses: command, in: { a: a }, with: { shell: 'cat in/a in/a > o', outputs: { o: o } } }
";

const RESULT: &str = "raw\n1\nraw\n1\n";

/// Lengths at which a file is cut: the ends of lines and what lies beside them, and some in between.
fn cuts(bytes: &[u8]) -> Vec<usize> {
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').flat_map(|(at, _)| [at, at + 1, at + 2]);
    let between = (0..8).map(|part| part * bytes.len() / 8);
    let mut all: Vec<usize> = ends.chain(between).chain([1]).filter(|&at| at < bytes.len()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Files that are written while steps run, without what they made.
fn state(case: &Case) -> Vec<String> {
    let files = files_below(&case.cache()).expect("the cache");
    let skipped = ["objects/", "results/", "tmp/", "logs/"];
    files.into_iter().filter(|file| !skipped.iter().any(|start| file.starts_with(start))).collect()
}

/// Old enough for its state to be remembered.
fn age(path: &Path) {
    let then = std::time::SystemTime::now() - std::time::Duration::from_secs(100);
    fs::File::options().write(true).open(path).and_then(|file| file.set_modified(then)).expect("a time");
}

#[test]
fn b6_state_that_was_cut_short_stops_no_run() {
    let case = Case::new(YAML, &[("raw.txt", "raw\n")]);
    age(&case.root().join("raw.txt"));
    case.good(&["--set", "x=2"]);
    case.good(&[]);
    let files = state(&case);
    for part in ["records/", "steps/p.log", "runs/"] {
        assert!(files.iter().any(|file| file.starts_with(part)), "{part}: {files:?}");
    }
    let mut tried = 0;
    for file in files {
        let path = case.cache().join(&file);
        let Ok(whole) = fs::read(&path) else { continue };
        let is_record = file.starts_with("records/");
        for cut in cuts(&whole) {
            fs::write(&path, &whole[..cut]).expect(&file);
            let told = case.good(&[]);
            assert_eq!(case.result("b/o"), RESULT, "{file} cut at {cut}");
            // A record of other values is not needed now.
            let most = usize::from(is_record);
            assert!(told.ran().len() <= most, "{file} cut at {cut}: {}", told.text);
            assert!(!told.text.contains("warning") && !told.text.contains("error"), "{file} at {cut}: {}", told.text);
            for look in [&["runs"][..], &["explain", "p.yaml", "b", "--device", "cpu"], &["cache", "stats"]] {
                if cut % 5 == 0 {
                    assert_eq!(case.pipe(look).code, Some(0), "{look:?} with {file} cut at {cut}");
                }
            }
            tried += 1;
        }
        if !is_record {
            fs::write(&path, &whole).expect(&file);
        }
    }
    assert!(tried > 40, "{tried}");
    assert_eq!(case.pipe(&["cache", "verify", "--repair"]).code, Some(0));
    case.good(&["--set", "x=2"]);
    assert_eq!(case.result("b/o"), RESULT.replace('1', "2"));
    assert_eq!(case.pipe(&["cache", "verify"]).code, Some(0));
}

#[test]
fn l4_all_state_at_once_empty_or_nonsense_stops_no_run() {
    for rest in ["", "\0\0\0\0", "{\"format\":\"of the future@9\"}\n", "<<<<<<< HEAD\n"] {
        let case = Case::new(YAML, &[("raw.txt", "raw\n")]);
        case.good(&[]);
        for file in state(&case) {
            fs::write(case.cache().join(&file), rest).expect(&file);
        }
        fs::create_dir_all(case.cache().join("leases/ab")).expect("a folder");
        fs::write(case.cache().join("leases/ab/left"), rest).expect("a lease");
        let told = case.good(&[]);
        assert_eq!((told.ran().len(), case.result("b/o").as_str()), (3, RESULT), "{}", told.text);
        assert!(case.good(&[]).ran().is_empty());
        assert_eq!(case.pipe(&["cache", "verify"]).code, Some(0));
    }
}
