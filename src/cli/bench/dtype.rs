//! `pipe bench --dtype`: which precision of the base is faster for a step here, and keeping the answer for `dtype: auto`.
//! It does not know what steps do with it.

use serde_json::{Value, json};

use super::{Args, Bench, span};
use crate::error::{Problem, Result};
use crate::exec;
use crate::ml::config::ModelConfig;
use crate::spec::Step;
use crate::step::AnyStep;
use crate::store::{Choice, Precision};
use crate::ui;

/// Each precision is measured so often, by turns.
const ROUNDS: usize = 3;
/// A training is measured for so long each time, in seconds, if nothing else is said.
const SECONDS: f64 = 4.0;

const BOTH: [Precision; 2] = [Precision::F32, Precision::Bf16];

/// What was measured.
struct Compared {
    /// Ids a second of each round, in f32 and in bf16.
    rates: [Vec<f64>; 2],
}

impl Compared {
    /// bf16 over f32, round by round: the middle, the lowest, the highest.
    fn ratio(&self) -> (f64, f64, f64) {
        let [f32, bf16] = &self.rates;
        spread(&f32.iter().zip(bf16).map(|(f32, bf16)| bf16 / f32).collect::<Vec<_>>())
    }

    /// The one that was faster in every round.
    fn faster(&self) -> Option<Precision> {
        match self.ratio() {
            (_, low, _) if low > 1.0 => Some(Precision::Bf16),
            (_, _, high) if high < 1.0 => Some(Precision::F32),
            _ => None,
        }
    }
}

/// The middle of some numbers, the lowest and the highest.
fn spread(numbers: &[f64]) -> (f64, f64, f64) {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.first().copied().unwrap_or(0.0), sorted.last().copied().unwrap_or(0.0));
    let middle = sorted.get(sorted.len() / 2).copied().unwrap_or(0.0);
    (middle, low, high)
}

/// Fails if there is nothing to choose.
pub fn check(step: &Step) -> Result<()> {
    with(step, Precision::F32).map(drop)
}

/// Measures, tells, and keeps the answer if that is asked for and there is one.
pub fn run(args: &Args, bench: &Bench, step: &Step) -> Result<()> {
    let machine = bench.decider.machine;
    let actions = BOTH.map(|precision| with(step, precision));
    let [Ok(f32), Ok(bf16)] = actions else {
        return Err(actions.into_iter().find_map(Result::err).unwrap_or_else(|| Problem::new("it cannot be measured")));
    };
    let inputs = bench.decider.artifacts(bench.position, &bench.records);
    let base = inputs.get("model").and_then(|all| all.first());
    let base = base.ok_or_else(|| Problem::new(format!("`{}` has no base at an input `model`", step.id)))?;
    let shape = ModelConfig::read(&base.path)?.shape();
    let threads = machine.threads(step.action.share());
    let processor = exec::processor(machine);
    if args.keep && processor.is_none() {
        return Err(Problem::new("the system does not tell what this processor is, so nothing can be kept for it")
            .help("say `dtype: f32` or `dtype: bf16` in the pipeline"));
    }
    let mut wanted = span(args, step);
    wanted.seconds = wanted.seconds.map(|_| SECONDS);
    let mut compared = Compared { rates: [Vec::new(), Vec::new()] };
    for round in 0..ROUNDS {
        for (at, action) in [&f32, &bf16].into_iter().enumerate() {
            if !args.json {
                ui::err(&format!("round {} of {ROUNDS}, {}", round + 1, BOTH[at].name()));
            }
            let outcome = bench.run(&**action, wanted, false)?;
            let measured = outcome.measured.filter(|measured| measured.work.flop > 0);
            let measured =
                measured.ok_or_else(|| Problem::new(format!("`{}` computes nothing with a model", step.id)))?;
            compared.rates[at].push(measured.work.ids as f64 / measured.seconds.max(1e-9));
            // All do what the first one did.
            if wanted.seconds.take().is_some() {
                wanted.pieces = Some(measured.pieces);
            }
        }
    }
    let [(f32, ..), (bf16, ..)] = compared.rates.each_ref().map(|rates| spread(rates));
    let faster = compared.faster();
    let kept = match (faster, processor.clone(), args.keep) {
        (Some(dtype), Some(processor), true) => {
            let (step, shape) = (format!("{} ({})", step.id, step.kind.name()), shape.clone());
            bench.decider.store.keep_dtype(Choice { processor, threads, shape, dtype, step, f32, bf16 })?;
            true
        }
        _ => false,
    };
    if args.json {
        let mut told = json(&compared, kept);
        told["step"] = json!(step.id);
        told["processor"] = json!(processor);
        told["threads"] = json!(threads);
        told["shape"] = json!(shape);
        ui::out(&told.to_string());
    } else {
        let head = format!("{} ({}): {}, {}", step.id, step.kind.name(), machine.device, ui::count(threads, "thread"));
        ui::out(&head);
        lines(&compared, args.keep, kept).iter().for_each(|line| ui::out(&format!("  {line}")));
    }
    Ok(())
}

/// The step with another precision than it says.
fn with(step: &Step, precision: Precision) -> Result<Box<dyn AnyStep>> {
    let mut params = step.action.params();
    let Some(dtype) = params.get_mut("dtype") else {
        return Err(Problem::new(format!(
            "`{}` has no `dtype` to choose: its kind is `{}`",
            step.id,
            step.kind.name()
        )));
    };
    *dtype = precision.name().into();
    step.kind.parse(&params).map_err(|problems| {
        problems.into_iter().next().unwrap_or_else(|| Problem::new("its parameters cannot be read again"))
    })
}

fn json(compared: &Compared, kept: bool) -> Value {
    let (middle, low, high) = compared.ratio();
    let [f32, bf16] = &compared.rates;
    json!({
        "f32": {"ids_per_second": spread(f32).0, "rounds": f32},
        "bf16": {"ids_per_second": spread(bf16).0, "rounds": bf16},
        "ratio": {"middle": middle, "low": low, "high": high},
        "faster": compared.faster().map(Precision::name),
        "kept": kept,
    })
}

fn lines(compared: &Compared, asked: bool, kept: bool) -> Vec<String> {
    let grouped = |rate: f64| ui::grouped(rate.round() as u64);
    let rates = BOTH.iter().zip(&compared.rates).map(|(precision, rates)| {
        let (middle, low, high) = spread(rates);
        format!("{:5} {:>12} ids/s   {}-{}", precision.name(), grouped(middle), grouped(low), grouped(high))
    });
    let (middle, low, high) = compared.ratio();
    let mut lines: Vec<String> = rates.collect();
    lines.push(format!(
        "{:5} {middle:>12.2}         {low:.2}-{high:.2}, bf16 over f32, {ROUNDS} rounds by turns",
        "ratio"
    ));
    lines.push(match (compared.faster(), kept, asked) {
        (None, ..) => "neither is faster in every round: nothing is kept, `dtype: auto` stays as it is".to_owned(),
        (Some(one), true, _) => format!("`dtype: auto` is {} for this base here from now on", one.name()),
        (Some(one), false, _) => {
            format!(
                "{} is faster; `--keep` measures it again and lets `dtype: auto` be that for this base here",
                one.name()
            )
        }
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_faster_every_time_is_no_answer() {
        let of = |f32: [f64; 3], bf16: [f64; 3]| Compared { rates: [f32.to_vec(), bf16.to_vec()] };
        let clear = of([100.0, 50.0, 100.0], [120.0, 55.0, 130.0]);
        assert_eq!((clear.faster(), clear.ratio()), (Some(Precision::Bf16), (1.2, 1.1, 1.3)));
        assert_eq!(of([100.0; 3], [99.0, 101.0, 120.0]).faster(), None);
        assert_eq!(of([100.0; 3], [99.0, 80.0, 70.0]).faster(), Some(Precision::F32));
        assert_eq!(of([100.0; 3], [100.0; 3]).faster(), None);
    }
}
