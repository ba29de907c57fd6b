//! Intervals, tests and verdicts of a task, from the records of its arms.
//! It does not know how they are told.

use std::collections::{BTreeMap, BTreeSet};

use rand_chacha::ChaCha8Rng;

use super::Params;
use super::assemble::Results;
use crate::error::{Problem, Result};
use crate::metric::sums::Figure;
use crate::report::clusters::{Clusters, is_right};
use crate::report::comparison::{Arm, BASE, Task};
use crate::report::evidence::{Discordant, Equivalence, Interval, Test};
use crate::report::results::Record;
use crate::report::verdicts::is_effective;
use crate::statistics::bootstrap::{self, below};
use crate::statistics::table::Table;
use crate::statistics::verdict::{Evidence, verdict};
use crate::statistics::{correction, equivalence, mcnemar, power, randomisation};

/// The power at which a difference counts as detectable.
const POWER: f64 = 0.8;

/// An arm with what is resampled of it: a table for each seed.
struct Sampled<'a> {
    name: &'a str,
    /// False if its certificate says that it does nothing.
    acts: bool,
    tables: Vec<Table>,
    records: &'a [Record],
}

/// Adds clusters, intervals and tests to a task. Nothing is added where there is nothing to resample: fewer than two
/// clusters, or figures that do not follow from the records.
pub fn infer(
    params: &Params,
    margin: f64,
    task: &mut Task,
    arms: &[Arm],
    by_arm: &BTreeMap<&str, Results>,
) -> Result<()> {
    let mut sampled = Vec::new();
    for arm in arms {
        let Some(results) = by_arm.get(arm.name.as_str()) else { continue };
        let tables = results.iter().map(|one| Table::new(&Clusters::of(&one.result, |_| true).rows));
        sampled.push(Sampled {
            name: &arm.name,
            acts: is_effective(arm),
            tables: tables.collect::<Result<_>>()?,
            records: &results[0].result.records,
        });
    }
    let figures: Vec<Figure> =
        task.metrics().into_iter().map(|metric| Figure { average: task.average_of(&metric), metric }).collect();
    let Some(base) = by_arm.get(BASE).map(|results| &results[0].result) else { return Ok(()) };
    let clusters = sampled.first().map_or(0, |arm| arm.tables[0].rows());
    let defined =
        |arm: &Sampled| arm.tables.iter().all(|table| figures.iter().all(|figure| figure.of(&table.total()).is_some()));
    let Some(main) = figures.iter().position(|figure| figure.metric == task.metric) else { return Ok(()) };
    if clusters < 2 || !sampled.iter().all(defined) {
        return Ok(());
    }
    if sampled.iter().flat_map(|arm| &arm.tables).any(|table| table.rows() != clusters) {
        return Err(Problem::new(format!("the arms have other clusters on the task `{}`", task.id)));
    }
    task.clusters = Some((base.clustered_by.to_owned(), clusters as u64));

    let replicates = replicates(params, &sampled, &figures);
    let of = |arm: usize, figure: usize| -> Vec<f64> {
        replicates.iter().map(|draw| draw[arm * figures.len() + figure]).collect()
    };
    for (at, arm) in sampled.iter().enumerate() {
        for (which, figure) in figures.iter().enumerate() {
            let single = |sums: &[&[f64]]| figure.of(sums[0]).unwrap_or(f64::NAN);
            let interval = interval(params, &of(at, which), &[arm], &single);
            task.intervals.entry(arm.name.to_owned()).or_default().insert(figure.metric.clone(), interval);
        }
    }
    let sign = if task.lower_is_better { -1.0 } else { 1.0 };
    let acting: BTreeSet<&str> = sampled.iter().filter(|arm| arm.acts).map(|arm| arm.name).collect();
    for family in families(&sampled) {
        let mut tests = Vec::new();
        for (arm, against) in family {
            let pair = [&sampled[arm], &sampled[against]];
            let gap: Vec<f64> = of(arm, main).iter().zip(of(against, main)).map(|(a, b)| a - b).collect();
            tests.push(test(params, margin, &figures[main], pair, &gap));
        }
        correct(&mut tests, &acting);
        for test in &mut tests {
            let ends = (sign * test.interval.low, sign * test.interval.high);
            test.verdict = verdict(&Evidence {
                interval: (ends.0.min(ends.1), ends.0.max(ends.1)),
                p: test.p_holm,
                equivalence_p: test.equivalence.p,
                alpha: params.alpha,
            });
            if task.lower_is_better {
                test.probability_ahead = test.probability_ahead.map(|ahead| 1.0 - ahead);
            }
        }
        task.tests.extend(tests);
    }
    Ok(())
}

/// Holm over the adapters that do something. One without effect is not ranked, so it must not cost the others anything.
fn correct(tests: &mut [Test], acting: &BTreeSet<&str>) {
    let mut family: Vec<&mut Test> = tests.iter_mut().filter(|test| acting.contains(test.arm.as_str())).collect();
    let p: Vec<f64> = family.iter().map(|test| test.p).collect();
    for (test, p_holm) in family.iter_mut().zip(correction::holm(&p)) {
        test.p_holm = p_holm;
    }
}

/// All arms against the base, and all adapters that do something among themselves, as (arm, against).
fn families(sampled: &[Sampled]) -> [Vec<(usize, usize)>; 2] {
    let adapted: Vec<usize> = (0..sampled.len()).filter(|at| sampled[*at].name != BASE).collect();
    let base = sampled.iter().position(|arm| arm.name == BASE);
    let to_base = base.map_or_else(Vec::new, |base| adapted.iter().map(|arm| (*arm, base)).collect());
    let acting: Vec<usize> = adapted.iter().copied().filter(|at| sampled[*at].acts).collect();
    let among = acting.iter().enumerate();
    let among = among.flat_map(|(i, against)| acting[i + 1..].iter().map(move |arm| (*arm, *against))).collect();
    [to_base, among]
}

/// Every figure of every arm on the same resamples; of several seeds, means over seeds that are drawn anew as well.
fn replicates(params: &Params, sampled: &[Sampled], figures: &[Figure]) -> Vec<Vec<f64>> {
    let tables: Vec<Table> = sampled.iter().flat_map(|arm| arm.tables.iter().cloned()).collect();
    let sizes: Vec<usize> = sampled.iter().map(|arm| arm.tables.len()).collect();
    let draw = |sums: &[Vec<f64>], rng: &mut ChaCha8Rng| {
        let mut values = Vec::with_capacity(sizes.len() * figures.len());
        let mut first = 0;
        for size in &sizes {
            let seeds: Vec<usize> = if *size == 1 { vec![0] } else { (0..*size).map(|_| below(rng, *size)).collect() };
            for figure in figures {
                let of = |seed: &usize| figure.of(&sums[first + seed]).unwrap_or(f64::NAN);
                values.push(seeds.iter().map(of).sum::<f64>() / seeds.len() as f64);
            }
            first += size;
        }
        values
    };
    bootstrap::replicates(&tables, params.resamples, params.seed, draw)
}

/// BCa over clusters where every arm was run once; percentile where seeds were drawn as well, or BCa is not defined.
fn interval(params: &Params, replicates: &[f64], arms: &[&Sampled], figure: &dyn Fn(&[&[f64]]) -> f64) -> Interval {
    let confidence = 1.0 - params.alpha;
    let values: Vec<f64> = replicates.iter().copied().filter(|value| value.is_finite()).collect();
    let once = arms.iter().all(|arm| arm.tables.len() == 1);
    let bca = once.then(|| {
        let totals: Vec<Vec<f64>> = arms.iter().map(|arm| arm.tables[0].total()).collect();
        let without = |at: usize| {
            let less = arms.iter().zip(&totals).map(|(arm, total)| -> Vec<f64> {
                total.iter().zip(arm.tables[0].row(at)).map(|(sum, cell)| sum - cell).collect()
            });
            let less: Vec<Vec<f64>> = less.collect();
            figure(&less.iter().map(Vec::as_slice).collect::<Vec<_>>())
        };
        let jackknife: Vec<f64> = (0..arms[0].tables[0].rows()).map(without).collect();
        let estimate = figure(&totals.iter().map(Vec::as_slice).collect::<Vec<_>>());
        bootstrap::bca(estimate, &values, &jackknife, confidence)
    });
    let (low, high) = bca.flatten().unwrap_or_else(|| bootstrap::percentile(&values, confidence));
    Interval { low, high }
}

/// One pair; its correction and its verdict follow with its family.
fn test(params: &Params, margin: f64, figure: &Figure, [arm, against]: [&Sampled; 2], gap: &[f64]) -> Test {
    let value = |table: &Table| figure.of(&table.total()).unwrap_or(f64::NAN);
    let mean = |arm: &Sampled| arm.tables.iter().map(value).sum::<f64>() / arm.tables.len() as f64;
    let once = arm.tables.len() == 1 && against.tables.len() == 1;
    let difference = |sums: &[&[f64]]| figure.of(sums[0]).zip(figure.of(sums[1])).map_or(f64::NAN, |(a, b)| a - b);
    let ahead = gap.iter().filter(|gap| **gap > 0.0).count() as f64 / gap.len() as f64;
    let p = if once {
        let figure = |sums: &[f64]| figure.of(sums).unwrap_or(f64::NAN);
        randomisation::p(&arm.tables[0], &against.tables[0], params.resamples, params.seed, figure)
    } else {
        let beyond = |side: &dyn Fn(f64) -> bool| gap.iter().filter(|gap| side(**gap)).count();
        let least = beyond(&|gap| gap <= 0.0).min(beyond(&|gap| gap >= 0.0));
        (2.0 * (1 + least) as f64 / (1 + gap.len()) as f64).min(1.0)
    };
    let equivalence = Equivalence { margin, p: equivalence::by_replicates(gap, margin) };
    Test {
        against: against.name.to_owned(),
        arm: arm.name.to_owned(),
        difference: mean(arm) - mean(against),
        interval: interval(params, gap, &[arm, against], &difference),
        p,
        p_holm: p,
        equivalence,
        discordant: once.then(|| discordant(params, arm.records, against.records)).flatten(),
        probability_ahead: (!once).then_some(ahead),
        verdict: crate::statistics::verdict::Verdict::Indistinguishable,
    }
}

/// McNemar's table; for items that are right or wrong, not for texts that were only read.
fn discordant(params: &Params, arm: &[Record], against: &[Record]) -> Option<Discordant> {
    if arm.iter().any(|record| record.loss.is_some()) {
        return None;
    }
    let count = |of_arm: bool| {
        let items = arm.iter().zip(against);
        items.filter(|(a, b)| is_right(a) == of_arm && is_right(b) != of_arm).count() as u64
    };
    let (fixed, broken) = (count(true), count(false));
    let outcome = mcnemar::mcnemar(broken, fixed);
    let n = arm.len() as u64;
    let share = (fixed + broken) as f64 / n as f64;
    Some(Discordant {
        fixed,
        broken,
        exact_p: outcome.exact_p,
        mid_p: outcome.mid_p,
        detectable: power::detectable(n, share, params.alpha, POWER),
    })
}
