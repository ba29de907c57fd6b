//! A run in which nothing is left to do: told as the loop would tell it, from the receipt alone.
//! It does not know how it was found out that nothing is left to do.

use std::time::Instant;

use super::{Asked, Found};
use crate::event::{Event, Outcome};
use crate::exec::TOGETHER;
use crate::exec::end::{Links, reused};
use crate::store::Store;

/// What is told of a run besides its steps.
pub struct Told {
    /// The run's name.
    pub run: String,
    /// The pipeline's file as the user gave it.
    pub file: String,
    /// What was set on the command line.
    pub sets: Vec<String>,
}

/// Tells a run whose receipt holds as a whole, and leaves everything as that run would have: links, and what the steps'
/// last keys are. The receipt is written anew if more is known now.
pub fn tell(store: &Store, asked: &Asked, mut found: Found, told: Told, say: &mut dyn FnMut(Vec<Event>)) {
    let begun = Instant::now();
    let receipt = &mut found.receipt;
    let Told { run, file, sets } = told;
    let (pipeline, steps) = (receipt.pipeline.clone(), receipt.steps.iter().map(|step| step.id.clone()).collect());
    say(vec![Event::RunStarted { run, pipeline, file, sets, steps }]);
    // The loop decides what can be decided, and then what that makes known.
    let mut waves: Vec<usize> = (0..receipt.steps.len()).collect();
    waves.sort_by_key(|&at| receipt.steps[at].level);
    let mut saved_ms = 0;
    let mut events = Vec::new();
    for at in waves {
        if events.len() >= TOGETHER {
            say(std::mem::take(&mut events));
        }
        let step = &receipt.steps[at];
        saved_ms = step.costs.took_ms.saturating_add(saved_ms);
        let outputs = step.outputs.iter().map(|output| (&output.name, &output.object));
        events.extend(reused(store, &step.id, &step.key, step.costs, outputs, &step.figures, &step.said));
    }
    say(events);
    // Somebody may have run the pipeline with other settings meanwhile.
    let noted = receipt.noted(store);
    if !noted {
        for step in &receipt.steps {
            let _ = store.remember(&receipt.pipeline, &step.id, &step.key);
        }
    }
    // Nothing was committed.
    store.flush();
    if !noted {
        receipt.history = store.history_extent(&receipt.pipeline);
        found.better |= receipt.history.is_some();
    }
    let mut links = Links::new(store, &receipt.pipeline);
    let mut by_file: Vec<usize> = (0..receipt.steps.len()).collect();
    by_file.sort_by_key(|&at| receipt.steps[at].position);
    for at in by_file.into_iter().filter(|&at| receipt.steps[at].wanted || !found.linked[at]) {
        let step = &receipt.steps[at];
        for output in &step.outputs {
            links.one(&step.id, &output.file, &output.object.digest, step.wanted, found.linked[at]);
        }
    }
    let Links { results, warnings, .. } = links;
    say(warnings);
    if found.better {
        // It is only a matter of time.
        let _ = store.keep_receipt(&asked.name, receipt);
    }
    say(vec![Event::RunFinished {
        outcome: Outcome::Done,
        ran: 0,
        reused: receipt.steps.len(),
        failed: 0,
        skipped: 0,
        took_ms: begun.elapsed().as_millis() as u64,
        saved_ms,
        results,
        machine: String::new(),
    }]);
}
