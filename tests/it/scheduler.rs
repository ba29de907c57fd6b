//! How steps are run beside what they do, through the binary: attempts, time limits, expectations, choices, and
//! several processes over one cache.
//! It does not look at which step goes first: that is tested beside the code.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use pipe::digest::files_below;

use crate::data_steps::project;
use crate::engine::command::{stderr, stdout};

struct Case(tempfile::TempDir);

impl Case {
    fn new(yaml: &str) -> Self {
        Self(project(&[("p.yaml", yaml.as_bytes())]))
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
        command.args(["run", "p.yaml", "--device", "cpu"]).args(more).current_dir(self.root());
        // Where commands leave traces of themselves, outside of what counts.
        command.env_remove("PIPE_CACHE").env("HOME", self.root());
        command
    }

    fn run(&self, more: &[&str]) -> Output {
        self.command(more).output().expect("the binary starts")
    }

    fn traces(&self, name: &str) -> usize {
        fs::read_to_string(self.root().join(name)).map_or(0, |text| text.lines().count())
    }
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

#[test]
fn a_step_that_succeeds_on_another_attempt_is_kept() {
    let case = Case::new(
        "steps:\n  a:\n    uses: command\n    retries: { times: 3, backoff: 1ms }\n    with: { shell: 'echo x >> $HOME/t; test $(wc -l < $HOME/t) -ge 3; echo done > o', outputs: { o: o } }\n",
    );
    let output = case.run(&["--json"]);
    assert_eq!((code(&output), case.traces("t")), (Some(0), 3), "{}", stdout(&output));
    assert_eq!(stdout(&output).matches("\"step_retrying\"").count(), 2);
    assert!(stdout(&output).contains("\"retries\":2"), "{}", stdout(&output));
    let again = case.run(&[]);
    assert!(stderr(&again).contains("1 reused") && case.traces("t") == 3, "{}", stderr(&again));
}

/// The step takes a second: what one costs that is over at once says nothing.
#[test]
fn a_line_tells_how_many_attempts_failed() {
    let case = Case::new(
        "steps:\n  a:\n    uses: command\n    retries: { times: 3, backoff: 1ms }\n    with: { shell: 'echo x >> $HOME/t; test $(wc -l < $HOME/t) -ge 3; sleep 1.1; echo done > o', outputs: { o: o } }\n",
    );
    let told = stderr(&case.run(&[]));
    let finished = told.lines().find(|line| line.starts_with("✓ a ")).unwrap_or_else(|| panic!("{told}"));
    assert!(finished.ends_with("after 2 failed attempts"), "{told}");
    let costs = |line: &str| line.contains("CPU ") && line.contains("iB");
    assert!(costs(finished) || !cfg!(target_os = "linux"), "{told}");
    let told = stderr(&case.run(&[]));
    let reused = told.lines().find(|line| line.starts_with("= a ")).unwrap_or_else(|| panic!("{told}"));
    assert!(reused.contains("(saved ") && (costs(reused) || !cfg!(target_os = "linux")), "{told}");
}

#[test]
fn what_is_left_is_foretold_from_how_long_steps_took_before() {
    let case = Case::new(
        "params: { x: 1 }\nsteps:\n  a: { uses: command, with: { shell: 'sleep 0.0${params.x}; echo ${params.x} > o', outputs: { o: o } } }\n  b: { uses: command, in: { a: a }, with: { shell: 'cat $a > o', outputs: { o: o } } }\n",
    );
    let forecasts = |more: &[&str]| {
        let output = case.run(&[&["--json"], more].concat());
        assert_eq!(code(&output), Some(0), "{}{}", stdout(&output), stderr(&output));
        let events = stdout(&output);
        let events = events.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        let forecasts: Vec<_> = events.filter(|event| event["event"] == "forecast").collect();
        forecasts
            .iter()
            .map(|event| ["low_ms", "high_ms", "unknown"].map(|field| event[field].as_u64().unwrap()))
            .collect::<Vec<_>>()
    };
    assert_eq!(forecasts(&[])[0], [0, 0, 2], "nothing like them ever ran");
    assert!(forecasts(&[]).is_empty(), "nothing runs");
    let second = forecasts(&["--set", "x=2"])[0];
    assert!(second[0] > 0 && second[2] == 0, "{second:?}");
    let plan = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
        command
            .args(["plan", "p.yaml", "--device", "cpu"])
            .args(more)
            .current_dir(case.root())
            .env_remove("PIPE_CACHE");
        command.output().expect("the binary starts")
    };
    let last = |text: String| text.lines().last().unwrap_or_default().to_owned();
    let told = last(stderr(&plan(&["--set", "x=3"])));
    assert!(told.starts_with("about "), "{told}");
    assert!(last(stderr(&plan(&["--set", "x=2"]))).contains("2 to reuse"));
    let json = |set| -> serde_json::Value {
        serde_json::from_str(&last(stdout(&plan(&["--json", "--set", set])))).expect("JSON")
    };
    let told = json("x=3");
    let ms = |field: &str| told["forecast"][field].as_u64().unwrap();
    assert!(0 < ms("low_ms") && ms("low_ms") <= ms("high_ms") && ms("unknown") == 0, "{told}");
    assert_eq!(json("x=2"), serde_json::json!({"forecast": {"low_ms": 0, "high_ms": 0, "unknown": 0}}));
}

#[test]
fn attempts_come_to_an_end() {
    let case = Case::new(
        "steps: { a: { uses: command, retries: { times: 2, backoff: 1ms }, with: { shell: 'echo x >> $HOME/t; exit 5', outputs: { o: o } } } }",
    );
    let output = case.run(&[]);
    assert_eq!((code(&output), case.traces("t")), (Some(1), 3));
    assert!(
        stderr(&output).contains("trying again in") && stderr(&output).contains("exit status 5"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_step_whose_time_is_up_is_ended_with_all_its_processes() {
    let case = Case::new(
        "steps: { a: { uses: command, timeout: 300ms, with: { shell: 'sleep 1000 & echo $! > $HOME/pid; wait', outputs: { o: o } } } }",
    );
    let output = case.run(&[]);
    let told = stderr(&output);
    assert_eq!(code(&output), Some(1), "{told}");
    assert!(told.contains("longer than its `timeout` of 300ms") && told.contains("raise `timeout`"), "{told}");
    let pid = fs::read_to_string(case.root().join("pid")).expect("it began");
    let alive = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|stat| !stat.contains(") Z"));
    assert!(!alive);
}

const GATED: &str = "steps:
  base: { uses: command, with: { shell: 'echo \"{\\\"f1\\\": 0.5}\" > m.json', outputs: { m: m.json }, figures: m.json } }
  lora:
    uses: command
    expect: ['f1 >= base.f1 - 0.02', 'isfinite(f1)']
    with: { shell: 'echo \"{\\\"f1\\\": F1}\" > m.json', outputs: { m: m.json }, figures: m.json }
  after: { uses: command, in: { m: lora }, with: { shell: 'cp in/m o', outputs: { o: o } } }
";

#[test]
fn what_is_expected_decides_whether_a_result_is_kept() {
    let case = Case::new(&GATED.replace("F1", "0.4"));
    let output = case.run(&[]);
    let told = stderr(&output);
    assert_eq!(code(&output), Some(4), "{told}");
    assert!(told.contains("base.f1 = 0.5, f1 = 0.4") && told.contains("– after"), "{told}");
    assert_eq!(files_below(&case.root().join("cache/records")).expect("a folder").len(), 1, "only that of base");

    fs::write(case.root().join("p.yaml"), GATED.replace("F1", "0.49")).expect("written");
    assert_eq!(code(&case.run(&[])), Some(0));
    // It is no part of the key, and holds for what is there already.
    fs::write(case.root().join("p.yaml"), GATED.replace("F1", "0.49").replace("0.02", "0.001")).expect("written");
    let output = case.run(&[]);
    assert_eq!(code(&output), Some(4), "{}", stderr(&output));
    assert!(stderr(&output).contains("f1 = 0.49") && !stderr(&output).contains("▸ lora"), "{}", stderr(&output));
    fs::write(case.root().join("p.yaml"), GATED.replace("F1", "0.49")).expect("written");
    assert!(stderr(&case.run(&[])).contains("3 reused"));
}

const CELLS: &str = "steps:
  base: { uses: command, matrix: { seed: [1, 2] }, with: { shell: 'echo \"{\\\"f1\\\": 0.${matrix.seed}}\" > m.json', outputs: { m: m.json }, figures: m.json } }
  arm:
    uses: command
    matrix: { kind: [none, lora], seed: [1, 2] }
    expect: ['f1 > base[seed=${matrix.seed}].f1', 'f1 >= arm[kind=none,seed=1].f1']
    with: { shell: 'case ${matrix.kind}${matrix.seed} in none1) f=A ;; *) f=0.3 ;; esac; echo \"{\\\"f1\\\": $f}\" > m.json', outputs: { m: m.json }, figures: m.json }
";

/// A cell is held against those of the same seed, and against one of its own matrix, which may be itself.
#[test]
fn what_is_expected_may_name_cells() {
    let case = Case::new(&CELLS.replace("f=A", "f=0.2"));
    let output = case.run(&[]);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    for (first, told) in
        [("0.1", "base[seed=1].f1 = 0.1, f1 = 0.1"), ("0.4", "arm[kind=none,seed=1].f1 = 0.4, f1 = 0.3")]
    {
        fs::write(case.root().join("p.yaml"), CELLS.replace("f=A", &format!("f={first}"))).expect("written");
        let output = case.run(&["--keep-going"]);
        assert!(code(&output) == Some(4) && stderr(&output).contains(told), "{}", stderr(&output));
    }
    // From the receipt, too.
    fs::write(case.root().join("p.yaml"), CELLS.replace("f=A", "f=0.2")).expect("written");
    for _ in 0..2 {
        let output = case.run(&[]);
        assert!(code(&output) == Some(0) && stderr(&output).contains("6 reused"), "{}", stderr(&output));
    }
}

/// Another attempt would say the same.
#[test]
fn what_is_expected_is_not_tried_again() {
    let yaml =
        GATED.replace("F1", "0.4").replace("    expect:", "    retries: { times: 3, backoff: 1ms }\n    expect:");
    let case = Case::new(&yaml.replace("'echo \"{\\\"f1\\\": 0.4}", "'echo x >> $HOME/t; echo \"{\\\"f1\\\": 0.4}"));
    let output = case.run(&[]);
    assert_eq!((code(&output), case.traces("t")), (Some(4), 1), "{}", stderr(&output));
}

const TWO: &str = "steps:
  bad: { uses: command, with: { shell: 'exit 1', outputs: { o: o } } }
  needs: { uses: command, in: { b: bad }, with: { shell: 'cp in/b o', outputs: { o: o } } }
  good: { uses: command, with: { shell: 'date +%N > o', outputs: { o: o } } }
  more: { uses: command, in: { g: good }, with: { shell: 'cp in/g o', outputs: { o: o } } }
";

#[test]
fn after_a_failure_the_rest_goes_on_if_it_is_asked_to() {
    let case = Case::new(TWO);
    let output = case.run(&["-j1"]);
    assert_eq!(code(&output), Some(1));
    assert!(!stderr(&output).contains("✓ more"), "{}", stderr(&output));
    let output = case.run(&["-j1", "--keep-going"]);
    let told = stderr(&output);
    assert_eq!(code(&output), Some(1), "{told}");
    assert!(told.contains("✓ more") || told.contains("✓ good"), "{told}");
    assert!(told.contains("– needs") && told.contains("(bad failed)"), "{told}");
    for targets in [["good", "more"].as_slice(), &["--until", "good", "--until", "more"]] {
        let output = case.run(targets);
        assert!(stderr(&output).contains("2 reused"), "{}", stderr(&output));
    }
    assert_eq!(code(&case.run(&["good", "--until", "more"])), Some(2));
}

#[test]
fn steps_can_be_forced_and_left_out() {
    let case = Case::new(TWO);
    let output = case.run(&["--only", "more"]);
    assert_eq!(code(&output), Some(1));
    assert!(stderr(&output).contains("only other steps are to run"), "{}", stderr(&output));
    assert_eq!(code(&case.run(&["more"])), Some(0));
    let path = || fs::read_link(case.root().join("cache/results/p/good/o")).expect("a link");
    let first = path();
    let output = case.run(&["more", "--force", "good"]);
    let told = stderr(&output);
    assert!(
        told.contains("it is forced to run") && told.contains("is not what it was when the same step ran"),
        "{told}"
    );
    assert_ne!(path(), first, "the new result is the one that counts");
    assert!(told.contains("✓ more"), "what reads it runs, because it changed: {told}");
    let output = case.run(&["more", "--from", "more"]);
    assert!(stderr(&output).contains("✓ more") && !stderr(&output).contains("✓ good"), "{}", stderr(&output));
    let output = case.run(&["--force", "goud"]);
    assert_eq!(code(&output), Some(2));
    assert!(stderr(&output).contains("did you mean `good`?"), "{}", stderr(&output));
}

/// A grid that counts how often each step ran.
fn many(cells: usize) -> Case {
    let list: Vec<String> = (0..cells).map(|i| i.to_string()).collect();
    Case::new(&format!(
        "steps:\n  cell:\n    uses: command\n    matrix: {{ i: [{}] }}\n    with: {{ shell: 'echo ${{matrix.i}} >> $HOME/t; sleep 0.02; echo ${{matrix.i}} > o', outputs: {{ o: o }} }}\n  all: {{ uses: command, in: {{ cells: cell }}, with: {{ shell: 'echo all >> $HOME/t; cat in/cells/* | sort -n > o', outputs: {{ o: o }} }} }}\n",
        list.join(", ")
    ))
}

/// B3, L2: six processes over one cache. None fails, and every step runs once in all of them together.
#[test]
fn b3_six_runs_at_once_do_every_step_once() {
    let case = many(10);
    let start = || case.command(&[]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    let children: Vec<_> = (0..6).map(|_| start()).collect();
    for child in children {
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", stderr(&output));
    }
    assert_eq!(case.traces("t"), 11, "{}", fs::read_to_string(case.root().join("t")).expect("there"));
    let expected: String = (0..10).map(|i| format!("{i}\n")).collect();
    assert_eq!(fs::read_to_string(case.root().join("cache/results/p/all/o")).expect("a result"), expected);
    assert!(files_below(&case.root().join("cache/leases")).unwrap_or_default().len() <= 1);
}

/// B10, L3: whoever is killed leaves nothing to unlock; its programs end with it. They are watched over from their
/// first moments on, but not from the very first.
#[test]
fn b10_after_a_kill_the_next_run_just_runs() {
    let case = Case::new(
        "steps: { a: { uses: command, with: { shell: 'sleep 0.2; echo $$ > $HOME/pid; test -e $HOME/go || sleep 1000; echo x > o', outputs: { o: o } } } }",
    );
    let mut child = case.command(&[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let pid = loop {
        match fs::read_to_string(case.root().join("pid")) {
            Ok(text) if text.ends_with('\n') => break text.trim().to_owned(),
            _ => std::thread::yield_now(),
        }
    };
    child.kill().expect("killed");
    child.wait().expect("dead");
    let stat = format!("/proc/{pid}/stat");
    while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z")) {
        std::thread::yield_now();
    }
    fs::write(case.root().join("go"), "").expect("written");
    let output = case.run(&[]);
    assert!(output.status.success(), "{}", stderr(&output));
}

/// B1, L6: a grid grows and shrinks, and only new cells run.
#[test]
fn b1_cells_that_are_there_do_not_run_again() {
    let yaml = |matrix: &str| {
        format!(
            "steps: {{ c: {{ uses: command, matrix: {{ {matrix} }}, when: 'matrix.r < 9', with: {{ shell: 'echo x >> $HOME/t; echo ${{matrix.r}} > o', outputs: {{ o: o }} }} }} }}"
        )
    };
    let case = Case::new(&yaml("r: [1, 2, 9]"));
    assert_eq!((code(&case.run(&[])), case.traces("t")), (Some(0), 2));
    for (matrix, ran) in [
        ("r: [1, 2, 3, 9]", 3),
        ("r: [3, 1]", 3),
        ("r: [1, 2, 3], exclude: [{ r: 2 }]", 3),
        ("r: [2], include: [{ r: 4 }]", 4),
    ] {
        fs::write(case.root().join("p.yaml"), yaml(matrix)).expect("written");
        let output = case.run(&[]);
        assert_eq!((code(&output), case.traces("t")), (Some(0), ran), "{matrix}: {}", stderr(&output));
    }
}

/// What a longer training may go on from, case by case: keys of the step, its parameters, and what is said.
#[test]
fn only_what_begins_the_same_can_be_extended() {
    let moves = "the learning rate depends on `";
    for (extends, with, said) in [
        ("steps", "steps: 10", Some(moves)),
        ("steps", "steps: 10, schedule: constant", Some(moves)),
        ("steps", "steps: 10, schedule: constant, warmup_ratio: 0", None),
        ("steps", "steps: 10, schedule: constant, warmup_steps: 5", None),
        ("steps", "steps: 10, schedule: linear, warmup_steps: 5", Some(moves)),
        ("steps", "steps: 10, schedule: linear, schedule_steps: 7", None),
        ("steps", "steps: 10, schedule_steps: 7, warmup_steps: 7", None),
        ("epochs", "epochs: 2, schedule_steps: 7", None),
        ("epochs", "epochs: 2", Some(moves)),
        ("epochs", "steps: 10, schedule_steps: 7", Some("`epochs` is not used where `steps` is given")),
        ("steps", "epochs: 2, schedule_steps: 7", Some("the step has no `steps`")),
        ("step", "steps: 10, schedule_steps: 7", Some("did you mean `steps`?")),
    ] {
        let yaml = format!(
            "steps:\n  base: {{ uses: download, with: {{ source: p.yaml }} }}\n  lora:\n    uses: train\n    extends: {extends}\n    in: {{ model: base, data: base }}\n    with: {{ adapter: {{ lora: {{ rank: 4 }} }}, {with} }}\n"
        );
        let case = Case::new(&yaml);
        let mut check = Command::new(env!("CARGO_BIN_EXE_pipe"));
        let output = check.args(["check", "p.yaml"]).current_dir(case.root()).output().expect("the binary starts");
        let told = stderr(&output);
        assert_eq!(output.status.success(), said.is_none(), "{with}: {told}");
        assert!(said.is_none_or(|said| told.contains(said) && told.contains("p.yaml:5:14")), "{with}: {told}");
    }
}

#[test]
fn a_warm_up_ends_before_what_it_is_part_of() {
    for (with, said) in [
        ("steps: 10, warmup_steps: 11", "the warm-up of 11 steps is longer than the 10 steps of the run"),
        ("epochs: 2, schedule_steps: 7, warmup_steps: 8", "longer than the 7 steps of the schedule"),
        ("steps: 10, schedule_steps: 7, warmup_steps: 8", "longer than the 7 steps of the schedule"),
    ] {
        let yaml = format!(
            "steps:\n  base: {{ uses: download, with: {{ source: p.yaml }} }}\n  lora: {{ uses: train, in: {{ model: base, data: base }}, with: {{ adapter: {{ lora: {{ rank: 4 }} }}, {with} }} }}\n"
        );
        let case = Case::new(&yaml);
        let mut check = Command::new(env!("CARGO_BIN_EXE_pipe"));
        let output = check.args(["check", "p.yaml"]).current_dir(case.root()).output().expect("the binary starts");
        assert!(stderr(&output).contains(said) && !output.status.success(), "{with}: {}", stderr(&output));
    }
}
