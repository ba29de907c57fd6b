//! Log-likelihoods of continuations, as lm-evaluation-harness defines them.
//! It does not know tokenizers, labels or tasks.

mod rows;

use tch::{Device, Kind, Tensor};

use self::rows::{Item, Row, Target};

use super::adapters::Arm;
use super::header;
use super::models::{Branches, Input, Model, check_ids, check_length};
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

/// Logits that are held at once, 16 MiB of f32.
const LOGITS_AT_ONCE: usize = 1 << 22;
/// They are computed for a multiple of so many positions, which full batches of a few threads are.
const POSITIONS: usize = 64;

/// Scores every item, a context and what may follow it, neither empty; the answers stand in the order of the items.
/// At most `batch_tokens` ids go through the model at once (but at least one row). A context is read once for all that
/// may follow it, such as the labels of a question, and a beginning that all contexts share, such as examples, once: on the CPU in f32 other items change the
/// rounding of a score by that alone. `on_progress` is told how many items are finished; its error ends
/// the work.
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
    let none = || Ok(vec![Score { sum: 0.0, tokens: Vec::new(), is_greedy: true }; items.len()]);
    let mut scores: Vec<Result<Vec<Score>>> = arms.iter().map(|_| none()).collect();
    let steady = Steady::of(model, header);
    let shared = shared_blocks(model, arms);
    let read = |arm: &Arm| tch::no_grad(|| header::read(model, arm, beginning));
    let below = shared.and_then(|_| read(&Arm::none()));
    let headers: Vec<_> = arms.iter().map(|arm| read(arm)).collect();
    let (mut from, mut finished) = (0, 0);
    while from < rows.len() && scores.iter().any(Result::is_ok) {
        let mut to = from + 1;
        while to < rows.len()
            && rows[from].forks() == rows[to].forks()
            && steady.together(rows[from].ids.len(), rows[to].ids.len())
            && (to + 1 - from) * steady.length(rows[to].ids.len()) <= batch_tokens
        {
            to += 1;
        }
        finished += rows[from..to].iter().map(Row::items).sum::<usize>();
        tch::no_grad(|| {
            let batch = Batch::new(model, &items, &rows[from..to], steady);
            let below = shared.map(|block| {
                let input = Input { to: Some(block), after: below.as_ref(), ..batch.input() };
                tally::padding(batch.padding);
                (block, model.hidden(&input, &Arm::none(), None))
            });
            for (at, ((arm, after), scores)) in arms.iter().zip(&headers).zip(&mut scores).enumerate() {
                let Ok(of_it) = scores else { continue };
                let from = below.as_ref().map(|(block, x)| (*block, x));
                let input = Input { from, after: after.as_ref(), ..batch.input() };
                let scored = batch.score(model, arm, &input, of_it).and_then(|()| on_progress(at, finished));
                if let Err(problem) = scored {
                    *scores = Err(problem);
                }
            }
        });
        from = to;
    }
    Ok(scores)
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

/// Rows of one kind, ready for the model.
struct Batch {
    ids: Tensor, // [B, T]
    branches: Option<Branches>,
    /// Positions in B · T that predict something, and what fills them up; N in all.
    wanted: Tensor,
    /// Everything that is predicted, and at which of the positions.
    targets: Vec<(usize, Target)>,
    /// How many of the ids fill it up.
    padding: usize,
}

impl Batch {
    fn new(model: &dyn Model, items: &[Item], rows: &[Row], steady: Steady) -> Self {
        let device = model.device();
        let width = steady.length(rows.iter().map(|row| row.ids.len()).max().unwrap_or(0));
        let count = steady.sequences(rows.len(), width);
        let mut ids = Vec::with_capacity(count * width);
        let (mut positions, mut targets) = (Vec::new(), Vec::new());
        for (b, row) in rows.iter().enumerate() {
            ids.extend(&row.ids);
            // Padding on the right is seen by padding alone.
            ids.resize((b + 1) * width, 0);
            for target in row.targets(items) {
                let position = (b * width + target.place) as i64;
                if positions.last() != Some(&position) {
                    positions.push(position);
                }
                targets.push((positions.len() - 1, target));
            }
        }
        // What fills the batch, and the positions below, is read by nobody.
        ids.resize(count * width, 0);
        positions.resize(steady.rows(positions.len()), positions[0]);
        Self {
            ids: Tensor::from_slice(&ids).view([count as i64, width as i64]).to_device(device),
            branches: rows[0].forks().then(|| branches(rows, count, width, device)),
            wanted: Tensor::from_slice(&positions).to_device(device),
            targets,
            padding: count * width - rows.iter().map(|row| row.ids.len()).sum::<usize>(),
        }
    }

    fn input(&self) -> Input<'_> {
        Input { branches: self.branches.as_ref(), wanted: Some(&self.wanted), ..Input::of(&self.ids) }
    }

    /// Adds what an arm says of the batch to its scores.
    fn score(&self, model: &dyn Model, arm: &Arm, input: &Input, scores: &mut [Score]) -> Result<()> {
        tally::padding(self.padding);
        let ends = model.hidden(input, arm, None); // [N, H]
        let count = ends.size()[0] as usize;
        let vocabulary = model.config().vocab_size.max(1);
        let at_once = (LOGITS_AT_ONCE / vocabulary as usize).max(1).next_multiple_of(POSITIONS);
        let mut targets = self.targets.as_slice();
        for from in (0..count).step_by(at_once) {
            let length = at_once.min(count - from);
            let log_p = model.logits(&ends.narrow(0, from as i64, length as i64)).log_softmax(-1, Kind::Float); // [n, V]
            let best = log_p.argmax(-1, false);
            let (here, later) = targets.split_at(targets.partition_point(|(at, _)| *at < from + length));
            targets = later;
            let flat: Vec<i64> = here.iter().map(|(at, target)| (at - from) as i64 * vocabulary + target.id).collect();
            let picked = log_p.reshape([-1]).index_select(0, &Tensor::from_slice(&flat).to_device(ends.device()));
            let unreadable = |e| Problem::new(format!("cannot read the log-likelihoods: {e}"));
            let picked = Vec::<f64>::try_from(picked.to_kind(Kind::Double)).map_err(unreadable)?;
            let best = Vec::<i64>::try_from(best).map_err(unreadable)?;
            if picked.iter().any(|p| p.is_nan()) {
                return Err(Problem::new("the model's log-likelihoods are not numbers")
                    .help("its weights or its adapter's hold NaN or infinity, or overflow"));
            }
            for ((at, target), log_p) in here.iter().zip(picked) {
                let score = &mut scores[target.item];
                score.is_greedy &= best[at - from] == target.id;
                score.tokens.push(log_p);
                score.sum += log_p;
            }
        }
        Ok(())
    }
}

/// What sees what in rows that fork.
fn branches(rows: &[Row], count: usize, width: usize, device: Device) -> Branches {
    let mut positions = vec![0_i64; count * width];
    let mut sees = vec![false; count * width * width];
    for (b, square) in sees.chunks_mut(width * width).enumerate() {
        // What fills the batch is like its first row.
        let row = rows.get(b).unwrap_or(&rows[0]);
        row.sees(width, square);
        for (place, position) in positions[b * width..].iter_mut().zip(row.positions()) {
            *place = position as i64;
        }
    }
    let (b, t) = (count as i64, width as i64);
    Branches {
        positions: Tensor::from_slice(&positions).view([b, t]).to_device(device),
        sees: Tensor::from_slice(&sees).view([b, t, t]).to_device(device),
    }
}
