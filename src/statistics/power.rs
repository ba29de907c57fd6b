//! What exact McNemar's test would find: its power, and the smallest difference that it usually finds.
//! It does not know clusters of items.

use statrs::distribution::{Binomial, Discrete, DiscreteCDF};

use super::mcnemar::binomial;

/// The power at `n` items of which a share `discordant` is right in one arm only, where the arms' accuracies differ by
/// `difference` (at most `discordant`), at level `alpha`. Summed over all numbers of discordant items that are not
/// negligible.
pub fn power(n: u64, discordant: f64, difference: f64, alpha: f64) -> f64 {
    let Ok(all) = Binomial::new(discordant.clamp(0.0, 1.0), n) else { return 0.0 };
    let ahead = if discordant > 0.0 { (1.0 + difference / discordant) / 2.0 } else { 0.5 };
    let mut power = 0.0;
    for k in 0..=n {
        let weight = all.pmf(k);
        if weight < 1e-12 {
            continue;
        }
        let Some(most) = critical(k, alpha) else { continue };
        let Ok(split) = Binomial::new(ahead.clamp(0.0, 1.0), k) else { continue };
        power += weight * (split.cdf(most) + split.sf(k - most - 1));
    }
    power.min(1.0)
}

/// The smallest difference that is found with the power `wanted`; `None` where none is, not even if all discordant
/// items favour one arm.
pub fn detectable(n: u64, discordant: f64, alpha: f64, wanted: f64) -> Option<f64> {
    if power(n, discordant, discordant, alpha) < wanted {
        return None;
    }
    let (mut low, mut high) = (0.0, discordant);
    while high - low > 1e-4 {
        let middle = (low + high) / 2.0;
        if power(n, discordant, middle, alpha) < wanted {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some(high)
}

/// The most of `k` discordant items that the arm behind may have at exact p ≤ α; `None` where no split is enough.
fn critical(k: u64, alpha: f64) -> Option<u64> {
    let enough = |least: u64| 2.0 * binomial(least, k).0 <= alpha;
    if k == 0 || !enough(0) {
        return None;
    }
    let (mut low, mut high) = (0, k / 2);
    while low < high {
        let middle = (low + high).div_ceil(2);
        if enough(middle) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    Some(low)
}
