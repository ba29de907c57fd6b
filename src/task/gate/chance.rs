//! How improbable a count is: what it takes to say that labels are exchanged.
//! It does not know what is counted.

/// An event that is less probable than this by chance is shown. One right data set in a hundred thousand would be
/// refused, for each rule that looks at it.
pub const LEVEL: f64 = 1e-5;

/// An upper bound of the probability that at least `k` of `n` independent trials succeed, each with probability `q`:
/// Chernoff's exp(−n·KL(k/n ‖ q)). It is 1 where there are no more successes than expected.
pub fn tail(n: u64, k: u64, q: f64) -> f64 {
    if n == 0 || k as f64 <= n as f64 * q {
        return 1.0;
    }
    if q <= 0.0 {
        return 0.0;
    }
    let share = k as f64 / n as f64;
    let part = |x: f64, y: f64| if x == 0.0 { 0.0 } else { x * (x / y).ln() };
    (-(n as f64) * (part(share, q) + part(1.0 - share, 1.0 - q))).exp()
}

/// True if so many successes are no chance.
pub fn shown(n: u64, k: u64, q: f64) -> bool {
    tail(n, k, q) <= LEVEL
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The tail itself, term by term.
    fn exact(n: u64, k: u64, q: f64) -> f64 {
        let mut term = (1.0 - q).powi(n as i32);
        let mut sum = 0.0;
        for i in 0..=n {
            if i >= k {
                sum += term;
            }
            term *= (n - i) as f64 / (i + 1) as f64 * q / (1.0 - q);
        }
        sum
    }

    #[test]
    fn what_is_shown_at_this_level() {
        assert!((tail(17, 17, 0.5) - 0.5_f64.powi(17)).abs() < 1e-12);
        assert!(shown(17, 17, 0.5) && !shown(16, 16, 0.5));
        // 13 of the 21 rows of TERRa's val whose hypothesis has no word of its own do not follow: that shows nothing.
        assert!(!shown(21, 13, 0.5) && !shown(21, 8, 0.5));
        assert_eq!((tail(0, 0, 0.5), tail(10, 5, 0.5), tail(10, 1, 0.0)), (1.0, 1.0, 0.0));
    }

    proptest! {
        #[test]
        fn the_bound_lies_above_the_tail(n in 1..200_u64, share in 0.0..=1.0, q in 0.01..0.99) {
            let k = (n as f64 * share) as u64;
            prop_assert!(tail(n, k, q) * (1.0 + 1e-9) >= exact(n, k, q));
        }
    }
}
