//! Laws that hold for every model and adapter, on tiny random ones. `refused` holds what bad files are answered.
//! It does not know any library's numbers: the golden cases hold those.

mod beside;
mod fused;
mod guessed;
mod merged;
mod recomputed;
mod refused;
mod shortened;
mod side_car;
mod steady;

use std::fs;
use std::path::Path;

use pipe::ml::adapters::{AdapterParams, Arm, Format, parameter_count};
use pipe::ml::config::{ModelConfig, Start};
use pipe::ml::dropout::Dropout;
use pipe::ml::generate::greedy;
use pipe::ml::models::{Input, MODELS, Model, fresh, load};
use pipe::ml::random;
use pipe::ml::score::log_likelihoods;
use pipe::ml::train::adamw::{AdamW, AdamWOptions};
use pipe::ml::train::arms::Adapted;
use pipe::ml::train::micro::Micro;
use pipe::ml::train::schedule::Schedule;
use pipe::ml::train::{Fit, Watch, fit};
use pipe::ml::weights::{Tensors, write_file};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

pub(crate) const LORA: &str =
    "lora: { rank: 3, alpha: 7, dropout: 0.5, target_modules: [q_proj, v_proj, down_proj], layers: [2, 1] }";
pub(crate) const MLP: &str = "mlp: { hidden_size: 5, layers: [0, 2], dropout: 0.5, non_linearity: gelu }";
pub(crate) const DORA: &str = "lora: { rank: 3, alpha: 7, dropout: 0.5, use_dora: true, target_modules: [q_proj, v_proj, down_proj], layers: [2, 1] }";
const PATTERNS: &str = "lora: { rank: 2, alpha: 3, dropout: 0.5, use_rslora: true, target_modules: all-linear,
    rank_pattern: { down_proj: 4 }, alpha_pattern: { 'layers\\.1\\..*': 5 }, init_weights: gaussian }";
pub(crate) const IA3: &str = "ia3: {}";
pub(crate) const IA3_OUT: &str =
    "ia3: { target_modules: [k_proj, v_proj, down_proj], feedforward_modules: [], layers: [0, 2] }";
const DOUBLE: &str = "mlp: { config: double_seq_bn, hidden_size: 5, dropout: 0.5, ln_after: true, scaling: channel }";
const PARALLEL: &str =
    "mlp: { config: par_bn, hidden_size: 4, layers: [1], dropout: 0.5, ln_before: true, scaling: learned }";
pub(crate) const REGEX: &str =
    "lora: { rank: 1, alpha: 4, dropout: 0.5, target_modules: '.*1\\.self_attn\\.(q|o)_proj' }";

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(7)
}

/// The configurations that every law is tried on, one architecture after the other.
pub(crate) fn configs() -> Vec<Value> {
    let tiny = json!({"vocab_size": 41, "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2});
    let make = |(model, more): (&str, Value)| {
        let mut config = tiny.clone();
        config["model_type"] = Value::from(model);
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config
    };
    let bent = json!({"head_dim": 10, "attention_bias": true, "mlp_bias": true, "tie_word_embeddings": true,
        "rope_scaling": {"rope_type": "linear", "factor": 2.0}});
    // Those whose projections have the names of `LORA` and the others; `fused` holds the rest.
    let names = MODELS.iter().map(|model| model.name).filter(|name| !["gpt2", "gpt_neox"].contains(name));
    let plain = names.map(|name| (name, json!({})));
    [("llama", json!({})), ("llama", bent)]
        .into_iter()
        .chain(plain.filter(|(name, _)| *name != "llama"))
        .map(make)
        .collect()
}

/// A random checkpoint in a folder, with larger weights than at the beginning of a training.
pub(crate) fn checkpoint(config: &Value, folder: &Path) {
    let config = ModelConfig::from_value(config).unwrap_or_else(|e| panic!("{e}"));
    let model = fresh(&config, Start::Normal, &mut rng(), Device::Cpu).unwrap();
    let tensors: Vec<_> = model.weights().into_iter().map(|(name, t)| (name, spread(&t))).collect();
    fs::write(folder.join("config.json"), config.to_value().to_string()).unwrap();
    write_file(&folder.join("model.safetensors"), &tensors).unwrap();
}

/// Matrices of N(0, 0.02) come to unit size, so that logits differ.
fn spread(tensor: &Tensor) -> Tensor {
    if tensor.dim() == 2 { tensor * 10.0 } else { tensor + random::normal(&mut rng(), &tensor.size(), 0.1) }
}

/// Tries a law on a loaded model of every configuration.
pub(crate) fn on_every_model(law: impl Fn(&dyn Model, &Path)) {
    let configs = configs();
    assert!(!configs.is_empty());
    for config in configs {
        let folder = tempfile::tempdir().unwrap();
        checkpoint(&config, folder.path());
        law(load(folder.path(), Device::Cpu, Kind::Float).unwrap().as_ref(), folder.path());
    }
}

fn params(yaml: &str) -> AdapterParams {
    serde_yaml::from_str(yaml).unwrap()
}

/// New adapters, as a training begins with them.
pub(crate) fn fresh_arm(yaml: &str, model: &dyn Model) -> Arm {
    Arm::init(&params(yaml), model, &mut rng()).unwrap()
}

/// New adapters whose every tensor is random, so that they change something.
pub(crate) fn trained(yaml: &str, model: &dyn Model) -> Arm {
    let mut rng = rng();
    let arm = Arm::init(&params(yaml), model, &mut rng).unwrap();
    for (_, mut tensor) in arm.parameters() {
        let noise = random::normal(&mut rng, &tensor.size(), 0.3);
        tch::no_grad(|| tensor.copy_(&noise));
    }
    arm
}

/// Every way of adapting, and those that go together.
fn arms() -> Vec<String> {
    let mut arms: Vec<String> =
        [LORA, MLP, DORA, PATTERNS, IA3, IA3_OUT, DOUBLE, PARALLEL, REGEX].map(str::to_owned).into();
    arms.push("mlp: { hidden_size: 7, layers: [2, 0, 1], dropout: 0.2 }".to_owned());
    // As AdapterHub's union, where its LoRA has the places, and side by side, where it has not.
    let together = [(LORA, MLP), (IA3_OUT, PARALLEL), (REGEX, DOUBLE), (IA3, MLP), (DORA, MLP)];
    arms.extend(together.map(|(one, other)| format!("{one}\n{other}")));
    arms
}

fn tokens(rows: &[&[i64]]) -> Tensor {
    Tensor::from_slice2(rows)
}

fn run(model: &dyn Model, arm: &Arm, ids: &Tensor, mask: Option<&Tensor>, dropout: Option<&Dropout>) -> Tensor {
    tch::no_grad(|| model.logits(&model.hidden(&Input { mask, dropout, ..Input::of(ids) }, arm, None)))
}

fn plain(model: &dyn Model, arm: &Arm) -> Tensor {
    run(model, arm, &tokens(&[&[1, 5, 9, 40, 0, 7], &[3, 3, 2, 11, 12, 13]]), None, None)
}

fn far(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

#[test]
fn what_promises_to_begin_as_the_base_changes_no_bit() {
    on_every_model(|model, _| {
        let parallel = PARALLEL.replace("scaling: learned", "scaling: 4");
        for yaml in [LORA, DORA, PATTERNS, IA3, IA3_OUT, REGEX, &parallel] {
            let arm = Arm::init(&params(yaml), model, &mut rng()).unwrap();
            assert!(plain(model, &arm).equal(&plain(model, &Arm::none())), "{yaml}");
            assert!(!plain(model, &trained(yaml, model)).equal(&plain(model, &Arm::none())), "{yaml}");
        }
    });
}

#[test]
fn every_arm_has_the_parameters_that_were_counted_and_overfits_one_batch() {
    on_every_model(|model, _| {
        for yaml in arms() {
            let params = params(&yaml);
            let arm = Arm::init(&params, model, &mut rng()).unwrap();
            assert_eq!(arm.trainable_parameters(), parameter_count(&params, model.config()).unwrap(), "{yaml}");
            let ids = tokens(&[&[1, 5, 9, 40, 0, 7, 12, 3], &[3, 3, 2, 11, 12, 13, 30, 31]]);
            let mut batches = |_| Ok(vec![Micro::from_labels(&ids, &ids, 16)]);
            let options = AdamWOptions { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0 };
            let mut adamw = AdamW::new(&arm.parameters(), options, |_, _| true).unwrap();
            let learner = Adapted::new(model, &arm, None);
            let fit_options = Fit {
                lr: 0.05,
                schedule: Schedule::Constant,
                schedule_steps: 40,
                warmup: 0,
                steps: 40,
                clip: Some(1.0),
            };
            let curve = fit(&fit_options, &learner, &mut adamw, &mut batches, &mut Silent).unwrap();
            let (first, last) = (curve.first_loss().unwrap(), curve.last_loss().unwrap());
            assert!(last < 0.8 * first, "{yaml}: {first} → {last}");
        }
    });
}

struct Silent;

impl Watch for Silent {
    fn check(&mut self) -> pipe::error::Result<()> {
        Ok(())
    }
}

#[test]
fn lora_is_the_base_with_merged_weights() {
    on_every_model(|model, folder| {
        let arm = trained(LORA, model);
        let mut merged: Tensors = model.weights();
        let parameters: Tensors = arm.parameters().into_iter().collect();
        let mut updated = 0;
        for (name, a) in parameters.iter().filter(|(name, _)| name.ends_with(".lora_A.weight")) {
            let b = &parameters[&name.replace(".lora_A.", ".lora_B.")];
            let weight = name.replace("base_model.model.", "").replace(".lora_A.", ".");
            let sum = &merged[&weight] + b.matmul(a) * (7.0 / 3.0);
            merged.insert(weight, sum);
            updated += 1;
        }
        assert_eq!(updated, 3 * 2);
        let other = tempfile::tempdir().unwrap();
        fs::copy(folder.join("config.json"), other.path().join("config.json")).unwrap();
        let merged: Vec<_> = merged.into_iter().collect();
        write_file(&other.path().join("model.safetensors"), &merged).unwrap();
        let merged = load(other.path(), Device::Cpu, Kind::Float).unwrap();
        let (ours, right) = (plain(model, &arm), plain(merged.as_ref(), &Arm::none()));
        assert!(far(&ours, &right) <= 1e-4 * right.abs().max().double_value(&[]).max(1.0), "{}", far(&ours, &right));
    });
}

#[test]
fn only_adapters_learn_and_every_tensor_of_theirs_does() {
    on_every_model(|model, _| {
        for yaml in arms() {
            let arm = trained(&yaml, model);
            let learning: Vec<_> =
                arm.parameters().into_iter().map(|(name, tensor)| (name, tensor.set_requires_grad(true))).collect();
            assert_eq!(arm.trainable_parameters(), learning.iter().map(|(_, t)| t.numel() as u64).sum::<u64>());
            let ids = tokens(&[&[1, 5, 9, 40]]);
            let input = Input::of(&ids);
            let logits = model.logits(&model.hidden(&input, &arm, None));
            logits.log_softmax(-1, Kind::Float).select(-1, 3).sum(Kind::Float).backward();
            for (name, tensor) in learning {
                assert!(tensor.grad().defined() && tensor.grad().abs().max().double_value(&[]) > 0.0, "{name}");
            }
            for (name, tensor) in model.weights() {
                assert!(!tensor.requires_grad() && !tensor.grad().defined(), "{name}");
            }
        }
    });
}

#[test]
fn what_is_saved_loads_to_the_same_bits() {
    on_every_model(|model, _| {
        for yaml in arms() {
            let arm = trained(&yaml, model);
            let folder = tempfile::tempdir().unwrap();
            arm.save(folder.path(), "base").unwrap();
            let again = Arm::load(folder.path(), model).unwrap_or_else(|e| panic!("{yaml}: {e}"));
            assert!(plain(model, &arm).equal(&plain(model, &again)), "{yaml}");
            assert_eq!(arm.describe(), again.describe());
            assert_eq!(arm.trainable_parameters(), again.trainable_parameters());
            // In every format that has a word for it.
            let mut held = 0;
            for format in [Format::Peft, Format::AdapterHub] {
                let folder = tempfile::tempdir().unwrap();
                if arm.save_as(format, folder.path(), "base").is_err() {
                    continue;
                }
                let again = Arm::load(folder.path(), model).unwrap_or_else(|e| panic!("{yaml}: {e}"));
                assert!(plain(model, &arm).equal(&plain(model, &again)), "{yaml} as {format:?}");
                held += 1;
            }
            let several =
                yaml.contains('\n') && (yaml.contains("mlp") && !yaml.contains(LORA) && !yaml.contains(IA3_OUT));
            assert!(held > 0 || several, "{yaml}");
        }
    });
}

#[test]
fn patterns_and_roots_survive_saving() {
    on_every_model(|model, _| {
        let folder = tempfile::tempdir().unwrap();
        trained(LORA, model).save(folder.path(), "base").unwrap();
        let path = folder.path().join("adapter_config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        config["use_rslora"] = json!(true);
        config["alpha_pattern"] = json!({"layers.1.self_attn.v_proj": 5.5});
        fs::write(&path, config.to_string()).unwrap();
        fs::remove_file(folder.path().join("pipe_adapter.json")).unwrap();
        let arm = Arm::load(folder.path(), model).unwrap();
        assert!(!plain(model, &arm).equal(&plain(model, &trained(LORA, model))));
        let other = tempfile::tempdir().unwrap();
        arm.save(other.path(), "base").unwrap();
        assert!(plain(model, &arm).equal(&plain(model, &Arm::load(other.path(), model).unwrap())));
    });
}

#[test]
fn padding_changes_no_row() {
    on_every_model(|model, _| {
        for yaml in arms() {
            let arm = trained(&yaml, model);
            let alone = run(model, &arm, &tokens(&[&[1, 5, 9]]), None, None); // [1, 3, V]
            let right = tokens(&[&[1, 5, 9, 0, 0, 0], &[4, 8, 15, 16, 23, 1]]);
            let left = tokens(&[&[0, 0, 0, 1, 5, 9], &[4, 8, 15, 16, 23, 1]]);
            for (ids, from) in [(right, 0), (left, 3)] {
                let mut real = vec![true; 12];
                for t in (0..6).filter(|t| !(from..from + 3).contains(t)) {
                    real[t] = false;
                }
                let mask = Tensor::from_slice(&real).view([2, 6]);
                let padded = run(model, &arm, &ids, Some(&mask), None);
                assert_eq!(padded.isnan().any().int64_value(&[]), 0, "padding is not a number");
                let row = padded.narrow(0, 0, 1).narrow(1, from as i64, 3);
                assert!(far(&row, &alone) < 1e-4, "{}", far(&row, &alone));
                assert!(row.argmax(-1, false).equal(&alone.argmax(-1, false)));
            }
        }
    });
}

#[test]
fn generation_with_a_cache_is_generation_without() {
    on_every_model(|model, _| {
        for yaml in arms() {
            let arm = trained(&yaml, model);
            let prompts = [vec![1, 5, 9], vec![2], vec![4, 8, 15, 16, 23, 1, 7]];
            let run_it = |stop: &[i64], batch| greedy(model, &arm, &prompts, 12, stop, batch, &mut |_| Ok(())).unwrap();
            let cached = run_it(&[], usize::MAX);
            for (prompt, ours) in prompts.iter().zip(&cached) {
                let mut whole = prompt.clone();
                for _ in 0..12 {
                    let logits = run(model, &arm, &tokens(&[&whole]), None, None);
                    whole.push(logits.select(1, -1).argmax(-1, false).int64_value(&[0]));
                }
                assert_eq!(whole[prompt.len()..], ours.ids);
            }
            // A row that ends early leaves; the others go on as if nothing were.
            let stop = cached[1].ids[3];
            for batch in [1, usize::MAX] {
                for (stopped, ours) in run_it(&[stop], batch).iter().zip(&cached) {
                    let end = ours.ids.iter().position(|id| *id == stop);
                    assert_eq!(stopped.ids, ours.ids[..end.unwrap_or(12)]);
                    assert_eq!(stopped.stopped, end.is_some());
                }
            }
        }
    });
}

#[test]
fn a_text_read_in_pieces_is_the_text_read_at_once() {
    on_every_model(|model, _| {
        let whole = tokens(&[&[1, 5, 9, 40, 0, 7]]);
        let mut cache = pipe::ml::models::KvCache::default();
        let pieces: Vec<Tensor> = [(0, 2), (2, 3), (5, 1)]
            .map(|(from, length)| {
                let ids = whole.narrow(1, from, length);
                let input = Input::of(&ids);
                tch::no_grad(|| model.logits(&model.hidden(&input, &Arm::none(), Some(&mut cache))))
            })
            .into();
        assert!(far(&Tensor::cat(&pieces, 1), &run(model, &Arm::none(), &whole, None, None)) < 1e-4);
    });
}

#[test]
fn dropout_is_for_training_and_depends_on_seed_and_step_alone() {
    on_every_model(|model, _| {
        let ids = tokens(&[&[1, 5, 9, 40, 0, 7]]);
        for yaml in arms().iter().filter(|yaml| yaml.contains("dropout")) {
            let arm = trained(yaml, model);
            let with = |seed, step| run(model, &arm, &ids, None, Some(&Dropout::new(seed, step)));
            assert!(with(1, 2).equal(&with(1, 2)));
            for other in [with(1, 3), with(2, 2), run(model, &arm, &ids, None, None)] {
                assert!(!with(1, 2).equal(&other), "{yaml}");
            }
            assert!(run(model, &arm, &ids, None, None).equal(&run(model, &arm, &ids, None, None)));
        }
        // The base has no dropout of its own.
        let base = run(model, &Arm::none(), &ids, None, Some(&Dropout::new(1, 2)));
        assert!(base.equal(&run(model, &Arm::none(), &ids, None, None)));
    });
}

#[test]
fn dropout_keeps_the_share_and_the_mean() {
    let x = Tensor::ones([200, 500], (Kind::Float, Device::Cpu));
    let y = Dropout::new(3, 4).apply(&x, 0.25);
    let zeros = y.eq(0.0).to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
    assert!((zeros - 0.25).abs() < 0.01, "{zeros}");
    assert!((y.mean(Kind::Float).double_value(&[]) - 1.0).abs() < 0.01);
    assert!(Dropout::new(3, 4).apply(&x, 0.0).equal(&x));
}

#[test]
fn a_score_is_the_sum_of_log_probabilities() {
    on_every_model(|model, _| {
        let arm = trained(LORA, model);
        let (context, short, long) = (vec![1, 5, 9], vec![40, 2], vec![4, 8, 15, 16]);
        let items: Vec<_> = [&short, &long, &vec![7]].map(|answer| (context.clone(), answer.clone())).into();
        for batch in [1, usize::MAX] {
            let scores = log_likelihoods(model, &arm, &items, batch, &mut |_| Ok(())).unwrap();
            for (score, (context, answer)) in scores.iter().zip(&items) {
                let whole = [context.as_slice(), answer].concat();
                let log_p = run(model, &arm, &tokens(&[&whole]), None, None).log_softmax(-1, Kind::Float);
                let at = |k: usize| (context.len() - 1 + k) as i64;
                let right: Vec<f64> =
                    answer.iter().enumerate().map(|(k, id)| log_p.double_value(&[0, at(k), *id])).collect();
                assert!((score.sum - right.iter().sum::<f64>()).abs() < 1e-4, "{score:?} {right:?}");
                assert!(score.tokens.iter().zip(&right).all(|(a, b)| (a - b).abs() < 1e-4), "{score:?} {right:?}");
            }
        }
        let next =
            greedy(model, &arm, std::slice::from_ref(&context), 3, &[], 99, &mut |_| Ok(())).unwrap().remove(0).ids;
        let mut other = next.clone();
        other[1] = (other[1] + 1) % 41;
        let items = [(context.clone(), next), (context, other)];
        let scores = log_likelihoods(model, &arm, &items, 99, &mut |_| Ok(())).unwrap();
        assert_eq!([scores[0].is_greedy, scores[1].is_greedy], [true, false]);
    });
}

#[test]
fn ids_that_the_model_does_not_have_and_empty_texts_are_refused() {
    on_every_model(|model, _| {
        let arm = Arm::none();
        for id in [41, -1] {
            let generated = greedy(model, &arm, &[vec![1], vec![2, id]], 3, &[], 99, &mut |_| Ok(()));
            let scored = log_likelihoods(model, &arm, &[(vec![1], vec![id])], 99, &mut |_| Ok(()));
            for problem in [generated.unwrap_err(), scored.unwrap_err()] {
                assert!(problem.to_string().contains(&format!("token id {id}")), "{problem}");
            }
        }
        assert!(greedy(model, &arm, &[vec![]], 3, &[], 99, &mut |_| Ok(())).is_err());
        assert!(log_likelihoods(model, &arm, &[(vec![], vec![1])], 99, &mut |_| Ok(())).is_err());
    });
}

#[test]
fn a_base_read_twice_shares_its_memory_until_its_file_changes() {
    // The last checkpoint stays: another test may read its own in between, which is no mistake.
    let folder = tempfile::tempdir().unwrap();
    checkpoint(&configs()[0], folder.path());
    let read = || load(folder.path(), Device::Cpu, Kind::Float).unwrap().weights();
    let name = "model.embed_tokens.weight";
    let shared = (0..100).any(|_| {
        let (one, two) = (read(), read());
        assert!(one[name].equal(&two[name]));
        one[name].data_ptr() == two[name].data_ptr()
    });
    assert!(shared);

    let before = read();
    let changed: Vec<_> = before.iter().map(|(name, t)| (name.clone(), t + 1.0)).collect();
    write_file(&folder.path().join("model.safetensors"), &changed).unwrap();
    assert!(read()[name].equal(&(&before[name] + 1.0)), "a stale base was served");
}
