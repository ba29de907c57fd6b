//! The difference of two figures, absolute and relative, and how both are printed.
//! It does not know whose figures they are.

/// What is printed where a value does not exist.
pub const NOTHING: &str = "н/д";

/// A figure and what it is set against.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Delta {
    /// value − against.
    pub difference: f64,
    /// 100 · (value − against) / against; `None` where `against` is zero.
    pub percent: Option<f64>,
}

impl Delta {
    /// How far `value` is from `against`.
    pub fn of(value: f64, against: f64) -> Self {
        let difference = value - against;
        let percent = (against != 0.0).then(|| difference / against * 100.0).filter(|percent| percent.is_finite());
        Self { difference, percent }
    }

    /// `+0.0892 (+29.89%)`.
    pub fn text(&self) -> String {
        format!("{} ({})", signed(self.difference, 4), percent(self.percent))
    }
}

/// With a sign always, and `digits` after the point; what rounds to zero is `+0.0000`, never `-0.0000`.
pub fn signed(value: f64, digits: usize) -> String {
    let text = format!("{value:+.digits$}");
    let is_zero = !text.contains(|c: char| ('1'..='9').contains(&c));
    if is_zero { text.replacen('-', "+", 1) } else { text }
}

/// `+29.89%`, or «н/д».
pub fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| NOTHING.to_owned(), |value| format!("{}%", signed(value, 2)))
}

/// A metric as printed: four digits after the point, no negative zero.
pub fn figure(value: f64) -> String {
    let text = format!("{value:.4}");
    if text.contains(|c: char| ('1'..='9').contains(&c)) { text } else { text.trim_start_matches('-').to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_that_of_the_binary_value() {
        assert_eq!(signed(0.125, 2), "+0.12");
        assert_eq!(signed(0.375, 2), "+0.38");
        assert_eq!(signed(2.675, 2), "+2.67");
        assert_eq!(figure(0.305_555_555_555_555_6), "0.3056");
    }

    #[test]
    fn negative_zero_is_not_printed() {
        assert_eq!(signed(-0.0, 4), "+0.0000");
        assert_eq!(signed(-0.000_04, 4), "+0.0000");
        assert_eq!(signed(-0.000_06, 4), "-0.0001");
        assert_eq!(figure(-0.000_01), "0.0000");
    }

    #[test]
    fn a_zero_base_has_no_relative_change() {
        assert_eq!(Delta::of(0.5, 0.0).text(), "+0.5000 (н/д)");
        assert_eq!(Delta::of(0.0, 0.0).text(), "+0.0000 (н/д)");
        assert_eq!(Delta::of(0.0, 0.5).text(), "-0.5000 (-100.00%)");
    }
}
