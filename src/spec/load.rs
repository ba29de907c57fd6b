//! The way of a file from its bytes to a [`Pipeline`], gathering problems as far as it can go.
//! It does not know what any step kind does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path as FilePath, PathBuf};

use serde_json::Value;

use crate::digest::Digest;
use crate::error::{Path, Problem};
use crate::step::AnyKind;
use crate::steps::KINDS;

use super::document::{self, Document};
use super::draft::{self, Draft, Table};
use super::link;
use super::node;
use super::pipeline::{Edge, Pipeline, Step};
use super::problems::{Findings, Focus, Problems};
use super::{overrides, reference, suggest};

/// What the command line says about a pipeline.
#[derive(Clone)]
pub struct Options {
    /// A profile of the file.
    pub profile: Option<String>,
    /// Settings as they are written: `lora.rank=8`. They come after the profile, in order.
    pub sets: Vec<String>,
    /// What the run is for; empty for the targets of the file.
    pub targets: Vec<String>,
    /// The step kinds there are.
    pub kinds: &'static [&'static dyn AnyKind],
}

impl Default for Options {
    fn default() -> Self {
        Self { profile: None, sets: Vec::new(), targets: Vec::new(), kinds: KINDS }
    }
}

/// A longer file is not a pipeline.
const MOST_BYTES: u64 = 4 << 20;

/// Reads a pipeline file.
///
/// Every step is checked, whether a target needs it or not, with one exception: a step that no target needs
/// and that lacks a value because a parameter is null (a source that another profile sets, say) is left out
/// of the pipeline, together with the steps that need it.
pub fn load(file: &FilePath, options: &Options) -> Result<Pipeline, Problems> {
    let name = file.display().to_string();
    match read(file) {
        Ok(source) => load_text(file, &source, options),
        Err(problem) => {
            let mut findings = Findings::default();
            findings.nowhere(problem);
            Err(findings.locate(&name, ""))
        }
    }
}

/// Reads the text of a pipeline file; `file` is where it lies, for messages and for the root.
pub fn load_text(file: &FilePath, source: &str, options: &Options) -> Result<Pipeline, Problems> {
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    let mut findings = Findings::default();
    let pipeline = build(file, source, options, &mut findings);
    match pipeline {
        Some(pipeline) if findings.is_empty() => Ok(pipeline),
        _ => Err(findings.locate(&file.display().to_string(), source)),
    }
}

pub(super) fn read(file: &FilePath) -> Result<String, Problem> {
    let fail = |error: std::io::Error| {
        let problem = Problem::io("read", file, &error);
        if error.kind() == std::io::ErrorKind::NotFound {
            problem.help("check the name of the pipeline file")
        } else {
            problem
        }
    };
    let mut bytes = Vec::new();
    File::open(file).map_err(fail)?.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(Problem::new(format!("{} is longer than {} MiB", file.display(), MOST_BYTES >> 20))
            .help("a pipeline file is a short text; data belongs into files of its own"));
    }
    String::from_utf8(bytes)
        .map_err(|_| Problem::new(format!("{} is not UTF-8 text", file.display())).help("save it as UTF-8"))
}

/// The digest of a pipeline file's text, as [`Pipeline::text`] has it.
pub fn text_of(file: &FilePath) -> Option<Digest> {
    let text = read(file).ok()?;
    Some(Digest::of(text.strip_prefix('\u{feff}').unwrap_or(&text).as_bytes()))
}

/// Where relative paths start: the folder that holds `pipelines/`, or else the file's own folder.
pub fn root_of(file: &FilePath) -> PathBuf {
    let here = |path: &FilePath| if path.as_os_str().is_empty() { PathBuf::from(".") } else { path.to_owned() };
    let folder = here(file.parent().unwrap_or(FilePath::new("")));
    let is_pipelines = |path: &FilePath| path.file_name().is_some_and(|name| name == "pipelines");
    if is_pipelines(&folder) {
        return folder.parent().map_or_else(|| folder.clone(), here);
    }
    match folder.canonicalize() {
        Ok(whole) if is_pipelines(&whole) => whole.parent().map_or(folder, FilePath::to_owned),
        _ => folder,
    }
}

fn build(file: &FilePath, source: &str, options: &Options, findings: &mut Findings) -> Option<Pipeline> {
    let node = node::parse(source, findings)?;
    let mut document = document::read(node, findings);
    let params = parameters(&document, options, findings);
    let (mut drafts, table) = draft::all(std::mem::take(&mut document.steps), &params, options, findings);
    link::connect(&mut drafts, &table);
    link::gates(&mut drafts, &table);
    link::cycles(&drafts, findings);
    let targets = targets(&document, options, &drafts, &table, findings);
    let cone = link::cone(&drafts, &targets);
    let mut left_out = BTreeSet::new();
    for (at, draft) in drafts.iter_mut().enumerate() {
        for finding in std::mem::take(&mut draft.outcome.findings) {
            findings.push(finding);
        }
        for finding in std::mem::take(&mut draft.outcome.missing) {
            if cone.contains(&at) {
                findings.push(finding);
            } else {
                left_out.insert(at);
            }
        }
    }
    if !findings.is_empty() {
        return None;
    }
    let name = document.name.unwrap_or_else(|| file.file_stem().unwrap_or_default().to_string_lossy().into_owned());
    let (steps, places) = finish(drafts, left_out)?;
    let targets = targets.iter().filter_map(|target| places.get(target).copied()).collect();
    let text = Digest::of(source.as_bytes());
    Some(Pipeline { name, file: file.to_owned(), root: root_of(file), text, params, steps, targets })
}

/// The parameters after profile and `--set`. Every profile is held against the parameters, used or not.
fn parameters(document: &Document, options: &Options, findings: &mut Findings) -> Value {
    let mut params = document.params.clone();
    for (name, profile) in &document.profiles {
        let path = Path::root().key("profiles").key(name);
        let mut merged = document.params.clone();
        overrides::merge(&mut merged, profile, &path, findings);
        if options.profile.as_ref() == Some(name) {
            params = merged;
        }
    }
    if let Some(wanted) = &options.profile
        && !document.profiles.iter().any(|(name, _)| name == wanted)
    {
        let names = document.profiles.iter().map(|(name, _)| name.as_str());
        let help = suggest::help(wanted, names, "the profiles are", "the file has no `profiles:`");
        findings.nowhere(Problem::new(format!("`--profile {wanted}`: there is no profile `{wanted}`")).help(help));
    }
    for setting in &options.sets {
        if let Err(problem) = overrides::set(&mut params, setting) {
            findings.nowhere(problem);
        }
    }
    params
}

/// Positions of the targets among the drafts.
fn targets(
    document: &Document,
    options: &Options,
    drafts: &[Draft],
    table: &Table,
    findings: &mut Findings,
) -> Vec<usize> {
    let from_file = options.targets.is_empty();
    let names = match (&document.targets, from_file) {
        (_, false) => &options.targets,
        (Some(targets), true) => targets,
        (None, true) => return (0..drafts.len()).collect(),
    };
    let mut chosen = BTreeSet::new();
    for (i, name) in names.iter().enumerate() {
        let selected = match reference::parse(name) {
            Ok(reference) if reference.output.is_some() => {
                let problem = Problem::new(format!("`{name}` names an output, a target is a step"));
                Err(Some((Focus::Value, problem.help(format!("write `{}`", reference.step)))))
            }
            Ok(reference) => link::select(drafts, table, &reference),
            Err(problem) => Err(Some((Focus::Value, problem))),
        };
        match selected {
            Ok(steps) => chosen.extend(steps),
            Err(None) => {}
            Err(Some((focus, problem))) if from_file => {
                findings.add(focus, problem.at(Path::root().key("targets").index(i)));
            }
            Err(Some((_, problem))) => findings.nowhere(problem),
        }
    }
    chosen.into_iter().collect()
}

/// Drops what is left out and what needs it, and numbers the rest anew. `None` cannot happen once there are
/// no findings: each draft then has a kind and an action, or is left out.
fn finish(drafts: Vec<Draft>, mut left_out: BTreeSet<usize>) -> Option<(Vec<Step>, BTreeMap<usize, usize>)> {
    loop {
        let before = left_out.len();
        for (at, draft) in drafts.iter().enumerate() {
            let mut needs = draft.edges.values().flatten().map(|edge| edge.step).chain(draft.after.values().copied());
            if needs.any(|step| left_out.contains(&step)) {
                left_out.insert(at);
            }
        }
        if left_out.len() == before {
            break;
        }
    }
    let places: BTreeMap<usize, usize> =
        (0..drafts.len()).filter(|at| !left_out.contains(at)).enumerate().map(|(new, old)| (old, new)).collect();
    let mut steps = Vec::with_capacity(places.len());
    for (at, draft) in drafts.into_iter().enumerate() {
        if left_out.contains(&at) {
            continue;
        }
        let inputs = draft.edges.into_iter().map(|(port, edges)| {
            let edges = edges.into_iter().filter_map(|edge| places.get(&edge.step).map(|&step| Edge { step, ..edge }));
            (port, edges.collect())
        });
        steps.push(Step {
            inputs: inputs.collect(),
            after: draft.after.into_iter().filter_map(|(name, step)| Some((name, *places.get(&step)?))).collect(),
            policy: draft.policy,
            written: draft.written,
            id: draft.id,
            name: draft.name,
            coordinates: draft.cell.into_iter().collect(),
            kind: draft.kind?,
            action: draft.action?,
            outputs: draft.outputs?,
        });
    }
    Some((steps, places))
}
