//! Greedy generation: who answers which prompts. On a processor two threads answer half of them each.
//! It does not know tokenizers or what the ids mean, nor how a batch goes on.

mod lookup;
mod writer;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tch::Device;

use self::writer::{Answers, Task, Writer};
use super::adapters::Arm;
use super::crew::{self, Helper, Jobs};
use super::header;
use super::models::{Model, check_ids, check_length};
use crate::error::{Problem, Result};

/// What came after a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
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
/// counted in (but at least one row; on the CPU two batches of half as many). `on_progress` is told how many prompts are
/// finished; its error ends the generation.
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
    pub ended: &'a (dyn Fn(&[i64]) -> Result<bool> + Sync),
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
    let mut answers = vec![Generated::default(); prompts.len()];
    if max_new_tokens == 0 {
        on_progress(prompts.len())?;
        return Ok(answers);
    }
    // A window counts places, and the padding behind a shared beginning would stand between them.
    let shares = model.config().attention.window.is_none();
    let header = if shares { header::shared(prompts.iter().map(Vec::as_slice)) } else { 0 };
    let before = tch::no_grad(|| header::read(model, arm, prompts.first().map_or(&[], |prompt| &prompt[..header])));
    let parts = parts(model, prompts);
    let batch_tokens = if parts[1].is_empty() { batch_tokens } else { batch_tokens / 2 };
    let task = Task { prompts, header, max_new_tokens, stop, batch_tokens };
    for (prompt, answer) in divided(&Writer::new(model, arm, before, task), parts, on_progress)? {
        answers[prompt] = answer;
    }
    Ok(answers)
}

/// Prompts of like length together: less padding. On a processor every other one is another batch's, whether there are two
/// threads or one: what shares a batch must not depend on that.
fn parts(model: &dyn Model, prompts: &[Vec<i64>]) -> [Vec<usize>; 2] {
    let mut order: Vec<usize> = (0..prompts.len()).collect();
    // The sort is stable, so batches do not depend on chance.
    order.sort_by_key(|&i| prompts[i].len());
    if model.device() != Device::Cpu {
        return [order, Vec::new()];
    }
    [0, 1].map(|first| order.iter().skip(first).step_by(2).copied().collect())
}

/// Answers both parts, beside each other where there are threads for it.
fn divided(
    writer: &Writer,
    [mine, theirs]: [Vec<usize>; 2],
    on_progress: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Answers> {
    let mut finished = 0;
    let mut tell = |more: usize| {
        finished += more;
        on_progress(finished)
    };
    let ended = AtomicBool::new(false);
    let Some(halves) = crew::halves(writer.device()).filter(|_| !theirs.is_empty()) else {
        let mut answers = writer.answer(mine, &ended, &mut tell)?;
        answers.extend(writer.answer(theirs, &ended, &mut tell)?);
        return Ok(answers);
    };
    let (other, (say, heard)) = (writer.share(), crew::talk());
    let (mut say, ended) = (Some(say), &ended);
    thread::scope(|scope| {
        let helper = Helper::begin(scope, halves, move |jobs: Jobs<Vec<usize>, Result<Answers>>| {
            jobs.each(|part| {
                let say = say.take();
                other.answer(part, ended, &mut |more| {
                    say.iter().for_each(|say| say.say(more));
                    Ok(())
                })
            });
        });
        helper.give(theirs);
        let mut told = |more: usize| tell(more + heard.now().sum::<usize>());
        let mut mine = halves.alone(|| writer.answer(mine, ended, &mut told));
        while let Some(more) = heard.next() {
            if let Err(problem) = mine.as_ref().map_or(Ok(()), |_| tell(more)) {
                ended.store(true, Ordering::Relaxed);
                mine = Err(problem);
            }
        }
        let theirs = helper.take();
        let mut answers = mine?;
        answers.extend(theirs?);
        Ok(answers)
    })
}
