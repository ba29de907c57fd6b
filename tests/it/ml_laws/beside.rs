//! Two threads that compute beside each other: what comes out is what one thread gives, bit for bit.
//! It does not know how much faster they are.

use pipe::error::Problem;
use pipe::ml::adapters::Arm;
use pipe::ml::device::use_threads;
use pipe::ml::generate::{Stop, greedy, greedy_until};
use pipe::ml::models::Model;
use pipe::ml::score::{Score, log_likelihoods_of};
use pipe::ml::tally;
use pipe::ml::tokens::Tokens;
use pipe::ml::train::adamw::AdamWOptions;
use pipe::ml::train::arms::{Recipe, train_arm};
use pipe::ml::train::batch::{Length, Limits, Plan};
use pipe::ml::train::curve::Point;
use pipe::ml::train::memory::Memory;
use pipe::ml::train::schedule::Schedule;
use pipe::ml::train::{Fit, Watch};
use pipe::step::stream;
use tch::{Kind, Tensor};

use super::shortened::rows;
use super::{LORA, Silent, arms, fresh_arm, on_every_model, trained};

/// Texts of unlike length, some of which share their context; one is as long as the others together.
fn items() -> Vec<(Vec<i64>, Vec<i64>)> {
    let text = |length: i64, i: i64| (0..length).map(|k| (k * 5 + i) % 41).collect::<Vec<_>>();
    (0..12).map(|i| (text(3 + i / 2 * 5, i / 2), vec![i + 1, 2 * i])).collect()
}

fn scored(model: &dyn Model, arms: &[&Arm], threads: usize) -> (Vec<Vec<Score>>, tally::Work) {
    use_threads(threads);
    let _ = tally::take();
    let mut work = tally::Work::default();
    let mut told = |_, _| {
        let new = tally::take();
        work.ids += new.ids;
        work.flop += new.flop;
        work.padding += new.padding;
        Ok(())
    };
    let scores = log_likelihoods_of(model, arms, &items(), 80, &mut told).unwrap();
    assert_eq!(tally::take(), tally::Work::default(), "work that nobody was told of");
    (scores.into_iter().map(Result::unwrap).collect(), work)
}

#[test]
fn two_threads_score_as_one_and_count_the_same_work() {
    on_every_model(|model, _| {
        let some = [Arm::none(), trained(LORA, model), trained("mlp: { hidden_size: 4, layers: [2] }", model)];
        let some: Vec<&Arm> = some.iter().collect();
        let (one, work) = scored(model, &some, 1);
        // The third has nothing to do: halves are equal.
        for threads in [2, 3] {
            let (other, same) = scored(model, &some, threads);
            assert_eq!((&one, work), (&other, same), "{threads} threads");
        }
        // Two threads for each half: it does not matter which of them reads what.
        let four = scored(model, &some, 4);
        for _ in 0..3 {
            assert_eq!(four, scored(model, &some, 4));
        }
    });
}

#[test]
fn an_end_on_the_way_ends_both_threads() {
    on_every_model(|model, _| {
        use_threads(2);
        let mut calls = 0;
        let ended = log_likelihoods_of(model, &[&Arm::none()], &items(), 2, &mut |_, _| {
            calls += 1;
            Err(Problem::cancelled())
        });
        assert!(ended.unwrap()[0].as_ref().is_err_and(|problem| problem.cancelled));
        assert_eq!(calls, 1);
    });
}

/// Four steps of four micro-batches and of two.
fn learned(model: &dyn Model, yaml: &str, memory: Memory, threads: usize, watch: &mut dyn Watch) -> Learned {
    use_threads(threads);
    let tokens: Tokens = rows();
    let lengths: Vec<usize> = (0..tokens.rows()).map(|row| tokens.row(row).len()).collect();
    let limits = Limits { rows: 1, tokens: None };
    let plan = Plan::new(&lengths, limits, 4, Length::Steps(4), |epoch| stream(1, &epoch.to_string())).unwrap();
    let fit = Fit { lr: 0.01, schedule: Schedule::Constant, schedule_steps: 4, warmup: 0, steps: 4, clip: Some(1.0) };
    let adamw = AdamWOptions { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0 };
    let arm = fresh_arm(yaml, model);
    let curve = train_arm(model, &arm, &tokens, &plan, &Recipe { fit, adamw, seed: 3, memory }, watch)
        .map_err(|problem| problem.to_string())?;
    let values: Vec<Tensor> = arm.parameters().iter().map(|(_, t)| t.detach().reshape([-1])).collect();
    let values = Vec::<f64>::try_from(Tensor::cat(&values, 0).to_kind(Kind::Double)).unwrap();
    Ok((values, curve.points))
}

/// The tensors and the curve.
type Learned = Result<(Vec<f64>, Vec<Point>), String>;

#[test]
fn two_threads_learn_what_one_learns() {
    on_every_model(|model, _| {
        for yaml in arms() {
            let learn = |threads, memory| learned(model, &yaml, memory, threads, &mut Silent).unwrap();
            let one = learn(1, Memory::Normal);
            assert_eq!(one, learn(2, Memory::Normal), "{yaml}");
            assert_eq!(one, learn(2, Memory::Low), "{yaml}");
        }
    });
}

/// Ends a run before one of its pairs of micro-batches.
struct EndAt(usize);

impl Watch for EndAt {
    fn check(&mut self) -> pipe::error::Result<()> {
        self.0 -= 1;
        if self.0 == 0 { Err(Problem::cancelled()) } else { Ok(()) }
    }
}

#[test]
fn a_run_of_two_threads_ends_when_it_is_told() {
    on_every_model(|model, _| {
        for at in 1..5 {
            assert!(learned(model, LORA, Memory::Normal, 2, &mut EndAt(at)).is_err());
        }
    });
}

#[test]
fn two_threads_answer_as_one_count_the_same_work_and_end_together() {
    on_every_model(|model, _| {
        let arm = trained(LORA, model);
        let prompts: Vec<Vec<i64>> = items().into_iter().step_by(2).map(|(context, _)| context).collect();
        let answered = |threads: usize| {
            use_threads(threads);
            let _ = tally::take();
            let (mut work, mut seen) = (tally::Work::default(), Vec::new());
            let mut told = |finished| {
                let new = tally::take();
                work.ids += new.ids;
                work.flop += new.flop;
                work.padding += new.padding;
                seen.push(finished);
                Ok(())
            };
            let answers = greedy(model, &arm, &prompts, 9, &[], 300, &mut told).unwrap();
            assert_eq!(tally::take(), tally::Work::default(), "work that nobody was told of");
            assert!(seen.is_sorted() && seen.last() == Some(&prompts.len()), "{seen:?}");
            (answers, work)
        };
        assert_eq!(answered(1), answered(2));
        // Both halves end with the first error, wherever it comes from.
        use_threads(2);
        let cancelled = greedy(model, &arm, &prompts, 9, &[], 300, &mut |_| Err(Problem::cancelled()));
        assert!(cancelled.unwrap_err().cancelled);
        for half in 0..2 {
            let fails = &answered(2).0[half].ids[..3];
            let ended = |ids: &[i64]| if ids == fails { Err(Problem::new("no words")) } else { Ok(false) };
            let stop = Stop { ids: &[], ended: &ended };
            let failed = greedy_until(model, &arm, &prompts, 9, &stop, 300, &mut |_| Ok(()));
            assert_eq!(failed.unwrap_err().to_string(), Problem::new("no words").to_string());
        }
    });
}
