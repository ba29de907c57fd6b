//! The step kind `command`: runs other people's programs, in a folder that holds only what was declared.
//! It does not know what a program does, nor that its result is cached.

#[cfg(unix)]
mod environment;
#[cfg(unix)]
mod figures;
mod files;
#[cfg(unix)]
mod log;
#[cfg(unix)]
mod paper;
#[cfg(unix)]
mod process;
#[cfg(unix)]
mod run;
#[cfg(unix)]
mod secrets;
#[cfg(unix)]
mod watchdog;
mod word;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path as FilePath, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Path, Problem, Result};
use crate::step::{ANY_NAME, Arity, Context, Input, Kind, Machine, Named, Output, Product, Source};
use word::Word;
pub use word::quoted;

/// See the module.
pub struct Command;

/// What to run, what it needs, and what it makes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The program and its arguments; no shell reads them. A program with a `/` in its name is a file of `code`, any
    /// other one is looked for along `PATH`.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub run: Option<Vec<Word>>,
    /// Instead of `run`: lines for `sh -e -c`.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub shell: Option<String>,
    /// Files and folders of the project that it needs, scripts and settings alike. Their content enters the key, and
    /// they lie in the working folder at the same paths; nothing else of the project does. Of a folder, `__pycache__`
    /// and what begins with a dot are left out.
    #[serde(default)]
    pub code: Vec<String>,
    /// Where an input lies in the working folder, if not at `in/NAME`. Of an input that is a list this is a folder
    /// with one entry for each step, named like it.
    #[serde(default)]
    pub inputs: BTreeMap<String, String>,
    /// What it makes: a name, and the path of a file or a folder in the working folder. Other steps read `STEP.NAME`;
    /// the name can be left out where there is one output only.
    pub outputs: Named<String>,
    /// A JSON file that it writes: the numbers in it become figures of the step, `{"dev": {"f1": 0.8}}` as `dev.f1`,
    /// which tables show and `expect` holds against others.
    #[serde(default)]
    pub figures: Option<String>,
    /// Environment variables and their values. Besides these it sees `PATH`, `HOME`, `USER`, `LD_LIBRARY_PATH`,
    /// `VIRTUAL_ENV` and `CONDA_PREFIX` as they are, which tell where programs are and do not enter the key, `LC_CTYPE`,
    /// which is `C.UTF-8`, and `TMPDIR`, a folder that is deleted afterwards.
    #[serde(default)]
    pub env: BTreeMap<String, Word>,
    /// Names of environment variables that are passed on; their values enter the key.
    #[serde(default)]
    pub pass_env: Vec<String>,
    /// Names of environment variables that are passed on, but that nobody shall read: they must be set, their values
    /// enter neither the key nor any file, and are covered up in what the program prints.
    #[serde(default)]
    pub secrets: Vec<String>,
}

impl Kind for Command {
    const NAME: &'static str = "command";
    /// 1: the first.
    /// 2: `LC_CTYPE` instead of `LANG`.
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "Runs a program of yours in a folder that holds only what it declares";
    const EXAMPLE: &'static str = "features:\n  uses: command\n  in: { data: raw, vocab: tokenizer }\n  with:\n    run: [python3, scripts/features.py, --data, in/data, --vocab, in/vocab, --out, features.csv]\n    code: [scripts/features.py]\n    outputs: { features: features.csv }\n";
    const INPUTS: &'static [Input] = &[Input {
        name: ANY_NAME,
        arity: Arity::OneOrList,
        named: true,
        doc: "Any results, under any names: links at `in/NAME`, or for a list at `in/NAME/STEP`; not to be written to",
    }];
    const OUTPUTS: &'static [Output] =
        &[Output { name: ANY_NAME, file: "PATH", doc: "What `outputs` names, files and folders" }];
    type Params = Params;
    const OUTSIDE: bool = true;

    fn outputs(params: &Params) -> Vec<Product> {
        let product =
            |(name, file): (&String, &String)| Product { name: name.clone().into(), file: file.clone().into() };
        params.outputs.iter().map(product).collect()
    }

    fn check(params: &Params) -> Vec<Problem> {
        let mut problems = Vec::new();
        if params.run.is_some() == params.shell.is_some() {
            let what =
                if params.run.is_some() { "both `run` and `shell` are given" } else { "there is nothing to run" };
            problems.push(Problem::new(what).expected("either `run: [program, argument, …]` or `shell: \"a line\"`"));
        }
        if params.outputs.is_empty() {
            let problem = Problem::new("it has no output").at(Path::root().key("outputs"));
            problems.push(problem.expected("at least one, such as `outputs: { table: table.csv }`"));
        }
        files::check(params, &mut problems);
        names(params, &mut problems);
        problems
    }

    fn sources(params: &Params, root: &FilePath) -> Vec<Source> {
        files::code(&params.code, root)
    }

    /// The content of the code enters the key as sources, and what passes from outside as the environment.
    fn keyed(params: &Params) -> Value {
        let mut value = json!({ "inputs": params.inputs, "outputs": params.outputs, "env": params.env });
        if let Some(figures) = &params.figures {
            value["figures"] = json!(figures);
        }
        match &params.shell {
            Some(shell) => value["shell"] = json!(shell),
            None => value["run"] = json!(params.run),
        }
        value
    }

    fn environment(params: &Params, machine: &Machine) -> BTreeMap<String, String> {
        let value = |name: &String| Some((name.clone(), machine.variables.get(name)?.to_string_lossy().into_owned()));
        params.pass_env.iter().filter_map(value).collect()
    }

    fn variables(params: &Params) -> Vec<String> {
        params.pass_env.clone()
    }

    fn looked_at(params: &Params, root: &FilePath) -> Vec<PathBuf> {
        params.code.iter().map(|path| root.join(path)).filter(|path| path.is_dir()).collect()
    }

    #[cfg(unix)]
    fn run(params: &Params, cx: &mut Context) -> Result<()> {
        run::run(params, cx)
    }

    #[cfg(not(unix))]
    fn run(_params: &Params, _cx: &mut Context) -> Result<()> {
        Err(Problem::new("other programs cannot be run on this system").help("use Linux, macOS or WSL"))
    }
}

/// Holds the names of outputs and variables against what they may be.
fn names(params: &Params, problems: &mut Vec<Problem>) {
    let plain = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    for name in params.outputs.keys().filter(|name| name.is_empty() || !name.chars().all(plain)) {
        let problem = Problem::new(format!("`{name}` cannot be the name of an output"));
        problems.push(problem.at(Path::root().key("outputs").key(name)).expected("letters, digits, `_` and `-`"));
    }
    let fixed = params.env.keys().map(|name| (name, Path::root().key("env").key(name)));
    let passed = params.pass_env.iter().enumerate().map(|(i, name)| (name, Path::root().key("pass_env").index(i)));
    let secret = params.secrets.iter().enumerate().map(|(i, name)| (name, Path::root().key("secrets").index(i)));
    let mut seen = BTreeSet::new();
    for (name, path) in fixed.chain(passed).chain(secret) {
        if name.is_empty() || name.contains(['=', '\0']) {
            let problem = Problem::new(format!("`{name}` cannot be the name of an environment variable"));
            problems.push(problem.at(path));
        } else if !seen.insert(name) {
            problems.push(Problem::new(format!("the environment variable `{name}` is given twice")).at(path));
        }
    }
    let words =
        params.run.iter().flatten().enumerate().map(|(i, word)| (word.as_str(), Path::root().key("run").index(i)));
    let shell = params.shell.iter().map(|shell| (shell.as_str(), Path::root().key("shell")));
    let values = params.env.iter().map(|(name, value)| (value.as_str(), Path::root().key("env").key(name)));
    for (_, path) in words.chain(shell).chain(values).filter(|(text, _)| text.contains('\0')) {
        problems.push(Problem::new("no program can be given a null character").at(path));
    }
}
