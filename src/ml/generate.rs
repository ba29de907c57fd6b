//! Greedy generation with a cache of keys and values; finished rows leave the batch, and others take their room.
//! It does not know tokenizers or what the ids mean.

mod lookup;

use std::collections::VecDeque;

use tch::{Device, Tensor};

use self::lookup::Lookup;
use super::adapters::Arm;
use super::header;
use super::models::{Input, KvCache, Model, check_ids, check_length};
use super::steady::Steady;
use super::tally;
use crate::error::{Problem, Result};

/// What came after a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// The new ids, without the one that ended the text.
    pub ids: Vec<i64>,
    /// False if the limit came before the end.
    pub stopped: bool,
}

/// The likeliest next id after each prompt, again and again, until a stop id or the limit; ids that are easily guessed
/// are read several at a time, see `generate::lookup`. The answers stand in the
/// order of the prompts; an empty one is an error. On the CPU in f32 an answer does not depend on their order nor on
/// `batch_tokens`, and on the other prompts only by how long a beginning all of them share, which is read once: that may
/// change the rounding; see `ml::steady`. At most `batch_tokens` ids are in the model at once, those to come
/// counted in (but at least one row). `on_progress` is told how many prompts are finished; its error ends
/// the generation.
pub fn greedy(
    model: &dyn Model,
    arm: &Arm,
    prompts: &[Vec<i64>],
    max_new_tokens: usize,
    stop: &[i64],
    batch_tokens: usize,
    on_progress: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Vec<Generated>> {
    let stop = Stop { ids: stop, ended: &|_| Ok(false) };
    greedy_until(model, arm, prompts, max_new_tokens, &stop, batch_tokens, on_progress)
}

/// What ends an answer before its limit.
pub struct Stop<'a> {
    /// Ids that end it and do not belong to it.
    pub ids: &'a [i64],
    /// Looks at all ids of an answer so far; if it says true, the last of them belongs to the answer.
    pub ended: &'a dyn Fn(&[i64]) -> Result<bool>,
}

/// [`greedy`] with ends that are no single id.
pub fn greedy_until(
    model: &dyn Model,
    arm: &Arm,
    prompts: &[Vec<i64>],
    max_new_tokens: usize,
    stop: &Stop<'_>,
    batch_tokens: usize,
    on_progress: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Vec<Generated>> {
    if let Some(at) = prompts.iter().position(Vec::is_empty) {
        return Err(Problem::new(format!("prompt {} is empty", at + 1)));
    }
    check_ids(model, prompts.iter().flatten().copied())?;
    // The last id is chosen, not read.
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    check_length(model, longest.saturating_add(max_new_tokens).saturating_sub(1))?;
    let mut answers = vec![Generated { ids: Vec::new(), stopped: false }; prompts.len()];
    if max_new_tokens == 0 {
        on_progress(prompts.len())?;
        return Ok(answers);
    }
    // Prompts of like length together: less padding. The sort is stable, so batches do not depend on chance.
    let mut order: Vec<usize> = (0..prompts.len()).collect();
    order.sort_by_key(|&i| prompts[i].len());
    let mut waiting: VecDeque<usize> = order.into();
    // A window counts places, and the padding behind a shared beginning would stand between them.
    let shares = model.config().attention.window.is_none();
    let header = if shares { header::shared(prompts.iter().map(Vec::as_slice)) } else { 0 };
    let before = tch::no_grad(|| header::read(model, arm, prompts.first().map_or(&[], |prompt| &prompt[..header])));
    let steady = Steady::of(model, header + max_new_tokens);
    // Elsewhere every new shape would cost more than it saves, and a window is a view of the last keys.
    let guesses = steady.holds() && shares && model.config().attention.softcap.is_none();
    let writer = Writer { model, arm, prompts, header, before, max_new_tokens, stop, steady, guesses };
    let mut batch = Batch::default();
    let (mut taken, mut finished) = (0, 0);
    while !waiting.is_empty() || !batch.rows.is_empty() {
        on_progress(finished)?;
        let room = batch_tokens.saturating_sub(taken);
        // Those who come in little by little would be as many parts.
        let group = if batch.rows.is_empty() || room >= batch_tokens / 4 {
            writer.group(&mut waiting, room, batch.rows.is_empty())
        } else {
            Vec::new()
        };
        let rows = batch.rows.len() + group.len();
        tch::no_grad(|| {
            if group.is_empty() {
                writer.step(&mut batch, &mut answers)
            } else {
                writer.read(group, &mut batch, &mut answers)
            }
        })?;
        finished += rows - batch.rows.len();
        taken = batch.rows.iter().map(|row| writer.cost(row.prompt)).sum();
    }
    on_progress(finished)?;
    Ok(answers)
}

/// Rows that are being answered.
#[derive(Default)]
struct Batch {
    rows: Vec<Row>,
    cache: KvCache,
}

/// One of them.
struct Row {
    /// Which prompt.
    prompt: usize,
    /// Its text so far. The last id is chosen and not read yet.
    text: Lookup,
    /// What may come behind it, to be read with it.
    guess: Vec<i64>,
}

/// What is the same for all rows.
struct Writer<'a> {
    model: &'a dyn Model,
    arm: &'a Arm,
    prompts: &'a [Vec<i64>],
    /// So many ids all prompts begin with, and what was read of them.
    header: usize,
    before: Option<KvCache>,
    max_new_tokens: usize,
    stop: &'a Stop<'a>,
    steady: Steady,
    /// True if ids are guessed.
    guesses: bool,
}

/// On the CPU, prompts share a padded width up to the next multiple of it: one more part costs less than the keys of
/// padding. On a GPU each part is another kernel.
const WIDTHS: usize = 16;
/// Rows of logits that are computed at once where ids are guessed.
const LOGITS: usize = 128;

impl Writer<'_> {
    /// The ids of a prompt behind what all begin with.
    fn own(&self, row: usize) -> &[i64] {
        &self.prompts[row][self.header..]
    }

    /// The ids that a row takes of the budget.
    fn cost(&self, row: usize) -> usize {
        self.prompts[row].len().saturating_add(self.max_new_tokens)
    }

    /// Takes the next rows that may be padded to one width, as far as there is room, but at least one if `any`.
    fn group(&self, waiting: &mut VecDeque<usize>, room: usize, any: bool) -> Vec<usize> {
        let mut group: Vec<usize> = Vec::new();
        while let Some(&row) = waiting.front() {
            let fits = (group.len() + 1).saturating_mul(self.cost(row)) <= room || (any && group.is_empty());
            if !fits || group.first().is_some_and(|&first| !self.together(first, row)) {
                break;
            }
            group.push(row);
            waiting.pop_front();
        }
        group
    }

    fn together(&self, one: usize, other: usize) -> bool {
        let [one, other] = [one, other].map(|row| self.own(row).len());
        let widths = |length: usize| length.div_ceil(WIDTHS);
        self.steady.together(one, other) && (self.model.device() != Device::Cpu || widths(one) == widths(other))
    }

    /// Reads the prompts of new rows and chooses their first ids.
    fn read(&self, group: Vec<usize>, batch: &mut Batch, answers: &mut [Generated]) -> Result<()> {
        let width = self.steady.length(group.iter().map(|&row| self.own(row).len()).max().unwrap_or(0));
        // Another kernel reads a mask: if one row has one, all have it.
        let ragged = self.steady.holds() || group.iter().any(|&row| self.own(row).len() != width);
        let count = self.steady.sequences(group.len(), width);
        let (mut ids, mut real) = (Vec::with_capacity(count * width), Vec::with_capacity(count * width));
        // What fills the batch says what the first row says, and nobody listens.
        for &row in group.iter().chain(std::iter::repeat_n(&group[0], count - group.len())) {
            let padding = width - self.own(row).len();
            // Padding stands on the left, so that every row's next id comes at the same position. Any id does.
            ids.extend(std::iter::repeat_n(0, padding).chain(self.own(row).iter().copied()));
            real.extend((0..width).map(|t| t >= padding));
        }
        let shape = [count as i64, width as i64];
        let device = self.model.device();
        let ids = Tensor::from_slice(&ids).view(shape).to_device(device);
        let mask = Tensor::from_slice(&real).view(shape).to_device(device);
        let ends: Vec<i64> = (0..self.steady.rows(count)).map(|row| ((row % count + 1) * width - 1) as i64).collect();
        let ends = Tensor::from_slice(&ends).to_device(device);
        let mask = ragged.then_some(&mask);
        let input = Input { mask, after: self.before.as_ref(), wanted: Some(&ends), ..Input::of(&ids) };
        let room = self.steady.places(self.header + width + self.max_new_tokens - 1);
        let mut new = Batch { cache: KvCache::with_room(room), ..Batch::default() };
        tally::padding(count * width - group.iter().map(|&row| self.own(row).len()).sum::<usize>());
        let hidden = self.model.hidden(&input, self.arm, Some(&mut new.cache)); // [N, H]
        new.cache.remove(&(group.len()..count).collect::<Vec<_>>());
        let row = |prompt: usize| Row { prompt, text: Lookup::new(&self.prompts[prompt]), guess: Vec::new() };
        new.rows = group.into_iter().map(row).collect();
        self.choose(&hidden, &mut new, answers)?;
        batch.rows.append(&mut new.rows);
        batch.cache.append(new.cache);
        Ok(())
    }

    /// Reads the last id of each row, and what may come behind it, and chooses what does.
    fn step(&self, batch: &mut Batch, answers: &mut [Generated]) -> Result<()> {
        if self.guesses {
            for row in &mut batch.rows {
                // The last id is chosen, not read.
                row.guess = row.text.guess(self.max_new_tokens - answers[row.prompt].ids.len() - 1);
            }
        }
        let counts: Vec<i64> = batch.rows.iter().map(|row| 1 + row.guess.len() as i64).collect();
        let each = batch.rows.iter().flat_map(|row| std::iter::once(row.text.last()).chain(row.guess.iter().copied()));
        let mut ids: Vec<i64> = each.collect();
        let real = ids.len();
        ids.resize(self.steady.rows(real), ids[0]);
        tally::padding(ids.len() - real);
        let ids = Tensor::from_slice(&ids).unsqueeze(1).to_device(self.model.device());
        let input = Input { counts: self.guesses.then_some(&counts), ..Input::of(&ids) };
        let hidden = self.model.hidden(&input, self.arm, Some(&mut batch.cache)); // [N, 1, H]
        self.choose(&hidden.squeeze_dim(1), batch, answers)
    }

    /// The likeliest id after each id that was read, whose hidden states are [N, H] with N at least their number: those of
    /// a row count up to the first that was not guessed. Who is done leaves.
    fn choose(&self, hidden: &Tensor, batch: &mut Batch, answers: &mut [Generated]) -> Result<()> {
        // With guesses there may be eight times as many rows, and a vocabulary is wide.
        let at_once = if self.guesses { self.steady.rows(LOGITS) as i64 } else { hidden.size()[0] };
        let likeliest = |rows: &Tensor| self.model.logits(rows).argmax(-1, false);
        let next = Tensor::cat(&hidden.split(at_once, 0).iter().map(likeliest).collect::<Vec<_>>(), 0);
        let next = next.to_device(Device::Cpu);
        let chosen =
            Vec::<i64>::try_from(next).map_err(|e| Problem::new(format!("cannot read the chosen ids: {e}")))?;
        let mut chosen = chosen.as_slice();
        let (mut done, mut wrong) = (Vec::new(), Vec::new());
        for (at, row) in batch.rows.iter_mut().enumerate() {
            let (own, others) = chosen.split_at(1 + row.guess.len());
            chosen = others;
            let answer = &mut answers[row.prompt];
            let mut right = 0;
            for (id, guess) in own.iter().zip(row.guess.iter().map(Some).chain([None])) {
                answer.stopped = self.stop.ids.contains(id);
                if !answer.stopped {
                    row.text.push(*id);
                    answer.ids.push(*id);
                    answer.stopped = (self.stop.ended)(&answer.ids)?;
                }
                if answer.stopped || answer.ids.len() == self.max_new_tokens {
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
            batch.cache.forget(&wrong);
            tally::in_vain(wrong.iter().sum::<i64>() as usize);
        }
        let mut rows: Vec<Option<Row>> = batch.rows.drain(..).map(Some).collect();
        batch.rows = batch.cache.remove(&done).into_iter().filter_map(|at| rows[at].take()).collect();
        Ok(())
    }
}
