//! Rows that are answered together, on one thread: finished rows leave the batch, and others take their room.
//! It does not know of other threads, tokenizers, or what the ids mean.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};

use tch::{Device, Tensor};

use super::lookup::Lookup;
use super::{Generated, Stop};
use crate::error::{Problem, Result};
use crate::ml::adapters::Arm;
use crate::ml::models::{Input, KvCache, Model};
use crate::ml::steady::Steady;
use crate::ml::tally;

/// What came after some of the prompts, by their numbers.
pub(super) type Answers = BTreeMap<usize, Generated>;

/// What is the same for everybody who answers.
#[derive(Clone, Copy)]
pub(super) struct Task<'a> {
    pub prompts: &'a [Vec<i64>],
    /// So many ids all prompts begin with.
    pub header: usize,
    pub max_new_tokens: usize,
    pub stop: &'a Stop<'a>,
    /// At most so many ids are in the model at once, those to come counted in.
    pub batch_tokens: usize,
}

/// What answers prompts.
pub(super) struct Writer<'a> {
    model: Box<dyn Model>,
    arm: Arm,
    /// What was read of that with which all prompts begin.
    before: Option<KvCache>,
    task: Task<'a>,
}

/// On the CPU, prompts share a padded width up to the next multiple of it: one more part costs less than the keys of
/// padding. On a GPU each part is another kernel.
const WIDTHS: usize = 16;
/// Rows of logits that are computed at once where ids are guessed.
const LOGITS: usize = 128;

impl<'a> Writer<'a> {
    pub fn new(model: &dyn Model, arm: &Arm, before: Option<KvCache>, task: Task<'a>) -> Self {
        Self { model: model.share(), arm: arm.share(), before, task }
    }

    /// The same for another thread.
    pub fn share(&self) -> Self {
        let before = self.before.as_ref().map(KvCache::share);
        Self { model: self.model.share(), arm: self.arm.share(), before, task: self.task }
    }

    pub fn device(&self) -> Device {
        self.model.device()
    }

    /// Answers these prompts, which are sorted by length, with all threads of the caller, until one of those who share
    /// `ended` fails. `tell` is told how many are finished since it was told last.
    pub fn answer(
        &self,
        prompts: Vec<usize>,
        ended: &AtomicBool,
        tell: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Answers> {
        let answers = Batch::new(self, prompts).answer(ended, tell);
        ended.fetch_or(answers.is_err(), Ordering::Relaxed);
        answers
    }

    /// The ids of a prompt behind what all begin with.
    fn own(&self, prompt: usize) -> &[i64] {
        &self.task.prompts[prompt][self.task.header..]
    }

    /// The ids that a prompt takes of the budget.
    fn cost(&self, prompt: usize) -> usize {
        self.task.prompts[prompt].len().saturating_add(self.task.max_new_tokens)
    }
}

/// Rows that are being answered, those that wait, and those that are done.
struct Batch<'a> {
    writer: &'a Writer<'a>,
    steady: Steady,
    /// True if ids are guessed.
    guesses: bool,
    waiting: VecDeque<usize>,
    rows: Vec<Row>,
    cache: KvCache,
    answers: Answers,
}

/// One of the rows.
struct Row {
    /// Which prompt.
    prompt: usize,
    /// Its text so far. The last id is chosen and not read yet.
    text: Lookup,
    /// What may come behind it, to be read with it.
    guess: Vec<i64>,
    answer: Generated,
}

impl<'a> Batch<'a> {
    fn new(writer: &'a Writer<'a>, waiting: Vec<usize>) -> Self {
        let (model, task) = (writer.model.as_ref(), &writer.task);
        let steady = Steady::of(model, task.header + task.max_new_tokens);
        let attention = &model.config().attention;
        // Elsewhere every new shape would cost more than it saves, and a window is a view of the last keys.
        let guesses = steady.holds() && attention.window.is_none() && attention.softcap.is_none();
        let (rows, cache, answers) = Default::default();
        Self { writer, steady, guesses, waiting: waiting.into(), rows, cache, answers }
    }

    fn answer(mut self, ended: &AtomicBool, tell: &mut dyn FnMut(usize) -> Result<()>) -> Result<Answers> {
        let (mut taken, mut told) = (0, 0);
        while !(self.waiting.is_empty() && self.rows.is_empty() || ended.load(Ordering::Relaxed)) {
            tell(self.answers.len() - told)?;
            told = self.answers.len();
            let room = self.writer.task.batch_tokens.saturating_sub(taken);
            // Those who come in little by little would be as many parts.
            let group = if self.rows.is_empty() || room >= self.writer.task.batch_tokens / 4 {
                self.group(room)
            } else {
                Vec::new()
            };
            tch::no_grad(|| if group.is_empty() { self.step() } else { self.read(group) })?;
            taken = self.rows.iter().map(|row| self.writer.cost(row.prompt)).sum();
        }
        tell(self.answers.len() - told)?;
        Ok(self.answers)
    }

    /// Takes the next rows that may be padded to one width, as far as there is room, but at least one if there is none.
    fn group(&mut self, room: usize) -> Vec<usize> {
        let mut group: Vec<usize> = Vec::new();
        while let Some(&prompt) = self.waiting.front() {
            let fits = (group.len() + 1).saturating_mul(self.writer.cost(prompt)) <= room
                || (self.rows.is_empty() && group.is_empty());
            if !fits || group.first().is_some_and(|&first| !self.together(first, prompt)) {
                break;
            }
            group.push(prompt);
            self.waiting.pop_front();
        }
        group
    }

    fn together(&self, one: usize, other: usize) -> bool {
        let [one, other] = [one, other].map(|prompt| self.writer.own(prompt).len());
        let widths = |length: usize| length.div_ceil(WIDTHS);
        self.steady.together(one, other) && (self.writer.device() != Device::Cpu || widths(one) == widths(other))
    }

    /// Reads the prompts of new rows and chooses their first ids.
    fn read(&mut self, group: Vec<usize>) -> Result<()> {
        let Writer { model, arm, before, task } = self.writer;
        let own = |prompt: usize| self.writer.own(prompt);
        let width = self.steady.length(group.iter().map(|&prompt| own(prompt).len()).max().unwrap_or(0));
        // Another kernel reads a mask: if one row has one, all have it.
        let ragged = self.steady.holds() || group.iter().any(|&prompt| own(prompt).len() != width);
        let count = self.steady.sequences(group.len(), width);
        let (mut ids, mut real) = (Vec::with_capacity(count * width), Vec::with_capacity(count * width));
        // What fills the batch says what the first row says, and nobody listens.
        for &prompt in group.iter().chain(std::iter::repeat_n(&group[0], count - group.len())) {
            let padding = width - own(prompt).len();
            // Padding stands on the left, so that every row's next id comes at the same position. Any id does.
            ids.extend(std::iter::repeat_n(0, padding).chain(own(prompt).iter().copied()));
            real.extend((0..width).map(|t| t >= padding));
        }
        let shape = [count as i64, width as i64];
        let device = model.device();
        let ids = Tensor::from_slice(&ids).view(shape).to_device(device);
        let mask = Tensor::from_slice(&real).view(shape).to_device(device);
        let ends: Vec<i64> = (0..self.steady.rows(count)).map(|row| ((row % count + 1) * width - 1) as i64).collect();
        let ends = Tensor::from_slice(&ends).to_device(device);
        let mask = ragged.then_some(&mask);
        let input = Input { mask, after: before.as_ref(), wanted: Some(&ends), ..Input::of(&ids) };
        let room = self.steady.places(task.header + width + task.max_new_tokens - 1);
        let mut cache = KvCache::with_room(room);
        tally::padding(count * width - group.iter().map(|&prompt| own(prompt).len()).sum::<usize>());
        let hidden = model.hidden(&input, arm, Some(&mut cache)); // [N, H]
        cache.remove(&(group.len()..count).collect::<Vec<_>>());
        let row = |prompt: usize| {
            let text = Lookup::new(&task.prompts[prompt]);
            Row { prompt, text, guess: Vec::new(), answer: Generated::default() }
        };
        let (rows, cache) = self.choose(&hidden, group.into_iter().map(row).collect(), cache)?;
        self.rows.extend(rows);
        self.cache.append(cache);
        Ok(())
    }

    /// Reads the last id of each row, and what may come behind it, and chooses what does.
    fn step(&mut self) -> Result<()> {
        let Writer { model, arm, task, .. } = self.writer;
        let (mut rows, mut cache) = (std::mem::take(&mut self.rows), std::mem::take(&mut self.cache));
        if self.guesses {
            for row in &mut rows {
                // The last id is chosen, not read.
                row.guess = row.text.guess(task.max_new_tokens - row.answer.ids.len() - 1);
            }
        }
        let counts: Vec<i64> = rows.iter().map(|row| 1 + row.guess.len() as i64).collect();
        let each = rows.iter().flat_map(|row| std::iter::once(row.text.last()).chain(row.guess.iter().copied()));
        let mut ids: Vec<i64> = each.collect();
        let real = ids.len();
        ids.resize(self.steady.rows(real), ids[0]);
        tally::padding(ids.len() - real);
        let ids = Tensor::from_slice(&ids).unsqueeze(1).to_device(model.device());
        let input = Input { counts: self.guesses.then_some(&counts), ..Input::of(&ids) };
        let hidden = model.hidden(&input, arm, Some(&mut cache)); // [N, 1, H]
        (self.rows, self.cache) = self.choose(&hidden.squeeze_dim(1), rows, cache)?;
        Ok(())
    }

    /// The likeliest id after each id that was read, whose hidden states are [N, H] with N at least their number: those of
    /// a row count up to the first that was not guessed. Who is not done goes on.
    fn choose(&mut self, hidden: &Tensor, mut rows: Vec<Row>, mut cache: KvCache) -> Result<(Vec<Row>, KvCache)> {
        let Writer { model, task, .. } = self.writer;
        // With guesses there may be eight times as many rows, and a vocabulary is wide.
        let at_once = if self.guesses { self.steady.rows(LOGITS) as i64 } else { hidden.size()[0] };
        let likeliest = |rows: &Tensor| model.logits(rows).argmax(-1, false);
        let next = Tensor::cat(&hidden.split(at_once, 0).iter().map(likeliest).collect::<Vec<_>>(), 0);
        let next = next.to_device(Device::Cpu);
        let chosen =
            Vec::<i64>::try_from(next).map_err(|e| Problem::new(format!("cannot read the chosen ids: {e}")))?;
        let mut chosen = chosen.as_slice();
        let (mut done, mut wrong) = (Vec::new(), Vec::new());
        for (at, row) in rows.iter_mut().enumerate() {
            let (own, others) = chosen.split_at(1 + row.guess.len());
            chosen = others;
            let answer = &mut row.answer;
            let mut right = 0;
            for (id, guess) in own.iter().zip(row.guess.iter().map(Some).chain([None])) {
                answer.stopped = task.stop.ids.contains(id);
                if !answer.stopped {
                    row.text.push(*id);
                    answer.ids.push(*id);
                    answer.stopped = (task.stop.ended)(&answer.ids)?;
                }
                if answer.stopped || answer.ids.len() == task.max_new_tokens {
                    done.push(at);
                    break;
                }
                if guess != Some(id) {
                    break;
                }
                right += 1;
            }
            row.text.learn(row.guess.len(), right);
            wrong.push((row.guess.len() - right) as i64);
        }
        if self.guesses {
            cache.forget(&wrong);
            tally::in_vain(wrong.iter().sum::<i64>() as usize);
        }
        let mut rows: Vec<Option<Row>> = rows.into_iter().map(Some).collect();
        let left = cache.remove(&done).into_iter().filter_map(|at| rows[at].take()).collect();
        self.answers.extend(rows.into_iter().flatten().map(|row| (row.prompt, row.answer)));
        Ok((left, cache))
    }
}
