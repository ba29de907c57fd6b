//! What a worker thread does: runs one step in its own folder and keeps the result.
//! It does not know about other steps.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use super::decide::Decision;
use super::sources::{self, Sources};
use super::{Message, Options};
use crate::digest::bytes_of;
use crate::error::{Problem, Result};
use crate::event::{Costs, Say};
use crate::spec::Step;
use crate::step::{Artifact, Context, Frame, Outside};
use crate::store::{Draft, Record, Store};

/// Everything that one step needs to run.
pub(super) struct Job<'a> {
    pub step: &'a Step,
    pub position: usize,
    pub root: PathBuf,
    pub inputs: BTreeMap<String, Vec<Artifact>>,
    pub decision: Decision,
    pub outside: Outside,
    /// How long its remote source took to fetch.
    pub fetched: Duration,
    pub store: &'a Store,
    pub options: &'a Options,
}

/// How often progress is passed on at most: bars are not drawn more often anyway.
const PROGRESS: Duration = Duration::from_millis(50);

impl Job<'_> {
    /// Runs the step and sends what became of it.
    pub fn work(self, to: &Sender<Message>) {
        let position = self.position;
        let result = self.result(to);
        // The loop waits for this message, so nobody is gone who could receive it.
        let _ = to.send(Message::Ended(position, Box::new(result)));
    }

    fn result(self, to: &Sender<Message>) -> Result<Record> {
        let started = Instant::now();
        let say = thinned(pass(self.position, to.clone()));
        let stage = self.store.stage()?;
        let out = stage.out();
        fs::create_dir(&out).map_err(|e| Problem::io("make the folder", &out, &e))?;
        let said = Arc::new(Mutex::new(Vec::new()));
        let mut cx = Context::new(Frame {
            step: self.step.id.clone(),
            inputs: self.inputs,
            out,
            root: self.root,
            machine: self.options.machine.clone(),
            threads: self.options.machine.threads(self.step.action.share()),
            cancel: self.options.cancel.clone(),
            sink: sink(pass(self.position, to.clone()), said.clone()),
        })
        .with_outside(self.outside);
        caught(self.step.kind.name(), || self.step.action.run(&mut cx))?;
        // A step that left its loop early on Ctrl-C may not have said so.
        if self.options.cancel.load(Ordering::Relaxed) {
            return Err(Problem::cancelled());
        }
        let cancelled = || self.options.cancel.load(Ordering::Relaxed);
        unchanged(
            self.store,
            &self.decision.sources,
            &mut sources::told("reading its sources again", &say, &cancelled),
        )?;
        let (figures, bad): (BTreeMap<_, _>, BTreeMap<_, _>) =
            cx.figures().clone().into_iter().partition(|(_, value)| value.is_finite());
        for (name, value) in bad {
            cx.warn(format!("the figure `{name}` is {value} and is not recorded"));
        }
        let outputs = self.step.kind.outputs().iter();
        let draft = Draft {
            manifest: self.decision.manifest,
            outputs: outputs.map(|output| (output.name.to_owned(), output.file.to_owned())).collect(),
            figures,
            said: said.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            costs: Costs { took_ms: (self.fetched + started.elapsed()).as_millis() as u64, ..Costs::default() },
            run: self.options.run.clone(),
            step: self.step.id.clone(),
        };
        let mut done = 0;
        let never = || false;
        let mut tell = sources::told("keeping the result", &say, &never);
        let total = bytes_of(&stage.out()).unwrap_or_default();
        self.store.commit(&stage, draft, None, &mut |bytes| {
            done += bytes;
            tell(done, total.max(done))
        })
    }
}

/// A result must not be recorded under the key of other sources than it was made from.
fn unchanged(store: &Store, before: &Sources, watch: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<()> {
    let list = before.iter().map(|(source, _)| source.clone()).collect();
    let now = sources::read(store, list, watch)?;
    match now.iter().zip(before).find(|(now, before)| now != before) {
        None => Ok(()),
        Some(((source, _), _)) => {
            let what = format!("its input {} changed while the step ran", source.path.display());
            Err(Problem::new(what).help("nothing was recorded; run again once the file is complete"))
        }
    }
}

/// Sends what a step says to the loop.
pub(super) fn pass(position: usize, to: Sender<Message>) -> impl Fn(Say) + Send + 'static {
    move |say| {
        let _ = to.send(Message::Said(position, say));
    }
}

/// Passes on what a step says, progress not too often.
pub(super) fn thinned(pass: impl Fn(Say) + Send + 'static) -> impl Fn(Say) + Send + 'static {
    let last: Cell<Option<Instant>> = Cell::new(None);
    let bad: RefCell<BTreeSet<String>> = RefCell::new(BTreeSet::new());
    move |say| {
        let say = match say {
            Say::Progress { done, total, .. } if total != Some(done) => {
                if last.get().is_some_and(|last| last.elapsed() < PROGRESS) {
                    return;
                }
                last.set(Some(Instant::now()));
                say
            }
            // JSON has no such numbers: the first one is worth a warning, the others tell nothing new.
            Say::Metric { name, at, value } if !value.is_finite() => {
                if !bad.borrow_mut().insert(name.clone()) {
                    return;
                }
                Say::Warning { text: format!("`{name}` is {value} at {at}") }
            }
            say => say,
        };
        pass(say);
    }
}

/// Passes on what a step says, and keeps its notes and warnings for the record.
pub(super) fn sink(pass: impl Fn(Say) + Send + 'static, said: Arc<Mutex<Vec<Say>>>) -> Box<dyn Fn(Say) + Send> {
    Box::new(thinned(move |say| {
        if matches!(say, Say::Note { .. } | Say::Warning { .. }) {
            said.lock().unwrap_or_else(PoisonError::into_inner).push(say.clone());
        }
        pass(say);
    }))
}

thread_local! {
    /// Set on worker threads; the panic hook leaves the message here instead of printing it.
    static PANIC: RefCell<Option<Option<String>>> = const { RefCell::new(None) };
}

/// Calls `run`; a panic is the failure of this step alone.
pub(super) fn caught<T>(kind: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    quiet_panics();
    PANIC.set(Some(None));
    let result = panic::catch_unwind(AssertUnwindSafe(run));
    let place = PANIC.take().flatten();
    result.unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
        let place = place.map(|place| format!(" ({place})")).unwrap_or_default();
        Err(Problem::new(format!("the step kind `{kind}` panicked: {}{place}", first_line(&text)))
            .help("this is a mistake in the step kind, not in the pipeline; nothing was recorded"))
    })
}

/// The first line of a panic's text. Libraries put whole C++ stacks behind it, also in escaped form.
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let line = line.split("\\n").next().unwrap_or_default();
    line.chars().take(400).collect()
}

fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let ours = PANIC.with_borrow_mut(|panic| match panic {
                Some(place) => {
                    *place = info.location().map(|at| format!("{}:{}", at.file(), at.line()));
                    true
                }
                None => false,
            });
            if !ours {
                usual(info);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_problem_with_its_place() {
        let problem = caught::<()>("train", || panic!("shapes [2] and [3]\nException raised from x")).unwrap_err();
        assert!(problem.what.starts_with("the step kind `train` panicked: shapes [2] and [3] ("), "{problem}");
        assert!(problem.what.contains("work.rs:"), "{problem}");
        assert_eq!(caught("train", || Ok(())), Ok(()));
    }

    #[test]
    fn progress_is_thinned_out_but_its_end_is_not() {
        let (to, from) = std::sync::mpsc::channel();
        let said = Arc::new(Mutex::new(Vec::new()));
        let sink = sink(pass(0, to), said.clone());
        for done in 0..=1000 {
            sink(Say::Progress { done, total: Some(1000), unit: String::new(), text: String::new() });
        }
        sink(Say::Metric { name: "loss".into(), at: 1, value: f64::NAN });
        sink(Say::Metric { name: "loss".into(), at: 2, value: f64::NAN });
        drop(sink);
        let got: Vec<Message> = from.iter().collect();
        assert!((3..100).contains(&got.len()), "{}", got.len());
        let last = &got[got.len() - 2];
        assert!(matches!(last, Message::Said(0, Say::Progress { done: 1000, .. })));
        assert_eq!(*said.lock().unwrap(), [Say::Warning { text: "`loss` is NaN at 1".into() }]);
    }
}
