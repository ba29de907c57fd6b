//! The life of a command: its folder is laid out, it runs, and what it left is held against what was promised.
//! It does not know how a process is waited for (`process`) nor what is kept of it (`log`).

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::log::{Log, last_line};
use super::paper::Paper;
use super::secrets::Secrets;
use super::{Params, environment, figures, files, process};
use crate::error::{Path, Problem, Result};
use crate::step::Context;

/// The shell of `shell:`, which leaves at the first command that fails.
const SHELL: &str = "/bin/sh";

pub(super) fn run(params: &Params, cx: &mut Context) -> Result<()> {
    let secrets = Secrets::read(&params.secrets, cx.machine())?;
    let ports: Vec<String> = cx.ports().map(str::to_owned).collect();
    if let Some(name) = params.inputs.keys().find(|name| !ports.contains(name)) {
        return Err(Problem::new(format!("`inputs` says where `{name}` lies, and nothing is connected to it"))
            .at(Path::root().key("inputs").key(name))
            .help(format!("connect it: `in: {{ {name}: STEP }}`")));
    }
    let laid = files::lay(params, &ports, cx)?;
    let aside = Aside::of(cx)?;
    let mut variables = environment::variables(params, cx.machine(), &aside.tmp)?;
    if !cx.gpus().is_empty() {
        let visible = environment::gpus(cx.gpus(), cx.machine().variables.get(environment::GPUS));
        // What the step fixes itself is its own affair; what it passes on is what it was given.
        if !params.env.contains_key(environment::GPUS) {
            variables.insert(environment::GPUS.to_owned(), visible);
        }
    }
    let words: Vec<&str> = match (&params.run, &params.shell) {
        (Some(words), _) => words.iter().map(super::Word::as_str).collect(),
        (None, Some(line)) => vec![SHELL, "-e", "-c", line],
        (None, None) => Vec::new(),
    };
    let program = match words.first() {
        Some(&SHELL) | None => PathBuf::from(SHELL),
        Some(program) => environment::find(program, cx.folder(), variables.get("PATH"))?,
    };
    let log = Log { folder: aside.log.clone(), words: &words, variables: &variables, secrets: &secrets, params };
    let mut command = Command::new(&program);
    command.args(&words[1.min(words.len())..]).current_dir(cx.folder()).env_clear().envs(&variables);
    let (stdout, stderr) = (Paper::blank(&aside.shared)?, Paper::blank(&aside.shared)?);
    command.stdin(Stdio::null()).stdout(stdout.stdio()?).stderr(stderr.stdio()?);
    let begun = Instant::now();
    let ended = process::run(&mut command, &mut || {
        let last = |paper: &Paper| last_line(paper.path(), &secrets);
        let said = last(&stderr).or_else(|| last(&stdout)).unwrap_or_default();
        cx.progress(begun.elapsed().as_secs(), None, "s", &said);
        cx.cancelled()
    })
    .map_err(|e| Problem::io("start", &program, &e))?;
    log.keep(Some(ended.status), stdout, stderr)?;
    cx.cost(ended.cpu.as_millis() as u64, ended.peak_bytes);
    // What it did to its inputs must be known however it ended.
    let changed = laid.changed(cx);
    let result = if cx.cancelled() {
        Err(Problem::cancelled())
    } else if ended.status.success() {
        changed.map_or_else(|| files::outputs(params, cx).and_then(|()| figures::read(params, cx)), Err)
    } else {
        let failed = cx.traces().map(|traces| traces.failed.clone());
        Err(changed.unwrap_or_else(|| log.failure(ended.status, failed.as_deref())))
    };
    if result.is_err() {
        log.rerun(&program)?;
    }
    result
}

/// What lies beside the working folder.
struct Aside {
    log: PathBuf,
    tmp: PathBuf,
    /// Where files may lie that serve several steps.
    shared: PathBuf,
    /// Where nobody wants a log, it is deleted.
    _own: Option<tempfile::TempDir>,
}

impl Aside {
    fn of(cx: &Context) -> Result<Self> {
        let (log, shared, own) = match cx.traces() {
            Some(traces) => (traces.log.clone(), traces.shared.clone(), None),
            None => {
                let own =
                    tempfile::tempdir().map_err(|e| Problem::io("make a folder in", &std::env::temp_dir(), &e))?;
                (own.path().join("log"), own.path().to_owned(), Some(own))
            }
        };
        let tmp = log.with_file_name("temporary");
        for folder in [&log, &tmp] {
            fs::create_dir_all(folder).map_err(|e| Problem::io("make the folder", folder, &e))?;
        }
        // The program runs in another folder.
        let tmp = std::path::absolute(&tmp).map_err(|e| Problem::io("find", &tmp, &e))?;
        Ok(Self { log, tmp, shared, _own: own })
    }
}
