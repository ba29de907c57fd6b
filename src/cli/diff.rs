//! `pipe diff`: what two runs differ in: settings, parameters, inputs and figures.
//! It does not know what a field or a figure means.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{Exit, FolderArgs, existing, runs};
use crate::key::{self, Difference};
use crate::run::{Fate, Story, find};
use crate::store::Store;
use crate::ui;

/// Tells what two runs differ in: what was set, the parameters and inputs of each step, and the figures side by side.
#[derive(Debug, clap::Args)]
#[command(after_help = "A run is its name, the beginning of its name, `last`, or `last~1` for the one before.\n\n\
    Examples:\n  pipe diff last~1 last\n  pipe diff 2026-11-25T12-05-24Z-cfe493 last --all\n  \
    pipe diff last~1 last --json")]
pub struct Args {
    /// The run that is compared with.
    #[arg(value_name = "A")]
    a: String,
    /// The run that is compared.
    #[arg(value_name = "B")]
    b: String,
    /// Shows the steps and figures that are the same, too.
    #[arg(long)]
    all: bool,
    /// Tells it as one line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    folder: FolderArgs,
}

/// Does it.
pub fn main(args: &Args) -> Exit {
    match diff(args) {
        Ok(exit) | Err(exit) => exit,
    }
}

fn diff(args: &Args) -> Result<Exit, Exit> {
    let store = existing(&args.folder.cache)?;
    let all = find::all(&store.runs());
    let ((found_a, a), (found_b, b)) = (runs::story(&all, &args.a)?, runs::story(&all, &args.b)?);
    let comparison = Comparison::of(&store, &a, &b);
    if args.json {
        let run = |name: &str, story: &Story| {
            let begun = story.begun.as_ref();
            let (pipeline, sets) = (begun.map(|begun| &begun.pipeline), begun.map(|begun| &begun.sets));
            json!({"run": name, "pipeline": pipeline, "sets": sets, "outcome": runs::ended(story.end.as_ref())})
        };
        let mut told = comparison.json(args.all);
        told["a"] = run(&found_a.name, &a);
        told["b"] = run(&found_b.name, &b);
        ui::out(&told.to_string());
    } else {
        ui::out(&format!("A  {}", runs::title(found_a, &a)));
        ui::out(&format!("B  {}", runs::title(found_b, &b)));
        comparison.print(args.all);
    }
    Ok(Exit::Done)
}

/// All that two runs differ in.
struct Comparison<'a> {
    settings: Vec<Difference>,
    /// The steps that both have.
    steps: Vec<Both<'a>>,
    only_a: Vec<&'a str>,
    only_b: Vec<&'a str>,
}

/// A step of both runs.
struct Both<'a> {
    step: &'a str,
    a: &'a Fate,
    b: &'a Fate,
    /// The fields of the manifest that differ, each with the step of B that made an input, where that is known.
    fields: Vec<(Difference, Option<&'a str>)>,
    /// What is said without fields.
    remark: Option<String>,
    figures: Vec<Figure<'a>>,
}

struct Figure<'a> {
    name: &'a str,
    a: Option<f64>,
    b: Option<f64>,
}

impl Figure<'_> {
    fn differs(&self) -> bool {
        self.a != self.b
    }

    fn difference(&self) -> Option<f64> {
        Some(self.b? - self.a?)
    }
}

impl Both<'_> {
    fn differs(&self) -> bool {
        self.is_told() || self.figures.iter().any(Figure::differs)
    }

    /// Whether there is more to say than figures.
    fn is_told(&self) -> bool {
        let lost = self.a.result().is_some() != self.b.result().is_some();
        lost || !self.fields.is_empty() || self.remark.is_some()
    }
}

impl<'a> Comparison<'a> {
    fn of(store: &Store, a: &'a Story, b: &'a Story) -> Self {
        let by_id = |story: &'a Story| -> BTreeMap<&'a str, &'a Fate> {
            story.steps.iter().map(|told| (told.step.as_str(), &told.fate)).collect()
        };
        let (in_a, in_b) = (by_id(a), by_id(b));
        // The digests of fields are cut to what a reader can compare; so are these.
        let outputs = b.steps.iter().flat_map(|told| {
            let made = told.fate.result().into_iter().flat_map(|result| result.outputs.values());
            made.map(|made| (key::short(&made.digest), told.step.as_str()))
        });
        let makers: BTreeMap<String, &str> = outputs.collect();
        let both = |(step, a): (&'a str, &'a Fate)| {
            let b = *in_b.get(step)?;
            let (fields, remark) = fields(store, a, b);
            let maker = |difference: &Difference| {
                difference.port()?;
                makers.get(difference.new.as_ref()?).copied()
            };
            let fields = fields.into_iter().map(|difference| (maker(&difference), difference));
            let fields = fields.map(|(maker, difference)| (difference, maker)).collect();
            Some(Both { step, a, b, fields, remark, figures: figures(a, b) })
        };
        let ids = |story: &'a Story| story.steps.iter().map(|told| (told.step.as_str(), &told.fate));
        let without = |story: &'a Story, other: &BTreeMap<&str, &Fate>| {
            ids(story).map(|(step, _)| step).filter(|step| !other.contains_key(step)).collect()
        };
        Self {
            settings: settings(a, b),
            steps: ids(a).filter_map(both).collect(),
            only_a: without(a, &in_b),
            only_b: without(b, &in_a),
        }
    }

    fn print(&self, all: bool) {
        list("settings:", &self.settings.iter().map(ToString::to_string).collect::<Vec<_>>());
        let told: Vec<&Both> = self.steps.iter().filter(|both| all || both.is_told()).collect();
        if !told.is_empty() {
            ui::out("steps:");
        }
        told.into_iter().for_each(Both::print);
        let figures = self.steps.iter().flat_map(|both| both.figures.iter().map(|figure| (both.step, figure)));
        let rows: Vec<Vec<String>> =
            figures.filter(|(_, figure)| all || figure.differs()).map(|(step, figure)| row(step, figure)).collect();
        if !rows.is_empty() {
            ui::out("figures:");
            let head = ["step", "figure", "A", "B", "B - A"].map(str::to_owned);
            ui::table(&head, &rows).lines().for_each(|line| ui::out(&format!("  {line}")));
        }
        let names = |steps: &[&str]| steps.iter().map(|&step| step.to_owned()).collect::<Vec<_>>();
        list("steps that only A has:", &names(&self.only_a));
        list("steps that only B has:", &names(&self.only_b));
        let same = self.steps.iter().filter(|both| !both.differs()).count();
        let alone = self.only_a.len() + self.only_b.len();
        let verb = if same == 1 { "is" } else { "are" };
        if same == self.steps.len() && alone == 0 && self.settings.is_empty() {
            ui::err("nothing differs");
        } else if !all && same > 0 {
            ui::err(&format!("{} {verb} the same; --all shows {}", ui::count(same, "step"), it(same)));
        }
    }

    fn json(&self, all: bool) -> Value {
        let field = |difference: &Difference, maker: Option<&str>| {
            let Difference { path, old, new } = difference;
            json!({"field": path, "old": old, "new": new, "of": maker})
        };
        let steps = self.steps.iter().filter(|both| all || both.differs()).map(|both| {
            let figures = both.figures.iter().filter(|figure| all || figure.differs());
            let figures = figures.map(
                |figure| json!({"name": figure.name, "a": figure.a, "b": figure.b, "difference": figure.difference()}),
            );
            let (a, b) = (both.a.result(), both.b.result());
            json!({
                "step": both.step,
                "a": {"outcome": both.a.word(), "key": a.map(|a| &a.key), "costs": a.map(|a| a.costs)},
                "b": {"outcome": both.b.word(), "key": b.map(|b| &b.key), "costs": b.map(|b| b.costs)},
                "fields": both.fields.iter().map(|(difference, maker)| field(difference, *maker)).collect::<Vec<_>>(),
                "remark": both.remark,
                "figures": figures.collect::<Vec<_>>(),
            })
        });
        let setting = |Difference { path, old, new }: &Difference| json!({"name": path, "old": old, "new": new});
        json!({
            "settings": self.settings.iter().map(setting).collect::<Vec<_>>(),
            "steps": steps.collect::<Vec<_>>(),
            "only_a": self.only_a,
            "only_b": self.only_b,
        })
    }
}

impl Both<'_> {
    fn print(&self) {
        let fates = match (self.a.result(), self.b.result()) {
            (Some(_), Some(_)) if !self.differs() => "the same".to_owned(),
            (Some(_), Some(_)) => String::new(),
            _ => format!("{} in A, {} in B", self.a.word(), self.b.word()),
        };
        ui::out(format!("  {}  {fates}", self.step).trim_end());
        for (difference, maker) in &self.fields {
            let of = maker.map(|step| format!(" (of {step})")).unwrap_or_default();
            ui::out(&format!("    {difference}{of}"));
        }
        self.remark.iter().for_each(|remark| ui::out(&format!("    {remark}")));
    }
}

/// What differs in the manifests, or a sentence where that cannot be told.
fn fields(store: &Store, a: &Fate, b: &Fate) -> (Vec<Difference>, Option<String>) {
    let (Some(of_a), Some(of_b)) = (a.result(), b.result()) else {
        let failed = [("A", a), ("B", b)].into_iter().filter_map(|(run, fate)| match fate {
            Fate::Failed(what) => Some(format!("{run}: {}", what.lines().next().unwrap_or_default())),
            _ => None,
        });
        let failed: Vec<String> = failed.collect();
        return (Vec::new(), (!failed.is_empty()).then(|| failed.join("; ")));
    };
    if of_a.key == of_b.key {
        let names: BTreeSet<&String> = of_a.outputs.keys().chain(of_b.outputs.keys()).collect();
        let digest = |outputs: &BTreeMap<String, crate::event::Made>, name: &str| {
            outputs.get(name).map(|made| made.digest.clone())
        };
        let changed = names.into_iter().filter(|name| digest(&of_a.outputs, name) != digest(&of_b.outputs, name));
        let changed: Vec<String> = changed.map(|name| format!("`{name}`")).collect();
        let remark = (!changed.is_empty())
            .then(|| format!("the key is the same, but not what came out: {}", changed.join(", ")));
        return (Vec::new(), remark);
    }
    match (store.record(&of_a.key), store.record(&of_b.key)) {
        (Some(a), Some(b)) => match key::diff(&a.manifest, &b.manifest) {
            same if same.is_empty() => (same, Some("its inputs stand in another order".to_owned())),
            differences => (differences, None),
        },
        (a, b) => {
            let gone = match (a, b) {
                (None, None) => "the records of both are",
                (None, _) => "the record of A is",
                _ => "the record of B is",
            };
            (Vec::new(), Some(format!("something differs, but {gone} not in the cache any more")))
        }
    }
}

fn figures<'a>(a: &'a Fate, b: &'a Fate) -> Vec<Figure<'a>> {
    let figures = |fate: &'a Fate| fate.result().map(|result| &result.figures);
    let (a, b) = (figures(a), figures(b));
    let names: BTreeSet<&String> = a.into_iter().chain(b).flat_map(BTreeMap::keys).collect();
    let value = |figures: Option<&BTreeMap<String, f64>>, name: &str| figures?.get(name).copied();
    names.into_iter().map(|name| Figure { name, a: value(a, name), b: value(b, name) }).collect()
}

fn row(step: &str, figure: &Figure) -> Vec<String> {
    let number = |value: Option<f64>| value.map(ui::number).unwrap_or_default();
    let (mut a, mut b) = (number(figure.a), number(figure.b));
    // What differs must not look the same.
    if figure.differs() && a == b {
        (a, b) = (figure.a.map(|a| a.to_string()).unwrap_or(a), figure.b.map(|b| b.to_string()).unwrap_or(b));
    }
    let difference = figure.difference().map(|difference| {
        let sign = if difference > 0.0 { "+" } else { "" };
        format!("{sign}{}", ui::number(difference))
    });
    vec![step.to_owned(), figure.name.to_owned(), a, b, difference.unwrap_or_default()]
}

/// What was set differently; of a name that was set twice, the last value counted.
fn settings(a: &Story, b: &Story) -> Vec<Difference> {
    let values = |story: &Story| -> BTreeMap<String, String> {
        let sets = story.begun.iter().flat_map(|begun| &begun.sets);
        let pair = |set: &String| set.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        sets.filter_map(pair).collect()
    };
    let (a, b) = (values(a), values(b));
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let changed = names.into_iter().filter(|name| a.get(*name) != b.get(*name));
    changed
        .map(|name| Difference { path: name.clone(), old: a.get(name).cloned(), new: b.get(name).cloned() })
        .collect()
}

fn it(n: usize) -> &'static str {
    if n == 1 { "it" } else { "them" }
}

fn list(head: &str, lines: &[String]) {
    if !lines.is_empty() {
        ui::out(head);
        lines.iter().for_each(|line| ui::out(&format!("  {line}")));
    }
}
