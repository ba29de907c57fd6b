//! What libtorch's own products of a step's shapes reach on the step's thread, before and after; in a binary without
//! libtorch nothing. It does not know what the step does with them.

/// Operations a second, measured several times, and of what.
#[derive(Debug, Clone, Default)]
pub struct Limit {
    /// Each time.
    pub rates: Vec<f64>,
    /// The dtype of the products with the most operations.
    pub dtype: Option<&'static str>,
}

impl Limit {
    /// The middle of what was measured, the lowest and the highest.
    pub fn spread(&self) -> Option<(f64, f64, f64)> {
        let mut sorted = self.rates.clone();
        sorted.sort_by(f64::total_cmp);
        let (&low, &high) = (sorted.first()?, sorted.last()?);
        let middle = (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0;
        Some((middle, low, high))
    }

    /// Measures it once more, in several rounds.
    #[cfg(feature = "torch")]
    pub fn measure(&mut self, device: &str) {
        use crate::ml::device::torch_device;
        use crate::ml::{limit, tally};

        /// Each time that it is measured.
        const ROUNDS: usize = 2;
        let products = tally::products();
        self.dtype = products.first().map(tally::Product::dtype);
        let rates = (0..ROUNDS).filter_map(|_| limit::rate(&products, torch_device(device)));
        self.rates.extend(rates);
    }

    /// There are no products without libtorch.
    #[cfg(not(feature = "torch"))]
    pub fn measure(&mut self, _device: &str) {}
}

#[cfg(test)]
mod tests {
    use super::Limit;

    #[test]
    fn the_middle_stands_between_the_ends() {
        let of = |rates: &[f64]| Limit { rates: rates.to_vec(), dtype: None }.spread();
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[3.0, 1.0, 2.0]), Some((2.0, 1.0, 3.0)));
        assert_eq!(of(&[4.0, 1.0]), Some((2.5, 1.0, 4.0)));
    }
}
