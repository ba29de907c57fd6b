//! `pipe explain`: why a step runs or is reused, down to the fields of its manifest and the lines of the file.
//! It does not know how that is worked out; it writes nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::plan::{self, word};
use super::{CacheArgs, Exit, PipelineArgs};
use crate::exec::{self, Cause, Decider, Decision, Nearest, Planned, Verdict};
use crate::key::Difference;
use crate::run;
use crate::spec::{Origins, Pipeline};
use crate::store::{Lookup, Record};
use crate::ui;

/// Tells why a step runs or is reused: the fields that differ from the nearest earlier result, the lines of the file
/// that they come from, what changed further up, and what follows.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  pipe explain pipelines/lora_vs_mlp.yaml lora --set lora.rank=8\n  \
    pipe explain pipelines/ablation.yaml 'lora[rank=4]'\n  pipe why pipelines/ablation.yaml comparison")]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The step; of a matrix, all its cells or one: `lora[rank=4]`.
    #[arg(value_name = "STEP")]
    step: String,
    #[command(flatten)]
    cache: CacheArgs,
    /// Tells each step as a line of JSON.
    #[arg(long)]
    json: bool,
}

/// Does it.
pub fn main(args: &Args) -> Exit {
    match explain(args) {
        Ok(exit) | Err(exit) => exit,
    }
}

fn explain(args: &Args) -> Result<Exit, Exit> {
    let pipeline = args.pipeline.load(std::slice::from_ref(&args.step), &[])?;
    let origins = args.pipeline.origins();
    plan::with(&pipeline, &args.cache, |decider, _, planned| {
        for (i, &step) in pipeline.targets.iter().enumerate() {
            let told = Told::of(decider, planned, origins.as_ref(), step);
            if args.json {
                ui::out(&told.json().to_string());
                continue;
            }
            if i > 0 {
                ui::out("");
            }
            told.print();
        }
    })
}

/// All that is told of one step.
struct Told<'a> {
    id: &'a str,
    plan: &'a Planned,
    /// What is said without fields: `never run before`, `its record is damaged`.
    sentences: Vec<String>,
    nearest: Option<Nearest>,
    fields: Vec<Field>,
    causes: Vec<(Cause, Vec<Field>)>,
    downstream: Vec<&'a str>,
    untouched: usize,
}

/// A field that differs, and where its value was written.
struct Field {
    difference: Difference,
    line: String,
    place: Option<String>,
}

impl<'a> Told<'a> {
    fn of(
        decider: &'a Decider,
        planned: &'a BTreeMap<usize, Planned>,
        origins: Option<&Origins>,
        position: usize,
    ) -> Self {
        let (pipeline, plan): (&Pipeline, _) = (decider.pipeline, &planned[&position]);
        let fields = |position: usize, differences: &[Difference]| -> Vec<Field> {
            let place = |path: &str| origins.and_then(|origins| origins.of(&pipeline.steps[position], path));
            let field = |difference: &Difference| Field {
                line: decider.line(position, difference),
                place: difference.new.as_ref().and_then(|_| place(&difference.path)),
                difference: difference.clone(),
            };
            differences.iter().map(field).collect()
        };
        let nearest = plan.decision.as_ref().and_then(|decision| nearest(decider, position, plan, decision));
        let differences = match (&nearest, &plan.verdict, &plan.decision) {
            (Some(nearest), ..) => nearest.differences.clone(),
            // Back to earlier values: a hit, though the step had others when it was last run.
            (None, Verdict::Reuse(_), Some(decision)) => decider.changes(position, &decision.manifest),
            _ => Vec::new(),
        };
        let is_own = nearest.as_ref().is_some_and(|nearest| nearest.own);
        let has_fields = is_own && !differences.is_empty();
        let sentences = if has_fields || !plan.after().is_empty() { Vec::new() } else { plan.why.clone() };
        let causes = exec::causes(decider, planned, position).into_iter();
        let causes = causes.map(|cause| (fields(cause.position, &cause.differences), cause)).map(|(f, c)| (c, f));
        let downstream = exec::downstream(decider, position);
        let runs = planned.iter().filter(|(_, plan)| !matches!(plan.verdict, Verdict::Reuse(_)));
        let touched: BTreeSet<usize> = runs.map(|(&step, _)| step).chain(downstream.iter().copied()).collect();
        Self {
            id: &pipeline.steps[position].id,
            fields: fields(position, &differences),
            causes: causes.collect(),
            sentences,
            nearest,
            plan,
            downstream: downstream.iter().map(|&step| pipeline.steps[step].id.as_str()).collect(),
            untouched: pipeline.steps.len() - touched.union(&BTreeSet::from([position])).count(),
        }
    }

    fn print(&self) {
        ui::out(&format!("{}: {}", self.id, decision(self.plan)));
        if let Verdict::Reuse(record) = &self.plan.verdict {
            ui::out(&format!("  {}", made(record)));
        }
        list("why:", &self.sentences);
        let head = match (&self.nearest, &self.plan.verdict) {
            (Some(nearest), _) if nearest.own => format!("why, against run {}:", when(&nearest.record.run)),
            (Some(nearest), _) => {
                format!("the nearest result is {} of run {}:", nearest.record.step, when(&nearest.record.run))
            }
            (None, _) => "since it was last used in this pipeline:".to_owned(),
        };
        list(&head, &with_places(&self.fields));
        let causes = self.causes.iter().flat_map(|(cause, fields)| {
            let lines = if fields.is_empty() { cause.why.clone() } else { with_places(fields) };
            lines.into_iter().map(|line| format!("{}: {line}", cause.step)).collect::<Vec<_>>()
        });
        list("where that comes from:", &causes.collect::<Vec<_>>());
        if !matches!(self.plan.verdict, Verdict::Reuse(_)) {
            self.then();
        }
        if let Some(decision) = &self.plan.decision {
            ui::out(&format!("\nkey {}\n= blake3 of this manifest:", decision.key));
            ui::out(&serde_json::to_string_pretty(&decision.manifest).unwrap_or_default());
        }
    }

    fn then(&self) {
        const SHOWN: usize = 6;
        let mut names = self.downstream.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
        if self.downstream.len() > SHOWN {
            names.push_str(&format!(" and {} more", self.downstream.len() - SHOWN));
        }
        let may = match self.downstream.len() {
            0 => "no other step reads its result".to_owned(),
            1 => format!("{names} runs again if its result changes"),
            _ => format!("{names} run again if its result changes"),
        };
        let verb = if self.untouched == 1 { "is" } else { "are" };
        list("then:", &[may, format!("{} {verb} untouched", ui::count(self.untouched, "other step"))]);
    }

    fn json(&self) -> Value {
        let field = |field: &Field| {
            let Difference { path, old, new } = &field.difference;
            json!({"field": path, "old": old, "new": new, "place": field.place, "text": field.line})
        };
        let fields = |list: &[Field]| list.iter().map(field).collect::<Vec<_>>();
        let nearest = self.nearest.as_ref().map(|nearest| {
            let Record { key, run, step, .. } = &nearest.record;
            json!({"key": key, "run": run, "step": step, "own": nearest.own})
        });
        let made = match &self.plan.verdict {
            Verdict::Reuse(record) => Some(json!({"run": record.run, "step": record.step, "costs": record.costs})),
            _ => None,
        };
        let causes: Vec<Value> = self
            .causes
            .iter()
            .map(|(cause, list)| json!({"step": cause.step, "why": cause.why, "fields": fields(list)}))
            .collect();
        json!({
            "step": self.id,
            "plan": word(self.plan),
            "why": self.plan.why,
            "nearest": nearest,
            "fields": fields(&self.fields),
            "causes": causes,
            "made": made,
            "downstream": self.downstream,
            "untouched": self.untouched,
            "key": self.plan.decision.as_ref().map(|decision| &decision.key),
            "manifest": self.plan.decision.as_ref().map(|decision| &decision.manifest),
        })
    }
}

/// What a step that runs is compared with; a step that never ran, with others of its kind.
fn nearest(decider: &Decider, position: usize, plan: &Planned, decision: &Decision) -> Option<Nearest> {
    match (&plan.verdict, &decision.found) {
        // What is damaged was there already: no field has changed.
        (Verdict::Reuse(_), _) | (_, Lookup::Miss(Some(_))) => None,
        _ if decider.knows(position, &decision.key) => None,
        _ => decider.nearest(position, decision).or_else(|| decider.nearest_of_kind(position, decision)),
    }
}

fn decision(plan: &Planned) -> String {
    match &plan.verdict {
        Verdict::Reuse(_) => "is reused".to_owned(),
        Verdict::Run => "runs".to_owned(),
        Verdict::Depends(_) => format!("is {}", plan.why.join(", ")),
        Verdict::Fail(_) => "cannot run".to_owned(),
    }
}

fn made(record: &Record) -> String {
    format!("made by the step {} of run {}, in {}", record.step, when(&record.run), ui::costs(&record.costs))
}

/// `NAME, 2026-11-24 02:30:05 UTC`.
fn when(run: &str) -> String {
    run::began(run).map_or_else(|| run.to_owned(), |time| format!("{run}, {time} UTC"))
}

/// The fields, and behind them in a column where they were written.
fn with_places(fields: &[Field]) -> Vec<String> {
    const SHOWN: usize = 20;
    const WIDEST: usize = 72;
    let width = |field: &Field| field.line.chars().count();
    let column = fields.iter().map(width).filter(|&width| width <= WIDEST).max().unwrap_or(0);
    let line = |field: &Field| match &field.place {
        Some(place) => format!("{:column$}   {place}", field.line),
        None => field.line.clone(),
    };
    let more = fields.len().saturating_sub(SHOWN);
    let more = (more > 0).then(|| format!("and {}", ui::count(more, "more field")));
    fields.iter().take(SHOWN).map(line).chain(more).collect()
}

fn list(head: &str, lines: &[String]) {
    if !lines.is_empty() {
        ui::out(&format!("  {head}"));
        lines.iter().for_each(|line| ui::out(&format!("    {line}")));
    }
}
