//! McNemar's test: two arms on the same items, by the items that only one of them has right.
//! It does not know clusters of items.

use statrs::distribution::{Binomial, ChiSquared, ContinuousCDF, Discrete, DiscreteCDF};

/// The p of McNemar's test in its forms, two-sided, each in 0..=1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mcnemar {
    /// Exact: binomial, twice the smaller tail, at most 1 (`exact=True` of statsmodels 0.15's `mcnemar`).
    pub exact_p: f64,
    /// The same with half of the probability of what was seen (Fagerland, Lydersen and Laake 2013).
    pub mid_p: f64,
    /// χ² with one degree of freedom: statistic and p; not defined without discordant items.
    pub chi2: Option<(f64, f64)>,
    /// With Edwards' continuity correction, (|n01 − n10| − 1)² as it stands, also where both are equal.
    pub chi2_corrected: Option<(f64, f64)>,
}

/// From the numbers of items that only the one or only the other has right.
pub fn mcnemar(n01: u64, n10: u64) -> Mcnemar {
    let (least, total) = (n01.min(n10), n01 + n10);
    let gap = n01.abs_diff(n10) as f64;
    let chi2 = |gap: f64| {
        let statistic = gap * gap / total as f64;
        let p = ChiSquared::new(1.0).map_or(1.0, |chi2| chi2.sf(statistic));
        (total > 0).then_some((statistic, p))
    };
    let (tail, seen) = binomial(least, total);
    Mcnemar {
        exact_p: if total == 0 { 1.0 } else { (2.0 * tail).min(1.0) },
        mid_p: if total == 0 { 1.0 } else { (2.0 * tail - seen).min(1.0) },
        chi2: chi2(gap),
        chi2_corrected: chi2(gap - 1.0),
    }
}

/// The smallest exact p that a gap of so many items can reach: when all of them are discordant one way.
pub fn least_p(gap: u64) -> f64 {
    mcnemar(0, gap).exact_p
}

/// P(X ≤ k) and P(X = k) of a fair coin thrown n times. Few throws are added up, so that 5 : 0 is 0.0625 to the bit.
pub(crate) fn binomial(k: u64, n: u64) -> (f64, f64) {
    const FEW: u64 = 1000;
    if n > FEW {
        return Binomial::new(0.5, n).map_or((1.0, 0.0), |coin| (coin.cdf(k), coin.pmf(k)));
    }
    let mut seen = 0.5_f64.powi(n as i32);
    let mut tail = seen;
    for i in 0..k.min(n) {
        seen *= (n - i) as f64 / (i + 1) as f64;
        tail += seen;
    }
    (tail, seen)
}
