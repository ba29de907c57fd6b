//! `pipe plan`: what would run, and why, without running; it writes nothing.
//! It does not know how that is worked out.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::json;

use super::choice::CapacityArgs;
use super::{CacheArgs, Exit, TargetArgs, fail, remote};
use crate::event::{Event, Stamped};
use crate::exec::{self, Decider, Forecast, Planned, Verdict};
use crate::spec::Pipeline;
use crate::step::Outlook;
use crate::store::Store;
use crate::ui::{self, Mode, Ui};

/// Tells what would run, and why, without running.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    pipe plan pipelines/lora_vs_mlp.yaml --set lora.rank=8\n  \
    pipe plan pipelines/lora_vs_mlp.yaml base --json")]
pub struct Args {
    #[command(flatten)]
    what: TargetArgs,
    #[command(flatten)]
    capacity: CapacityArgs,
    /// Tells each step as a line of JSON, and on a last line how long it all will take.
    #[arg(long)]
    json: bool,
}

/// Does it.
pub fn main(args: &Args) -> Exit {
    match plan(args) {
        Ok(exit) | Err(exit) => exit,
    }
}

fn plan(args: &Args) -> Result<Exit, Exit> {
    let pipeline = args.what.pipeline.load(&args.what.targets, &[])?;
    with(&pipeline, &args.what.cache, |decider, order, planned| {
        let width = order.iter().map(|&step| pipeline.steps[step].id.chars().count()).max().unwrap_or(0);
        for step in order {
            let (id, plan) = (&pipeline.steps[*step].id, &planned[step]);
            if args.json {
                let key = plan.decision.as_ref().map(|decision| &decision.key);
                let after: Vec<&str> = plan.after().iter().map(|&step| pipeline.steps[step].id.as_str()).collect();
                let facts = &plan.outlook.facts;
                let line = json!({"step": id, "plan": word(plan), "why": plan.why, "after": after, "key": key, "facts": facts});
                ui::out(&line.to_string());
            } else {
                // What is foreseen goes first: the reasons are cut where the terminal ends.
                let text = format!("{:7}  {id:width$}  {}{}", word(plan), foreseen(&plan.outlook), why(plan));
                ui::out(&ui::fitted(text.trim_end()));
            }
        }
        let capacity = args.capacity.of(decider.machine.cores, &args.what.cache.device);
        let Forecast { low_ms, high_ms, unknown } = Forecast::of_plan(decider, order, planned, &capacity);
        if args.json {
            let line = json!({"forecast": {"low_ms": low_ms, "high_ms": high_ms, "unknown": unknown}});
            return ui::out(&line.to_string());
        }
        ui::err(&counts(planned.values()));
        if let Some(text) = takes(low_ms, high_ms, unknown) {
            ui::err(&text);
        }
    })
}

/// Works out the plan of a pipeline, with a bar where sources take long to read, and does something with it.
pub(super) fn with(
    pipeline: &Pipeline,
    cache: &CacheArgs,
    show: impl FnOnce(&Decider, &[usize], &BTreeMap<usize, Planned>),
) -> Result<Exit, Exit> {
    let store: Store = cache.store(&pipeline.root);
    let machine = cache.machine(&store).map_err(|problem| fail(&problem, Exit::Usage))?;
    let lock = remote::lockfile(std::slice::from_ref(pipeline)).map_err(|problem| fail(&problem, Exit::Pipeline))?;
    let decider = Decider { pipeline, store: &store, machine: &machine, lock: &lock };
    let (ui, begun) = (RefCell::new(Ui::new(Mode::Human)), Instant::now());
    let (order, planned) = exec::plan(&decider, &|step, say| {
        let event = Event::StepSaid { step: step.to_owned(), say };
        ui.borrow_mut().event(&Stamped { at_ms: begun.elapsed().as_millis() as u64, event });
    });
    ui.borrow().end();
    show(&decider, &order, &planned);
    Ok(Exit::Done)
}

/// `run`, `reuse`, `depends` or `fail`.
pub fn word(plan: &Planned) -> &'static str {
    match plan.verdict {
        Verdict::Reuse(_) => "reuse",
        Verdict::Run => "run",
        Verdict::Depends(_) => "depends",
        Verdict::Fail(_) => "fail",
    }
}

fn why(plan: &Planned) -> String {
    match &plan.verdict {
        Verdict::Reuse(record) => format!("saves {}", ui::duration(record.costs.took_ms)),
        Verdict::Fail(problem) => problem.what.clone(),
        Verdict::Run | Verdict::Depends(_) => plan.why.join(", "),
    }
}

/// `2 097 152 trainable parameters; `, and what will go wrong.
fn foreseen(outlook: &Outlook) -> String {
    let fact = |(name, value): (&String, &u64)| format!("{} {}; ", ui::grouped(*value), name.replace('_', " "));
    let problem = outlook.problem.iter().map(|problem| format!("it will fail: {}; ", problem.what));
    outlook.facts.iter().map(fact).chain(problem).collect()
}

fn counts<'a>(planned: impl Iterator<Item = &'a Planned>) -> String {
    let (mut run, mut reuse, mut depends, mut fail, mut saved) = (0, 0, 0, 0, 0);
    for plan in planned {
        match &plan.verdict {
            Verdict::Run => run += 1,
            Verdict::Depends(_) => depends += 1,
            Verdict::Fail(_) => fail += 1,
            Verdict::Reuse(record) => {
                reuse += 1;
                saved = record.costs.took_ms.saturating_add(saved);
            }
        }
    }
    let mut text = format!("{run} to run, {reuse} to reuse");
    if depends > 0 {
        text.push_str(&format!(", {depends} that depend on the results"));
    }
    if fail > 0 {
        text.push_str(&format!(", {fail} that cannot run"));
    }
    if saved > 0 {
        text.push_str(&format!("; the cache saves {}", ui::duration(saved)));
    }
    text
}

/// `about 2-3 min; 1 step of unknown length`, as far as there is something to say.
fn takes(low_ms: u64, high_ms: u64, unknown: usize) -> Option<String> {
    let known = (high_ms > 0).then(|| format!("about {}", ui::span(low_ms, high_ms)));
    let unknown = (unknown > 0).then(|| format!("{} of unknown length", ui::count(unknown, "step")));
    let parts: Vec<String> = [known, unknown].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::takes;

    #[test]
    fn what_is_known_of_the_time_is_told() {
        assert_eq!(takes(121_000, 170_000, 1).as_deref(), Some("about 2-3 min; 1 step of unknown length"));
        assert_eq!(takes(121_000, 170_000, 0).as_deref(), Some("about 2-3 min"));
        assert_eq!(takes(0, 0, 2).as_deref(), Some("2 steps of unknown length"));
        assert_eq!(takes(0, 0, 0), None);
    }
}
