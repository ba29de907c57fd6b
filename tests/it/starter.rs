//! `pipe init`, `pipe graph` and `pipe completions`, through the binary.
//! It does not look at how pictures are laid out: that is tested beside the code.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::data_steps::project;
use crate::engine::command::{stderr, stdout};

fn pipe(root: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
    command.args(arguments).current_dir(root).env_remove("PIPE_CACHE").output().expect("the binary starts")
}

fn done(root: &Path, arguments: &[&str]) -> (String, String) {
    let output = pipe(root, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    (stdout(&output), stderr(&output))
}

#[test]
#[cfg(unix)]
fn a_first_pipeline_runs_as_it_is_written() {
    let root = tempfile::tempdir().expect("a folder");
    let (told, _) = done(root.path(), &["init", "мои слова/x"]);
    assert!(told.contains("  cd 'мои слова/x'\n  pipe run pipelines/first.yaml"), "{told}");
    let folder = root.path().join("мои слова/x");
    let run = |more: &[&str]| done(&folder, &[&["run", "pipelines/first.yaml", "--device", "cpu"], more].concat());
    let (results, told) = run(&[]);
    assert!(told.contains("5 steps ran, 0 reused"), "{told}");
    let summary = fs::read_to_string(folder.join(results.trim())).expect("the result");
    assert!(summary.contains("--- frequent[letters=5]\n      5 pitcher\n"), "{summary}");
    assert!(run(&[]).1.contains("0 steps ran, 5 reused"));
    let (_, told) = run(&["--set", "top=3"]);
    assert!(told.contains("3 steps ran, 2 reused") && told.contains("= words") && told.contains("= size"), "{told}");
}

#[test]
fn nothing_is_overwritten_and_nothing_half_written() {
    let root = project(&[("data/fables.txt", b"mine")]);
    let output = pipe(root.path(), &["init"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("data/fables.txt is there already"), "{}", stderr(&output));
    assert_eq!(fs::read(root.path().join("data/fables.txt")).expect("there"), b"mine");
    assert!(!root.path().join("pipelines").exists());
    // A file is no folder.
    assert_eq!(pipe(root.path(), &["init", "data/fables.txt"]).status.code(), Some(1));
}

#[test]
fn every_shell_gets_its_script() {
    for (shell, word) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef pipe"),
        ("fish", "complete -c pipe"),
        ("elvish", "edit:completion"),
        ("powershell", "Register-ArgumentCompleter"),
    ] {
        let (script, _) = done(Path::new("."), &["completions", shell]);
        assert!(script.contains(word) && script.contains("graph"), "{shell}: {script}");
    }
    assert_eq!(pipe(Path::new("."), &["completions", "tcsh"]).status.code(), Some(2));
}

#[test]
#[cfg(unix)]
fn a_graph_shows_what_a_run_would_do() {
    let yaml = "name: p\nsteps:
  a: { uses: command, matrix: { x: ['1\"', '<2>'] }, with: { shell: 'true > o', outputs: { o: o } } }
  b: { uses: command, in: { a: a }, with: { shell: 'cat in/a/* > o', outputs: { o: o } } }
";
    let root = project(&[("p.yaml", yaml.as_bytes())]);
    let graph = |more: &[&str]| done(root.path(), &[&["graph", "p.yaml", "--device", "cpu"], more].concat()).0;
    let text = graph(&[]);
    assert!(text.contains("n0(\"a<br/>command #183; 2 cells\"):::run\n"), "{text}");
    assert!(text.contains("n1(\"b<br/>command\"):::depends\n") && text.contains("  n0 --> n1\n"), "{text}");
    assert!(!root.path().join("cache").exists(), "it writes nothing");
    let cells = graph(&["--cells"]);
    assert!(cells.contains("  n0 --> n2\n  n1 --> n2\n") && cells.contains("#34;"), "{cells}");
    assert_eq!(graph(&["a", "--format", "dot"]).matches("->").count(), 0);

    done(root.path(), &["run", "p.yaml", "--device", "cpu"]);
    assert!(graph(&[]).contains("n1(\"b<br/>command\"):::reused\n"));
    let svg = graph(&["--format", "svg", "--cells"]);
    assert!(svg.starts_with("<svg ") && svg.contains("3 reused") && svg.contains("&lt;2&gt;"), "{svg}");
    assert_eq!(svg, graph(&["--format", "svg", "--cells"]));
}
