//! Log-likelihoods of continuations, as lm-evaluation-harness defines them.
//! It does not know tokenizers, labels or tasks.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::adapters::Arm;
use super::models::{Input, Model, check_ids, check_length};
use super::steady::Steady;
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

/// Scores every item, a context and what may follow it, neither empty; the answers stand in the order of the items.
/// At most `batch_tokens` ids go through the model at once (but at least one row), and items that read the same ids
/// share a row: the labels of one question, if each is a single id, cost one pass. `on_progress` is told how many
/// items are finished; its error ends the work.
pub fn log_likelihoods(
    model: &dyn Model,
    arm: &Arm,
    items: &[(Vec<i64>, Vec<i64>)],
    batch_tokens: usize,
    on_progress: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Vec<Score>> {
    if let Some(at) = items.iter().position(|item| item.0.is_empty() || item.1.is_empty()) {
        return Err(Problem::new(format!("item {} has an empty context or continuation", at + 1)));
    }
    check_ids(model, items.iter().flat_map(|(context, continuation)| context.iter().chain(continuation)).copied())?;
    // The last id is only predicted.
    check_length(model, items.iter().map(|(context, answer)| context.len() + answer.len() - 1).max().unwrap_or(0))?;
    // What a row reads is everything but the last id, which is only predicted.
    let mut readers: BTreeMap<Vec<i64>, Vec<usize>> = BTreeMap::new();
    for (i, (context, continuation)) in items.iter().enumerate() {
        let mut read = context.clone();
        read.extend(&continuation[..continuation.len() - 1]);
        readers.entry(read).or_default().push(i);
    }
    let mut rows: Vec<(Vec<i64>, Vec<usize>)> = readers.into_iter().collect();
    rows.sort_by_key(|(read, _)| read.len());
    let mut scores = vec![Score { sum: 0.0, tokens: Vec::new(), is_greedy: false }; items.len()];
    let steady = Steady::of(model, 0);
    let (mut from, mut finished) = (0, 0);
    while from < rows.len() {
        let mut to = from + 1;
        while to < rows.len()
            && steady.together(rows[from].0.len(), rows[to].0.len())
            && (to + 1 - from) * steady.length(rows[to].0.len()) <= batch_tokens
        {
            to += 1;
        }
        tch::no_grad(|| one_batch(model, arm, items, &rows[from..to], steady, &mut scores))?;
        finished += rows[from..to].iter().map(|(_, readers)| readers.len()).sum::<usize>();
        on_progress(finished)?;
        from = to;
    }
    Ok(scores)
}

fn one_batch(
    model: &dyn Model,
    arm: &Arm,
    items: &[(Vec<i64>, Vec<i64>)],
    rows: &[(Vec<i64>, Vec<usize>)],
    steady: Steady,
    scores: &mut [Score],
) -> Result<()> {
    let device = model.device();
    let width = steady.length(rows.iter().map(|(read, _)| read.len()).max().unwrap_or(0));
    let count = steady.sequences(rows.len(), width);
    let mut ids = Vec::with_capacity(count * width);
    // Positions in [B · T] whose next id is scored, those ids, and whose they are.
    let (mut positions, mut targets, mut owners) = (Vec::new(), Vec::new(), Vec::new());
    for (b, (read, readers)) in rows.iter().enumerate() {
        ids.extend(read);
        // Padding on the right is seen by padding alone.
        ids.resize((b + 1) * width, 0);
        for &reader in readers {
            let (context, continuation) = &items[reader];
            let first = context.len() - 1;
            for (k, &id) in continuation.iter().enumerate() {
                positions.push((b * width + first + k) as i64);
                targets.push(id);
                owners.push(reader);
            }
        }
    }
    // What fills the batch, and the positions below, is read by nobody.
    ids.resize(count * width, 0);
    let wanted = positions.len();
    positions.resize(steady.rows(wanted), positions[0]);
    targets.resize(positions.len(), targets[0]);
    let ids = Tensor::from_slice(&ids).view([count as i64, width as i64]).to_device(device);
    let hidden = model.hidden(&Input { ids: &ids, mask: None, dropout: None }, arm, None);
    let positions = Tensor::from_slice(&positions).to_device(device);
    let ends = hidden.flatten(0, 1).index_select(0, &positions); // [N, H]
    let log_p = model.logits(&ends).log_softmax(-1, Kind::Float); // [N, V]
    let best = log_p.argmax(-1, false);
    let target = Tensor::from_slice(&targets).to_device(device);
    let picked = log_p.gather(1, &target.unsqueeze(1), false).squeeze_dim(1).to_kind(Kind::Double);
    let unreadable = |e| Problem::new(format!("cannot read the log-likelihoods: {e}"));
    let picked = Vec::<f64>::try_from(picked).map_err(unreadable)?;
    let best = Vec::<i64>::try_from(best).map_err(unreadable)?;
    if picked[..wanted].iter().any(|p| p.is_nan()) {
        return Err(Problem::new("the model's log-likelihoods are not numbers")
            .help("its weights or its adapter's hold NaN or infinity, or overflow"));
    }
    for (n, &owner) in owners.iter().enumerate() {
        let score = &mut scores[owner];
        score.is_greedy = (score.tokens.is_empty() || score.is_greedy) && best[n] == targets[n];
        score.tokens.push(picked[n]);
        score.sum += picked[n];
    }
    Ok(())
}
