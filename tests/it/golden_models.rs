//! Logits, log-likelihoods and generations against transformers, PEFT, AdapterHub and lm-evaluation-harness.
//! It does not know which cases there are: the manifests below the golden folder say.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use pipe::ml::adapters::{Arm, Format};
use pipe::ml::config::ModelConfig;
use pipe::ml::generate::{Stop, greedy, greedy_until};
use pipe::ml::models::{Input, Model, load, load_as};
use pipe::ml::score::log_likelihoods;
use pipe::ml::weights;
use pipe::task::answer;
use pipe::task::encode::Encoder;
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use crate::golden_metrics::cases;
use crate::support;

/// Ids in a batch: small enough that the cases need several batches.
const BATCH: usize = 100;

fn json(path: &Path) -> Value {
    let text = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn tensors(path: &Path) -> BTreeMap<String, Tensor> {
    weights::read_file(path, None, Device::Cpu).unwrap_or_else(|e| panic!("{e}"))
}

fn ids(value: &Value) -> Vec<i64> {
    value.as_array().expect("ids").iter().map(|id| id.as_i64().expect("an id")).collect()
}

fn lists(value: &Value) -> Vec<Vec<i64>> {
    value.as_array().expect("lists of ids").iter().map(ids).collect()
}

/// A model of the golden tree. One whose manifest calls it optional may be refused, by the name of its architecture
/// or of an option.
fn model(folder: &Path, dtype: Kind) -> Option<Box<dyn Model>> {
    match load(folder, Device::Cpu, dtype) {
        Ok(model) => Some(model),
        Err(problem) => {
            let manifest = folder.join("manifest.json");
            let optional = manifest.exists() && json(&manifest)["optional"] == true;
            assert!(optional && problem.what.contains('`'), "{}: {problem}", folder.display());
            eprintln!("refused: {}: {problem}", folder.display());
            None
        }
    }
}

/// The largest difference at real positions, less what the size of the right values allows.
fn excess(ours: &Tensor, right: &Tensor, mask: Option<&Tensor>, rtol: f64) -> f64 {
    assert_eq!(ours.size(), right.size());
    let over = (ours - right).abs() - right.abs() * rtol;
    let over =
        mask.map_or_else(|| over.shallow_clone(), |mask| over.where_self(&mask.unsqueeze(-1), &Tensor::from(0f32)));
    // NaN is greater than everything here, where a maximum might hide it.
    over.nan_to_num(f64::INFINITY, f64::INFINITY, f64::NEG_INFINITY).max().double_value(&[])
}

fn logits(model: &dyn Model, arm: &Arm, ids: &Tensor, mask: Option<&Tensor>) -> Tensor {
    tch::no_grad(|| model.logits(&model.hidden(&Input { mask, ..Input::of(ids) }, arm, None)))
}

/// What a case expects of a model with an arm: every file that is there. Returns how many things were compared.
fn check(case: &Path, inputs: &Path, manifest: &Value, model: &dyn Model, arm: &Arm) -> usize {
    let tolerance = |name: &str, part: &str| manifest["tolerances"][name][part].as_f64().expect("a tolerance");
    let (inputs, expected) = (tensors(inputs), tensors(&case.join("expected.safetensors")));
    let mut compared = 0;
    for (name, right) in expected.iter().filter_map(|(name, t)| Some((name.strip_suffix(".logits")?, t))) {
        let mask = inputs.get(&format!("{name}.attention_mask")).map(|mask| mask.to_kind(Kind::Bool));
        let ours = logits(model, arm, &inputs[&format!("{name}.input_ids")], mask.as_ref());
        let over = excess(&ours, right, mask.as_ref(), tolerance("logits", "rtol"));
        assert!(over <= tolerance("logits", "atol"), "{} {name}: {over}", case.display());
        compared += 1;
    }

    let mut states = Vec::new();
    let input = Input::of(&inputs["single.input_ids"]);
    let _ = tch::no_grad(|| model.states(&input, arm, None, &mut |state| states.push(state.copy())));
    let known: Vec<&Tensor> = (0..).map_while(|i| expected.get(&format!("single.hidden.{i}"))).collect();
    if !known.is_empty() {
        assert_eq!(states.len(), known.len(), "{}", case.display());
    }
    for (i, (ours, right)) in states.iter().zip(known).enumerate() {
        let over = excess(ours, right, None, tolerance("logits", "rtol"));
        assert!(over <= tolerance("logits", "atol"), "{} hidden state {i}: {over}", case.display());
        compared += 1;
    }
    compared + check_scores(case, manifest, model, arm) + check_generations(case, model, arm)
}

fn check_scores(case: &Path, manifest: &Value, model: &dyn Model, arm: &Arm) -> usize {
    let right = json(&case.join("loglik.json"));
    let right = right.as_array().expect("a list");
    let items: Vec<_> = right.iter().map(|item| (ids(&item["context"]), ids(&item["continuation"]))).collect();
    let ours = log_likelihoods(model, arm, &items, BATCH, &mut |_| Ok(())).unwrap();
    let atol = manifest["tolerances"]["loglik_sum"]["atol"].as_f64().expect("a tolerance");
    for (ours, right) in ours.iter().zip(right) {
        let at = case.display();
        let close = |ours: f64, right: &Value| (ours - right.as_f64().expect("a number")).abs() <= atol;
        assert!(close(ours.sum, &right["sum"]), "{at}: {ours:?}, but {right} is right");
        assert_eq!(ours.tokens.len(), right["tokens"].as_array().expect("a list").len(), "{at}");
        assert!(ours.tokens.iter().enumerate().all(|(i, p)| close(*p, &right["tokens"][i])), "{at}: {ours:?}");
        assert_eq!(right["is_greedy"], ours.is_greedy, "{at}: {right}");
    }
    ours.len()
}

fn check_generations(case: &Path, model: &dyn Model, arm: &Arm) -> usize {
    let right = json(&case.join("generate.json"));
    let prompts = lists(&right["prompts"]);
    let limit = right["max_new_tokens"].as_u64().expect("a limit") as usize;
    // One row at a time, and all rows in one padded batch.
    for batch in [1, usize::MAX] {
        let run = |stop: &[i64]| greedy(model, arm, &prompts, limit, stop, batch, &mut |_| Ok(())).unwrap();
        for (ours, right) in run(&[]).iter().zip(lists(&right["new_tokens"])) {
            assert_eq!(ours.ids, right, "{}", case.display());
            assert!(!ours.stopped);
        }
        let Some(ending) = right.get("with_eos") else { continue };
        let eos = ending["eos_token_id"].as_i64().expect("an id");
        for (ours, (right, raw)) in
            run(&[eos]).iter().zip(lists(&ending["before_eos"]).iter().zip(lists(&ending["raw_batch"])))
        {
            assert_eq!(&ours.ids, right, "{} with eos", case.display());
            assert_eq!(ours.stopped, raw.contains(&eos), "{} with eos", case.display());
        }
    }
    2 * prompts.len()
}

/// The folder of a golden case's `base`.
fn base(golden: &Path, manifest: &Value) -> PathBuf {
    let path = Path::new(manifest["base"].as_str().expect("a path"));
    golden.join("models").join(path.file_name().expect("a name"))
}

#[test]
fn models_compute_what_transformers_computes() {
    let Some(golden) = support::golden() else { return };
    let mut compared = 0;
    for case in cases(&golden, "model") {
        let manifest = json(&case.join("manifest.json"));
        let Some(model) = model(&case, Kind::Float) else { continue };
        compared += check(&case, &case.join("inputs.safetensors"), &manifest, model.as_ref(), &Arm::none());
    }
    support::has_cases(compared, "models");
}

#[test]
fn every_dialect_of_a_configuration_says_the_same() {
    let Some(golden) = support::golden() else { return };
    let mut compared = 0;
    for case in cases(&golden, "model") {
        if model(&case, Kind::Float).is_none() {
            continue;
        }
        let config = ModelConfig::read(&case).unwrap();
        let inputs = tensors(&case.join("inputs.safetensors"));
        let run = |config: &ModelConfig| {
            let model = load_as(&case, config, Device::Cpu, Kind::Float).unwrap_or_else(|e| panic!("{e}"));
            logits(model.as_ref(), &Arm::none(), &inputs["single.input_ids"], None)
        };
        let right = run(&config);
        for entry in fs::read_dir(case.join("alt_configs")).expect("a folder") {
            let path = entry.expect("an entry").path();
            let other = ModelConfig::from_value(&json(&path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            assert!(run(&other).equal(&right), "{}", path.display());
            compared += 1;
        }
    }
    support::has_cases(compared, "configurations");
}

#[test]
fn bf16_is_as_close_as_bf16_can_be() {
    let Some(golden) = support::golden() else { return };
    let (mut compared, mut clear_places) = (0, 0);
    for case in cases(&golden, "model") {
        let path = case.join("expected_lowprec.safetensors");
        if !path.exists() {
            continue;
        }
        let Some(model) = model(&case, Kind::BFloat16) else { continue };
        let noise = json(&case.join("manifest.json"))["notes"]["lowprec_compute_max_diff_to_fp32"].as_f64();
        let allowed = 3.0 * noise.expect("a number");
        let inputs = tensors(&case.join("inputs.safetensors"));
        for (name, right) in tensors(&path) {
            let Some(name) = name.strip_suffix(".logits") else { continue };
            let mask = inputs.get(&format!("{name}.attention_mask")).map(|mask| mask.to_kind(Kind::Bool));
            let ours = logits(model.as_ref(), &Arm::none(), &inputs[&format!("{name}.input_ids")], mask.as_ref());
            assert_eq!(ours.kind(), Kind::Float);
            let over = excess(&ours, &right, mask.as_ref(), 0.0);
            assert!(over <= allowed, "{} {name}: {over}, allowed {allowed}", case.display());
            // The likeliest id agrees wherever the runner-up is farther off than the noise.
            let (top, _) = right.topk(2, -1, true, true);
            let mut clear = (top.select(-1, 0) - top.select(-1, 1)).gt(2.0 * allowed);
            if let Some(mask) = mask {
                clear = clear.logical_and(&mask);
            }
            let wrong = ours.argmax(-1, false).ne_tensor(&right.argmax(-1, false)).logical_and(&clear);
            assert_eq!(wrong.any().int64_value(&[]), 0, "{} {name}", case.display());
            clear_places += clear.sum(Kind::Int64).int64_value(&[]);
            compared += 1;
        }
    }
    support::has_cases(compared, "models in bf16");
    assert!(compared == 0 || clear_places > 0, "in {compared} cases noise decides every place");
}

/// Every case of an adapter's kind on a supported base.
fn adapters(kind: &str) {
    let Some(golden) = support::golden() else { return };
    let mut compared = 0;
    for case in cases(&golden, kind) {
        let manifest = json(&case.join("manifest.json"));
        let base = base(&golden, &manifest);
        let Some(model) = model(&base, Kind::Float) else { continue };
        let arm = Arm::load(&case, model.as_ref()).unwrap_or_else(|e| panic!("{}: {e}", case.display()));
        if let Some(count) = manifest["trainable_parameters"].as_u64() {
            assert_eq!(arm.trainable_parameters(), count, "{}", case.display());
        }
        compared += check(&case, &base.join("inputs.safetensors"), &manifest, model.as_ref(), &arm);

        // What we write is what we read.
        let folder = tempfile::tempdir().unwrap();
        arm.save(folder.path(), "base").unwrap();
        let again = Arm::load(folder.path(), model.as_ref()).unwrap_or_else(|e| panic!("{}: {e}", case.display()));
        let ids = &tensors(&base.join("inputs.safetensors"))["single.input_ids"];
        let [before, after] = [&arm, &again].map(|arm| logits(model.as_ref(), arm, ids, None));
        assert!(before.equal(&after), "{}", case.display());
    }
    support::has_cases(compared, kind);
}

#[test]
fn lora_computes_what_peft_computes() {
    adapters("peft_lora");
}

#[test]
fn bottlenecks_compute_what_adapterhub_computes() {
    adapters("adapterhub_bottleneck");
}

/// The folders directly below one.
fn folders(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).unwrap_or_else(|e| panic!("{}: {e}", root.display()));
    let mut found: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

#[test]
fn dialects_of_adapters_are_computed_and_written_again() {
    let Some(golden) = support::golden() else { return };
    let root = golden.join("dialects");
    if !root.is_dir() {
        return support::has_cases(0, "dialects");
    }
    let model = model(&root.join("base"), Kind::Float).expect("a llama");
    let ids = &tensors(&root.join("base/expected.safetensors"))["input_ids"];
    let close = |folder: &Path, arm: &Arm, atol: f64| {
        let right = &tensors(&folder.join("expected.safetensors"))["logits"];
        let over = excess(&logits(model.as_ref(), arm, ids, None), right, None, 0.0);
        assert!(over <= atol, "{}: {over}", folder.display());
    };
    close(&root.join("base"), &Arm::none(), 1e-4);
    let mut compared = 0;
    for folder in folders(&root).iter().filter(|folder| folder.join("adapter_config.json").exists()) {
        let arm = Arm::load(folder, model.as_ref()).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let atol = if folder.ends_with("peft-lora-bf16") { 1e-3 } else { 1e-4 };
        close(folder, &arm, atol);
        // What nobody knows is said, not swallowed.
        let odd = folder.ends_with("peft-lora-unknown_key");
        assert_eq!(arm.notes().iter().any(|note| note.contains("pipe_extra")), odd, "{:?}", arm.notes());
        // What we write is what we read, in the format of its own and in every other that holds it.
        let mut written = 0;
        for format in [None, Some(Format::Peft), Some(Format::AdapterHub)] {
            let copy = tempfile::tempdir().unwrap();
            let saved = match format {
                None => arm.save(copy.path(), "base"),
                Some(format) => arm.save_as(format, copy.path(), "base"),
            };
            if format.is_none() || saved.is_ok() {
                saved.unwrap();
                let again =
                    Arm::load(copy.path(), model.as_ref()).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
                let [one, two] = [&arm, &again].map(|arm| logits(model.as_ref(), arm, ids, None));
                assert!(one.equal(&two), "{} as {format:?}", folder.display());
                written += 1;
            }
        }
        assert!(written >= 2, "{}", folder.display());
        compared += 1;
    }
    support::has_cases(compared, "dialects");
}

#[test]
fn broken_adapters_are_refused_by_tensor_or_field() {
    let Some(golden) = support::golden() else { return };
    let root = golden.join("dialects");
    if !root.is_dir() {
        return support::has_cases(0, "dialects");
    }
    let model = model(&root.join("base"), Kind::Float).expect("a llama");
    let mut refused = 0;
    for folder in folders(&root.join("broken")) {
        let loaded = Arm::load(&folder, model.as_ref());
        let named: &[&str] = match folder.file_name().and_then(|name| name.to_str()).expect("a name") {
            // No reader can know that α was another.
            "scalar_alpha_16" => {
                assert!(loaded.is_ok());
                continue;
            }
            "no_alpha" => &["`lora_alpha`"],
            "extra_target" => &["missing", "o_proj.lora_A.weight"],
            "fewer_target" => &["without a place", "v_proj.lora_A.weight"],
            "one_layer_missing" => &["missing", "lora_A.weight"],
            "wrong_prefix" => &["missing", "without a place", "lora_A.weight"],
            "wrong_r" => &["of another shape", "[4, 64] instead of [8, 64]"],
            _ => &["tensor"],
        };
        let problem = loaded.err().unwrap_or_else(|| panic!("{} was not refused", folder.display())).to_string();
        assert!(named.iter().all(|name| problem.contains(name)), "{}: {problem}", folder.display());
        refused += 1;
    }
    support::has_cases(refused, "broken");
}

#[test]
fn text_is_encoded_scored_and_continued_as_lm_evaluation_harness_does() {
    let Some(golden) = support::golden() else { return };
    let mut compared = 0;
    for case in cases(&golden, "lm_eval") {
        let manifest = json(&case.join("manifest.json"));
        let Some(model) = model(&base(&golden, &manifest), Kind::Float) else { continue };
        let encoder = Encoder::open(&case, "the case").unwrap_or_else(|e| panic!("{e}"));
        let wide = |ids: Vec<u32>| ids.into_iter().map(i64::from).collect::<Vec<i64>>();
        let text = |value: &Value| value.as_str().expect("text").to_owned();

        let right = json(&case.join("loglikelihood.json"));
        let right = right.as_array().expect("a list");
        let pair = |item: &Value| {
            let pair = encoder.pair(&text(&item["context"]), &text(&item["continuation"])).unwrap();
            (wide([encoder.prefix(), &pair.context].concat()), wide(pair.answer))
        };
        let items: Vec<_> = right.iter().map(pair).collect();
        let ours = log_likelihoods(model.as_ref(), &Arm::none(), &items, BATCH, &mut |_| Ok(())).unwrap();
        let atol = manifest["tolerances"]["loglikelihood"]["atol"].as_f64().expect("a tolerance");
        for ((ours, (context, answer)), right) in ours.iter().zip(&items).zip(right) {
            assert_eq!((context, answer), (&ids(&right["context_ids"]), &ids(&right["continuation_ids"])), "{right}");
            assert!((ours.sum - right["loglikelihood"].as_f64().expect("a number")).abs() <= atol, "{ours:?} {right}");
            assert_eq!(right["is_greedy"], ours.is_greedy, "{right}");
            compared += 1;
        }

        let eos: Vec<i64> = encoder.eos().iter().map(|&id| i64::from(id)).collect();
        for right in json(&case.join("generate_until.json")).as_array().expect("a list") {
            let ids_of = encoder.ids(&text(&right["context"])).unwrap();
            let prompt = wide([encoder.prefix(), &ids_of].concat());
            assert_eq!(prompt, ids(&right["context_ids"]));
            let limit = right["max_new_tokens"].as_u64().expect("a limit") as usize;
            let run = |stop: &Stop<'_>| {
                let prompts = std::slice::from_ref(&prompt);
                greedy_until(model.as_ref(), &Arm::none(), prompts, limit, stop, BATCH, &mut |_| Ok(()))
                    .unwrap()
                    .remove(0)
            };
            let plain = run(&Stop { ids: &[], ended: &|_| Ok(false) });
            assert_eq!(plain.ids, ids(&right["greedy_ids_without_stopping"]), "{right}");

            let until: Vec<String> = right["until"].as_array().expect("a list").iter().map(&text).collect();
            let words = |ids: &[i64]| encoder.text(&ids.iter().map(|&id| id as u32).collect::<Vec<u32>>());
            let ended = |ids: &[i64]| Ok(answer::until(&words(ids)?, &until).1);
            let ours = run(&Stop { ids: &eos, ended: &ended });
            let said = words(&ours.ids).unwrap();
            assert_eq!(answer::until(&said, &until).0, text(&right["text"]), "{right}");
            assert_eq!(ours.stopped, ours.ids.len() < limit || answer::until(&said, &until).1, "{right}");
            compared += 1;
        }
    }
    support::has_cases(compared, "lm_eval");
}

#[test]
fn a_trained_model_tells_its_story() {
    let Some(data) = support::data() else { return };
    let folder = data.join("stories260K/hf");
    let model = model(&folder, Kind::Float).expect("a llama");
    let right = json(&folder.join("expected_greedy.json"));
    let (prompt, whole) = (ids(&right["prompt_ids"]), ids(&right["greedy_ids"]));
    let limit = whole.len() - prompt.len();
    let ours = greedy(model.as_ref(), &Arm::none(), std::slice::from_ref(&prompt), limit, &[], BATCH, &mut |_| Ok(()))
        .unwrap();
    assert_eq!([prompt, ours[0].ids.clone()].concat(), whole);
}
