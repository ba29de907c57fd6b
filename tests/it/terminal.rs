//! What a person sees: the binary on a real pseudo-terminal, its screen read back through a terminal's emulation.
//! `script` gives the terminal; where it is not there, these tests say that they are skipped.

use std::io::Read;
use std::process::{Command, Stdio};

use crate::engine::command::Project;

/// What came out of a run on a terminal.
struct Seen {
    code: i32,
    /// Every byte that was written.
    raw: String,
    /// The different screens on the way, line by line.
    screens: Vec<Vec<String>>,
    /// What is left on the screen, without empty lines at its end.
    last: Vec<String>,
}

const ROWS: u16 = 60;

/// Runs `pipe` on a terminal of so many columns, with these variables.
fn on_terminal(project: &Project, columns: u16, variables: &[(&str, &str)], arguments: &str) -> Option<Seen> {
    let found = Command::new("script").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        eprintln!("skipped: `script` of util-linux is not there");
        return None;
    }
    let pipe = env!("CARGO_BIN_EXE_pipe");
    let line = format!("stty rows {ROWS} cols {columns}; exec '{pipe}' {arguments}");
    let mut command = Command::new("script");
    command.args(["--quiet", "--flush", "--return", "--command", &line, "/dev/null"]).current_dir(&project.root);
    for unwanted in ["NO_COLOR", "PIPE_CACHE", "COLUMNS", "LINES"] {
        command.env_remove(unwanted);
    }
    command.env("TERM", "xterm-256color").envs(variables.iter().copied());
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("script starts");
    let mut out = child.stdout.take().expect("piped");
    let mut terminal = vt100::Parser::new(ROWS, columns, 0);
    let (mut raw, mut screens, mut buffer) = (Vec::new(), Vec::new(), [0; 4096]);
    loop {
        let read = out.read(&mut buffer).expect("the terminal is read");
        if read == 0 {
            break;
        }
        raw.extend_from_slice(&buffer[..read]);
        terminal.process(&buffer[..read]);
        let screen = lines(&terminal, columns);
        if screens.last() != Some(&screen) {
            screens.push(screen);
        }
    }
    let code = child.wait().expect("script ends").code().unwrap_or(-1);
    Some(Seen { code, raw: String::from_utf8_lossy(&raw).into_owned(), screens, last: lines(&terminal, columns) })
}

fn lines(terminal: &vt100::Parser, columns: u16) -> Vec<String> {
    let mut lines: Vec<String> = terminal.screen().rows(0, columns).map(|row| row.trim_end().to_owned()).collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

const RUN: &str = "run pipelines/части.yaml";

/// Enough documents that bars are drawn for a while.
fn busy() -> Project {
    Project::new(100_000)
}

#[test]
fn bars_are_redrawn_in_place_and_leave_nothing_behind() {
    let project = busy();
    for columns in [40, 80, 120] {
        let Some(seen) = on_terminal(&project, columns, &[], &format!("{RUN} --cache кэш-{columns}")) else {
            return;
        };
        assert_eq!(seen.code, 0, "{:?}", seen.last);
        let has = |screen: &Vec<String>, word: &str| screen.iter().filter(|line| line.contains(word)).count();
        // A screen may be caught while it is being drawn: then something is missing, never there twice.
        for screen in &seen.screens {
            for word in ["of 2 done", "documents  ", "✓ documents", "✓ parts"] {
                assert!(has(screen, word) <= 2, "{word} {} times at {columns} columns: {screen:#?}", has(screen, word));
            }
            assert!(has(screen, "of 2 done") <= 1, "{screen:#?}");
        }
        assert!(seen.screens.iter().any(|screen| has(screen, "of 2 done") == 1), "no bar over the run: {:?}", seen.raw);
        // The bar of a step is one line, however narrow the terminal is.
        let steps = seen.screens.iter().flatten().filter(|line| line.starts_with("  parts  "));
        assert!(steps.clone().count() > 0, "no bar of a step at {columns} columns");
        let finished = seen.last.iter().position(|line| line.starts_with("✓ parts")).expect("the line of the step");
        let end: Vec<&String> = seen.last.iter().skip(finished + 1).collect();
        assert!(end[0].starts_with("done in "), "{end:#?}");
        for gone in ["running", "━", "╸", "⠋"] {
            assert_eq!(has(&seen.last, gone), 0, "{gone} is left at {columns} columns: {:#?}", seen.last);
        }
        assert!(seen.raw.contains("\x1b[32m✓\x1b[0m"), "colours");
    }
}

#[test]
fn no_color_is_honoured_and_bars_stay() {
    let Some(seen) = on_terminal(&busy(), 100, &[("NO_COLOR", "1")], RUN) else { return };
    assert!(seen.raw.contains("of 2 done"), "{:?}", seen.raw);
    assert!(!seen.raw.contains("\x1b[3") && !seen.raw.contains("\x1b[0m"), "{:?}", seen.raw);
    // An empty value is none, as no-color.org says.
    let Some(seen) = on_terminal(&Project::new(40), 100, &[("NO_COLOR", "")], RUN) else { return };
    assert!(seen.raw.contains("\x1b[32m✓"), "{:?}", seen.raw);
}

#[test]
fn a_dumb_terminal_gets_plain_lines() {
    let Some(seen) = on_terminal(&Project::new(40), 80, &[("TERM", "dumb")], RUN) else { return };
    assert_eq!(seen.code, 0);
    assert!(!seen.raw.contains('\x1b'), "{:?}", seen.raw);
    assert!(seen.raw.contains("▸ documents       runs   never run before"), "{}", seen.raw);
}

#[test]
fn reasons_are_cut_to_the_width_and_sentences_are_broken_between_words() {
    let project = Project::new(40);
    assert!(project.run(&[]).status.success());
    let long = format!("{RUN} --set 'seed=1234567890123456'");
    for columns in [50, 80] {
        let Some(seen) = on_terminal(&project, columns, &[], &long.replace("run ", "plan ")) else { return };
        let line = seen.last.iter().find(|line| line.contains("parts")).expect("a line");
        assert!(line.contains("params.seed: 42 → "), "{line}");
        assert_eq!(seen.last.len(), 4, "one row for each step, the sum, the time: {:#?}", seen.last);
        assert!(seen.last[3].starts_with("about "), "{:#?}", seen.last);
        assert_eq!(line.ends_with('…'), columns == 50, "{line}");
    }
    let Some(seen) = on_terminal(&project, 30, &[], &format!("{RUN} --set seed=7")) else { return };
    let finished: Vec<&String> = seen.last.iter().filter(|line| line.starts_with("✓ parts")).collect();
    assert!(finished.len() == 1 && finished[0].ends_with('…'), "{:#?}", seen.last);
    let noted = seen.last.iter().position(|line| line.starts_with("  parts: train: ")).expect("a note");
    assert!(seen.last[noted + 1].starts_with("    "), "{:#?}", seen.last);
    // The columns of a pipe are not counted.
    let piped = project.pipe(&["plan", "pipelines/части.yaml", "--set", "seed=1234567890123456"]);
    assert!(String::from_utf8_lossy(&piped.stdout).contains("params.seed: 7 → 1234567890123456\n"));
}

#[test]
fn of_many_steps_and_results_only_some_are_listed() {
    let project = Project::new(40);
    let seeds: Vec<String> = (0..40).map(|seed| seed.to_string()).collect();
    let text = format!(
        "name: many\nsteps:\n  documents: {{ uses: download, with: {{ source: 'данные/n.conllu' }} }}\n  \
         parts: {{ uses: split, in: {{ data: documents }}, matrix: {{ seed: [{}] }}, with: {{ seed: '${{matrix.seed}}', dev: 0.2, test: 0.2 }} }}\n",
        seeds.join(", ")
    );
    std::fs::write(project.root.join("pipelines/many.yaml"), text).unwrap();
    let first = project.pipe(&["run", "pipelines/many.yaml"]);
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    // A program gets every path.
    assert_eq!(String::from_utf8_lossy(&first.stdout).lines().count(), 120);
    let again = project.pipe(&["run", "pipelines/many.yaml"]);
    let told = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(told.starts_with("= 41 steps reused   (saved ") && told.lines().count() == 3, "{told}");
    assert_eq!(again.stdout, first.stdout);

    let Some(seen) = on_terminal(&project, 100, &[], "run pipelines/many.yaml") else { return };
    assert_eq!(seen.code, 0);
    assert_eq!(seen.last.iter().filter(|line| line.starts_with("cache/results/many/parts")).count(), 20);
    assert_eq!(seen.last.last().map(String::as_str), Some("… and 100 more in cache/results/many"));
    assert_eq!(seen.last.iter().filter(|line| line.contains("reused")).count(), 2, "{:#?}", seen.last);
}

#[test]
fn quiet_and_json_draw_nothing() {
    let project = busy();
    let Some(seen) = on_terminal(&project, 80, &[], &format!("{RUN} --quiet")) else { return };
    assert_eq!(seen.last.iter().filter(|line| line.contains(".conllu")).count(), 3, "{:#?}", seen.last);
    assert!(!seen.raw.contains('\x1b') && !seen.raw.contains("done"), "{:?}", seen.raw);
    let Some(seen) = on_terminal(&project, 80, &[], &format!("{RUN} --json --set seed=3")) else { return };
    let told: Vec<&str> = seen.raw.lines().filter(|line| !line.is_empty()).collect();
    assert!(told.iter().all(|line| line.starts_with("{\"at_ms\":")), "{told:#?}");
}

#[test]
fn help_is_broken_between_words() {
    let Some(seen) = on_terminal(&Project::new(1), 60, &[], "help train") else { return };
    let wide = seen.raw.lines().find(|line| line.trim_end().chars().count() > 60 && !line.contains("uses:"));
    assert_eq!(wide, None, "a line that the terminal would break");
    assert!(seen.raw.contains("warmup_ratio: a number from 0 to 1"), "{}", seen.raw);
}
