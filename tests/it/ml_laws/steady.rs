//! What is said of a text does not depend on what shares its batch, also at widths that real models have: there MKL takes
//! other kernels than for the tiny models of other laws. It does not know what those kernels are.

use std::path::Path;

use pipe::ml::adapters::Arm;
use pipe::ml::device::use_threads;
use pipe::ml::generate::greedy;
use pipe::ml::models::{Model, load};
use pipe::ml::score::log_likelihoods;
use rand::RngExt;
use serde_json::json;
use tch::{Device, Kind};

use super::{IA3, checkpoint, rng, trained};

fn wide(folder: &Path) -> Box<dyn Model> {
    let config = json!({"model_type": "llama", "vocab_size": 300, "hidden_size": 256, "intermediate_size": 688,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2});
    checkpoint(&config, folder);
    load(folder, Device::Cpu, Kind::Float).unwrap()
}

fn texts(count: usize) -> Vec<Vec<i64>> {
    let mut rng = rng();
    let mut text = |length: usize| (0..length).map(|_| rng.random_range(0..300)).collect();
    (0..count).map(|i| text(3 + 7 * i % 150)).collect()
}

/// Small, so that scores stay in a range where the last bit is seen.
fn arms(model: &dyn Model) -> [Arm; 4] {
    let lora = "lora: { rank: 4, alpha: 1, target_modules: [q_proj, v_proj] }";
    let mlp = "mlp: { hidden_size: 16, layers: [0, 1] }";
    [Arm::none(), trained(lora, model), trained(mlp, model), trained(IA3, model)]
}

#[test]
fn scores_are_the_same_bits_in_every_batch_order_and_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let model = wide(folder.path());
    let items: Vec<_> =
        texts(40).into_iter().flat_map(|text| [vec![5, 7], vec![9, 7, 1]].map(|a| (text.clone(), a))).collect();
    let backwards: Vec<_> = items.iter().rev().cloned().collect();
    for (at, arm) in arms(model.as_ref()).iter().enumerate() {
        let scores = |items: &[_], batch| log_likelihoods(model.as_ref(), arm, items, batch, &mut |_| Ok(())).unwrap();
        use_threads(1);
        let first = scores(&items, 1);
        for threads in [1, 2, 4] {
            use_threads(threads);
            for batch in [1, 100, 700, usize::MAX] {
                assert!(scores(&items, batch) == first, "arm {at}, {threads} threads, batches of {batch}");
            }
            let turned: Vec<_> = scores(&backwards, 700).into_iter().rev().collect();
            assert!(turned == first, "arm {at}, {threads} threads, in another order");
        }
    }
}

#[test]
fn answers_are_the_same_in_every_batch_order_and_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let model = wide(folder.path());
    let prompts = texts(15);
    let backwards: Vec<_> = prompts.iter().rev().cloned().collect();
    for (at, arm) in arms(model.as_ref()).iter().enumerate() {
        let answers = |prompts: &[Vec<i64>], batch| {
            greedy(model.as_ref(), arm, prompts, 24, &[3], batch, &mut |_| Ok(())).unwrap()
        };
        use_threads(1);
        let first = answers(&prompts, 1);
        for threads in [1, 2, 4] {
            use_threads(threads);
            for batch in [1, 300, usize::MAX] {
                assert!(answers(&prompts, batch) == first, "arm {at}, {threads} threads, batches of {batch}");
            }
            let turned: Vec<_> = answers(&backwards, 600).into_iter().rev().collect();
            assert!(turned == first, "arm {at}, {threads} threads, in another order");
        }
    }
}
