//! `pipe runs` and `pipe diff`, through the binary.
//! It does not look at how logs are read: that is tested beside the code.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

use crate::data_steps::project;
use crate::engine::command::{stderr, stdout};

struct Case(tempfile::TempDir);

/// `оценка` writes a figure, `итог` reads it; `сбой` fails on demand.
const PIPELINE: &str = "
name: проба
params: { f1: 0.5, fail: 0 }
steps:
  оценка: { uses: command, with: { shell: 'echo \"{\\\"f1\\\": ${params.f1}, \\\"n\\\": 12}\" > m.json', outputs: { m: m.json }, figures: m.json } }
  итог: { uses: command, in: { m: оценка }, with: { shell: 'cat in/m in/m > o', outputs: { o: o } } }
  сбой: { uses: command, in: { o: итог }, with: { shell: 'echo ${params.fail} > o; exit ${params.fail}', outputs: { o: o } } }
";

impl Case {
    fn new() -> Self {
        Self(project(&[("проба.yaml", PIPELINE.as_bytes())]))
    }

    fn pipe(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
        command.args(args).current_dir(self.0.path()).env_remove("PIPE_CACHE").env_remove("NO_COLOR");
        command.output().expect("the binary starts")
    }

    /// Runs and answers the run's name.
    fn run(&self, more: &[&str]) -> String {
        let output = self.pipe(&[&["run", "проба.yaml", "--device", "cpu", "--json"], more].concat());
        let told = stdout(&output);
        let first: Value = serde_json::from_str(told.lines().next().expect("an event")).expect("JSON");
        first["run"].as_str().expect("a name").to_owned()
    }

    /// What a command says on stdout when it is done.
    fn told(&self, args: &[&str]) -> String {
        let output = self.pipe(args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        stdout(&output)
    }

    fn lines(&self, args: &[&str]) -> Vec<Value> {
        self.told(args).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// The exit code and what is said on stderr.
    fn refused(&self, args: &[&str]) -> (Option<i32>, String) {
        let output = self.pipe(args);
        assert_eq!(stdout(&output), "", "{args:?}");
        (output.status.code(), stderr(&output))
    }

    fn log(&self, run: &str) -> PathBuf {
        self.0.path().join(format!("cache/runs/{run}.jsonl"))
    }
}

fn names(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["run"].as_str().expect("a name")).collect()
}

/// Reports say that this is told here, because it must not stand in them.
#[test]
fn a_run_tells_what_it_ran_on_where_it_computed() {
    let case = Case::new();
    case.run(&[]);
    let told = case.told(&["runs", "--run", "last"]);
    let machine = told.lines().nth(1).and_then(|line| line.strip_prefix("on ")).expect("the machine").to_owned();
    assert!(machine.starts_with("cpu; ") && machine.contains(" core"), "{machine}");
    assert_eq!(case.lines(&["runs", "--json"])[0]["machine"], machine.as_str());
    // Nothing of it is in the key or the results: a run with nothing to do has no machine.
    case.run(&[]);
    assert!(!case.told(&["runs", "--run", "last"]).contains("\non "));
}

/// Whoever writes a log holds its lock: a run that goes on is told from one that was killed.
#[test]
fn a_run_that_goes_on_is_told_from_one_that_was_killed() {
    let case = Case::new();
    let outcome = || case.lines(&["runs", "--json"])[0]["outcome"].as_str().expect("a word").to_owned();
    let path = case.0.path().join("проба.yaml");
    fs::write(&path, "steps: { a: { uses: command, with: { shell: 'sleep 1000', outputs: { o: o } } } }")
        .expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
    command.args(["run", "проба.yaml", "--device", "cpu", "-q"]).current_dir(case.0.path()).env_remove("PIPE_CACHE");
    let mut child = command.stdout(std::process::Stdio::null()).spawn().expect("it starts");
    let logs = case.0.path().join("cache/runs");
    let log = || fs::read_to_string(fs::read_dir(&logs).ok()?.next()?.ok()?.path()).ok();
    while log().is_none_or(|text| text.lines().count() < 2) {
        assert!(child.try_wait().expect("a child").is_none(), "it has ended");
        std::thread::yield_now();
    }
    assert_eq!(outcome(), "running");
    assert!(case.told(&["runs"]).contains("running"));
    child.kill().expect("killed");
    child.wait().expect("dead");
    assert_eq!(outcome(), "unfinished");
    assert!(case.told(&["runs", "--run", "last"]).contains("unfinished"));
}

#[test]
fn runs_are_told_the_newest_first() {
    let case = Case::new();
    let (first, second, third) = (case.run(&[]), case.run(&[]), case.run(&["--set", "fail=3"]));
    let lines = case.lines(&["runs", "--json"]);
    assert_eq!(names(&lines), [&third, &second, &first]);
    let told = |i: usize| {
        let of = |field: &str| lines[i][field].as_u64().expect("a number");
        (lines[i]["outcome"].as_str().expect("a word"), of("ran"), of("reused"), of("failed"))
    };
    assert_eq!([told(0), told(1), told(2)], [("failed", 0, 2, 1), ("done", 0, 3, 0), ("done", 3, 0, 0)]);
    assert_eq!((lines[0]["sets"][0].as_str(), lines[0]["steps"].as_u64()), (Some("fail=3"), Some(3)));
    assert_eq!(lines[1]["pipeline"], "проба");

    let output = case.pipe(&["runs", "-n", "2"]);
    let told = stdout(&output);
    assert_eq!((told.lines().count(), stderr(&output)), (3, String::new()), "{told}");
    let words: Vec<&str> = told.lines().nth(2).expect("a line").split_whitespace().collect();
    assert_eq!((words[0], &words[3..8]), (second.as_str(), &["проба", "done", "0", "3", "0"][..]));
    assert!(!told.contains('\u{1b}') && !told.contains(&first), "{told}");
}

#[test]
fn runs_of_one_pipeline_are_found_by_its_name_and_by_its_file() {
    let case = Case::new();
    fs::write(case.0.path().join("другая.yaml"), PIPELINE.replace("name: проба", "name: другая")).expect("written");
    let own = case.run(&[]);
    assert!(case.pipe(&["run", "./другая.yaml"]).status.success());
    for wanted in ["проба", "проба.yaml", "./проба.yaml"] {
        assert_eq!(names(&case.lines(&["runs", wanted, "--json"])), [&own], "{wanted}");
    }
    assert_eq!(case.lines(&["runs", "другая.yaml", "--json"]).len(), 1);
    let (code, told) = case.refused(&["runs", "третья"]);
    assert!(code == Some(2) && told.contains("no run of `третья`"), "{told}");
}

#[test]
fn the_steps_of_a_run_are_told_with_their_figures() {
    let case = Case::new();
    let (first, second) = (case.run(&[]), case.run(&["--set", "fail=3"]));
    let told = case.told(&["runs", "--run", "last~1"]);
    assert!(told.starts_with(&first) && told.contains("проба, done in "), "{told}");
    let line = told.lines().find(|line| line.starts_with("оценка")).expect("the step");
    assert!(line.contains("ran") && line.contains(" ms") && line.ends_with("f1 0.5, n 12"), "{line}");

    let told = case.told(&["runs", "--run", &second[second.len() - 6..]]);
    assert!(told.lines().next().is_some_and(|title| title.ends_with("with fail=3")), "{told}");
    assert!(told.contains("reused") && told.contains("exit status 3"), "{told}");

    let lines = case.lines(&["runs", "--run", &second, "--json"]);
    let outcome = |i: usize| (lines[i]["step"].as_str(), lines[i]["outcome"].as_str());
    assert_eq!(outcome(0), (Some("оценка"), Some("reused")));
    assert_eq!(outcome(2), (Some("сбой"), Some("failed")));
    assert_eq!(lines[0]["figures"]["f1"], 0.5);
    assert!(lines[2]["problem"].as_str().is_some_and(|what| what.contains("exit status 3")), "{}", lines[2]);

    let (code, told) = case.refused(&["runs", "--run", "20"]);
    assert!(code == Some(2) && told.contains("may mean 2 runs") && told.contains(&first), "{told}");
    let (code, told) = case.refused(&["runs", "--run", "last~2"]);
    assert!(code == Some(2) && told.contains("there are only 2 runs"), "{told}");
}

#[test]
fn cut_and_damaged_logs_are_told_in_their_lines() {
    let case = Case::new();
    let (whole, cut, damaged) = (case.run(&[]), case.run(&["--set", "f1=0.6"]), case.run(&["--set", "f1=0.7"]));
    let text = fs::read(case.log(&cut)).expect("a log");
    let name = text.windows(2).rposition(|two| two == "к".as_bytes()).expect("a letter of two bytes");
    // A kill in the middle of a letter.
    fs::write(case.log(&cut), &text[..=name]).expect("written");
    fs::write(case.log(&damaged), "это не журнал\n{}\n").expect("written");

    let told = case.told(&["runs"]);
    let line = |run: &str| told.lines().find(|line| line.starts_with(run)).expect(run).to_owned();
    assert!(line(&whole).contains(" done "), "{told}");
    assert!(line(&cut).ends_with("проба     unfinished"), "{told}");
    assert!(line(&damaged).ends_with("damaged: the first line is not that of a run log"), "{told}");
    let lines = case.lines(&["runs", "--json"]);
    let of = |run: &str| lines.iter().find(|line| line["run"] == run).expect(run);
    assert_eq!((&of(&cut)["outcome"], &of(&cut)["ran"]), (&Value::from("unfinished"), &Value::Null));
    assert!(of(&damaged)["problem"]["what"].is_string());

    let output = case.pipe(&["runs", "проба"]);
    assert!(stdout(&output).lines().count() == 3 && stderr(&output).contains("not known for 1 log"), "{output:?}");
    assert!(case.told(&["runs", "--run", &cut]).contains("unfinished"));
    let (code, told) = case.refused(&["runs", "--run", &damaged]);
    assert!(code == Some(1) && told.contains(".jsonl:1"), "{told}");
    assert_eq!(case.refused(&["diff", &whole, &damaged]).0, Some(1));
    // What was done before the kill is compared.
    assert!(case.told(&["diff", &whole, &cut]).contains("f1"), "{told}");
}

#[test]
fn a_cache_without_runs_and_no_cache_are_told() {
    let case = Case::new();
    let (code, told) = case.refused(&["runs"]);
    assert!(code == Some(2) && told.contains("there is no cache at cache") && told.contains("--cache"), "{told}");
    fs::create_dir(case.0.path().join("кэш")).expect("made");
    assert_eq!(case.refused(&["runs", "--cache", "кэш"]), (Some(0), "there is no run yet\n".to_owned()));
    assert_eq!(case.refused(&["runs", "--cache", "кэш", "--json"]).0, Some(0));
    let (code, told) = case.refused(&["diff", "last~1", "last", "--cache", "кэш"]);
    assert!(code == Some(2) && told.contains("there is no run yet"), "{told}");
    assert_eq!(fs::read_dir(case.0.path().join("кэш")).expect("a folder").count(), 0, "a look writes nothing");
}

#[test]
fn two_runs_are_compared_field_by_field_and_figure_by_figure() {
    let case = Case::new();
    case.run(&[]);
    case.run(&["--set", "f1=0.62"]);
    let output = case.pipe(&["diff", "last~1", "last"]);
    let told = stdout(&output);
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].starts_with("A  20") && lines[1].starts_with("B  20"), "{told}");
    assert_eq!(&lines[2..5], ["settings:", "  f1: 0.62 is new", "steps:"]);
    assert_eq!(lines[5], "  оценка");
    assert!(lines[6].starts_with("    params.shell: ") && lines[6].contains("0.5") && lines[6].contains("→"), "{told}");
    assert_eq!(lines[7], "  итог");
    assert!(lines[8].starts_with("    inputs.m: ") && lines[8].ends_with("… (of оценка)"), "{told}");
    assert!(lines[10].ends_with("… (of итог)"), "{told}");
    let figure = lines.iter().position(|line| *line == "figures:").expect("figures");
    assert_eq!(lines[figure + 2].split_whitespace().collect::<Vec<_>>(), ["оценка", "f1", "0.5", "0.62", "+0.12"]);
    assert_eq!(lines.len(), figure + 3, "a figure that is the same is not shown: {told}");
    assert!(!told.contains('\u{1b}'), "{told}");

    let all = case.told(&["diff", "last~1", "last", "--all"]);
    assert!(all.lines().any(|line| line.split_whitespace().collect::<Vec<_>>() == ["оценка", "n", "12", "12", "0"]));

    let lines = case.lines(&["diff", "last~1", "last", "--json"]);
    let step = &lines[0]["steps"][0];
    assert_eq!((lines.len(), &step["step"]), (1, &Value::from("оценка")));
    let figure = &step["figures"][0];
    assert_eq!((figure["a"].as_f64(), figure["b"].as_f64()), (Some(0.5), Some(0.62)));
    assert!(figure["difference"].as_f64().is_some_and(|difference| (difference - 0.12).abs() < 1e-12));
    assert_eq!(lines[0]["steps"][1]["fields"][0]["of"], "оценка");
    assert_eq!(lines[0]["settings"][0]["name"], "f1");
}

#[test]
fn equal_runs_do_not_differ_and_steps_of_one_run_only_are_named() {
    let case = Case::new();
    case.run(&[]);
    case.run(&[]);
    let output = case.pipe(&["diff", "last~1", "last"]);
    assert_eq!((stdout(&output).lines().count(), stderr(&output)), (2, "nothing differs\n".to_owned()));
    assert_eq!(case.told(&["diff", "last~1", "last", "--all"]).matches("the same").count(), 3);

    case.run(&["оценка"]);
    let output = case.pipe(&["diff", "last~1", "last"]);
    assert!(stdout(&output).ends_with("steps that only A has:\n  итог\n  сбой\n"), "{}", stdout(&output));
    assert_eq!(stderr(&output), "1 step is the same; --all shows it\n");
    assert!(case.told(&["diff", "last", "last~1"]).contains("steps that only B has:"));

    case.run(&["--set", "fail=3"]);
    let told = case.told(&["diff", "last~2", "last"]);
    assert!(told.contains("  сбой  reused in A, failed in B\n") && told.contains("exit status 3"), "{told}");
}

#[test]
fn what_is_not_there_any_more_is_said() {
    let case = Case::new();
    case.run(&[]);
    case.run(&["--set", "f1=0.62"]);
    for (run, words) in [("last~1", "the record of A is not"), ("last", "the records of both are not")] {
        let lines = case.lines(&["runs", "--run", run, "--json"]);
        for key in lines.iter().filter_map(|line| line["key"].as_str()) {
            let _ = fs::remove_file(case.0.path().join(format!("cache/records/{}/{key}.json", &key[..2])));
        }
        let told = case.told(&["diff", "last~1", "last"]);
        assert!(told.contains(words) && told.contains("+0.12"), "{told}");
    }
}
