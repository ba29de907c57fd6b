//! What is found again: every sort of step, the same bytes from above, and what was done before a kill.
//! It does not look at how results are kept.

use std::fs;
use std::process::Stdio;

use super::{Case, Told};

const SORTS: &str = "name: p
params: { x: 1 }
steps:
  alone: { uses: command, with: { shell: 'echo ${params.x} > o', outputs: { o: o } } }
  folder: { uses: command, in: { a: alone }, with: { shell: 'mkdir -p d/e; cp in/a d/e/f; touch d/empty', outputs: { d: d } } }
  figures: { uses: command, in: { a: alone }, expect: ['x > 0'], with: { shell: 'echo \"{\\\"x\\\": $(cat in/a)}\" > m', outputs: { m: m }, figures: m } }
  again:
    uses: command
    in: { d: folder }
    retries: { times: 2, backoff: 1ms }
    timeout: 1h
    resources: { cpu: 1, memory: 1MB }
    with: { shell: 'echo x >> $HOME/t; test $(($(wc -l < $HOME/t) % 2)) = 0; cp in/d/e/f o', outputs: { o: o } }
  secret: { uses: command, in: { a: alone }, with: { shell: 'cp in/a o; test -n \"$KEY\"', secrets: [KEY], pass_env: [LANGUAGE], outputs: { o: o } } }
  cell: { uses: command, in: { a: alone }, matrix: { i: [1, 2] }, with: { shell: 'cat in/a > o; echo ${matrix.i} >> o', outputs: { o: o } } }
  nothing: { uses: command, in: { all: [cell, again] }, with: { shell: 'cat in/all/* > /dev/null; : > o', outputs: { o: o } } }
";

/// B5: steps without inputs, with folders, with attempts, with secrets: going back to earlier values runs nothing.
#[test]
fn b5_every_sort_of_step_is_kept_for_later() {
    let case = Case::new(SORTS, &[]);
    let run = |more: &[&str]| {
        let mut command = case.command(&[&["run", "p.yaml", "--device", "cpu"], more].concat());
        let told = Told::of(&command.env("KEY", "тайна").output().expect("it starts"));
        assert_eq!(told.code, Some(0), "{}", told.text);
        told
    };
    assert_eq!(run(&[]).ran().len(), 8);
    let told = run(&["--set", "x=2"]);
    assert_eq!(told.ran().len(), 8, "{}", told.text);
    assert_eq!(case.result("again/o"), "2\n");
    let back = run(&[]);
    assert!(back.ran().is_empty(), "{}", back.text);
    assert_eq!((case.result("again/o"), case.result("folder/d/e/f")), ("1\n".to_owned(), "1\n".to_owned()));
    // Deleted links come back without work.
    fs::remove_dir_all(case.cache().join("results")).expect("gone");
    assert!(run(&["--set", "x=2"]).ran().is_empty());
    assert_eq!(case.result("cell[i=2]/o"), "2\n2\n");
}

/// B12, B13: a step that runs again and writes the same makes nothing run, in the same invocation.
#[test]
fn b12_the_same_bytes_from_above_are_a_hit_in_the_same_run() {
    let yaml = "name: p
steps:
  up: { uses: command, with: { run: [sort, words.txt, -o, o], code: [words.txt], outputs: { o: o } } }
  down: { uses: command, in: { up: up }, with: { shell: 'head -n 1 in/up > o', outputs: { o: o } } }
  end: { uses: command, in: { down: down }, with: { shell: 'cat in/down in/down > o', outputs: { o: o } } }
";
    let case = Case::new(yaml, &[("words.txt", "b\na\n")]);
    assert_eq!(case.good(&[]).ran(), ["up", "down", "end"]);
    case.write("words.txt", "a\nb\n");
    assert_eq!(case.good(&[]).ran(), ["up"], "sorted they are the same");
    case.write("words.txt", "c\na\n");
    assert_eq!(case.good(&[]).ran(), ["up", "down"], "the first one is the same");
    case.write("words.txt", "c\nb\n");
    assert_eq!(case.good(&[]).ran(), ["up", "down", "end"]);
    assert_eq!(case.result("end/o"), "b\nb\n");
}

/// B12: a typo in a key has its place, and what was probably meant.
#[test]
fn b12_a_typo_in_a_key_has_its_place_and_a_suggestion() {
    let case = Case::new("steps:\n  a:\n    uses: command\n    with: { shell: 'true', outptus: { o: o } }\n", &[]);
    let told = case.run(&[]);
    assert_eq!(told.code, Some(3), "{}", told.text);
    assert!(told.text.contains("--> p.yaml:4:28\n") && told.text.contains("did you mean `outputs`?"), "{}", told.text);
}

/// B13: a kill in the middle of a step costs that step, and nobody has to be told about it.
#[test]
fn b13_a_kill_in_the_middle_costs_the_step_alone() {
    let yaml = "name: p
steps:
  first: { uses: command, with: { shell: 'echo x >> $HOME/first; echo 1 > o', outputs: { o: o } } }
  second: { uses: command, in: { f: first }, with: { shell: 'echo half > o; echo x >> $HOME/second; test -e $HOME/go || sleep 1000; cat in/f > o', outputs: { o: o } } }
";
    let case = Case::new(yaml, &[]);
    let mut command = case.command(&["run", "p.yaml", "--device", "cpu"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let is_there = |name: &str| case.root().join(name).exists();
    // The record of the first step may wait for others; the second one has begun for certain.
    let recorded = || pipe::digest::files_below(&case.cache().join("records")).is_ok_and(|files| files.len() == 1);
    while !is_there("second") || !recorded() {
        assert!(child.try_wait().expect("a child").is_none(), "it has ended");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().expect("killed");
    child.wait().expect("dead");
    case.write("go", "");
    let told = case.good(&[]);
    assert_eq!(told.ran(), ["second"], "{}", told.text);
    assert!(!told.text.contains("warning") && !told.text.contains("lock"), "{}", told.text);
    assert_eq!(case.result("second/o"), "1\n");
    assert_eq!(case.pipe(&["cache", "verify"]).code, Some(0));
}
