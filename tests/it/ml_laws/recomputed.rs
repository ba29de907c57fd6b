//! `memory: low`: what is computed again on the way back gives the same gradients, and what nobody needs is not computed.
//! It does not know how.

use pipe::ml::device::use_threads;
use pipe::ml::models::{Model, load};
use pipe::ml::tally;
use pipe::ml::train::Fit;
use pipe::ml::train::adamw::AdamWOptions;
use pipe::ml::train::arms::{Recipe, train_arm};
use pipe::ml::train::batch::{Length, Limits, Plan};
use pipe::ml::train::curve::Point;
use pipe::ml::train::memory::Memory;
use pipe::ml::train::schedule::Schedule;
use pipe::step::stream;
use tch::{Device, Kind, Tensor};

use super::fused::families;
use super::shortened::rows;
use super::{Silent, arms, checkpoint, configs, fresh_arm, on_every_model};

const STEPS: u64 = 4;

/// The tensors and the curve of an arm that was trained with so much memory, and how many operations that took.
fn learned(model: &dyn Model, yaml: &str, memory: Memory) -> (Vec<f64>, Vec<Point>, u64) {
    let tokens = rows();
    let lengths: Vec<usize> = (0..tokens.rows()).map(|row| tokens.row(row).len()).collect();
    let limits = Limits { rows: 2, tokens: None };
    let plan = Plan::new(&lengths, limits, 2, Length::Steps(STEPS), |epoch| stream(1, &epoch.to_string())).unwrap();
    let schedule = Schedule::Constant;
    let fit = Fit { lr: 0.01, schedule, schedule_steps: STEPS, warmup: 0, steps: STEPS, clip: Some(1.0) };
    let adamw = AdamWOptions { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0 };
    use_threads(1);
    let arm = fresh_arm(yaml, model);
    let _ = tally::take();
    let curve = train_arm(model, &arm, &tokens, &plan, &Recipe { fit, adamw, seed: 3, memory }, &mut Silent).unwrap();
    let values: Vec<Tensor> = arm.parameters().iter().map(|(_, tensor)| tensor.detach().reshape([-1])).collect();
    let values = Vec::<f64>::try_from(Tensor::cat(&values, 0).to_kind(Kind::Double)).unwrap();
    (values, curve.points, tally::take().flop)
}

fn the_same_bits(model: &dyn Model, yaml: &str) {
    let (values, points, _) = learned(model, yaml, Memory::Normal);
    let (again, points_again, _) = learned(model, yaml, Memory::Low);
    assert!(values == again && points == points_again, "{yaml} over {:?}", model.kind());
}

/// What is at the last product of a block, alone and together, and below it nothing.
const AT_THE_END: [&str; 3] = [
    "lora: { rank: 2, alpha: 3, dropout: 0.5, target_modules: [down_proj], layers: [0] }",
    "lora: { rank: 2, alpha: 3, target_modules: [down_proj] }\nia3: {}",
    "lora: { rank: 2, alpha: 3, target_modules: [down_proj] }\nmlp: { hidden_size: 3, layers: [1] }",
];

#[test]
fn what_is_computed_again_learns_the_same_bits() {
    on_every_model(|_, folder| {
        for kind in [Kind::Float, Kind::BFloat16] {
            let model = load(folder, Device::Cpu, kind).unwrap();
            for yaml in arms().iter().map(String::as_str).chain(AT_THE_END) {
                the_same_bits(model.as_ref(), yaml);
            }
        }
    });
}

#[test]
fn so_it_does_where_projections_have_other_names_and_layouts() {
    for (config, stacked, down) in families() {
        let folder = tempfile::tempdir().unwrap();
        checkpoint(&config, folder.path());
        for kind in [Kind::Float, Kind::BFloat16] {
            let model = load(folder.path(), Device::Cpu, kind).unwrap();
            for yaml in [
                format!("lora: {{ rank: 3, alpha: 7, dropout: 0.5, target_modules: [{stacked}, {down}] }}"),
                format!("lora: {{ rank: 2, alpha: 5, use_dora: true, target_modules: [{stacked}, {down}] }}"),
                format!("lora: {{ rank: 2, alpha: 5, target_modules: [{down}], layers: [0, 1] }}"),
                format!("ia3: {{ target_modules: [{stacked}, {down}], feedforward_modules: [{down}] }}"),
                "mlp: { config: double_seq_bn, hidden_size: 3 }".to_owned(),
                "mlp: { config: par_bn, hidden_size: 3, layers: [1] }".to_owned(),
            ] {
                the_same_bits(model.as_ref(), &yaml);
            }
        }
    }
}

#[test]
fn a_last_product_is_made_again_only_where_somebody_needs_it() {
    let config = &configs()[0];
    let number = |name: &str| config[name].as_u64().unwrap();
    let folder = tempfile::tempdir().unwrap();
    checkpoint(config, folder.path());
    let model = load(folder.path(), Device::Cpu, Kind::Float).unwrap();
    // The gradient of DoRA's norms needs it, and nothing else is different.
    let [plain, dora] = ["", ", use_dora: true"]
        .map(|more| format!("lora: {{ rank: 2, alpha: 3, target_modules: [q_proj, down_proj]{more} }}"));
    let ids: u64 = learned(model.as_ref(), &plain, Memory::Normal).1.iter().map(|point| point.tokens).sum();
    let flop = |yaml: &str, memory| learned(model.as_ref(), yaml, memory).2;
    assert_eq!(flop(&plain, Memory::Normal), flop(&dora, Memory::Normal));
    let products = 2 * ids * number("hidden_size") * number("intermediate_size") * (number("num_hidden_layers") - 1);
    assert_eq!(flop(&dora, Memory::Low) - flop(&plain, Memory::Low), products);
}
