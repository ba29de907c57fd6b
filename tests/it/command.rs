//! Steps that run other people's programs, through the binary: what they get, what they leave, and how they fail.
//! It does not look at how a process is waited for: that is tested beside the code.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use pipe::digest::files_below;

use crate::data_steps::project;
use crate::engine::command::{stderr, stdout};

struct Case(tempfile::TempDir);

impl Case {
    fn new(yaml: &str, files: &[(&str, &str)]) -> Self {
        let mut all: Vec<(&str, &[u8])> = vec![("проба.yaml", yaml.as_bytes())];
        all.extend(files.iter().map(|(name, text)| (*name, text.as_bytes())));
        Self(project(&all))
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.root().join(name), text).expect(name);
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
        command.args(arguments).args(["--device", "cpu"]).current_dir(self.root()).env_remove("PIPE_CACHE");
        command
    }

    fn run(&self) -> Output {
        self.command(&["run", "проба.yaml"]).output().expect("the binary starts")
    }

    /// Runs and answers which steps ran, in order of their ends.
    fn ran(&self) -> Vec<String> {
        let output = self.run();
        let told = stderr(&output);
        assert!(output.status.success(), "{told}");
        let name = |line: &str| line.strip_prefix("✓ ")?.split_whitespace().next().map(str::to_owned);
        told.lines().filter_map(name).collect()
    }

    fn fails(&self, words: &[&str]) -> String {
        let output = self.run();
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{told}");
        for word in words {
            assert!(told.contains(word), "`{word}` is not said:\n{told}");
        }
        told
    }

    fn result(&self, path: &str) -> String {
        fs::read_to_string(self.root().join("cache/results/проба").join(path)).expect(path)
    }
}

const COUNT: &str = "
steps:
  letters:
    uses: command
    with: { shell: 'sort \"мои данные/буквы.txt\" > out.txt', code: ['мои данные'], outputs: { sorted: out.txt } }
  count:
    uses: command
    in: { letters: letters }
    with:
      run: [sh, scripts/count.sh, in/letters, 2]
      code: [scripts/count.sh]
      outputs: { counts: папка/counts.txt, folder: all }
";

/// The script writes its result twice: into a folder that is there for it, and into one that it makes.
fn count() -> Case {
    Case::new(
        COUNT,
        &[
            ("мои данные/буквы.txt", "б\nа\nб\n"),
            (
                "scripts/count.sh",
                "# first\nmkdir all\nuniq -c \"$1\" | head -n \"$2\" | tee all/x > папка/counts.txt\n",
            ),
        ],
    )
}

#[test]
fn a_program_gets_what_is_declared_and_leaves_its_outputs() {
    let case = count();
    assert_eq!(case.ran(), ["letters", "count"]);
    let counts = case.result("count/папка/counts.txt");
    assert_eq!(counts.split_whitespace().collect::<Vec<_>>(), ["1", "а", "2", "б"]);
    assert_eq!(case.result("count/all/x"), counts);
    assert!(case.ran().is_empty());
    let failed = case.root().join("cache/failed");
    assert!(!failed.exists() || files_below(&failed).expect("a folder").is_empty());
}

/// B8: a comment in a script makes its step run, and not the steps that read the same bytes as before.
#[test]
fn b8_a_comment_in_code_reruns_the_step_and_not_its_consumers() {
    let case = count();
    case.ran();
    case.write(
        "scripts/count.sh",
        &fs::read_to_string(case.root().join("scripts/count.sh")).expect("there").replace("first", "second"),
    );
    let output = case.run();
    let told = stderr(&output);
    assert!(told.contains("✓ count") && told.contains("sources.scripts/count.sh: "), "{told}");
    case.write("мои данные/буквы.txt", "а\nб\nб\n");
    assert_eq!(case.ran(), ["letters"], "the letters stand in another order, and sorted they are the same");
}

/// B11: what is not declared is not there, so that it cannot go stale unnoticed.
#[test]
fn b11_what_is_not_declared_is_not_there() {
    let yaml = "steps: { a: { uses: command, with: { run: [python3, main.py], code: [main.py], outputs: { o: o } } } }";
    let case = Case::new(
        yaml,
        &[("main.py", "import helper\nopen('o', 'w').write(helper.TEXT)\n"), ("helper.py", "TEXT = 'x'\n")],
    );
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("skipped: python3 is not there");
        return;
    }
    case.fails(&["No module named 'helper'", "only what is declared", "cache/failed/"]);
    case.write("проба.yaml", &yaml.replace("code: [main.py]", "code: [main.py, helper.py]"));
    assert_eq!(case.ran(), ["a"]);
    case.write("helper.py", "TEXT = 'y'\n");
    assert_eq!(case.ran(), ["a"]);
    assert_eq!(case.result("a/o"), "y");
}

/// B2, L1: an input that is edited while a step runs is named, and nothing is recorded.
#[test]
fn b2_an_input_that_changes_while_the_step_runs_is_named_and_not_recorded() {
    // The script edits the file from which it was copied, as somebody beside it would.
    let case = Case::new("", &[("input.txt", "one\n")]);
    let source = case.root().join("input.txt").display().to_string();
    let yaml = format!(
        "steps: {{ a: {{ uses: command, with: {{ shell: 'cp input.txt out; test -e done || echo more >> \"{source}\"', code: [input.txt], outputs: {{ o: out }} }} }} }}"
    );
    case.write("проба.yaml", &yaml);
    case.fails(&["input.txt changed while the step ran", "nothing was recorded"]);
    assert!(files_below(&case.root().join("cache/records")).unwrap_or_default().is_empty());
    // Without the meddling it runs with what the file holds now.
    case.write("проба.yaml", &yaml.replace(&format!("; test -e done || echo more >> \"{source}\""), ""));
    assert_eq!(case.ran(), ["a"]);
    assert_eq!(case.result("a/out"), "one\nmore\n");
}

#[test]
fn a_command_that_writes_into_its_input_is_told_and_the_damage_is_not_served() {
    let yaml = "steps:
  a: { uses: command, with: { shell: 'echo text > out', outputs: { o: out } } }
  b: { uses: command, in: { a: a }, with: { shell: 'chmod u+w in/a; echo more >> in/a; cp in/a out', outputs: { o: out } } }
";
    let case = Case::new(yaml, &[]);
    case.fails(&["its input `a` (in/a) changed while the command ran"]);
    case.write("проба.yaml", &yaml.replace("chmod u+w in/a; echo more >> in/a; ", ""));
    assert_eq!(case.ran(), ["a", "b"], "what was damaged is made again");
    assert_eq!(case.result("b/out"), "text\n");
}

#[test]
fn secrets_are_nowhere() {
    let yaml = "steps:
  good: { uses: command, with: { shell: 'echo it is $KEY; printf %s $KEY | wc -c > out', secrets: [KEY], outputs: { o: out } } }
  bad: { uses: command, in: { after: good }, with: { shell: 'echo no: $KEY >&2; exit 3', secrets: [KEY], outputs: { o: out } } }
";
    let case = Case::new(yaml, &[]);
    let secret = "тайна-4711-sesame";
    let output = case.command(&["run", "проба.yaml", "--json"]).env("KEY", secret).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(case.result("good/out").trim(), secret.len().to_string(), "the program had it");
    let told = format!("{}{}", stdout(&output), stderr(&output));
    assert!(told.contains("no: [secret KEY]") && !told.contains("4711"), "{told}");
    for file in files_below(&case.root().join("cache")).expect("a folder") {
        let bytes = fs::read(case.root().join("cache").join(&file)).unwrap_or_default();
        assert!(!bytes.windows(4).any(|window| window == b"4711"), "{file}");
    }
    // Another value is the same step.
    let output = case.command(&["run", "проба.yaml", "good"]).env("KEY", "another one").output().expect("it starts");
    assert!(stderr(&output).contains("1 reused"), "{}", stderr(&output));
    let output = case.command(&["run", "проба.yaml"]).env_remove("KEY").output().expect("it starts");
    assert!(stderr(&output).contains("the secret `KEY` is not set"), "{}", stderr(&output));
}

#[test]
fn the_environment_is_what_is_written_down() {
    let yaml = "steps: { a: { uses: command, with: { shell: 'env | sort > out', env: { FIXED: 4 }, pass_env: [PASSED], outputs: { o: out } } } }";
    let case = Case::new(yaml, &[]);
    let run = |passed: &str, other: &str| {
        let mut command = case.command(&["run", "проба.yaml"]);
        let output = command.env("PASSED", passed).env("OTHER_OF_THE_USER", other).output().expect("it starts");
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output).contains("✓ a")
    };
    assert!(run("one", "x"));
    let variables = case.result("a/out");
    assert!(variables.contains("FIXED=4\n") && variables.contains("PASSED=one\n"), "{variables}");
    assert!(!variables.contains("OTHER_OF_THE_USER"), "{variables}");
    assert!(!run("one", "y"), "what it does not see does not matter");
    assert!(run("two", "x"));
}

#[test]
fn a_failure_shows_its_end_and_leaves_its_folder() {
    let yaml = "steps: { a: { uses: command, with: { shell: 'echo half > out; printf \"first\\nl\\377st\\n\" >&2; exit 7', outputs: { o: out } } } }";
    let case = Case::new(yaml, &[]);
    let told = case.fails(&["the command ended with exit status 7", "first", "l\u{fffd}st", "cache/failed/"]);
    let (_, rest) = told.split_once("cache/failed/").expect("told");
    let folder = case.root().join("cache/failed").join(&rest[..64]);
    assert_eq!(fs::read_to_string(folder.join("work/out")).expect("kept"), "half\n");
    let log: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.join("command.json")).expect("kept")).expect("JSON");
    assert_eq!((&log["exit_code"], &log["command"][0]), (&7.into(), &"/bin/sh".into()));
    let again = Command::new("sh").arg(folder.join("rerun.sh")).output().expect("sh");
    assert_eq!(again.status.code(), Some(7));
    assert!(again.stderr.starts_with(b"first\n"));
    // When it succeeds, what is left of the failure goes.
    case.write("проба.yaml", &yaml.replace("exit 7", "exit 0"));
    assert_eq!(case.ran(), ["a"]);
}

#[test]
fn what_is_promised_must_be_there_and_must_be_a_file_or_a_folder() {
    let step = |shell: &str, file: &str| {
        format!("steps: {{ a: {{ uses: command, with: {{ shell: '{shell}', outputs: {{ o: {file} }} }} }} }}")
    };
    for (shell, word) in [
        ("true", "did not make its output `o` (out)"),
        ("ln -s /etc/passwd out", "is a link"),
        ("mkdir out; ln -s /etc/passwd out/x", "(out/x) is a link"),
        ("mkfifo out", "is neither a file nor a folder"),
    ] {
        let case = Case::new(&step(shell, "out"), &[]);
        case.fails(&[word]);
        assert!(files_below(&case.root().join("cache/records")).unwrap_or_default().is_empty());
    }
    for bad in ["../out", "/tmp/out", "in/out", "a/./b"] {
        let case = Case::new(&step("true", bad), &[]);
        let output = case.run();
        assert_eq!(output.status.code(), Some(3), "{bad}: {}", stderr(&output));
    }
    let case = Case::new(&step("nonsense-program-x", "out"), &[]);
    case.fails(&["ended with exit status 127"]);
    let yaml = "steps: { a: { uses: command, with: { run: [nonsense-program-x], outputs: { o: out } } } }";
    Case::new(yaml, &[]).fails(&["there is no program `nonsense-program-x` along PATH"]);
    let yaml = "steps: { a: { uses: command, with: { run: [./x.sh], outputs: { o: out } } } }";
    Case::new(yaml, &[("x.sh", "")]).fails(&["there is no program `./x.sh` in its working folder"]);
}

#[test]
fn what_does_not_fit_together_is_told() {
    let yaml = "steps:
  two: { uses: command, with: { shell: 'echo 1 > a; echo 2 > b', outputs: { x: a, y: b } } }
  one: { uses: command, in: { t: two }, with: { shell: 'cp in/t o', outputs: { o: o } } }
";
    let output = Case::new(yaml, &[]).run();
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("name it: `two.x`, `two.y`"), "{}", stderr(&output));
    let case = Case::new(&yaml.replace("t: two", "t: two.y"), &[]);
    assert_eq!(case.ran(), ["two", "one"]);
    assert_eq!(case.result("one/o"), "2\n");
    let yaml =
        "steps: { a: { uses: command, with: { shell: 'echo > o', inputs: { data: x.csv }, outputs: { o: o } } } }";
    Case::new(yaml, &[]).fails(&["says where `data` lies, and nothing is connected to it"]);
}

/// What a command printed can be read of a result that is reused, too, and of one that failed.
#[test]
fn logs_are_kept() {
    let case = Case::new(
        "steps: { a: { uses: command, with: { shell: 'echo hello; echo oh >&2; exit CODE', outputs: { o: o } } } }",
        &[],
    );
    let logs =
        |more: &[&str]| case.command(&[&["logs", "проба.yaml", "a"], more].concat()).output().expect("it starts");
    let yaml = fs::read_to_string(case.root().join("проба.yaml")).expect("there");
    case.write("проба.yaml", &yaml.replace("CODE", "3"));
    let output = logs(&[]);
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    assert!(stderr(&output).contains("`a` has not run"), "{}", stderr(&output));
    case.run();
    let output = logs(&[]);
    assert_eq!(stdout(&output), "hello\n");
    assert!(stderr(&output).contains("the last attempt failed, with exit status 3"), "{}", stderr(&output));
    case.write("проба.yaml", &yaml.replace("exit CODE", "echo x > o"));
    assert_eq!(case.ran(), ["a"]);
    assert!(case.ran().is_empty());
    assert_eq!(stdout(&logs(&[])), "hello\n");
    assert_eq!(stdout(&logs(&["--stderr"])), "oh\n");
    let folder = stdout(&logs(&["--path"]));
    assert!(case.root().join(folder.trim()).join("command.json").is_file(), "{folder}");
}

#[test]
fn much_output_is_no_trouble() {
    let yaml = "steps: { a: { uses: command, with: { shell: 'yes | head -c 20000000; yes no | head -c 3000000 >&2; echo x > out', outputs: { o: out } } } }";
    let case = Case::new(yaml, &[]);
    assert_eq!(case.ran(), ["a"]);
    let logs = case.root().join("cache/logs");
    let stdout = files_below(&logs).expect("kept").into_iter().find(|file| file.ends_with("stdout")).expect("kept");
    let kept = fs::read_to_string(logs.join(stdout)).expect("text");
    assert!(kept.len() < 10_000_000 && kept.contains("bytes are left out here"));
}

#[test]
fn ctrl_c_ends_the_whole_group() {
    let yaml = "steps: { a: { uses: command, with: { shell: 'sleep 1000 & echo $! > \"$PIDS\"; echo begun; wait', pass_env: [PIDS], outputs: { o: out } } } }";
    let case = Case::new(yaml, &[]);
    let pids = case.root().join("pids");
    let mut command = case.command(&["run", "проба.yaml"]);
    let mut child = command.env("PIDS", &pids).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let pid = loop {
        match fs::read_to_string(&pids) {
            Ok(text) if text.ends_with('\n') => break text.trim().to_owned(),
            _ => std::thread::yield_now(),
        }
    };
    let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(interrupt.success());
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    let alive = fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"));
    assert!(!alive, "the program that it started in the background is still there");
}
