//! Intervals and tests against SciPy and statsmodels, for every golden case of the kind `metrics`; then what they
//! promise: how often equal arms are told apart, and how often a detectable difference is found.

use pipe::statistics::bootstrap::{self, below};
use pipe::statistics::table::Table;
use pipe::statistics::verdict::{Evidence, Verdict, verdict};
use pipe::statistics::{correction, equivalence, interval, mcnemar, paired, power, randomisation};
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::Value;

use crate::golden_metrics::cases;
use crate::support;

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number")).collect()
}

fn close(ours: f64, golden: &Value, what: &str) {
    let golden = golden.as_f64().unwrap_or_else(|| panic!("{what} is not in the golden case"));
    assert!((ours - golden).abs() <= 1e-9 + 1e-9 * golden.abs(), "{what}: {ours}, but {golden} is right");
}

fn close_pair(ours: (f64, f64), golden: &Value, what: &str) {
    close(ours.0, &golden[0], &format!("{what}, low"));
    close(ours.1, &golden[1], &format!("{what}, high"));
}

/// Every case of a file, over all golden folders.
fn golden(file: &str, check: impl Fn(&Value, &str)) {
    let Some(root) = support::golden() else { return };
    let folders = cases(&root, "metrics");
    assert!(!folders.is_empty(), "no golden metrics in {}", root.display());
    for folder in folders {
        let text = std::fs::read_to_string(folder.join(file)).expect("a golden file");
        let all: Value = serde_json::from_str(&text).expect("JSON");
        check(&all, &folder.join(file).display().to_string());
    }
}

#[test]
fn mcnemar_is_statsmodels() {
    golden("mcnemar.json", |all, file| {
        for (i, case) in all.as_array().expect("a list").iter().enumerate() {
            let count = |name: &str| case[name].as_u64().expect("a count");
            let ours = mcnemar::mcnemar(count("n01"), count("n10"));
            let what = |name: &str| format!("{file}, case {i}, {name}");
            close(ours.exact_p, &case["exact_p"], &what("exact_p"));
            close(ours.mid_p, &case["mid_p"], &what("mid_p"));
            for (name, ours) in [("chi2", ours.chi2), ("chi2_corrected", ours.chi2_corrected)] {
                let Some((statistic, p)) = ours else {
                    assert!(case[name]["statistic"].as_f64().is_none(), "{}", what(name));
                    continue;
                };
                close(statistic, &case[name]["statistic"], &what(name));
                close(p, &case[name]["p"], &what(name));
            }
        }
    });
}

#[test]
fn intervals_of_shares_are_statsmodels() {
    golden("intervals.json", |all, file| {
        for (i, case) in all["proportions"].as_array().expect("a list").iter().enumerate() {
            let count = |name: &str| case[name].as_u64().expect("a count");
            let (successes, n) = (count("successes"), count("n"));
            for key in case.as_object().expect("a case").keys().filter(|key| key.contains("_0.")) {
                let (name, confidence) = key.rsplit_once('_').expect("name_confidence");
                let confidence: f64 = confidence.parse().expect("a confidence");
                let ours = match name {
                    "wilson" => interval::wilson(successes, n, confidence),
                    "clopper_pearson" => interval::clopper_pearson(successes, n, confidence),
                    "normal" => interval::normal(successes, n, confidence),
                    other => panic!("{file} has an interval `{other}`"),
                };
                close_pair(ours, &case[key], &format!("{file}, case {i}, {key}"));
            }
        }
    });
}

#[test]
fn corrections_and_paired_tests_are_statsmodels_and_scipys() {
    golden("intervals.json", |all, file| {
        for (i, case) in all["multiple_testing"].as_array().expect("a list").iter().enumerate() {
            let p = numbers(&case["p"]);
            for (name, ours) in [
                ("holm", correction::holm(&p)),
                ("bonferroni", correction::bonferroni(&p)),
                ("fdr_bh", correction::benjamini_hochberg(&p)),
            ] {
                for (at, value) in ours.iter().enumerate() {
                    close(*value, &case[name][at], &format!("{file}, case {i}, {name} {at}"));
                }
            }
        }
        for (i, case) in all["paired"].as_array().expect("a list").iter().enumerate() {
            let (x, y) = (numbers(&case["x"]), numbers(&case["y"]));
            let (mean, deviation) = paired::differences(&x, &y);
            let what = |name: &str| format!("{file}, case {i}, {name}");
            close(mean, &case["mean_diff"], &what("mean_diff"));
            close(deviation, &case["std_diff_ddof1"], &what("std_diff_ddof1"));
            for (name, ours) in [("ttest_rel", paired::t_test(&x, &y)), ("wilcoxon_approx", paired::wilcoxon(&x, &y))] {
                let ours = ours.unwrap_or_else(|| panic!("{} is not defined", what(name)));
                close(ours.p, &case[name]["p"], &what(name));
                close(ours.statistic.abs(), &Value::from(case[name]["statistic"].as_f64().map(f64::abs)), &what(name));
            }
        }
    });
}

/// Sums of a golden bootstrap case: a row for each item, and what is computed from added rows.
type Statistic = fn(&[f64]) -> f64;

fn bootstrap_case(case: &Value) -> (Table, Statistic) {
    let list = |name: &str| case.get(name).map(numbers);
    if let (Some(tp), Some(fp), Some(fn_)) = (list("tp"), list("fp"), list("fn")) {
        let rows: Vec<Vec<f64>> = (0..tp.len()).map(|i| vec![tp[i], fp[i], fn_[i]]).collect();
        let f1 = |sums: &[f64]| {
            let below = 2.0 * sums[0] + sums[1] + sums[2];
            if below == 0.0 { 0.0 } else { 2.0 * sums[0] / below }
        };
        return (Table::new(&rows).expect("rows"), f1);
    }
    let x = list("x").expect("x");
    let y = list("y");
    let rows = x.iter().enumerate().map(|(i, x)| vec![y.as_ref().map_or(*x, |y| y[i] - x), 1.0]);
    (Table::new(&rows.collect::<Vec<_>>()).expect("rows"), |sums| sums[0] / sums[1])
}

#[test]
fn the_bootstrap_is_scipys_on_the_same_resamples_and_near_it_on_our_own() {
    golden("bootstrap.json", |all, file| {
        for (i, case) in all.as_array().expect("a list").iter().enumerate() {
            let what = |name: &str| format!("{file}, case {i}, {name}");
            let (table, statistic) = bootstrap_case(case);
            let confidence = case["confidence"].as_f64().expect("a confidence");
            let estimate = statistic(&table.total());
            close(estimate, &case["estimate"], &what("estimate"));
            let indices = case["resample_indices"].as_array().expect("resamples");
            let replicates: Vec<f64> = indices
                .iter()
                .map(|drawn| {
                    let drawn = drawn.as_array().expect("indices").iter();
                    statistic(&table.weighted(drawn.map(|at| (at.as_u64().expect("an index") as usize, 1.0))))
                })
                .collect();
            for (at, value) in replicates.iter().enumerate() {
                close(*value, &case["bootstrap_statistics"][at], &what("bootstrap_statistics"));
            }
            let without = |left_out: usize| {
                statistic(&table.weighted((0..table.rows()).filter(|at| *at != left_out).map(|at| (at, 1.0))))
            };
            let jackknife: Vec<f64> = (0..table.rows()).map(without).collect();
            close_pair(bootstrap::percentile(&replicates, confidence), &case["percentile"], &what("percentile"));
            close_pair(bootstrap::basic(estimate, &replicates, confidence), &case["basic"], &what("basic"));
            let bca = bootstrap::bca(estimate, &replicates, &jackknife, confidence).expect("it is defined");
            close_pair(bca, &case["bca"], &what("bca"));
            close(bootstrap::standard_error(&replicates), &case["standard_error"], &what("standard_error"));

            let error = case["standard_error_100k"].as_f64().expect("a number");
            let own = bootstrap::replicates(std::slice::from_ref(&table), 4000, 7, |sums, _| vec![statistic(&sums[0])]);
            let own: Vec<f64> = own.iter().map(|draw| draw[0]).collect();
            let (low, high) = bootstrap::percentile(&own, confidence);
            for (ours, golden) in [(low, &case["percentile_100k"][0]), (high, &case["percentile_100k"][1])] {
                let golden = golden.as_f64().expect("a number");
                assert!((ours - golden).abs() <= error / 2.0, "{}: {ours}, {golden}", what("percentile_100k"));
            }
        }
    });
}

#[test]
fn draws_do_not_depend_on_threads() {
    let rows: Vec<Vec<f64>> = (0..40).map(|i| vec![f64::from(i % 7), 1.0]).collect();
    let other: Vec<Vec<f64>> = (0..40).map(|i| vec![f64::from(i % 5), 1.0]).collect();
    let tables = [Table::new(&rows).expect("rows"), Table::new(&other).expect("rows")];
    let mean = |sums: &[f64]| sums[0] / sums[1];
    let all = || {
        let draws = bootstrap::replicates(&tables, 300, 3, |sums, _| vec![mean(&sums[0]), mean(&sums[1])]);
        (draws, randomisation::p(&tables[0], &tables[1], 300, 3, mean))
    };
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool").install(all);
    let three = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("a pool").install(all);
    assert_eq!(one, three);
}

#[test]
fn five_against_none_cannot_be_significant() {
    assert_eq!(mcnemar::least_p(5), 0.0625);
    let rows = |right: usize| (0..100).map(|i| vec![f64::from(u8::from(i < right)), 1.0]).collect::<Vec<_>>();
    let (a, b) = (Table::new(&rows(44)).expect("rows"), Table::new(&rows(39)).expect("rows"));
    assert_eq!(randomisation::p(&a, &b, 1000, 1, |sums| sums[0] / sums[1]), 0.0625, "exact where few clusters differ");
}

/// The table of ../shared/research/adapters.md, computed on a grid of 0.0025 by another program.
#[test]
fn power_is_what_others_compute() {
    for (n, discordant, wanted) in [(307, 0.10, 0.0525), (307, 0.20, 0.075), (100, 0.30, 0.16), (1000, 0.05, 0.0225)] {
        let found = power::detectable(n, discordant, 0.05, 0.8).expect("it can be found");
        assert!((found - wanted).abs() <= 0.0026, "n {n}, {discordant}: {found}, but {wanted}");
    }
    assert!((power::power(307, 0.10, 0.03, 0.05) - 0.31).abs() < 0.01);
    assert_eq!(power::detectable(100, 0.05, 0.05, 0.8), None, "not even if all of them favour one arm");
}

#[test]
fn equivalence_needs_precision() {
    let spread: Vec<f64> = (0..1000).map(|i| (f64::from(i) / 999.0 - 0.5) * 0.03).collect();
    assert!(equivalence::by_replicates(&spread, 0.02) < 0.01);
    assert!(equivalence::by_replicates(&spread, 0.01) > 0.05);
    let x: Vec<f64> = (0..50).map(f64::from).collect();
    let y: Vec<f64> = x.iter().map(|x| x + if x % 2.0 == 0.0 { 0.1 } else { -0.1 }).collect();
    assert!(equivalence::by_t(&x, &y, 1.0).expect("defined") < 1e-9);
    assert!(equivalence::by_t(&x, &y, 0.001).expect("defined") > 0.4);
}

/// Two arms on `clusters` premises of one or two items. Each item is right with a probability that depends on the
/// premise; the arms agree often, as arms of one base do. `lead` is how much more often the first one is right.
fn simulated(rng: &mut ChaCha8Rng, clusters: usize, lead: f64) -> [Table; 2] {
    let uniform = |rng: &mut ChaCha8Rng| (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    let mut rows = [Vec::new(), Vec::new()];
    for _ in 0..clusters {
        let ease = 0.3 + 0.6 * uniform(rng);
        let mut row = [[0.0, 0.0], [0.0, 0.0]];
        for _ in 0..1 + below(rng, 2) {
            let shared = uniform(rng) < ease;
            for (arm, row) in row.iter_mut().enumerate() {
                let own = uniform(rng) < ease + if arm == 0 { lead } else { 0.0 };
                let right = if uniform(rng) < 0.7 { shared } else { own };
                row[0] += f64::from(u8::from(right));
                row[1] += 1.0;
            }
        }
        rows.iter_mut().zip(row).for_each(|(rows, row)| rows.push(row.to_vec()));
    }
    rows.map(|rows| Table::new(&rows).expect("rows"))
}

/// The verdict of `compare` on two simulated arms.
fn judged(tables: &[Table; 2], seed: u64, margin: f64, figure: fn(&[f64]) -> f64) -> Verdict {
    let draws = bootstrap::replicates(tables, 500, seed, |sums, _| vec![figure(&sums[0]) - figure(&sums[1])]);
    let gap: Vec<f64> = draws.iter().map(|draw| draw[0]).collect();
    verdict(&Evidence {
        interval: bootstrap::percentile(&gap, 0.95),
        p: randomisation::p(&tables[0], &tables[1], 500, seed, figure),
        equivalence_p: equivalence::by_replicates(&gap, margin),
        alpha: 0.05,
    })
}

/// Two arms that find entities in documents of one to eight, each by chance of its document, and make some up.
fn documents(rng: &mut ChaCha8Rng, clusters: usize) -> [Table; 2] {
    let uniform = |rng: &mut ChaCha8Rng| (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    let mut rows = [Vec::new(), Vec::new()];
    for _ in 0..clusters {
        let ease = 0.2 + 0.6 * uniform(rng);
        let gold = 1 + below(rng, 8);
        for rows in &mut rows {
            let found = (0..gold).filter(|_| uniform(rng) < ease).count();
            let made_up = (0..gold).filter(|_| uniform(rng) < 0.3).count();
            rows.push(vec![found as f64, made_up as f64, (gold - found) as f64]);
        }
    }
    rows.map(|rows| Table::new(&rows).expect("rows"))
}

fn accuracy(sums: &[f64]) -> f64 {
    sums[0] / sums[1]
}

fn micro_f1(sums: &[f64]) -> f64 {
    2.0 * sums[0] / (2.0 * sums[0] + sums[1] + sums[2]).max(1.0)
}

fn told_apart(pairs: u64, clusters: usize, entities: bool) -> u64 {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let apart = |seed: u64| {
        let verdict = if entities {
            judged(&documents(&mut rng, clusters), seed, 0.001, micro_f1)
        } else {
            judged(&simulated(&mut rng, clusters, 0.0), seed, 0.001, accuracy)
        };
        matches!(verdict, Verdict::Better | Verdict::Worse)
    };
    (0..pairs).map(apart).filter(|apart| *apart).count() as u64
}

/// Three standard errors above 5 %.
fn allowed(pairs: u64) -> f64 {
    pairs as f64 * 0.05 + 3.0 * (pairs as f64 * 0.05 * 0.95).sqrt()
}

#[test]
fn equal_arms_are_seldom_told_apart() {
    for entities in [false, true] {
        let apart = told_apart(300, 60, entities);
        assert!(apart as f64 <= allowed(300), "{apart} of 300 pairs of equal arms");
    }
}

#[test]
fn long_a_thousand_pairs_of_equal_arms_are_told_apart_in_at_most_one_of_twenty() {
    if !support::long() {
        return;
    }
    for (what, entities) in [("accuracy over premises", false), ("micro F1 over documents", true)] {
        let apart = told_apart(1000, 200, entities);
        println!("{what}: {apart} of 1000 pairs of equal arms were told apart");
        assert!(apart as f64 <= allowed(1000), "{what}: {apart} of 1000");
    }
}

/// The power at the detectable difference, by drawing items instead of adding probabilities up.
#[test]
fn a_detectable_difference_is_found_in_four_cases_of_five() {
    let (n, discordant) = (307_u64, 0.2);
    let gap = power::detectable(n, discordant, 0.05, 0.8).expect("it can be found");
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let uniform = |rng: &mut ChaCha8Rng| (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    let pairs = 2000;
    let found = (0..pairs)
        .filter(|_| {
            let (mut fixed, mut broken) = (0, 0);
            for _ in 0..n {
                match uniform(&mut rng) {
                    u if u < (discordant + gap) / 2.0 => fixed += 1,
                    u if u < discordant => broken += 1,
                    _ => {}
                }
            }
            mcnemar::mcnemar(broken, fixed).exact_p <= 0.05
        })
        .count();
    let error = 3.0 * (0.8 * 0.2 / f64::from(pairs)).sqrt();
    let share = found as f64 / f64::from(pairs);
    assert!((share - 0.8).abs() <= error, "{share}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_test_of_two_arms_is_the_same_from_both_sides(right in prop::collection::vec((any::<bool>(), any::<bool>()), 2..40)) {
        let side = |second: bool| {
            let rows = right.iter().map(|(a, b)| vec![f64::from(u8::from(if second { *b } else { *a })), 1.0]);
            Table::new(&rows.collect::<Vec<_>>()).expect("rows")
        };
        let mean = |sums: &[f64]| sums[0] / sums[1];
        let p = randomisation::p(&side(false), &side(true), 200, 9, mean);
        prop_assert!(p > 0.0 && p <= 1.0);
        prop_assert_eq!(p, randomisation::p(&side(true), &side(false), 200, 9, mean));
        let count = |first: bool| right.iter().filter(|(a, b)| *a == first && *b != first).count() as u64;
        let (one, other) = (mcnemar::mcnemar(count(true), count(false)), mcnemar::mcnemar(count(false), count(true)));
        prop_assert_eq!(one, other);
        prop_assert!(one.mid_p <= one.exact_p && one.exact_p <= 1.0);
    }

    #[test]
    fn corrections_keep_the_order_and_never_help(p in prop::collection::vec(0.0..=1.0, 1..20)) {
        for adjusted in [correction::holm(&p), correction::bonferroni(&p), correction::benjamini_hochberg(&p)] {
            for (i, a) in p.iter().enumerate() {
                prop_assert!(adjusted[i] >= *a && adjusted[i] <= 1.0);
                for (j, b) in p.iter().enumerate() {
                    prop_assert!(a > b || adjusted[i] <= adjusted[j]);
                }
            }
        }
    }

    #[test]
    fn intervals_hold_the_share(n in 1_u64..500, part in 0.0..=1.0) {
        let successes = (part * n as f64) as u64;
        let share = successes as f64 / n as f64;
        for (low, high) in [interval::wilson(successes, n, 0.95), interval::clopper_pearson(successes, n, 0.95)] {
            prop_assert!((0.0..=share).contains(&low) && (share..=1.0).contains(&high));
        }
    }

    #[test]
    fn a_verdict_turns_with_its_arms(low in -0.5..0.5_f64, width in 0.0..0.5_f64, p in 0.0..=1.0, equivalence_p in 0.0..=1.0) {
        let of = |interval: (f64, f64)| verdict(&Evidence { interval, p, equivalence_p, alpha: 0.05 });
        let turned = match of((low, low + width)) {
            Verdict::Better => Verdict::Worse,
            Verdict::Worse => Verdict::Better,
            other => other,
        };
        prop_assert_eq!(of((-(low + width), -low)), turned);
    }
}
