//! The pages for users as a newcomer reads them: every example is tried, every command line is typed.
//! It does not know what the pages say in words.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use pipe::digest::files_below;
use serde_yaml::{Mapping, Value};

use crate::data_steps::project;
use crate::engine::command::{stderr, stdout};
use crate::support::repository;

const PAGES: [&str; 5] =
    ["README.md", "pipelines/README.md", "cache/README.md", "templates/README.md", "CONTRIBUTING.md"];

fn page(name: &str) -> String {
    fs::read_to_string(repository().join(name)).expect(name)
}

/// The fenced blocks of a language, each with the number of its line.
fn blocks(page: &str, language: &str) -> Vec<(usize, String)> {
    let (mut all, mut open): (Vec<(usize, String)>, Option<bool>) = (Vec::new(), None);
    for (number, line) in page.lines().enumerate() {
        match (line.strip_prefix("```"), open) {
            (Some(of), None) => {
                open = Some(of == language);
                if of == language {
                    all.push((number + 1, String::new()));
                }
            }
            (Some(_), Some(_)) => open = None,
            (None, Some(true)) => {
                let (_, text) = all.last_mut().expect("a block is open");
                text.push_str(line);
                text.push('\n');
            }
            _ => {}
        }
    }
    all
}

/// The texts between backticks outside of blocks.
fn spans(page: &str) -> Vec<String> {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in page.lines() {
        if line.starts_with("```") {
            inside = !inside;
        } else if !inside {
            lines.push(line);
        }
    }
    // A span may be broken between two lines.
    let text = lines.join("\n");
    text.split('`').skip(1).step_by(2).map(|span| span.replace('\n', " ")).collect()
}

fn pipe(root: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
    command.args(args).current_dir(root).env_remove("PIPE_CACHE").output().expect("the binary starts")
}

// ---- examples ---------------------------------------------------------------------------------------------------

fn mapping(text: &str) -> Mapping {
    let value: Value = serde_yaml::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    value.as_mapping().expect("a mapping").clone()
}

/// The examples of the guide in their order: a whole pipeline; steps of it; keys of the step before. What has come
/// together is checked each time.
#[test]
fn the_examples_of_the_guide_make_one_pipeline() {
    let text = page("pipelines/README.md");
    let (language, _) = text.split_once("\n## Step kinds").expect("the generated part");
    let mut all = blocks(language, "yaml").into_iter();
    let (_, whole) = all.next().expect("a pipeline");
    let folder = project(&[("p.yaml", whole.as_bytes())]);
    let check = |line: usize, text: &str| {
        let output = pipe(folder.path(), &["check", "p.yaml"]);
        assert!(output.status.success(), "the example of line {line}:\n{text}\n{}", stderr(&output));
    };
    check(0, &whole);
    let mut pipeline = mapping(&whole);
    let mut latest = String::new();
    for (line, text) in all {
        let steps = pipeline["steps"].as_mapping_mut().expect("steps");
        match text.len() - text.trim_start().len() {
            2 => {
                for (name, step) in mapping(&text) {
                    latest = name.as_str().expect("a name").to_owned();
                    steps.insert(name, step);
                }
            }
            4 => {
                let step = steps[latest.as_str()].as_mapping_mut().expect("a step");
                step.extend(mapping(&text));
            }
            other => panic!("the example of line {line} is indented by {other}:\n{text}"),
        }
        let together = serde_yaml::to_string(&pipeline).expect("YAML");
        fs::write(folder.path().join("p.yaml"), &together).expect("written");
        check(line, &together);
    }
    if Command::new("python3").arg("--version").output().is_err() {
        return eprintln!("skipped: python3 is not there");
    }
    // The program of one's own, with a script like that of which the guide speaks.
    let script = "import os, sys, lib.words\nassert os.environ['WANDB_API_KEY']\nopen(sys.argv[4], 'w').write(lib.words.count(sys.argv[2]))\nopen('metrics.json', 'w').write('{\"rows\": 3}')\n";
    let words = "def count(path): return str(len(open(path).read().split()))\n";
    fs::create_dir_all(folder.path().join("scripts/lib")).expect("a folder");
    fs::write(folder.path().join("scripts/features.py"), script).expect("written");
    fs::write(folder.path().join("scripts/lib/words.py"), words).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
    command.args(["run", "p.yaml", "features", "--device", "cpu"]).current_dir(folder.path());
    let output = command.env_remove("PIPE_CACHE").env("WANDB_API_KEY", "s").output().expect("it starts");
    assert!(output.status.success(), "{}", stderr(&output));
    let result = folder.path().join("cache/results/demo/features/features.csv");
    assert!(fs::read_to_string(result).expect("a result").parse::<u64>().is_ok_and(|words| words > 0));
}

/// An example of a kind stands alone and refers to steps that are not there; nothing else may be wrong with it.
#[test]
fn the_examples_of_kinds_are_steps() {
    let text = page("pipelines/README.md");
    let (_, kinds) = text.split_once("\n## Step kinds").expect("the generated part");
    let all = blocks(kinds, "yaml");
    assert_eq!(all.len(), pipe::steps::KINDS.len());
    for (_, text) in all {
        let steps: String = text.lines().map(|line| format!("  {line}\n")).collect();
        let folder = project(&[("p.yaml", format!("steps:\n{steps}").as_bytes())]);
        let output = pipe(folder.path(), &["check", "p.yaml"]);
        let told = stderr(&output);
        let missing = |line: &str| line.contains("which does not exist");
        assert!(told.lines().filter(|line| line.starts_with("error: ")).all(missing), "{text}\n{told}");
        assert!(output.status.success() || told.contains("error: "), "{told}");
    }
}

/// Whole pipelines stand in other pages, too.
#[test]
fn whole_pipelines_in_pages_are_good() {
    let mut count = 0;
    for name in PAGES {
        for (line, text) in blocks(&page(name), "yaml").into_iter().filter(|(_, text)| text.contains("\nsteps:\n")) {
            let folder = project(&[("p.yaml", text.as_bytes())]);
            let output = pipe(folder.path(), &["check", "p.yaml"]);
            assert!(output.status.success(), "{name}, the example below line {line}:\n{}", stderr(&output));
            count += 1;
        }
    }
    assert!(count >= 2, "{count}");
}

// ---- command lines ----------------------------------------------------------------------------------------------

/// A line as a shell would read it, as far as these pages go: quotes, a comment, `&&`, `|`, a redirection.
fn commands(line: &str) -> Vec<Vec<String>> {
    let mut all = vec![vec![String::new()]];
    let mut quote = None;
    for c in line.chars() {
        let words = all.last_mut().expect("a command");
        let word = words.last_mut().expect("a word");
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.push(c),
            (None, '\'' | '"') => quote = Some(c),
            (None, '#' | '>') if word.is_empty() => break,
            (None, c) if c.is_whitespace() => words.push(String::new()),
            (None, c) => word.push(c),
        }
        let words = all.last_mut().expect("a command");
        if quote.is_none() && words.last().is_some_and(|word| word == "&&" || word == "|") {
            all.push(vec![String::new()]);
        }
    }
    for words in &mut all {
        words.retain(|word| !word.is_empty() && word != "&&" && word != "|");
    }
    all
}

/// The arguments of every `pipe` of a line; none of those that are a name and no command.
fn arguments(line: &str) -> Vec<Vec<String>> {
    let ours = |words: Vec<String>| {
        let mut words = words.into_iter();
        matches!(words.next()?.as_str(), "pipe" | "./pipe").then(|| words.collect::<Vec<_>>())
    };
    commands(line.trim_start().trim_start_matches("$ "))
        .into_iter()
        .filter_map(ours)
        .filter(|a| !a.is_empty())
        .collect()
}

/// Every command line of the pages and of `--help`.
fn typed() -> BTreeSet<Vec<String>> {
    let mut all = BTreeSet::new();
    for name in PAGES {
        let text = page(name);
        let lines = blocks(&text, "sh").into_iter().chain(blocks(&text, "text"));
        lines.for_each(|(_, block)| block.lines().for_each(|line| all.extend(arguments(line))));
        // A text with a line end is no line: `pipe key 1\n` is what a hash begins with.
        spans(&text).iter().filter(|span| !span.contains("\\n")).for_each(|span| all.extend(arguments(span)));
        // Indented blocks.
        let indented = text.lines().filter(|line| line.starts_with("    "));
        indented.for_each(|line| all.extend(arguments(line)));
    }
    for verb in verbs() {
        let help = stdout(&pipe(repository(), &["help", &verb]));
        let (_, examples) = help.split_once("\nExample").unwrap_or_else(|| panic!("no example of {verb}"));
        let shown: Vec<Vec<String>> = examples.lines().flat_map(arguments).collect();
        assert!(shown.iter().any(|words| words[0] == verb), "no example of {verb}");
        all.extend(shown);
    }
    all
}

fn verbs() -> Vec<String> {
    let overview = stdout(&pipe(repository(), &["help"]));
    let lines = overview.lines().skip(1).map_while(|line| line.strip_prefix("  ")?.split_whitespace().next());
    lines.map(str::to_owned).collect()
}

/// Whatever stands before `--help` must be known, and asking for help does nothing else.
#[test]
fn every_command_line_of_the_pages_can_be_typed() {
    let folder = tempfile::tempdir().expect("a folder");
    let all = typed();
    assert!(all.len() > 40, "{all:?}");
    for words in all {
        // `…` and brackets stand for more of the same in a page.
        let words = words.iter().map(|word| word.trim_matches(['[', ']', '…'])).filter(|word| !word.is_empty());
        let words: Vec<&str> = words.collect();
        let output = pipe(folder.path(), &[&words, &["--help"][..]].concat());
        assert!(output.status.success(), "pipe {}: {}", words.join(" "), stderr(&output));
    }
    assert!(files_below(folder.path()).expect("a folder").is_empty());
}

/// Those that only look are done for real, with the pipelines of the project.
#[test]
fn command_lines_that_only_look_do_what_they_say() {
    let folder = tempfile::tempdir().expect("a folder");
    for part in ["pipelines", "templates"] {
        for file in files_below(&repository().join(part)).expect(part) {
            let to = folder.path().join(part).join(&file);
            fs::create_dir_all(to.parent().expect("a folder")).expect("made");
            fs::copy(repository().join(part).join(file), to).expect("copied");
        }
    }
    let looks = ["check", "plan", "explain", "why", "graph", "schema", "completions", "help"];
    let mut count = 0;
    for words in typed() {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let real = words[1..].iter().all(|word| !word.chars().any(|c| c.is_uppercase() || "…[".contains(c)));
        // A verb alone is its name.
        if words.len() == 1
            || !looks.contains(&words[0])
            || !real
            || words.iter().any(|word| ["-o", "--check"].contains(word))
        {
            continue;
        }
        if words.iter().any(|word| word.ends_with(".yaml") && !folder.path().join(word).exists()) {
            continue;
        }
        let output = pipe(folder.path(), &words);
        assert!(output.status.success(), "pipe {}: {}", words.join(" "), stderr(&output));
        assert!(!stdout(&output).is_empty(), "pipe {}", words.join(" "));
        count += 1;
    }
    assert!(count >= 8, "{count}");
    assert!(!folder.path().join("cache").exists());
}

/// An option that a page names is one of some verb.
#[test]
fn options_that_pages_name_are_there() {
    let mut helps = stdout(&pipe(repository(), &["--help"]));
    for verb in verbs() {
        helps.push_str(&stdout(&pipe(repository(), &["help", &verb])));
    }
    for verb in ["stats", "verify", "gc", "pin", "unpin"] {
        helps.push_str(&stdout(&pipe(repository(), &["cache", verb, "--help"])));
    }
    let mut count = 0;
    for name in ["README.md", "pipelines/README.md", "cache/README.md"] {
        for span in spans(&page(name)).iter().filter(|span| span.starts_with("--")) {
            let option = span.split([' ', '=']).next().unwrap_or_default();
            assert!(helps.contains(option), "{name}: {span}");
            count += 1;
        }
    }
    assert!(count > 10, "{count}");
}

/// What the guide and `pipe init` tell a newcomer to type, in that order.
#[test]
fn the_first_steps_work_as_they_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let told = stdout(&pipe(folder.path(), &["init"]));
    let typed: Vec<Vec<String>> = told.lines().flat_map(arguments).collect();
    assert_eq!(typed.len(), 3, "{told}");
    let ends = ["5 steps ran, 0 reused", "0 steps ran, 5 reused", "3 steps ran, 2 reused"];
    for (words, end) in typed.iter().zip(ends) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = pipe(folder.path(), &words);
        assert!(output.status.success() && stderr(&output).contains(end), "{words:?}: {}", stderr(&output));
    }
}
