//! Ids that are guessed and read several at a time: they change no answer, and no row knows of its neighbours' guesses.
//! It does not know how much time that saves.

use pipe::error::Result;
use pipe::ml::adapters::Arm;
use pipe::ml::device::use_threads;
use pipe::ml::generate::{Generated, Stop, greedy, greedy_until};
use pipe::ml::models::{Input, KvCache, Model};
use pipe::ml::steady::Steady;
use rand::RngExt;
use tch::Tensor;

use super::{LORA, MLP, arms, far, on_every_model, rng, run, tokens, trained};

/// Texts of unlike length that repeat themselves here and there.
fn prompts() -> Vec<Vec<i64>> {
    let mut rng = rng();
    let text = |length: usize| {
        let mut text: Vec<i64> = Vec::new();
        while text.len() < length {
            if text.len() > 4 && rng.random_bool(0.4) {
                let from = rng.random_range(0..text.len() - 3);
                text.extend_from_within(from..(from + rng.random_range(3..9)).min(text.len()));
            } else {
                text.push(rng.random_range(0..41));
            }
        }
        text
    };
    [3, 40, 17, 1, 60, 18, 33, 5, 25].into_iter().map(text).collect()
}

/// The answers, and in how many passes they came.
fn answers(model: &dyn Model, arm: &Arm, prompts: &[Vec<i64>], new: usize, batch: usize) -> (Vec<Generated>, usize) {
    let mut passes = 0;
    let mut count = |finished| {
        passes += usize::from(finished < prompts.len());
        Ok(())
    };
    let answers = greedy(model, arm, prompts, new, &[], batch, &mut count).unwrap();
    (answers, passes)
}

#[test]
fn guesses_change_no_answer_and_save_passes() {
    // One half of the prompts after the other, so that passes can be counted.
    use_threads(1);
    on_every_model(|model, _| {
        let guessed = model.config().attention.window.is_none() && model.config().attention.softcap.is_none();
        let prompts = &prompts()[..4];
        let mut saved = 0;
        for yaml in arms() {
            let arm = trained(&yaml, model);
            let (ours, passes) = answers(model, &arm, prompts, 20, usize::MAX);
            for (prompt, ours) in prompts.iter().zip(&ours) {
                let mut whole = prompt.clone();
                for _ in 0..20 {
                    let logits = run(model, &arm, &tokens(&[&whole]), None, None);
                    whole.push(logits.select(1, -1).argmax(-1, false).int64_value(&[0]));
                }
                assert_eq!(whole[prompt.len()..], ours.ids, "{yaml}");
            }
            // In each half, the first ids come with the prompts of each of two widths; and the end of the first is told.
            saved += (21 + 1 + 21) - passes.min(43);
        }
        assert_eq!(saved > 0, guessed);
    });
}

#[test]
fn rows_that_guess_answer_as_alone_and_end_where_they_end() {
    // What other tests ask for would count otherwise.
    use_threads(2);
    on_every_model(|model, _| {
        for (yaml, ends) in [(LORA, &[0, 9][..]), (MLP, &[1, 2, 5, 14, 23, 29])] {
            let (arm, prompts) = (trained(yaml, model), prompts());
            let (free, _) = answers(model, &arm, &prompts, 30, 1);
            for batch in [100, 250, usize::MAX] {
                assert_eq!(answers(model, &arm, &prompts, 30, batch).0, free, "{batch}");
            }
            let turned: Vec<_> = prompts.iter().rev().cloned().collect();
            let back: Vec<_> = answers(model, &arm, &turned, 30, 250).0.into_iter().rev().collect();
            assert_eq!(back, free);
            // Wherever an answer ends, be it within a guess, it is the beginning of the free one.
            for &end in ends {
                let cut: Vec<Vec<i64>> = free.iter().map(|answer| answer.ids[..end].to_vec()).collect();
                let limited = answers(model, &arm, &prompts, end, 250).0;
                assert_eq!(limited.into_iter().map(|answer| answer.ids).collect::<Vec<_>>(), cut);
                let stop = free[end % free.len()].ids[end];
                let ended = |ids: &[i64]| Ok(ids.len() == end + 1);
                let stops = [Stop { ids: &[stop], ended: &|_| Ok(false) }, Stop { ids: &[], ended: &ended }];
                for stop in &stops {
                    let run = greedy_until(model, &arm, &prompts, 30, stop, 250, &mut |_| Ok(())).unwrap();
                    for (free, ours) in free.iter().zip(run) {
                        assert_eq!(ours, expected(free, stop).unwrap());
                    }
                }
            }
        }
    });
}

/// What is left of an answer that nothing ended.
fn expected(free: &Generated, stop: &Stop) -> Result<Generated> {
    for at in 0..free.ids.len() {
        if stop.ids.contains(&free.ids[at]) {
            return Ok(Generated { ids: free.ids[..at].to_vec(), stopped: true });
        }
        if (stop.ended)(&free.ids[..=at])? {
            return Ok(Generated { ids: free.ids[..=at].to_vec(), stopped: true });
        }
    }
    Ok(free.clone())
}

/// Two rows in a part and one in another, of 16 and 32 places, go on by these counts, and forget some.
const PASSES: [([i64; 3], [i64; 3]); 6] = [
    ([1, 1, 1], [0, 0, 0]),
    ([3, 1, 2], [1, 0, 0]),
    ([1, 8, 1], [0, 3, 0]),
    ([5, 1, 7], [4, 0, 6]),
    ([1, 4, 1], [0, 0, 0]),
    ([2, 2, 2], [0, 1, 0]),
];

/// Hidden states of some of those rows, all passes of each behind each other.
fn read(model: &dyn Model, rows: &[usize]) -> Vec<Tensor> {
    let steady = Steady::of(model, 0);
    let text = |row: usize, at: i64| (at * at + 3 * at + row as i64) % 41;
    let mut cache = KvCache::default();
    for part in
        [rows.iter().filter(|row| **row < 2).collect::<Vec<_>>(), rows.iter().filter(|row| **row == 2).collect()]
    {
        let Some(&&first) = part.first() else { continue };
        let width = if first < 2 { 16 } else { 32 };
        let padding = |row: usize| 3 + row as i64;
        let each = |of: &dyn Fn(usize, i64) -> i64| {
            let cells = part.iter().flat_map(|row| (0..width).map(|at| of(**row, at))).collect::<Vec<_>>();
            Tensor::from_slice(&cells).view([part.len() as i64, width])
        };
        let ids = each(&|row, at| if at < padding(row) { 0 } else { text(row, at - padding(row)) });
        let mask = each(&|row, at| i64::from(at >= padding(row))).ne(0);
        let mut new = KvCache::default();
        let _ = model.hidden(&Input { mask: Some(&mask), ..Input::of(&ids) }, &Arm::none(), Some(&mut new));
        cache.append(new);
    }
    let mut read: Vec<i64> = rows.iter().map(|&row| if row < 2 { 13 - row as i64 } else { 27 }).collect();
    let mut states: Vec<Vec<Tensor>> = rows.iter().map(|_| Vec::new()).collect();
    for (counts, wrong) in PASSES {
        let [counts, wrong] = [counts, wrong].map(|all| rows.iter().map(|&row| all[row]).collect::<Vec<i64>>());
        let mut ids = Vec::new();
        for ((&row, &read), &count) in rows.iter().zip(&read).zip(&counts) {
            ids.extend((read..read + count).map(|at| text(row, at)));
        }
        ids.resize(steady.rows(ids.len()), 0);
        let ids = Tensor::from_slice(&ids).unsqueeze(1);
        let hidden = model.hidden(&Input { counts: Some(&counts), ..Input::of(&ids) }, &Arm::none(), Some(&mut cache));
        cache.forget(&wrong);
        let mut first = 0;
        for (row, &count) in counts.iter().enumerate() {
            states[row].push(hidden.narrow(0, first, count).squeeze_dim(1));
            first += count;
            read[row] += count - wrong[row];
        }
    }
    states.into_iter().map(|states| Tensor::cat(&states, 0)).collect()
}

#[test]
fn rows_that_go_on_by_unlike_many_ids_are_the_same_bits_alone_and_the_text_read_at_once() {
    // What other tests ask for would count otherwise.
    use_threads(2);
    on_every_model(|model, _| {
        tch::no_grad(|| {
            let together = read(model, &[0, 1, 2]);
            for (row, states) in together.iter().enumerate() {
                assert!(read(model, &[row])[0].equal(states), "row {row} beside others is another");
            }
            for pair in [[0, 1], [1, 2], [0, 2]] {
                for (row, states) in pair.into_iter().zip(read(model, &pair)) {
                    assert!(states.equal(&together[row]), "row {row} in {pair:?} is another");
                }
            }
            // Ids that are forgotten are read again.
            for (row, states) in together.iter().enumerate() {
                let mut places = Vec::new();
                let mut read = if row < 2 { 13 - row as i64 } else { 27 };
                for (counts, wrong) in PASSES {
                    places.extend(read..read + counts[row]);
                    read += counts[row] - wrong[row];
                }
                let text: Vec<i64> = (0..60).map(|at| (at * at + 3 * at + row as i64) % 41).collect();
                let whole = model.hidden(&Input::of(&tokens(&[&text])), &Arm::none(), None);
                let right = whole.squeeze_dim(0).index_select(0, &Tensor::from_slice(&places));
                assert!(far(states, &right) < 2e-4, "{}", far(states, &right));
            }
        });
    });
}
