//! Log-likelihoods of continuations, as lm-evaluation-harness defines them.
//! It does not know tokenizers, labels or tasks.

mod batch;
mod rows;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use tch::Device;

use self::batch::Batch;
use self::rows::{Item, Row};
use super::adapters::Arm;
use super::crew::{self, Helper, Jobs};
use super::header;
use super::models::{Input, KvCache, Model, check_ids, check_length};
use super::steady::Steady;
use super::tally;
use crate::error::{Problem, Result};

/// How likely a continuation is.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// Σ log p of the continuation's ids, in nats.
    pub sum: f64,
    /// log p of each id, given all before it.
    pub tokens: Vec<f64>,
    /// True if each id was the likeliest at its place.
    pub is_greedy: bool,
}

impl Default for Score {
    /// Of nothing, which is certain.
    fn default() -> Self {
        Self { sum: 0.0, tokens: Vec::new(), is_greedy: true }
    }
}

/// Scores every item, a context and what may follow it, neither empty; the answers stand in the order of the items.
/// At most `batch_tokens` ids go through the model at once (but at least one row; on the CPU two batches of half as many).
/// A context is read once for all that may follow it, such as the labels of a question, and a beginning that all contexts
/// share, such as examples, once: on the CPU in f32 other items change the rounding of a score by that alone.
/// `on_progress` is told how many items are finished; its error ends the work.
pub fn log_likelihoods(
    model: &dyn Model,
    arm: &Arm,
    items: &[Item],
    batch_tokens: usize,
    on_progress: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Vec<Score>> {
    let mut scores = log_likelihoods_of(model, &[arm], items, batch_tokens, &mut |_, finished| on_progress(finished))?;
    scores.pop().unwrap_or_else(|| Ok(Vec::new()))
}

/// The same for several arms, in their order: the blocks below the lowest adapter of all run once. What goes wrong with
/// an arm, an error of `on_progress` for it included, is the end of that arm alone.
pub fn log_likelihoods_of(
    model: &dyn Model,
    arms: &[&Arm],
    items: &[Item],
    batch_tokens: usize,
    on_progress: &mut dyn FnMut(usize, usize) -> Result<()>,
) -> Result<Vec<Result<Vec<Score>>>> {
    if let Some(at) = items.iter().position(|item| item.0.is_empty() || item.1.is_empty()) {
        return Err(Problem::new(format!("item {} has an empty context or continuation", at + 1)));
    }
    check_ids(model, items.iter().flat_map(|(context, continuation)| context.iter().chain(continuation)).copied())?;
    // The last id is only predicted.
    check_length(model, items.iter().map(|(context, answer)| context.len() + answer.len() - 1).max().unwrap_or(0))?;
    let header = header::shared(items.iter().map(|(context, _)| context.as_slice()));
    let beginning = items.first().map_or(&[][..], |(context, _)| &context[..header]);
    let own = |(context, continuation): &Item| (context[header..].to_vec(), continuation.clone());
    let items: Vec<Item> = items.iter().map(own).collect();
    let rows = Row::of(&items);
    let shared = shared_blocks(model, arms);
    let read = |arm: &Arm| tch::no_grad(|| header::read(model, arm, beginning));
    let reader = Reader {
        model: model.share(),
        arms: arms.iter().map(|arm| arm.share()).collect(),
        headers: arms.iter().map(|arm| read(arm)).collect(),
        shared,
        below: shared.and_then(|_| read(&Arm::none())),
        header,
    };
    let work = Work { batches: batches(&rows, reader.steady(), at_once(model, batch_tokens)), items, rows };
    let mut scores: Vec<Result<Vec<Score>>> =
        arms.iter().map(|_| Ok(vec![Score::default(); work.items.len()])).collect();
    let mut finished = 0;
    work.share(reader, &mut |batch, said| {
        finished += work.rows[work.batches[batch].clone()].iter().map(Row::items).sum::<usize>();
        for (at, (scores, said)) in scores.iter_mut().zip(said).enumerate() {
            let (Ok(all), Some(said)) = (&mut *scores, said) else { continue };
            let taken = said.map(|said| said.into_iter().for_each(|(item, score)| all[item] = score));
            if let Err(problem) = taken.and_then(|()| on_progress(at, finished)) {
                *scores = Err(problem);
            }
        }
        scores.iter().map(Result::is_ok).collect()
    });
    Ok(scores)
}

/// So many ids go through a model at once. On a processor two batches may be under way, whether there are two threads or
/// one: what shares a batch must not depend on that.
fn at_once(model: &dyn Model, batch_tokens: usize) -> usize {
    if model.device() == Device::Cpu { batch_tokens / 2 } else { batch_tokens }
}

/// Which rows make a batch: of one kind, and as many as fit. The largest batches come first, so that two threads end
/// together.
fn batches(rows: &[Row], steady: Steady, at_once: usize) -> Vec<Range<usize>> {
    let (mut batches, mut from) = (Vec::new(), 0);
    for to in 1..=rows.len() {
        let joins = rows.get(to).is_some_and(|row| {
            rows[from].forks() == row.forks()
                && steady.together(rows[from].ids.len(), row.ids.len())
                && (to + 1 - from) * steady.length(row.ids.len()) <= at_once
        });
        if !joins {
            batches.push(from..to);
            from = to;
        }
    }
    batches.sort_by_key(|batch| Reverse(batch.len() * rows[batch.start].ids.len()));
    batches
}

/// Everything that is to be read.
struct Work {
    items: Vec<Item>,
    rows: Vec<Row>,
    batches: Vec<Range<usize>>,
}

/// What each arm says of a batch, if it is still asked.
type Said = Vec<Option<Result<BTreeMap<usize, Score>>>>;

impl Work {
    /// Reads all batches, two at a time where there are threads for it. `take` is given what was said of each, in any
    /// order, and tells which arms are still asked.
    fn share(&self, reader: Reader, take: &mut dyn FnMut(usize, Said) -> Vec<bool>) {
        let asked: Vec<AtomicBool> = reader.arms.iter().map(|_| AtomicBool::new(true)).collect();
        let next = AtomicUsize::new(0);
        let batch = || {
            let any = asked.iter().any(|asked| asked.load(Ordering::Relaxed));
            let batch = next.fetch_add(1, Ordering::Relaxed);
            (any && batch < self.batches.len()).then_some(batch)
        };
        let mut take = |at: usize, said: Said| {
            take(at, said).iter().zip(&asked).for_each(|(still, asked)| asked.store(*still, Ordering::Relaxed));
        };
        let halves = crew::halves(reader.model.device()).filter(|_| self.batches.len() > 1);
        let Some(halves) = halves else {
            while let Some(at) = batch() {
                take(at, reader.read(self, at, &asked));
            }
            return;
        };
        let (other, (say, heard)) = (reader.share(), crew::talk());
        let batch = &batch;
        let asked = &asked;
        thread::scope(|scope| {
            let helper = Helper::begin(scope, halves, move |jobs: Jobs<(), ()>| {
                jobs.each(|()| {
                    while let Some(at) = batch() {
                        say.say((at, other.read(self, at, asked)));
                    }
                });
            });
            helper.give(());
            let hear = |take: &mut dyn FnMut(usize, Said)| heard.now().for_each(|(at, said)| take(at, said));
            halves.alone(|| {
                while let Some(at) = batch() {
                    take(at, reader.read(self, at, asked));
                    hear(&mut take);
                }
            });
            helper.take();
            hear(&mut take);
        });
    }
}

/// What reads batches, on one thread.
struct Reader {
    model: Box<dyn Model>,
    arms: Vec<Arm>,
    /// What all items begin with, as each arm read it, and how many ids that is.
    headers: Vec<Option<KvCache>>,
    header: usize,
    /// The blocks below this one run once for all arms, and what they read of the beginning.
    shared: Option<usize>,
    below: Option<KvCache>,
}

impl Reader {
    /// The same for another thread.
    fn share(&self) -> Self {
        let kept = |cache: &Option<KvCache>| cache.as_ref().map(KvCache::share);
        Self {
            model: self.model.share(),
            arms: self.arms.iter().map(Arm::share).collect(),
            headers: self.headers.iter().map(kept).collect(),
            header: self.header,
            shared: self.shared,
            below: kept(&self.below),
        }
    }

    fn steady(&self) -> Steady {
        Steady::of(self.model.as_ref(), self.header)
    }

    /// What each arm that is still asked says of a batch.
    fn read(&self, work: &Work, batch: usize, asked: &[AtomicBool]) -> Said {
        let model = self.model.as_ref();
        tch::no_grad(|| {
            let batch = Batch::new(model, &work.items, &work.rows[work.batches[batch].clone()], self.steady());
            let below = self.shared.map(|block| {
                let input = Input { to: Some(block), after: self.below.as_ref(), ..batch.input() };
                tally::padding(batch.padding);
                (block, model.hidden(&input, &Arm::none(), None))
            });
            let each = self.arms.iter().zip(&self.headers).zip(asked);
            each.map(|((arm, after), asked)| {
                let from = below.as_ref().map(|(block, x)| (*block, x));
                let input = Input { from, after: after.as_ref(), ..batch.input() };
                asked.load(Ordering::Relaxed).then(|| batch.score(model, arm, &input))
            })
            .collect()
        })
    }
}

/// True if an arm has blocks below its adapters that may run once for it and for others, and every bit is known to stay
/// what it is alone: on the CPU, where the same shapes give the same bits in any precision. Of GPUs that was not measured.
pub fn shares_blocks(model: &dyn Model, arm: &Arm) -> bool {
    model.device() == Device::Cpu && arm.lowest_layer(model) != Some(0)
}

/// The lowest block that one of several arms changes, if what is below it is worth running once for all.
fn shared_blocks(model: &dyn Model, arms: &[&Arm]) -> Option<usize> {
    let last = usize::try_from(model.config().num_hidden_layers).ok()?.checked_sub(1)?;
    let lowest = arms.iter().filter_map(|arm| arm.lowest_layer(model)).min().unwrap_or(last).min(last);
    (arms.len() > 1 && lowest > 0).then_some(lowest)
}
