//! What became of each step of a run, from its log.
//! It does not know what the results contain: only their keys, costs and figures.

use std::collections::BTreeMap;

use super::{Begun, End};
use crate::digest::Digest;
use crate::event::{Costs, Event, Made, Stamped};

/// A run as its log tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct Story {
    /// What it began with; `None` if it was killed before.
    pub begun: Option<Begun>,
    /// How it ended; `None` if it was killed, or still goes on.
    pub end: Option<End>,
    /// Its steps, in order.
    pub steps: Vec<Told>,
}

/// What is told of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// Its id.
    pub step: String,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq)]
pub enum Fate {
    /// It was not come to.
    Untouched,
    /// It began; how it ended is not told.
    Begun,
    /// Its result was made or found.
    Done(Box<Result>),
    /// It failed; what went wrong.
    Failed(String),
    /// It did not run because of another step.
    Skipped(String),
}

/// The result of a step in a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Result {
    /// False if it was there already.
    pub ran: bool,
    /// Its key.
    pub key: Digest,
    /// What it cost when it was made.
    pub costs: Costs,
    /// How many attempts failed before.
    pub retries: u32,
    /// Its outputs.
    pub outputs: BTreeMap<String, Made>,
    /// Its figures.
    pub figures: BTreeMap<String, f64>,
}

impl Fate {
    /// In a word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Untouched => "not run",
            Self::Begun => "unfinished",
            Self::Done(result) if result.ran => "ran",
            Self::Done(_) => "reused",
            Self::Failed(_) => "failed",
            Self::Skipped(_) => "skipped",
        }
    }

    /// The result, if there is one.
    pub fn result(&self) -> Option<&Result> {
        match self {
            Self::Done(result) => Some(result),
            _ => None,
        }
    }
}

impl Story {
    /// Reads it out of the events.
    pub fn of(events: Vec<Stamped>) -> Self {
        let (mut begun, mut end, mut steps, mut places) = (None, None, Vec::<Told>::new(), BTreeMap::new());
        let mut note = |steps: &mut Vec<Told>, step: String, fate: Fate| {
            let place = *places.entry(step.clone()).or_insert(steps.len());
            match steps.get_mut(place) {
                Some(told) => told.fate = fate,
                None => steps.push(Told { step, fate }),
            }
        };
        for Stamped { event, .. } in events {
            match event {
                Event::RunStarted { .. } => {
                    begun = Begun::of(event);
                    let all = begun.iter().flat_map(|begun: &Begun| &begun.steps);
                    all.for_each(|step| note(&mut steps, step.clone(), Fate::Untouched));
                }
                Event::StepFetching { step, .. } | Event::StepJoined { step, .. } | Event::StepStarted { step, .. } => {
                    note(&mut steps, step, Fate::Begun);
                }
                Event::StepReused { step, key, saved_ms, costs, outputs, figures } => {
                    let costs = told_costs(costs, saved_ms);
                    let result = Result { ran: false, key, costs, retries: 0, outputs, figures };
                    note(&mut steps, step, Fate::Done(Box::new(result)));
                }
                Event::StepFinished { step, key, took_ms, costs, retries, outputs, figures } => {
                    let costs = told_costs(costs, took_ms);
                    let result = Result { ran: true, key, costs, retries, outputs, figures };
                    note(&mut steps, step, Fate::Done(Box::new(result)));
                }
                Event::StepFailed { step, problem } => note(&mut steps, step, Fate::Failed(problem.what)),
                Event::StepSkipped { step, because } => note(&mut steps, step, Fate::Skipped(because)),
                Event::RunFinished { .. } => end = End::of(&event),
                Event::StepRetrying { .. } | Event::StepSaid { .. } => {}
                Event::Forecast { .. } | Event::Refused { .. } | Event::GridFinished { .. } => {}
            }
        }
        Self { begun, end, steps }
    }
}

/// Logs of earlier versions tell the time alone.
fn told_costs(costs: Costs, took_ms: u64) -> Costs {
    if costs == Costs::default() { Costs { took_ms, ..costs } } else { costs }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_about_a_step_counts_and_their_order_is_kept() {
        let key = Digest::of(b"k");
        let (run, pipeline, file) = (String::new(), "p".to_owned(), String::new());
        let steps: Vec<String> = ["b", "a", "c"].map(str::to_owned).into();
        let (step, why) = ("a".to_owned(), Vec::new());
        let events = [
            Event::RunStarted { run, pipeline, file, sets: Vec::new(), steps },
            Event::StepStarted { step: step.clone(), key: key.clone(), why },
            Event::StepFinished {
                step,
                key,
                took_ms: 7,
                costs: Costs::default(),
                retries: 1,
                outputs: BTreeMap::new(),
                figures: BTreeMap::from([("f1".to_owned(), 0.5)]),
            },
            Event::StepSkipped { step: "c".to_owned(), because: "b".to_owned() },
        ];
        let story = Story::of(events.into_iter().map(|event| Stamped { at_ms: 0, event }).collect());
        let told: Vec<_> = story.steps.iter().map(|told| (told.step.as_str(), told.fate.word())).collect();
        assert_eq!(told, [("b", "not run"), ("a", "ran"), ("c", "skipped")]);
        let result = story.steps[1].fate.result().unwrap();
        assert_eq!((result.costs.took_ms, result.retries, result.figures["f1"]), (7, 1, 0.5));
        assert!(story.begun.is_some() && story.end.is_none());
    }
}
