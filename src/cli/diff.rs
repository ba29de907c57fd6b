//! `pipe diff`: what two runs differ in: settings, parameters, inputs and figures.
//! It does not know how that is worked out.

mod compare;

use serde_json::{Value, json};

use super::{Exit, FolderArgs, existing, runs};
use crate::key::Difference;
use crate::run::find::Found;
use crate::run::{Story, find};
use crate::ui;
use compare::{Both, Comparison, Figure};

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
        let run = |found: &Found, story: &Story| {
            let begun = story.begun.as_ref();
            let (pipeline, sets) = (begun.map(|begun| &begun.pipeline), begun.map(|begun| &begun.sets));
            let outcome = runs::ended(found, story.end.as_ref());
            json!({"run": found.name, "pipeline": pipeline, "sets": sets, "outcome": outcome})
        };
        let mut told = comparison.json(args.all);
        told["a"] = run(found_a, &a);
        told["b"] = run(found_b, &b);
        ui::out(&told.to_string());
    } else {
        ui::out(&format!("A  {}", runs::title(found_a, &a)));
        ui::out(&format!("B  {}", runs::title(found_b, &b)));
        comparison.print(args.all);
    }
    Ok(Exit::Done)
}

impl Comparison<'_> {
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

fn it(n: usize) -> &'static str {
    if n == 1 { "it" } else { "them" }
}

fn list(head: &str, lines: &[String]) {
    if !lines.is_empty() {
        ui::out(head);
        lines.iter().for_each(|line| ui::out(&format!("  {line}")));
    }
}
