//! How fast libtorch makes products of given shapes by itself: what a model on the same shapes cannot go beyond.
//! It does not know models, nor what else they compute.

use std::time::Instant;

use tch::{Device, Kind, Tensor};

use super::device;
use super::malloc;
use super::tally::Product;

/// Shapes with fewer operations than this share of the rest are left out.
const SMALLEST: f64 = 0.02;
/// At most so many shapes are tried.
const MOST: usize = 6;
/// A shape is tried for so long, in seconds.
const EACH: f64 = 0.03;

/// Operations a second of these products in the proportion in which they occur, with the threads that libtorch has from
/// this thread on; `None` if there are none.
pub fn rate(products: &[Product], device: Device) -> Option<f64> {
    let all: f64 = products.iter().map(|product| product.flop as f64).sum();
    let chosen = products.iter().take(MOST).filter(|product| product.flop as f64 > SMALLEST * all);
    let (mut flop, mut seconds) = (0.0, 0.0);
    tch::no_grad(|| {
        for product in chosen {
            flop += product.flop as f64;
            seconds += product.flop as f64 / alone(product, device);
        }
    });
    // What was taken for this is nothing of the step's.
    malloc::give_back();
    (seconds > 0.0).then(|| flop / seconds)
}

fn alone(product: &Product, device: Device) -> f64 {
    let Product { rows, inputs, outputs, kind, .. } = *product;
    let random = |size: [i64; 2]| Tensor::randn(size, (Kind::Float, device)).to_kind(kind);
    let (x, weight) = (random([rows.max(1), inputs]), random([outputs, inputs]));
    let make = || drop(x.linear(&weight, None::<&Tensor>));
    // The first ones pack weights and wake threads.
    (0..2).for_each(|_| make());
    device::wait(device);
    let (begun, mut count) = (Instant::now(), 0.0);
    while begun.elapsed().as_secs_f64() < EACH {
        (0..4).for_each(|_| make());
        device::wait(device);
        count += 4.0;
    }
    let flop = 2.0 * rows.max(1) as f64 * inputs as f64 * outputs as f64;
    count * flop / begun.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_rate_where_there_are_products() {
        let product = Product { rows: 8, inputs: 16, outputs: 8, kind: Kind::Float, flop: 5 };
        let found = rate(&[product], Device::Cpu);
        assert!(found.is_some_and(|rate| rate > 0.0 && rate.is_finite()), "{found:?}");
        assert_eq!(rate(&[], Device::Cpu), None);
    }
}
