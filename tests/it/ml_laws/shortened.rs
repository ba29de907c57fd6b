//! What is not computed, or computed once for several: it changes nothing of what is left.
//! It does not know how much time that saves.

use pipe::error::Problem;
use pipe::ml::adapters::Arm;
use pipe::ml::generate::greedy;
use pipe::ml::models::{Branches, Input, KvCache, Model, load, load_to_read};
use pipe::ml::score::{log_likelihoods, log_likelihoods_of};
use pipe::ml::tokens::Tokens;
use pipe::ml::tokens::write::Writer;
use pipe::ml::tokens::{FORMAT, TokensInfo};
use tch::{Kind, Tensor};

use super::{LORA, MLP, arms, far, on_every_model, tokens, trained};

fn hidden(model: &dyn Model, arm: &Arm, input: &Input) -> Tensor {
    tch::no_grad(|| model.hidden(input, arm, None))
}

#[test]
fn wanted_positions_and_stretches_are_those_of_the_whole_pass() {
    on_every_model(|model, _| {
        let ids = tokens(&[&[1, 5, 9, 40, 0, 7], &[3, 3, 2, 11, 12, 13]]);
        let places = Tensor::from_slice(&[0i64, 4, 5, 11]);
        for yaml in arms() {
            let arm = trained(&yaml, model);
            let whole = hidden(model, &arm, &Input::of(&ids));
            let some = hidden(model, &arm, &Input { wanted: Some(&places), ..Input::of(&ids) });
            assert!(far(&some, &whole.flatten(0, 1).index_select(0, &places)) < 1e-5, "{yaml}");
            let lowest = arm.lowest_layer(model).unwrap();
            for at in 0..=lowest {
                // Below the lowest adapter the base does.
                let below = hidden(model, &Arm::none(), &Input { to: Some(at), ..Input::of(&ids) });
                let above = hidden(model, &arm, &Input { from: Some((at, &below)), ..Input::of(&ids) });
                assert!(above.equal(&whole), "{yaml} from block {at}");
            }
        }
        assert_eq!(trained(LORA, model).lowest_layer(model), Some(1));
        assert_eq!(Arm::none().lowest_layer(model), None);
    });
}

#[test]
fn a_few_wanted_positions_are_those_of_the_whole_pass_whatever_they_see() {
    on_every_model(|model, _| {
        let text = |first: i64, length: i64| (0..length).map(|i| (i * i + first) % 41).collect::<Vec<_>>();
        let ids = tokens(&[&text(1, 64), &text(2, 64), &text(3, 64)]);
        // Of unlike number in each row, one of them twice, and none in the second.
        let places = Tensor::from_slice(&[63_i64, 5, 130, 131, 63, 191]);
        let real = Tensor::ones([3, 64], (Kind::Bool, model.device()));
        let _ = real.get(0).narrow(0, 0, 4).fill_(0);
        let mut sees = vec![vec![false; 64]; 64];
        for (query, row) in sees.iter_mut().enumerate() {
            (0..=query).for_each(|key| row[key] = key < 40 || query < 50 || key >= 50);
        }
        let branches = Branches {
            positions: Tensor::cat(
                &[
                    Tensor::arange(50, (Kind::Int64, model.device())),
                    Tensor::arange_start(40, 54, (Kind::Int64, model.device())),
                ],
                0,
            )
            .expand([3, 64], false),
            sees: Tensor::from_slice(&sees.concat()).view([1, 64, 64]).expand([3, 64, 64], false),
        };
        for yaml in [LORA, MLP] {
            let arm = trained(yaml, model);
            let mut before = KvCache::default();
            let _ = tch::no_grad(|| model.hidden(&Input::of(&tokens(&[&text(7, 16)])), &arm, Some(&mut before)));
            let plain = Input::of(&ids);
            for input in [
                plain,
                Input { mask: Some(&real), ..plain },
                Input { after: Some(&before), ..plain },
                Input { branches: Some(&branches), ..plain },
                Input { branches: Some(&branches), after: Some(&before), ..plain },
            ] {
                let whole = hidden(model, &arm, &input).flatten(0, 1).index_select(0, &places);
                let some = hidden(model, &arm, &Input { wanted: Some(&places), ..input });
                assert!(far(&some, &whole) < 1e-5, "{yaml}");
                let in_cache = Input { branches: None, wanted: Some(&places), ..input };
                let whole =
                    hidden(model, &arm, &Input { wanted: None, ..in_cache }).flatten(0, 1).index_select(0, &places);
                let some = tch::no_grad(|| model.hidden(&in_cache, &arm, Some(&mut KvCache::default())));
                assert!(far(&some, &whole) < 1e-5, "{yaml}");
            }
        }
    });
}

#[test]
fn a_base_to_read_with_says_the_same_bits() {
    on_every_model(|model, folder| {
        let items: Vec<(Vec<i64>, Vec<i64>)> =
            (0..7).map(|i| ((0..3 + 9 * i).map(|k| (k * 5 + i) % 41).collect(), vec![i + 1, 2 * i])).collect();
        for yaml in [LORA, MLP] {
            let arm = trained(yaml, model);
            let scores = |model: &dyn Model| log_likelihoods(model, &arm, &items, 100, &mut |_| Ok(())).unwrap();
            let before = scores(model);
            let other = load_to_read(folder, model.device(), model.kind()).unwrap();
            assert_eq!(scores(other.as_ref()), before);
            // Who loads it now gets the matrices as they lie.
            assert_eq!(scores(load(folder, model.device(), model.kind()).unwrap().as_ref()), before);
            let weights = [model.weights(), other.weights()];
            assert!(weights[0].iter().zip(&weights[1]).all(|((a, one), (b, other))| a == b && one.equal(other)));
            assert!(weights[1].values().any(|tensor| !tensor.is_contiguous()));
        }
    });
}

#[test]
fn texts_that_share_their_beginning_are_those_alone() {
    on_every_model(|model, _| {
        let arm = trained(LORA, model);
        // 1 5 9 40 with 0 7, and with 2.
        let ids = tokens(&[&[1, 5, 9, 40, 0, 7, 2]]);
        let mut sees = [[false; 7]; 7];
        for (q, row) in sees.iter_mut().enumerate() {
            (0..=q).for_each(|k| row[k] = q < 6 || k < 4 || k == 6);
        }
        let branches = Branches {
            positions: tokens(&[&[0, 1, 2, 3, 4, 5, 4]]),
            sees: Tensor::from_slice(sees.as_flattened()).view([1, 7, 7]),
        };
        let both = hidden(model, &arm, &Input { branches: Some(&branches), ..Input::of(&ids) });
        let first = hidden(model, &arm, &Input::of(&tokens(&[&[1, 5, 9, 40, 0, 7]])));
        let second = hidden(model, &arm, &Input::of(&tokens(&[&[1, 5, 9, 40, 2]])));
        assert!(far(&both.narrow(1, 0, 6), &first) < 1e-5);
        assert!(far(&both.narrow(1, 6, 1), &second.narrow(1, 4, 1)) < 1e-5);
    });
}

#[test]
fn a_context_with_many_continuations_scores_as_each_alone() {
    on_every_model(|model, _| {
        let context: Vec<i64> = (0..11).map(|i| (i * 7) % 41).collect();
        let answers: [&[i64]; 6] = [&[40, 2], &[3, 2, 9], &[3, 5], &[7], &[3, 2, 9, 11, 12, 1, 0, 8], &[40, 2]];
        let items: Vec<_> = answers.iter().map(|answer| (context.clone(), answer.to_vec())).collect();
        let arm = trained(LORA, model);
        let together = log_likelihoods(model, &arm, &items, usize::MAX, &mut |_| Ok(())).unwrap();
        for (item, together) in items.iter().zip(&together) {
            let alone = log_likelihoods(model, &arm, std::slice::from_ref(item), 1, &mut |_| Ok(())).unwrap().remove(0);
            assert_eq!(together.tokens.len(), item.1.len());
            assert_eq!(alone.is_greedy, together.is_greedy);
            for (a, b) in alone.tokens.iter().zip(&together.tokens) {
                assert!((a - b).abs() < 1e-4, "{alone:?} {together:?}");
            }
        }
        // In another order, in other batches: the same bits.
        let backwards: Vec<_> = items.iter().rev().cloned().collect();
        let again = log_likelihoods(model, &arm, &backwards, 1, &mut |_| Ok(())).unwrap();
        assert_eq!(again.into_iter().rev().collect::<Vec<_>>(), together);
    });
}

#[test]
fn arms_scored_together_score_as_each_alone() {
    on_every_model(|model, _| {
        let items: Vec<(Vec<i64>, Vec<i64>)> =
            (0..7).map(|i| ((0..3 + i).map(|k| (k * 5 + i) % 41).collect(), vec![i + 1, 2 * i])).collect();
        let some = [Arm::none(), trained(LORA, model), trained("mlp: { hidden_size: 4, layers: [2] }", model)];
        let some: Vec<&Arm> = some.iter().collect();
        for arms in [&some[..], &some[1..], &some[..1]] {
            let together = log_likelihoods_of(model, arms, &items, 40, &mut |_, _| Ok(())).unwrap();
            for (arm, together) in arms.iter().zip(together) {
                assert_eq!(log_likelihoods(model, arm, &items, 40, &mut |_| Ok(())), together);
            }
        }
    });
}

#[test]
fn an_arm_that_ends_early_leaves_the_others_to_themselves() {
    on_every_model(|model, _| {
        let items: Vec<(Vec<i64>, Vec<i64>)> = (0..7).map(|i| (vec![i + 1, 3], vec![i + 2, 2 * i])).collect();
        let arms = [trained("mlp: { hidden_size: 4, layers: [2] }", model), Arm::none(), trained(LORA, model)];
        let arms: Vec<&Arm> = arms.iter().collect();
        let mut told = [0; 3];
        let mut tell = |arm: usize, finished: usize| {
            told[arm] = finished;
            if arm == 1 { Err(Problem::cancelled()) } else { Ok(()) }
        };
        let together = log_likelihoods_of(model, &arms, &items, 20, &mut tell).unwrap();
        assert!(together[1].as_ref().is_err_and(|problem| problem.cancelled));
        assert!(told[0] == 7 && told[1] < 7 && told[2] == 7, "{told:?}");
        for at in [0, 2] {
            assert_eq!(log_likelihoods(model, arms[at], &items, 20, &mut |_| Ok(())), together[at]);
        }
        // With all of them ended, nothing more is computed.
        let mut calls = 0;
        let mut end = |_: usize, _: usize| {
            calls += 1;
            Err(Problem::cancelled())
        };
        let none = log_likelihoods_of(model, &arms, &items, 1, &mut end).unwrap();
        assert!(none.iter().all(Result::is_err));
        assert_eq!(calls, 3);
    });
}

#[test]
fn rows_that_come_and_go_answer_as_alone() {
    on_every_model(|model, _| {
        let arm = trained(MLP, model);
        let prompts: Vec<Vec<i64>> =
            [3, 17, 40, 1, 18, 2, 33, 5].iter().map(|&n| (0..n).map(|i| (i * i + n) % 41).collect()).collect();
        let run = |stop: &[i64], batch| greedy(model, &arm, &prompts, 10, stop, batch, &mut |_| Ok(())).unwrap();
        let free = run(&[], 1);
        let stops = [free[1].ids[2], free[4].ids[5], free[2].ids[0]];
        let alone = run(&stops, 1);
        assert!(alone.iter().any(|answer| answer.stopped) && alone.iter().any(|answer| answer.ids.len() > 2));
        // Room for two or three of them, for all, and what is left of it for others when some are done.
        for batch in [30, 60, 100, usize::MAX] {
            assert_eq!(run(&stops, batch), alone, "{batch}");
            assert_eq!(run(&[], batch), free, "{batch}");
        }
        let told = std::cell::RefCell::new(Vec::new());
        let mut tell = |finished| {
            told.borrow_mut().push(finished);
            Ok(())
        };
        greedy(model, &arm, &prompts, 10, &stops, 60, &mut tell).unwrap();
        assert!(told.borrow().is_sorted());
        assert_eq!(told.borrow().last(), Some(&prompts.len()));
    });
}

#[test]
fn a_beginning_that_all_share_changes_nothing_of_what_follows() {
    on_every_model(|model, _| {
        let arms =
            [Arm::none(), trained("lora: { rank: 2, alpha: 5, target_modules: all-linear, layers: [1, 2] }", model)];
        let beginning: Vec<i64> = (0..70).map(|i| (i * i + 3) % 41).collect();
        let prompts: Vec<Vec<i64>> = [3, 20, 1]
            .iter()
            .map(|&n| beginning.iter().copied().chain((0..n).map(|i| (i + n) % 41)).collect())
            .collect();
        let items: Vec<_> = prompts
            .iter()
            .flat_map(|prompt| [vec![4, 5], vec![6, 7, 8]].map(|answer| (prompt.clone(), answer)))
            .collect();
        for arm in &arms {
            let together = greedy(model, arm, &prompts, 6, &[], 200, &mut |_| Ok(())).unwrap();
            for (prompt, together) in prompts.iter().zip(&together) {
                let alone = greedy(model, arm, std::slice::from_ref(prompt), 6, &[], 200, &mut |_| Ok(())).unwrap();
                assert_eq!(&alone[0], together);
            }
            let scores = log_likelihoods(model, arm, &items, 100, &mut |_| Ok(())).unwrap();
            for (item, score) in items.iter().zip(&scores) {
                let alone = log_likelihoods(model, arm, std::slice::from_ref(item), 100, &mut |_| Ok(())).unwrap();
                assert!((alone[0].sum - score.sum).abs() < 2e-4, "{alone:?} {score:?}");
            }
            // The same bits in any batch and order.
            let turned: Vec<_> = items.iter().rev().cloned().collect();
            let again = log_likelihoods(model, arm, &turned, 1, &mut |_| Ok(())).unwrap();
            assert_eq!(again.into_iter().rev().collect::<Vec<_>>(), scores);
        }
        let both: Vec<&Arm> = arms.iter().collect();
        let together = log_likelihoods_of(model, &both, &items, 100, &mut |_, _| Ok(())).unwrap();
        for (arm, together) in both.iter().zip(together) {
            assert_eq!(log_likelihoods(model, arm, &items, 100, &mut |_| Ok(())), together);
        }
    });
}

/// Rows of unlike length, with answers of one id and of several.
pub(super) fn rows() -> Tokens {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(folder.path()).unwrap();
    for row in 0..6 {
        let ids: Vec<i32> = (0..5 + row).map(|i| (i * 3 + row) % 41).collect();
        writer.push(&ids, 3 + (row as usize % 3)).unwrap();
    }
    let info = TokensInfo {
        format: FORMAT.to_owned(),
        task: "text".to_owned(),
        prompt: String::new(),
        vocab_size: 41,
        rows: 6,
        tokens: (0..6).map(|row| 5 + row).sum(),
        target_tokens: (0..6).map(|row| 5 + row - (3 + row % 3)).sum(),
        truncated: 0,
        longest: 10,
        tokenizer: String::new(),
    };
    writer.finish(&info).unwrap();
    Tokens::read(folder.path()).unwrap()
}
