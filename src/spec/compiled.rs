//! A pipeline without its YAML: written down once its file has been found right, read back in a tenth of the time.
//! It does not know where the text is kept, nor whether it still is that of its file: whoever keeps it says so.
//!
//! Parameters are read when a step is first asked for something: of thousands, a run concerns few.

use std::any::Any;
use std::collections::BTreeMap;
use std::path::Path as FilePath;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::pipeline::{Edge, Pipeline, Step, Written};
use super::{load, policy};
use crate::digest::Digest;
use crate::error::{Problem, Result};
use crate::lockfile::Locked;
use crate::step::{AnyKind, AnyStep, Artifact, Context, Ended, Machine, Outlook, Product, Share, Source, Together};

/// First field of the text.
const FORMAT: &str = "pipe/pipeline@1";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<S> {
    format: String,
    name: String,
    text: Digest,
    params: Value,
    targets: Vec<usize>,
    steps: S,
}

/// Steps as lines, each made when it is written: of thousands each takes some room.
struct Lines<'a>(&'a [Step]);

impl Serialize for Lines<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(line))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: String,
    name: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    coordinates: BTreeMap<String, Value>,
    kind: String,
    with: Box<str>,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    policy: Box<str>,
    outputs: Vec<(String, String)>,
    /// Asked for of every step of every run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    remote: Option<String>,
    /// By port: step, output and whether it is listed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    inputs: BTreeMap<String, Vec<(usize, usize, bool)>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    after: BTreeMap<String, usize>,
}

fn line(step: &Step) -> Line {
    Line {
        id: step.id.clone(),
        name: step.name.clone(),
        coordinates: step.coordinates.clone(),
        kind: step.kind.name().to_owned(),
        with: step.written.with.clone(),
        policy: step.written.policy.clone(),
        outputs: step.outputs.iter().map(|output| (output.name.to_string(), output.file.to_string())).collect(),
        remote: step.action.remote(),
        inputs: step
            .inputs
            .iter()
            .map(|(port, edges)| {
                (port.clone(), edges.iter().map(|edge| (edge.step, edge.output, edge.listed)).collect())
            })
            .collect(),
        after: step.after.clone(),
    }
}

/// The pipeline as text; `None` if that cannot be done.
pub fn write(pipeline: &Pipeline) -> Option<String> {
    let document = Document {
        format: FORMAT.to_owned(),
        name: pipeline.name.clone(),
        text: pipeline.text.clone(),
        params: pipeline.params.clone(),
        targets: pipeline.targets.clone(),
        steps: Lines(&pipeline.steps),
    };
    serde_json::to_string(&document).ok()
}

/// Reads the text of a pipeline whose file has this text; `None` if it is another one's, or damaged.
pub fn read(text: &str, file: &FilePath, of: &Digest, kinds: &'static [&'static dyn AnyKind]) -> Option<Pipeline> {
    let document: Document<Vec<Line>> = serde_json::from_str(text).ok()?;
    if document.format != FORMAT || document.text != *of {
        return None;
    }
    let count = document.steps.len();
    let steps = document.steps.into_iter().map(|line| step(line, kinds)).collect::<Option<Vec<Step>>>()?;
    let edges = |step: &Step| {
        let edge = |edge: &Edge| steps.get(edge.step).is_some_and(|producer| edge.output < producer.outputs.len());
        step.inputs.values().flatten().all(edge) && step.after.values().all(|&step| step < count)
    };
    if !steps.iter().all(edges) || document.targets.iter().any(|&target| target >= count) {
        return None;
    }
    Some(Pipeline {
        name: document.name,
        file: file.to_owned(),
        root: load::root_of(file),
        text: document.text,
        params: document.params,
        steps,
        targets: document.targets,
    })
}

fn step(line: Line, kinds: &'static [&'static dyn AnyKind]) -> Option<Step> {
    let kind = *kinds.iter().find(|kind| kind.name() == line.kind)?;
    let edge = |(step, output, listed)| Edge { step, output, listed };
    let inputs = line.inputs.into_iter().map(|(port, edges)| (port, edges.into_iter().map(edge).collect()));
    let outputs = line.outputs.into_iter().map(|(name, file)| Product { name: name.into(), file: file.into() });
    Some(Step {
        id: line.id,
        name: line.name,
        coordinates: line.coordinates,
        kind,
        action: Box::new(Deferred { kind, with: line.with.clone(), remote: line.remote, action: OnceLock::new() }),
        outputs: outputs.collect(),
        inputs: inputs.collect(),
        after: line.after,
        policy: policy::read_written(&line.policy)?,
        written: Written { with: line.with, policy: line.policy },
    })
}

/// A step whose parameters are read when they are needed.
struct Deferred {
    kind: &'static dyn AnyKind,
    with: Box<str>,
    remote: Option<String>,
    action: OnceLock<Option<Box<dyn AnyStep>>>,
}

impl Deferred {
    /// `None` if the text is not what was written: then the step fails when it is to run.
    fn get(&self) -> Option<&dyn AnyStep> {
        let read = || self.kind.parse(&serde_json::from_str(&self.with).ok()?).ok();
        self.action.get_or_init(read).as_deref()
    }

    fn sound(&self) -> Result<&dyn AnyStep> {
        let wrong = || {
            Problem::new("its parameters cannot be read back from `receipts/` in the cache")
                .help("delete that folder: everything in it is made anew")
        };
        self.get().ok_or_else(wrong)
    }
}

impl AnyStep for Deferred {
    fn params(&self) -> Value {
        self.get().map(AnyStep::params).unwrap_or_default()
    }
    fn keyed(&self) -> Value {
        self.get().map(AnyStep::keyed).unwrap_or_default()
    }
    fn outputs(&self) -> Vec<Product> {
        self.get().map(AnyStep::outputs).unwrap_or_default()
    }
    fn sources(&self, root: &FilePath) -> Vec<Source> {
        self.get().map(|action| action.sources(root)).unwrap_or_default()
    }
    fn remote(&self) -> Option<String> {
        self.remote.clone()
    }
    fn fetch(&self, cx: &mut Context) -> Result<Locked> {
        self.sound()?.fetch(cx)
    }
    fn origin(&self) -> Option<String> {
        self.get()?.origin()
    }
    fn outlook(&self, inputs: &BTreeMap<String, Vec<Outlook>>, made: Option<&FilePath>) -> Outlook {
        self.get().map(|action| action.outlook(inputs, made)).unwrap_or_default()
    }
    fn environment(&self, machine: &Machine) -> BTreeMap<String, String> {
        self.get().map(|action| action.environment(machine)).unwrap_or_default()
    }
    fn decided(&self, inputs: &BTreeMap<String, Vec<Artifact>>, machine: &Machine) -> BTreeMap<String, String> {
        self.get().map(|action| action.decided(inputs, machine)).unwrap_or_default()
    }
    fn variables(&self) -> Vec<String> {
        self.get().map(AnyStep::variables).unwrap_or_default()
    }
    fn looked_at(&self, root: &FilePath) -> Vec<std::path::PathBuf> {
        self.get().map(|action| action.looked_at(root)).unwrap_or_default()
    }
    fn share(&self) -> Share {
        self.get().map_or(Share::One, AnyStep::share)
    }
    fn fixed(&self, length: &str) -> Option<Problem> {
        self.get()?.fixed(length)
    }
    fn together(&self, inputs: &BTreeMap<String, Vec<Artifact>>, machine: &Machine) -> Option<Together> {
        self.get()?.together(inputs, machine)
    }
    fn run(&self, cx: &mut Context) -> Result<()> {
        self.sound()?.run(cx)
    }
    fn run_together(
        &self,
        members: &mut [(&dyn AnyStep, &mut Context)],
        exact: bool,
        ended: &mut Ended<'_>,
    ) -> Result<()> {
        self.sound()?.run_together(members, exact, ended)
    }
    fn any(&self) -> &dyn Any {
        self.get().map_or(&(), AnyStep::any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Options, load_text};
    use crate::steps::KINDS;

    const YAML: &str = "
name: имя
params: { x: [0.1, 1.0, 7], text: a }
steps:
  base: { uses: command, timeout: 5m, with: { shell: 'echo ${params.text} > o', outputs: { o: o, p: p } } }
  grid:
    uses: command
    in: { above: base.o }
    matrix: { n: [1, 0.5, b] }
    retries: { times: 2, backoff: 3s }
    resources: { cpu: 2, memory: 1GB }
    with: { run: [echo, '${matrix.n}', 1.50, true], env: { A: 5 }, outputs: { o: o } }
  end: { uses: command, in: { all: grid, one: [base.p] }, expect: 'base.f1 > 0', with: { run: [ls], outputs: { o: o } } }
";

    #[test]
    fn what_was_written_is_the_same_pipeline() {
        let file = FilePath::new("pipelines/p.yaml");
        let Ok(pipeline) = load_text(file, YAML, &Options::default()) else { panic!() };
        let text = write(&pipeline).unwrap();
        let back = read(&text, file, &pipeline.text, KINDS).unwrap();
        assert_eq!(write(&back).unwrap(), text);
        assert_eq!((&back.name, &back.root, &back.params), (&pipeline.name, &pipeline.root, &pipeline.params));
        assert_eq!(back.targets, pipeline.targets);
        for (new, old) in back.steps.iter().zip(&pipeline.steps) {
            assert_eq!((&new.id, &new.policy, &new.outputs), (&old.id, &old.policy, &old.outputs));
            assert_eq!(new.action.params(), old.action.params());
            assert_eq!(new.action.keyed().to_string(), old.action.keyed().to_string());
            assert_eq!(new.action.outputs(), old.action.outputs());
        }
        assert!(read(&text, file, &Digest::of(b"another"), KINDS).is_none());
        assert!(read(&text, file, &pipeline.text, &[]).is_none(), "there is no such kind");
        for (from, to) in [("[0,0,false]", "[9,0,false]"), ("[0,0,false]", "[0,9,false]"), (FORMAT, "pipe/pipeline@2")]
        {
            assert!(text.contains(from));
            assert!(read(&text.replace(from, to), file, &pipeline.text, KINDS).is_none(), "{from}");
        }
    }

    #[test]
    fn parameters_that_cannot_be_read_fail_when_they_are_needed() {
        let kind = KINDS.iter().find(|kind| kind.name() == "command").unwrap();
        let step = Deferred { kind: *kind, with: "{".into(), remote: None, action: OnceLock::new() };
        assert_eq!((step.keyed(), step.outputs()), (Value::Null, Vec::new()));
        assert!(step.sound().err().unwrap().help.unwrap().contains("delete that folder"));
    }
}
