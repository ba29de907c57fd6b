//! From values to places: a scale with round ticks, linear or logarithmic.
//! It does not know pictures.

/// Maps values to 0..=1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    low: f64,
    high: f64,
    step: f64,
    logarithmic: bool,
}

/// Beyond this, spans would overflow.
const MOST: f64 = 1e300;

impl Scale {
    /// A linear scale that holds all values and ends at round numbers, with about `ticks` steps.
    pub fn nice(values: impl IntoIterator<Item = f64>, ticks: u32) -> Self {
        let (mut low, mut high) = extent(values);
        if high - low <= 1e-12 * low.abs().max(high.abs()) {
            let room = if low == 0.0 { 0.5 } else { (low.abs() * 0.05).max(f64::MIN_POSITIVE) };
            (low, high) = (low - room, high + room);
        }
        let rough = (high - low) / f64::from(ticks.max(1));
        let power = 10f64.powf(rough.log10().floor()).max(f64::MIN_POSITIVE);
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= rough * 0.999).unwrap_or(rough);
        let (down, up) = ((low / step).floor() * step, (high / step).ceil() * step);
        if down.is_finite() && up.is_finite() && up > down {
            (low, high) = (down, up);
        }
        Self { low, high, step, logarithmic: false }
    }

    /// A scale that holds exactly these values; logarithmic if they are positive and span a factor of four.
    pub fn over(values: impl IntoIterator<Item = f64>) -> Self {
        let (low, high) = extent(values);
        Self { low, high, step: high - low, logarithmic: low > 0.0 && high / low >= 4.0 }
    }

    /// Where a value lies; the middle where all values are the same.
    pub fn place(&self, value: f64) -> f64 {
        let of = |v: f64| if self.logarithmic { v.max(f64::MIN_POSITIVE).log2() } else { v };
        let (low, high) = (of(self.low), of(self.high));
        if high > low { ((of(value) - low) / (high - low)).clamp(0.0, 1.0) } else { 0.5 }
    }

    /// The round numbers on it, at most sixteen.
    pub fn ticks(&self) -> Vec<f64> {
        let first = (self.low / self.step).round();
        let count = ((self.high - self.low) / self.step).round().clamp(0.0, 15.0) as u32;
        let snap = |value: f64| if value.abs() < self.step * 1e-9 { 0.0 } else { value };
        (0..=count).map(|i| snap((first + f64::from(i)) * self.step)).collect()
    }

    /// A tick as text: as many digits as the step has.
    pub fn label(&self, value: f64) -> String {
        let digits = -self.step.log10().floor();
        if !(-7.0..=6.0).contains(&digits) {
            return super::svg::minus(&format!("{value:.1e}"));
        }
        let digits = digits.max(0.0) as usize;
        super::svg::minus(&format!("{value:.digits$}"))
    }
}

fn extent(values: impl IntoIterator<Item = f64>) -> (f64, f64) {
    let finite = values.into_iter().filter(|value| value.is_finite()).map(|value| value.clamp(-MOST, MOST));
    let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    if low <= high { (low, high) } else { (0.0, 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ticks_are_round() {
        let scale = Scale::nice([-0.031, 0.118], 5);
        let labels: Vec<String> = scale.ticks().iter().map(|tick| scale.label(*tick)).collect();
        assert_eq!(labels, ["−0.05", "0.00", "0.05", "0.10", "0.15"]);
        assert_eq!(Scale::nice([0.0, 200.0], 4).ticks(), [0.0, 50.0, 100.0, 150.0, 200.0]);
    }

    #[test]
    fn equal_and_absent_values_have_a_place() {
        for values in [vec![], vec![0.0], vec![0.3056; 4], vec![-7.0], vec![1e300, -1e300], vec![5e-324]] {
            let scale = Scale::nice(values.clone(), 5);
            for value in values {
                assert!((0.0..=1.0).contains(&scale.place(value)), "{value} on {scale:?}");
            }
            assert!(!scale.ticks().is_empty());
        }
        assert_eq!(Scale::over([4.0]).place(4.0), 0.5);
    }

    #[test]
    fn doublings_lie_at_equal_distances() {
        let scale = Scale::over([2.0, 4.0, 8.0, 16.0]);
        let places: Vec<f64> = [2.0, 4.0, 8.0, 16.0].map(|v| (scale.place(v) * 3.0).round()).to_vec();
        assert_eq!(places, [0.0, 1.0, 2.0, 3.0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn order_is_kept_and_ticks_are_few(mut values in proptest::collection::vec(-1e9f64..1e9, 1..12)) {
            let scale = Scale::nice(values.clone(), 5);
            values.sort_by(f64::total_cmp);
            let places: Vec<f64> = values.iter().map(|value| scale.place(*value)).collect();
            prop_assert!(places.is_sorted(), "{places:?}");
            let ticks = scale.ticks();
            prop_assert!((2..=16).contains(&ticks.len()), "{ticks:?}");
            prop_assert!(ticks.is_sorted());
            prop_assert!(!scale.label(values[0]).contains('-'));
        }
    }
}
