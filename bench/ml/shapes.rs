//! The bases, adapters and rows that are measured, from fixed seeds, in the formats that the peers read, too.
//! It does not know what is done with them.

use std::fs;
use std::path::Path;

use pipe::error::{Problem, Result};
use pipe::ml::adapters::{AdapterParams, Arm};
use pipe::ml::config::{ModelConfig, Start};
use pipe::ml::models;
use pipe::ml::tokens::write::Writer;
use pipe::ml::tokens::{FORMAT, TokensInfo};
use pipe::ml::weights;
use pipe::step::stream;
use rand::RngExt;
use serde_json::{Value, json};
use tch::Device;

use crate::text;

/// The configuration of a shape: P as in the pipelines that need nothing, T and S for processors, L is Llama-2's 7B for
/// GPUs.
fn config(shape: &str) -> Result<Value> {
    let (layers, width, inner, heads, vocabulary, tied) = match shape {
        "P" => (4, 128, 256, 4, 2048, true),
        "T" => (8, 256, 688, 4, 8192, false),
        "S" => (12, 768, 2048, 12, 32_000, true),
        "L" => (32, 4096, 11_008, 32, 32_000, false),
        other => return Err(Problem::new(format!("unknown shape `{other}`")).expected("P, T, S or L")),
    };
    Ok(json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "rms_norm_eps": 1e-5,
        "num_hidden_layers": layers, "hidden_size": width, "intermediate_size": inner, "num_attention_heads": heads,
        "num_key_value_heads": heads, "vocab_size": vocabulary, "max_position_embeddings": 2048, "rope_theta": 10000.0,
        "tie_word_embeddings": tied, "attention_bias": false, "mlp_bias": false, "bos_token_id": 1, "eos_token_id": 2,
        "torch_dtype": "float32",
    }))
}

/// The adapters that are measured.
pub fn adapter(name: &str) -> Result<AdapterParams> {
    let value = match name {
        "base" => json!({}),
        "lora" => json!({"lora": {"rank": 4, "alpha": 8.0, "target_modules": ["q_proj", "v_proj"]}}),
        "lora_all" => json!({"lora": {"rank": 16, "alpha": 32.0, "target_modules": "all-linear"}}),
        "mlp" => json!({"mlp": {"hidden_size": 128, "layers": [0, 2, 4, 6]}}),
        other => return Err(Problem::new(format!("unknown adapter `{other}`"))),
    };
    serde_json::from_value(value).map_err(|error| Problem::new(error.to_string()))
}

/// Writes base, adapters and rows, prose and a tokenizer; of L the configuration and rows alone, for which `base.py`
/// makes weights where the GPU is.
pub fn make(folder: &Path, shape: &str) -> Result<()> {
    let value = config(shape)?;
    let config = ModelConfig::from_value(&value)?;
    let base = folder.join("base");
    fs::create_dir_all(&base).map_err(|e| Problem::io("create", &base, &e))?;
    let text = serde_json::to_string_pretty(&value).unwrap_or_default();
    fs::write(base.join("config.json"), text).map_err(|e| Problem::io("write", &base, &e))?;
    if shape == "L" {
        return all_rows(folder, config.vocab_size, 1024);
    }
    let model = models::fresh(&config, Start::Normal, &mut stream(1, "base"), Device::Cpu)?;
    let tensors: Vec<_> = model.weights().into_iter().collect();
    weights::write_file(&base.join("model.safetensors"), &tensors)?;
    for name in if shape == "P" { &["lora"][..] } else { &["lora", "mlp"] } {
        let arm = Arm::init(&adapter(name)?, model.as_ref(), &mut stream(2, name))?;
        arm.save(&folder.join(name), "bench")?;
    }
    all_rows(folder, config.vocab_size, 256)?;
    text::make(folder)
}

/// Every kind of rows; `length` is that of full ones.
fn all_rows(folder: &Path, vocabulary: i64, length: usize) -> Result<()> {
    // Every id a target.
    rows(&folder.join("full"), vocabulary, 64, |_| (length, 1))?;
    // So little that starting is what takes the time.
    rows(&folder.join("few"), vocabulary, 8, |_| (64, 1))?;
    // As TERRa's prompts: one id of answer after a premise and a hypothesis; as Nerus's: some dozen ids.
    rows(&folder.join("ragged"), vocabulary, 512, |draw| {
        let bell = f64::midpoint(f64::midpoint(draw(), draw()), f64::midpoint(draw(), draw()));
        let length = 40 + (bell.powi(2) * 480.0) as usize;
        if draw() < 0.5 { (length, length - 1) } else { (length, length - 8 - (draw() * 24.0) as usize) }
    })?;
    // As captions or labels: what is around a product costs more than the product.
    rows(&folder.join("short"), vocabulary, 512, |draw| {
        let length = 8 + (draw() * 24.0) as usize;
        (length, length - 1 - (draw() * 4.0) as usize)
    })?;
    // 300 prompts, two labels each: rows stand in pairs.
    let mut lengths = Vec::new();
    let mut rng = stream(4, "lengths");
    for _ in 0..300 {
        let bell = f64::midpoint(rng.random::<f64>(), rng.random::<f64>());
        lengths.push(60 + (bell * 150.0) as usize);
    }
    pairs(&folder.join("pairs"), vocabulary, &lengths)
}

fn rows(
    folder: &Path,
    vocabulary: i64,
    count: usize,
    mut shape: impl FnMut(&mut dyn FnMut() -> f64) -> (usize, usize),
) -> Result<()> {
    let mut rng = stream(3, "rows");
    let mut lines = Vec::new();
    for _ in 0..count {
        let (length, target) = shape(&mut || rng.random::<f64>());
        let ids: Vec<i32> = (0..length).map(|_| rng.random_range(3..vocabulary as i32)).collect();
        lines.push((ids, target));
    }
    write(folder, vocabulary, &lines)
}

/// A prompt twice, with a label of two ids whose first ids differ.
fn pairs(folder: &Path, vocabulary: i64, lengths: &[usize]) -> Result<()> {
    let mut rng = stream(5, "pairs");
    let mut lines = Vec::new();
    for &length in lengths {
        let prompt: Vec<i32> = (0..length).map(|_| rng.random_range(30..vocabulary as i32)).collect();
        for label in [[3, 4], [5, 6]] {
            lines.push((prompt.iter().copied().chain(label).collect(), length));
        }
    }
    write(folder, vocabulary, &lines)
}

fn write(folder: &Path, vocabulary: i64, lines: &[(Vec<i32>, usize)]) -> Result<()> {
    let mut writer = Writer::create(folder)?;
    for (ids, target) in lines {
        writer.push(ids, *target)?;
    }
    writer.finish(&TokensInfo {
        format: FORMAT.to_owned(),
        task: "text".to_owned(),
        prompt: String::new(),
        vocab_size: vocabulary as u64,
        rows: lines.len() as u64,
        tokens: lines.iter().map(|(ids, _)| ids.len() as u64).sum(),
        target_tokens: lines.iter().map(|(ids, target)| (ids.len() - target) as u64).sum(),
        truncated: 0,
        longest: lines.iter().map(|(ids, _)| ids.len() as u64).max().unwrap_or(0),
        tokenizer: String::new(),
    })
}
