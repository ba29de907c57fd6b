//! Greedy generation with a cache of keys and values; finished rows leave the batch.
//! It does not know tokenizers or what the ids mean.

use tch::{Device, Kind, Tensor};

use super::adapters::Arm;
use super::models::{Input, KvCache, Model, check_ids, check_length};
use super::steady::Steady;
use crate::error::{Problem, Result};

/// What came after a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// The new ids, without the one that ended the text.
    pub ids: Vec<i64>,
    /// False if the limit came before the end.
    pub stopped: bool,
}

/// The likeliest next id after each prompt, again and again, until a stop id or the limit. The answers stand in the
/// order of the prompts; an empty one is an error. On the CPU in f32 an answer does not depend on the other prompts nor on
/// `batch_tokens`; see `ml::steady`. At most `batch_tokens` ids are in the model at once, those to come
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
    // Prompts of like length together: less padding. The sort is stable, so batches do not depend on chance.
    let mut order: Vec<usize> = (0..prompts.len()).collect();
    order.sort_by_key(|&i| prompts[i].len());
    let steady = Steady::of(model, max_new_tokens);
    let mut from = 0;
    while from < order.len() {
        let mut to = from + 1;
        while to < order.len()
            && steady.together(prompts[order[from]].len(), prompts[order[to]].len())
            && (to + 1 - from).saturating_mul(prompts[order[to]].len().saturating_add(max_new_tokens)) <= batch_tokens
        {
            to += 1;
        }
        let limits = Limits { max_new_tokens, stop, steady };
        let mut alive = || on_progress(from);
        tch::no_grad(|| one_batch(model, arm, prompts, &order[from..to], &limits, &mut answers, &mut alive))?;
        on_progress(to)?;
        from = to;
    }
    Ok(answers)
}

/// When an answer ends.
struct Limits<'a> {
    max_new_tokens: usize,
    stop: &'a Stop<'a>,
    steady: Steady,
}

fn one_batch(
    model: &dyn Model,
    arm: &Arm,
    prompts: &[Vec<i64>],
    batch: &[usize],
    limits: &Limits,
    answers: &mut [Generated],
    alive: &mut dyn FnMut() -> Result<()>,
) -> Result<()> {
    let device = model.device();
    let steady = limits.steady;
    let width = steady.length(batch.iter().map(|&i| prompts[i].len()).max().unwrap_or(0));
    // Another kernel reads a mask: if one row has one, all have it.
    let ragged = steady.holds() || batch.iter().any(|&i| prompts[i].len() != width);
    let count = steady.sequences(batch.len(), 1);
    let (mut ids, mut real) = (Vec::new(), Vec::new());
    // What fills the batch says what the first row says, and nobody listens.
    for &i in batch.iter().chain(std::iter::repeat_n(&batch[0], count - batch.len())) {
        let padding = width - prompts[i].len();
        // Padding stands on the left, so that every row's next id comes at the same position. Any id does.
        ids.extend(std::iter::repeat_n(0, padding).chain(prompts[i].iter().copied()));
        real.extend((0..width).map(|t| t >= padding));
    }
    let shape = [count as i64, width as i64];
    let mut ids = Tensor::from_slice(&ids).view(shape).to_device(device);
    let mut mask = Tensor::from_slice(&real).view(shape).to_device(device);
    let mut rows: Vec<usize> = batch.to_vec();
    let mut cache = KvCache::default();
    for _ in 0..limits.max_new_tokens {
        alive()?;
        let input = Input { ids: &ids, mask: ragged.then_some(&mask), dropout: None };
        let hidden = model.hidden(&input, arm, Some(&mut cache)); // [B, T, H]
        let last = hidden.select(1, -1); // [B, H]
        let next = model.logits(&last).argmax(-1, false); // [B]
        let chosen = Vec::<i64>::try_from(next.to_device(Device::Cpu))
            .map_err(|e| Problem::new(format!("cannot read the chosen ids: {e}")))?;
        let mut kept = Vec::new();
        for (at, (&row, &id)) in rows.iter().zip(&chosen).enumerate() {
            if limits.stop.ids.contains(&id) {
                answers[row].stopped = true;
                continue;
            }
            answers[row].ids.push(id);
            if (limits.stop.ended)(&answers[row].ids)? {
                answers[row].stopped = true;
            } else {
                kept.push(at as i64);
            }
        }
        if kept.is_empty() {
            break;
        }
        ids = next.unsqueeze(1);
        if kept.len() < rows.len() {
            rows = kept.iter().map(|&at| rows[at as usize]).collect();
            kept.resize(steady.sequences(kept.len(), 1), kept[0]);
            let keep = Tensor::from_slice(&kept).to_device(device);
            ids = ids.index_select(0, &keep);
            mask = mask.index_select(0, &keep);
            cache.keep(&keep);
        }
        let one = Tensor::ones([mask.size()[0], 1], (Kind::Bool, device));
        mask = Tensor::cat(&[&mask, &one], 1);
    }
    Ok(())
}
