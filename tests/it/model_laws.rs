//! Laws that hold for every architecture, on tiny random models; what a checkpoint cannot be is refused by name.
//! It does not know any library's numbers: `model_reference` and the golden cases hold those.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use pipe::ml::adapters::{AdapterParams, Arm};
use pipe::ml::config::{ModelConfig, Start};
use pipe::ml::dropout::Dropout;
use pipe::ml::generate::greedy;
use pipe::ml::models::{Input, KvCache, MODELS, Model, Point, fresh, load, tensors};
use pipe::ml::random;
use pipe::ml::score::log_likelihoods;
use pipe::ml::shapes::count;
use pipe::ml::weights::{Tensors, read_file, shapes_of, write_file};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::model_configs::config;

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(11)
}

/// Every architecture, with the options that change how it computes.
fn configs() -> Vec<Value> {
    let scaled = |kind: &str| json!({"rope_scaling": {"rope_type": kind, "factor": 4.0}});
    let slides = json!({"use_sliding_window": true, "sliding_window": 3, "max_window_layers": 1});
    [
        ("llama", json!({})),
        ("llama", json!({"head_dim": 10, "attention_bias": true, "mlp_bias": true, "tie_word_embeddings": true})),
        ("llama", json!({"num_key_value_heads": 1, "hidden_act": "gelu_new"})),
        ("llama", scaled("yarn")),
        ("llama", scaled("dynamic")),
        ("mistral", json!({"sliding_window": 4})),
        ("mistral", json!({"sliding_window": null})),
        ("qwen2", slides.clone()),
        ("qwen3", json!({"attention_bias": true})),
        ("qwen3", slides),
        ("gpt2", json!({})),
        ("gpt2", json!({"tie_word_embeddings": false, "scale_attn_by_inverse_layer_idx": true, "n_inner": 20})),
        ("gpt_neox", json!({"rotary_pct": 0.5})),
        ("gpt_neox", json!({"use_parallel_residual": false, "rotary_pct": 1.0, "attention_bias": false})),
        ("gemma", json!({})),
        ("gemma2", json!({"sliding_window": 3, "query_pre_attn_scalar": 9, "attn_logit_softcapping": 2.0})),
        ("gemma3_text", json!({"sliding_window": 3, "sliding_window_pattern": 2, "query_pre_attn_scalar": 9})),
    ]
    .map(|(model_type, more)| config(model_type, more))
    .into()
}

/// A random checkpoint in a folder, with larger weights than at the beginning of a training.
fn checkpoint(config: &Value, folder: &Path) {
    let model = fresh(&ModelConfig::from_value(config).unwrap(), Start::Normal, &mut rng(), Device::Cpu).unwrap();
    let mut noise = rng();
    let spread = |(name, tensor): (String, Tensor)| {
        let wide =
            if tensor.dim() == 2 { tensor * 12.0 } else { &tensor + random::normal(&mut noise, &tensor.size(), 0.1) };
        (name, wide)
    };
    let tensors: Vec<_> = model.weights().into_iter().map(spread).collect();
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    write_file(&folder.join("model.safetensors"), &tensors).unwrap();
}

fn open(folder: &Path) -> Box<dyn Model> {
    load(folder, Device::Cpu, Kind::Float).unwrap_or_else(|e| panic!("{e}"))
}

fn on_every_model(law: impl Fn(&dyn Model, &Path, &Value)) {
    for config in configs() {
        let folder = tempfile::tempdir().unwrap();
        checkpoint(&config, folder.path());
        law(open(folder.path()).as_ref(), folder.path(), &config);
    }
}

/// Logits [B, T, V]; with a cache, of the new ids.
fn run(model: &dyn Model, arm: &Arm, ids: &Tensor, mask: Option<&Tensor>, cache: Option<&mut KvCache>) -> Tensor {
    tch::no_grad(|| model.logits(&model.hidden(&Input { mask, ..Input::of(ids) }, arm, cache)))
}

fn base(model: &dyn Model, ids: &Tensor) -> Tensor {
    run(model, &Arm::none(), ids, None, None)
}

fn far(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().nan_to_num(f64::INFINITY, f64::INFINITY, f64::INFINITY).max().double_value(&[])
}

fn text() -> Tensor {
    Tensor::from_slice2(&[&[1i64, 5, 9, 40, 0, 7, 12, 3, 30, 22], &[3, 3, 2, 11, 12, 13, 8, 31, 6, 1]])
}

#[test]
fn every_architecture_is_tried() {
    for model in MODELS {
        assert!(configs().iter().any(|config| config["model_type"] == model.name), "{}", model.name);
    }
}

#[test]
fn tensors_follow_from_the_configuration_alone() {
    on_every_model(|model, _, value| {
        let shapes = tensors::shapes(&ModelConfig::from_value(value).unwrap());
        assert_eq!(shapes, shapes_of(&model.weights()), "{value}");
        let numbers: usize = model.weights().values().map(Tensor::numel).sum();
        assert_eq!(count(&shapes), numbers as u128);
    });
}

#[test]
fn sites_are_the_checkpoints_modules_and_two_sums_in_every_block() {
    on_every_model(|model, _, value| {
        let weights = model.weights();
        let mut sums = BTreeMap::new();
        for site in model.sites() {
            match site.point {
                Point::Linear { inputs, outputs, fan_in_fan_out } => {
                    let shape = if fan_in_fan_out { [inputs, outputs] } else { [outputs, inputs] };
                    assert_eq!(weights[&format!("{}.weight", site.name)].size(), shape, "{value} {}", site.name);
                }
                Point::AfterAttention { hidden } | Point::AfterFeedForward { hidden } => {
                    assert_eq!(hidden, model.config().hidden_size);
                    let inside = format!("{}.", site.name);
                    assert!(weights.keys().any(|name| name.starts_with(&inside)), "{value} {}", site.name);
                    *sums.entry(site.layer).or_insert(0) += 1;
                }
            }
        }
        assert_eq!(sums, (0..3).map(|layer| (layer, 2)).collect(), "{value}");
        // Every matrix of a block is at a site: none is out of an adapter's reach.
        let matrices = weights.values().filter(|tensor| tensor.dim() == 2).count();
        let linear = model.sites().iter().filter(|site| matches!(site.point, Point::Linear { .. })).count();
        let outside = 1 + usize::from(!model.config().tie_word_embeddings) + usize::from(value["model_type"] == "gpt2");
        assert_eq!(matrices, linear + outside, "{value}");
    });
}

/// So that a site's adapter is at the projection whose name it has, whatever its layout.
#[test]
fn lora_at_each_projection_is_the_base_with_that_weight_changed() {
    on_every_model(|model, folder, value| {
        let mut modules: Vec<String> =
            model.config().projections().into_iter().map(|(module, _, _)| module.to_owned()).collect();
        modules.sort();
        for module in modules {
            let yaml = format!("lora: {{ rank: 2, alpha: 5, target_modules: [{module}], layers: [1] }}");
            let params: AdapterParams = serde_yaml::from_str(&yaml).unwrap();
            let arm = Arm::init(&params, model, &mut rng()).unwrap();
            let parameters: Tensors = arm.parameters().into_iter().collect();
            for tensor in parameters.values() {
                tch::no_grad(|| tensor.shallow_clone().copy_(&random::normal(&mut rng(), &tensor.size(), 0.4)));
            }
            let part = |part: &str| {
                let found = parameters.iter().find(|(name, _)| name.contains(part));
                found.unwrap_or_else(|| panic!("{part} of {module}")).1
            };
            let update = part("lora_B").matmul(part("lora_A")) * 2.5; // [outputs, inputs]
            let name = format!("{}.weight", model.config().module(1, &module));
            let mut merged = model.weights();
            let update = if model.config().fan_in_fan_out { update.tr() } else { update };
            let sum = &merged[&name] + update;
            merged.insert(name, sum);
            let other = tempfile::tempdir().unwrap();
            fs::copy(folder.join("config.json"), other.path().join("config.json")).unwrap();
            let merged: Vec<_> = merged.into_iter().map(|(name, tensor)| (name, tensor.contiguous())).collect();
            write_file(&other.path().join("model.safetensors"), &merged).unwrap();
            let (ours, right) = (run(model, &arm, &text(), None, None), base(open(other.path()).as_ref(), &text()));
            let size = right.abs().max().double_value(&[]).max(1.0);
            assert!(far(&ours, &right) <= 2e-4 * size, "{value} {module}: {}", far(&ours, &right));
            assert!(far(&right, &base(model, &text())) > 1e-3, "{value} {module} changes nothing");
        }
    });
}

#[test]
fn padding_changes_no_row() {
    on_every_model(|model, _, value| {
        let alone = base(model, &Tensor::from_slice2(&[&[1i64, 5, 9, 33]]));
        let right = Tensor::from_slice2(&[&[1i64, 5, 9, 33, 0, 0, 0], &[4, 8, 15, 16, 23, 1, 2]]);
        let left = Tensor::from_slice2(&[&[0i64, 0, 0, 1, 5, 9, 33], &[4, 8, 15, 16, 23, 1, 2]]);
        for (ids, from) in [(right, 0), (left, 3)] {
            let real: Vec<bool> = (0..14).map(|t| t >= 7 || (from..from + 4).contains(&t)).collect();
            let mask = Tensor::from_slice(&real).view([2, 7]);
            let padded = run(model, &Arm::none(), &ids, Some(&mask), None);
            assert_eq!(padded.isnan().any().int64_value(&[]), 0, "padding is not a number");
            let row = padded.narrow(0, 0, 1).narrow(1, from, 4);
            assert!(far(&row, &alone) < 2e-4, "{value}: {}", far(&row, &alone));
        }
    });
}

#[test]
fn a_text_read_in_pieces_is_the_text_read_at_once() {
    on_every_model(|model, _, value| {
        let whole = text();
        // Longer and shorter than the windows, one id and several, without padding and with some on the left.
        for padded in [false, true] {
            let real: Vec<bool> = (0..20).map(|t| !padded || t >= 2).collect();
            let mask = Tensor::from_slice(&real).view([2, 10]);
            let at = |from: i64, length: i64| padded.then(|| mask.narrow(1, from, length));
            let once = run(model, &Arm::none(), &whole, at(0, 10).as_ref(), None);
            for pieces in [vec![2, 3, 1, 4], vec![10], vec![5, 1, 1, 1, 1, 1], vec![1; 10], vec![7, 3]] {
                let (mut cache, mut from, mut read) = (KvCache::default(), 0, Vec::new());
                for length in &pieces {
                    let (ids, mask) = (whole.narrow(1, from, *length), at(from, *length));
                    from += length;
                    read.push(run(model, &Arm::none(), &ids, mask.as_ref(), Some(&mut cache)));
                }
                let skip = if padded { 2 } else { 0 };
                let real = |logits: &Tensor| logits.narrow(1, skip, 10 - skip);
                let far = far(&real(&Tensor::cat(&read, 1)), &real(&once));
                assert!(far < 2e-4, "{value} in {pieces:?}, padded {padded}: {far}");
            }
        }
    });
}

#[test]
fn generation_with_a_cache_is_generation_without() {
    on_every_model(|model, _, value| {
        let prompts = [vec![1, 5, 9], vec![2], vec![4, 8, 15, 16, 23, 1, 7]];
        for batch in [1, usize::MAX] {
            let ours = greedy(model, &Arm::none(), &prompts, 9, &[], batch, &mut |_| Ok(())).unwrap();
            for (prompt, ours) in prompts.iter().zip(&ours) {
                let mut whole = prompt.clone();
                for _ in 0..9 {
                    let logits = base(model, &Tensor::from_slice(&whole).unsqueeze(0));
                    whole.push(logits.select(1, -1).argmax(-1, false).int64_value(&[0]));
                }
                assert_eq!(whole[prompt.len()..], ours.ids, "{value}");
            }
        }
    });
}

/// Ids are guessed where a text repeats itself.
#[test]
fn what_repeats_itself_is_generated_as_without_a_cache() {
    on_every_model(|model, _, value| {
        let prompts = [vec![1, 5, 9, 1, 5, 9, 1, 5], vec![2; 6], vec![7], (0..18).map(|i| i % 6).collect()];
        for batch in [1, usize::MAX] {
            let ours = greedy(model, &Arm::none(), &prompts, 22, &[], batch, &mut |_| Ok(())).unwrap();
            for (prompt, ours) in prompts.iter().zip(&ours) {
                let mut whole = prompt.clone();
                for _ in 0..22 {
                    let logits = base(model, &Tensor::from_slice(&whole).unsqueeze(0));
                    whole.push(logits.select(1, -1).argmax(-1, false).int64_value(&[0]));
                }
                assert_eq!(whole[prompt.len()..], ours.ids, "{value}");
            }
        }
    });
}

#[test]
fn a_score_is_the_sum_of_log_probabilities() {
    on_every_model(|model, _, value| {
        let items = [(vec![1, 5, 9], vec![40, 2]), (vec![1, 5, 9], vec![4]), (vec![8; 6], vec![15, 16, 23, 4])];
        for batch in [1, usize::MAX] {
            let scores = log_likelihoods(model, &Arm::none(), &items, batch, &mut |_| Ok(())).unwrap();
            for (score, (context, answer)) in scores.iter().zip(&items) {
                let whole = [context.as_slice(), answer].concat();
                let log_p = base(model, &Tensor::from_slice(&whole).unsqueeze(0)).log_softmax(-1, Kind::Float);
                let right: f64 = (answer.iter().enumerate())
                    .map(|(k, id)| log_p.double_value(&[0, (context.len() - 1 + k) as i64, *id]))
                    .sum();
                assert!((score.sum - right).abs() < 5e-4, "{value}: {score:?} {right}");
            }
        }
    });
}

/// Shared heads are read where they lie when nothing learns, and repeated when something does.
#[test]
fn learning_and_evaluation_compute_the_same_bits_and_the_base_stays_as_it_is() {
    on_every_model(|model, _, value| {
        let bare = base(model, &text());
        let (ids, dropout) = (text(), Dropout::new(1, 2));
        let input = Input { dropout: Some(&dropout), ..Input::of(&ids) };
        let with_dropout = tch::no_grad(|| model.logits(&model.hidden(&input, &Arm::none(), None)));
        assert!(with_dropout.equal(&bare), "{value}: the base has no dropout of its own");

        let params: AdapterParams = serde_yaml::from_str("mlp: { hidden_size: 3 }").unwrap();
        let arm = Arm::init(&params, model, &mut rng()).unwrap();
        let still = run(model, &arm, &text(), None, None);
        let learning: Vec<_> = arm.parameters().into_iter().map(|(_, tensor)| tensor.set_requires_grad(true)).collect();
        let input = Input::of(&ids);
        let logits = model.logits(&model.hidden(&input, &arm, None));
        assert!(logits.equal(&still), "{value}");
        assert!(!still.equal(&bare), "{value}: an adapter behind every block changes nothing");
        logits.log_softmax(-1, Kind::Float).select(-1, 3).sum(Kind::Float).backward();
        assert!(learning.iter().all(|tensor| tensor.grad().defined()), "{value}");
        assert!(model.weights().values().all(|tensor| !tensor.requires_grad()), "{value}");
    });
}

#[test]
fn every_tensor_has_its_place_and_every_place_its_tensor() {
    on_every_model(|model, folder, value| {
        let path = folder.join("model.safetensors");
        let whole = model.weights();
        let with = |change: &dyn Fn(&mut Tensors)| {
            let mut tensors: Tensors = whole.iter().map(|(name, tensor)| (name.clone(), tensor.copy())).collect();
            change(&mut tensors);
            write_file(&path, &tensors.into_iter().collect::<Vec<_>>()).unwrap();
            load(folder, Device::Cpu, Kind::Float).err().map(|problem| problem.to_string())
        };
        for name in whole.keys() {
            let problem = with(&|tensors| drop(tensors.remove(name))).expect("refused");
            assert!(problem.contains("missing") && problem.contains(&format!("`{name}`")), "{value}: {problem}");
        }
        let extra = format!("{}.bias", model.config().module(1, "attention.other"));
        let problem = with(&|tensors| drop(tensors.insert(extra.clone(), Tensor::from_slice(&[1f32]))));
        assert!(problem.as_ref().is_some_and(|what| what.contains("without a place") && what.contains(&extra)));
        for end in model.config().names.constants {
            let constant =
                format!("{}{}{end}", model.config().module(0, "x"), if end.starts_with('.') { "" } else { "." });
            assert_eq!(with(&|tensors| drop(tensors.insert(constant.clone(), Tensor::from_slice(&[1f32])))), None);
        }
        // A tied head may stand there twice; one that is not must.
        if model.config().tie_word_embeddings {
            let head = format!("{}.weight", model.config().names.head);
            let again = whole[&format!("{}.weight", model.config().names.embedding)].copy();
            assert_eq!(with(&|tensors| drop(tensors.insert(head.clone(), again.copy()))), None);
        }
    });
}

#[test]
fn a_checkpoint_without_a_head_lacks_the_name_of_what_holds_the_rest() {
    on_every_model(|model, folder, value| {
        let prefix = format!("{}.", model.config().names.base);
        let bare: Vec<_> = model
            .weights()
            .into_iter()
            .filter_map(|(name, tensor)| Some((name.strip_prefix(&prefix)?.to_owned(), tensor)))
            .collect();
        let right = base(model, &text());
        write_file(&folder.join("model.safetensors"), &bare).unwrap();
        match load(folder, Device::Cpu, Kind::Float) {
            Ok(again) => {
                assert!(model.config().tie_word_embeddings, "{value}: a head out of nothing");
                assert!(base(again.as_ref(), &text()).equal(&right), "{value}");
            }
            Err(problem) => {
                let head = format!("missing: `{}.weight`", model.config().names.head);
                assert!(!model.config().tie_word_embeddings && problem.to_string().contains(&head), "{problem}");
            }
        }
    });
}

#[test]
fn texts_that_a_model_has_no_places_for_are_refused() {
    let long = vec![1i64; 39];
    for (model_type, more, option) in [
        ("gpt2", json!({}), "max_position_embeddings"),
        (
            "llama",
            json!({"max_position_embeddings": 40, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}),
            "rope_type: dynamic",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        checkpoint(&config(model_type, more), folder.path());
        let model = open(folder.path());
        let (model, arm) = (model.as_ref(), Arm::none());
        let continued = |new: usize| greedy(model, &arm, std::slice::from_ref(&long), new, &[], 999, &mut |_| Ok(()));
        let scored = |more: usize| {
            log_likelihoods(model, &arm, &[(long.clone(), vec![1; more])], 999, &mut |_| Ok(()))
                .map(|scores| scores.len())
        };
        // The last id is chosen or predicted, never read.
        assert_eq!(continued(2).unwrap()[0].ids.len(), 2);
        assert_eq!(scored(2).unwrap(), 1);
        for problem in [continued(3).unwrap_err(), scored(3).unwrap_err()] {
            let problem = problem.to_string();
            assert!(problem.contains("41 ids") && problem.contains("40") && problem.contains(option), "{problem}");
        }
    }
    // Nor is a guess read where a model has no places: the same id again and again.
    let folder = tempfile::tempdir().unwrap();
    checkpoint(&config("gpt2", json!({})), folder.path());
    let model = open(folder.path());
    let mut calls = 0;
    let mut count = |_| {
        calls += 1;
        Ok(())
    };
    let answers = greedy(model.as_ref(), &Arm::none(), &[vec![1; 9]], 32, &[], 999, &mut count).unwrap();
    assert_eq!(answers[0].ids.len(), 32);
    assert!(calls < 32, "nothing was guessed in {:?}", answers[0].ids);
    // Angles have no end.
    let folder = tempfile::tempdir().unwrap();
    checkpoint(&config("llama", json!({"max_position_embeddings": 40})), folder.path());
    assert!(greedy(open(folder.path()).as_ref(), &Arm::none(), &[long], 9, &[], 999, &mut |_| Ok(())).is_ok());
}

#[test]
fn a_model_larger_than_the_memory_is_refused_before_it_is_taken() {
    let huge = json!({"hidden_size": 1 << 20, "intermediate_size": 1 << 22, "num_hidden_layers": 4096,
        "vocab_size": 1 << 24});
    let config = ModelConfig::from_value(&config("llama", huge)).unwrap();
    let problem = fresh(&config, Start::Normal, &mut rng(), Device::Cpu).err().expect("refused").to_string();
    assert!(problem.contains("GB") && problem.contains("free"), "{problem}");
}

#[test]
fn an_induction_head_is_written_into_a_llama_alone() {
    for model in MODELS {
        let config = ModelConfig::from_value(&config(model.name, json!({}))).unwrap();
        let problem = fresh(&config, Start::Induction, &mut rng(), Device::Cpu).err();
        // A Llama needs biases for it, which `pretrain` checks.
        if model.name != "llama" {
            assert!(problem.expect("refused").to_string().contains(model.name));
        }
    }
}

#[test]
fn shards_and_half_precision_are_the_same_checkpoint() {
    on_every_model(|model, folder, value| {
        let right = base(model, &text());
        let all: Vec<_> =
            read_file(&folder.join("model.safetensors"), None, Device::Cpu).unwrap().into_iter().collect();
        let (first, second) = all.split_at(all.len() / 2);
        let mut map = serde_json::Map::new();
        for (file, part) in [("a.safetensors", first), ("b.safetensors", second)] {
            write_file(&folder.join(file), part).unwrap();
            map.extend(part.iter().map(|(name, _)| (name.clone(), json!(file))));
        }
        fs::remove_file(folder.join("model.safetensors")).unwrap();
        let index = json!({ "weight_map": map }).to_string();
        fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
        assert!(base(open(folder).as_ref(), &text()).equal(&right), "{value}");

        let narrow = load(folder, Device::Cpu, Kind::BFloat16).unwrap();
        let half = base(narrow.as_ref(), &text());
        let size = right.abs().max().double_value(&[]);
        assert_eq!(half.kind(), Kind::Float);
        assert!(far(&half, &right) < 0.15 * size.max(1.0), "{value}: {} of {size}", far(&half, &right));
    });
}
