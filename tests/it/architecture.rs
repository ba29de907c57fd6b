//! What must stay true of the sources themselves: who may know whom, and what nobody writes.
//! It reads text: it does not know what the code does.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::repository;

/// Which top-level modules each one may name. `main.rs`, `bin`, `lib.rs` and `cli` may name all.
///
/// `main > cli > exec > {graph, store} > {spec, key} > step > {event, error, digest}`; the steps stand beside, on what
/// computes; `ui` and `report` see events and data.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("expression", &["error"]),
    ("digest", &["error"]),
    ("event", &["digest", "error"]),
    ("lockfile", &["digest", "error"]),
    ("fetch", &["digest", "error", "lockfile"]),
    ("step", &["digest", "error", "event", "fetch", "lockfile"]),
    ("ml", &["digest", "error"]),
    ("task", &["digest", "error", "metric"]),
    ("metric", &["digest", "error"]),
    ("statistics", &["error"]),
    ("audit", &["error", "statistics"]),
    ("corpus", &["digest", "error", "task"]),
    ("report", &["digest", "error", "event", "metric", "statistics", "task"]),
    (
        "steps",
        &[
            "corpus",
            "digest",
            "error",
            "event",
            "fetch",
            "lockfile",
            "metric",
            "ml",
            "report",
            "statistics",
            "step",
            "task",
        ],
    ),
    ("key", &["digest", "error", "event", "step"]),
    ("spec", &["digest", "error", "event", "expression", "key", "lockfile", "step", "steps"]),
    ("graph", &["digest", "error", "event", "key", "spec", "step"]),
    ("store", &["digest", "error", "event", "key", "spec", "step"]),
    (
        "exec",
        &[
            "digest",
            "error",
            "event",
            "expression",
            "fetch",
            "graph",
            "key",
            "lockfile",
            "run",
            "spec",
            "step",
            "store",
        ],
    ),
    ("run", &["digest", "error", "event"]),
    ("ui", &["digest", "error", "event", "report", "spec"]),
];

/// A line of a source file that breaks a rule.
struct Breach {
    file: PathBuf,
    line: usize,
    what: String,
}

struct Source {
    /// From the repository: `src/spec/mod.rs`.
    path: PathBuf,
    text: String,
}

impl Source {
    /// `spec` of `src/spec/mod.rs` and of `src/spec.rs`.
    fn module(&self) -> String {
        let first = self.path.components().nth(1).expect("a file under src");
        first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
    }

    /// The lines of code, numbered from one, without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    fn breach(&self, line: usize, what: impl Into<String>) -> Breach {
        Breach { file: self.path.clone(), line, what: what.into() }
    }
}

fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    walk(&repository().join("src"), &mut sources);
    assert!(sources.len() > 20, "the sources were not found");
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

fn walk(folder: &Path, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            walk(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("UTF-8");
            sources.push(Source { path: path.strip_prefix(repository()).expect("inside").to_owned(), text });
        }
    }
}

/// Fails with every breach as file:line, and what to do.
fn hold(breaches: Vec<Breach>, what_to_do: &str) {
    let mut list = String::new();
    for Breach { file, line, what } in &breaches {
        let _ = writeln!(list, "  {}:{line}: {what}", file.display());
    }
    assert!(breaches.is_empty(), "{what_to_do}\n{list}");
}

/// The top-level modules that a line names: of `crate::a`, `crate::{a::B, c}`.
fn named(line: &str) -> Vec<String> {
    let mut names = Vec::new();
    for rest in line.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(list) => names.extend(heads(list)),
            None => names.push(head(rest)),
        }
    }
    names
}

fn head(path: &str) -> String {
    path.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first word of each entry of a brace list, deeper braces skipped.
fn heads(list: &str) -> Vec<String> {
    let (mut depth, mut names, mut entry) = (0, Vec::new(), String::new());
    for c in list.chars() {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => names.push(head(&std::mem::take(&mut entry))),
            _ => {
                depth += i32::from(c == '{') - i32::from(c == '}');
                entry.push(c);
            }
        }
    }
    names.push(head(&entry));
    names
}

#[test]
fn names_are_found_in_every_form_of_path() {
    assert_eq!(named("use crate::{step::{self, Ports}, digest::Digest, error};"), ["step", "digest", "error"]);
    assert_eq!(named("pub(crate) fn f(a: crate::ml::Arm) -> crate::error::Result<()> {"), ["ml", "error"]);
    assert_eq!(named("use std::fmt;"), [""; 0]);
}

#[test]
fn modules_know_only_what_lies_below() {
    let mut breaches = Vec::new();
    for source in sources() {
        let module = source.module();
        if ["main", "bin", "lib", "cli"].contains(&module.as_str()) {
            continue;
        }
        let Some((_, allowed)) = MAY_NAME.iter().find(|(name, _)| *name == module) else {
            breaches.push(source.breach(1, format!("the module `{module}` has no place in `MAY_NAME`")));
            continue;
        };
        // A module's own tests see no more than the module: they would hide an edge.
        let joined = joined_uses(&source);
        for (line, code) in joined {
            for name in named(&code) {
                let known = MAY_NAME.iter().any(|(module, _)| *module == name) || name == "cli";
                if known && name != module && !allowed.contains(&name.as_str()) {
                    breaches.push(source.breach(line, format!("`{module}` names `{name}`")));
                }
            }
        }
    }
    hold(
        breaches,
        "A module may name only those below it (`MAY_NAME` in tests/it/architecture.rs). \
         Move the shared type down, or pass a value or a closure in.",
    );
}

/// Lines of code, with a `use` of several lines joined into its first.
fn joined_uses(source: &Source) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (number, line) in source.code() {
        if open {
            let (_, text) = lines.last_mut().expect("an open `use`");
            text.push_str(line.trim());
        } else {
            lines.push((number, line.to_owned()));
            let start = line.trim_start();
            open = start.starts_with("use ") || start.starts_with("pub use ") || start.starts_with("pub(crate) use ");
        }
        open = open && !line.contains(';');
    }
    lines
}

#[test]
fn each_file_says_what_it_does_and_what_it_does_not_know() {
    let mut breaches = Vec::new();
    for source in sources() {
        for (index, line) in source.text.lines().take(2).enumerate() {
            if !line.starts_with("//!") {
                breaches.push(source.breach(index + 1, "not a `//!` line"));
            }
        }
        if source.text.lines().next().is_some_and(|line| line.trim_start_matches("//!").trim().is_empty()) {
            breaches.push(source.breach(1, "an empty first line"));
        }
    }
    // The entry is too small to not know something.
    breaches.retain(|breach| {
        !(breach.file == Path::new("src/main.rs") || breach.file.starts_with("src/bin")) || breach.line == 1
    });
    hold(breaches, "A file starts with two `//!` lines: what it does, and what it does not know.");
}

#[test]
fn a_file_has_one_subject() {
    let mut breaches = Vec::new();
    for source in sources() {
        // Documentation and a file's own tests are not what makes it hard to hold in the head.
        let code = source.text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//")).count();
        if lines > 400 {
            breaches.push(source.breach(1, format!("{lines} lines of code")));
        }
    }
    hold(breaches, "A file has at most 400 lines of code: split it by subject.");
}

/// Breaches of a rule that certain words are written only in certain modules.
fn only_in(words: &[&str], modules: &[&str]) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for source in sources() {
        if modules.contains(&source.module().as_str()) {
            continue;
        }
        for (line, code) in source.code() {
            for word in words.iter().filter(|word| contains_word(code, word)) {
                breaches.push(source.breach(line, format!("`{word}`")));
            }
        }
    }
    breaches
}

/// `tch::` in `use tch::Tensor`, but not in `batch::`.
fn contains_word(line: &str, word: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| !line[..at].chars().next_back().is_some_and(inside))
}

#[test]
fn only_ml_names_tch() {
    hold(
        only_in(&["tch::", "use tch"], &["ml"]),
        "Tensors stay inside `ml`: give it a function that answers in plain data.",
    );
}

#[test]
fn only_the_command_line_and_the_user_interface_print() {
    let printing = ["println!", "print!", "eprintln!", "eprint!", "io::stdout", "io::stderr"];
    hold(only_in(&printing, &["ui", "cli"]), "Send an event (`Context::note`, `Context::progress`): `ui` shows it.");
}

#[test]
fn only_the_edges_read_the_environment() {
    hold(only_in(&["env::var", "env::vars"], &["ui", "cli"]), "Read it in `cli` and pass the value down.");
}

#[test]
fn nothing_depends_on_the_order_of_a_hash_map() {
    hold(only_in(&["HashMap", "HashSet"], &[]), "Use `BTreeMap` or `BTreeSet`: their order is the same in every run.");
}

#[test]
fn nothing_is_left_for_later() {
    let mut breaches = only_in(&["todo!", "unimplemented!", "dbg!"], &[]);
    for source in sources() {
        for (index, line) in source.text.lines().enumerate() {
            if ["FIXME", "XXX", "TODO"].iter().any(|mark| contains_word(line, mark)) {
                breaches.push(source.breach(index + 1, "a mark"));
            }
        }
    }
    hold(breaches, "Finish it or leave it out.");
}

/// The modules that `lib.rs` declares.
fn declared() -> Vec<String> {
    let lib = fs::read_to_string(repository().join("src/lib.rs")).expect("lib.rs");
    lib.lines().filter_map(|line| Some(line.strip_prefix("pub mod ")?.strip_suffix(';')?.to_owned())).collect()
}

#[test]
fn the_tour_names_every_module_once() {
    let mut declared = declared();
    declared.sort();
    let mut found: Vec<String> =
        sources().iter().map(Source::module).filter(|m| !["lib", "main", "bin"].contains(&m.as_str())).collect();
    found.sort();
    found.dedup();
    assert_eq!(declared, found, "src/lib.rs declares every module, each on a line `pub mod name;`");
}

#[test]
fn the_map_names_every_module() {
    let Ok(map) = fs::read_to_string(repository().join("ARCHITECTURE.md")) else {
        eprintln!("skipped: ARCHITECTURE.md is not there");
        return;
    };
    for module in declared() {
        let named = [format!("`{module}`"), format!("`{module}/`"), format!("`{module}.rs`")];
        let told = named.iter().any(|name| map.contains(name.as_str())) || map.contains(&format!("\n  {module}"));
        assert!(told, "ARCHITECTURE.md does not name `{module}`: say in a line what it does");
    }
}
