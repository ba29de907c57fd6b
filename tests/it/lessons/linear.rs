//! State that grows with the number of steps and no faster, and what one more step costs among few and among many.
//! It does not look at a clock: what is counted are files and bytes.

use std::collections::BTreeMap;
use std::fs;

use pipe::digest::files_below;

use super::Case;

/// Cells whose ids and texts have one length, so that they differ in nothing but their number.
fn cells(count: usize) -> Case {
    let list: Vec<String> = (1000..1000 + count).map(|i| i.to_string()).collect();
    let yaml = format!(
        "name: p
params: {{ x: 1 }}
steps:
  cell: {{ uses: command, matrix: {{ i: [{}] }}, with: {{ shell: 'echo ${{matrix.i}} > o', outputs: {{ o: o }} }} }}
  one: {{ uses: command, with: {{ shell: 'echo ${{params.x}} > o', outputs: {{ o: o }} }} }}
",
        list.join(", ")
    );
    Case::new(&yaml, &[])
}

/// Of each part of the cache the number of its files, and their bytes; without what steps made.
fn sizes(case: &Case) -> BTreeMap<String, (u64, u64)> {
    let mut parts = BTreeMap::new();
    for file in files_below(&case.cache()).expect("the cache") {
        let part = file.split('/').next().unwrap_or_default().to_owned();
        let bytes = fs::symlink_metadata(case.cache().join(&file)).expect("there").len();
        let sum: &mut (u64, u64) = parts.entry(part).or_default();
        *sum = (sum.0 + 1, sum.1 + bytes);
    }
    parts
}

/// What is there more than before.
fn growth(before: &BTreeMap<String, (u64, u64)>, after: &BTreeMap<String, (u64, u64)>) -> BTreeMap<String, (u64, u64)> {
    let more = |(part, (files, bytes)): (&String, &(u64, u64))| {
        let (old_files, old_bytes) = before.get(part).copied().unwrap_or_default();
        let more = (files - old_files, bytes - old_bytes);
        (more != (0, 0)).then(|| (part.clone(), more))
    };
    after.iter().filter_map(more).collect()
}

const FEW: usize = 30;
const MANY: usize = 4 * FEW;

/// Longer than a changed file is looked at with mistrust.
const SETTLED: std::time::Duration = std::time::Duration::from_millis(3500);

#[test]
fn l7_state_grows_linearly() {
    let measured = |count: usize| {
        let case = cells(count);
        case.good(&["-q"]);
        (sizes(&case), count as u64 + 1)
    };
    let ((few, n), (many, m)) = (measured(FEW), measured(MANY));
    assert_eq!(few.keys().collect::<Vec<_>>(), many.keys().collect::<Vec<_>>());
    for (part, (files, bytes)) in &many {
        let (few_files, few_bytes) = few[part];
        // Fixed beginnings are shared by more; figures of time have a digit more or less.
        assert!(*files * n <= few_files * m, "{part}: {files} files for {m} steps, {few_files} for {n}");
        assert!(*bytes * n * 20 <= few_bytes * m * 21, "{part}: {bytes} bytes for {m} steps, {few_bytes} for {n}");
    }
    assert_eq!((many["records"].0, many["objects"].0), (m, m), "a file for each step");
}

/// One more result costs a record, a log, an object, a line of the history, however many there are; only the log of the run
/// and its receipt, which tell what became of every step, grow with them, and grow linearly.
#[test]
fn l7_one_more_result_costs_the_same_among_few_and_among_many() {
    let measured = |count: usize| {
        let case = cells(count);
        case.good(&["-q"]);
        let before = sizes(&case);
        let told = case.good(&["--set", "x=2", "--json"]);
        assert!(told.out.contains("\"ran\":1,"), "{}", told.out);
        let mut more = growth(&before, &sizes(&case));
        let log = more.remove("runs").expect("a log");
        let receipt = more.remove("receipts").expect("a receipt");
        // How files look is trusted, and written down, once they have not changed for a while.
        std::thread::sleep(SETTLED);
        case.good(&["--set", "x=2", "-q"]);
        // Nothing to do, nothing written but the log.
        let before = sizes(&case);
        case.good(&["--set", "x=2", "-q"]);
        let idle = growth(&before, &sizes(&case));
        assert_eq!(idle.keys().collect::<Vec<_>>(), ["runs"]);
        (more, log, idle["runs"], receipt)
    };
    let ((few, log, idle, receipt), (many, longer, longer_idle, longer_receipt)) = (measured(FEW), measured(MANY));
    let plain = |more: &BTreeMap<String, (u64, u64)>| {
        // A record tells how long its step took, in more or fewer digits.
        more.iter().map(|(part, (files, bytes))| (part.clone(), *files, bytes / 40)).collect::<Vec<_>>()
    };
    let parts: Vec<&str> = few.keys().map(String::as_str).collect();
    assert_eq!(parts, ["logs", "objects", "records", "steps"]);
    for (few, many) in plain(&few).iter().zip(plain(&many)) {
        assert!(few.0 == many.0 && few.1 == many.1 && few.2.abs_diff(many.2) <= 1, "{few:?} {many:?}");
    }
    for ((files, bytes), (more_files, more_bytes)) in [(log, longer), (idle, longer_idle), (receipt, longer_receipt)] {
        assert_eq!(files, more_files);
        assert!(more_bytes <= 4 * bytes, "{bytes} {more_bytes}");
    }
}
