//! The part of `pretrain` that needs libtorch: text and prompts in, a checkpoint in Hugging Face's layout out.
//! It does not know the pipeline language.

use std::fs;

use serde_json::{Value, json};

use super::{Params, PromptLoss, text};
use crate::error::{Problem, Result};
use crate::ml::config::ModelConfig;
use crate::ml::tokens::Tokens;
use crate::ml::train::base::{BYTES_PER_WEIGHT, Diet, train_base};
use crate::ml::train::batch::{Length, Limits, Plan};
use crate::ml::{device, memory, models, shapes, weights};
use crate::step::{Artifact, Context};
use crate::steps::base::worked;
use crate::steps::json;
use crate::steps::train::compute::say;
use crate::steps::train::listener::Listener;
use crate::task::encode::{Encoder, files};

/// See [`super::Pretrain`].
pub fn run(params: &Params, cx: &mut Context) -> Result<()> {
    device::use_threads(cx.threads());
    let tokenizer = cx.input("tokenizer")?.clone();
    let encoder = Encoder::open(&tokenizer.path, &tokenizer.label())?;
    let config = ModelConfig::from_value(&config(params, &encoder))?;
    let weights = shapes::count(&models::tensors::shapes(&config));
    memory::check("the weights, gradients and moments of the training", weights, BYTES_PER_WEIGHT)?;
    let diet = diet(params, cx, &encoder, &tokenizer)?;

    let target = device::torch_device(&cx.machine().device);
    let model = models::fresh(&config, params.start, &mut cx.rng(params.seed, "weights"), target)?;
    worked(cx);
    let curve = train_base(model.as_ref(), &diet, &params.fit(params.steps, None), params.adamw(), &mut Listener(cx))?;

    let folder = cx.output("model");
    fs::create_dir_all(&folder).map_err(|e| Problem::io("create", &folder, &e))?;
    json::write(&folder.join("config.json"), &config.to_value())?;
    let tensors: Vec<_> = model.weights().into_iter().collect();
    weights::write_file(&folder.join("model.safetensors"), &tensors)?;
    files::copy(&tokenizer.path, &tokenizer.label(), &folder)?;
    curve.write(&cx.output("curve.csv"))?;

    let parameters: usize = tensors.iter().map(|(_, tensor)| tensor.numel()).sum();
    let summary = json!({
        "parameters": parameters,
        "vocab_size": config.vocab_size,
        "text_tokens": diet.text.len(),
        "prompt_rows": diet.prompts.iter().map(|(tokens, _)| tokens.rows()).sum::<usize>(),
        "steps": curve.points.len(),
        "tokens": curve.tokens(),
        "target_tokens": curve.target_tokens(),
        "prompt_padding_shares": diet.prompts.iter().map(|(_, plan)| plan.padding_share()).collect::<Vec<_>>(),
        "first_loss": curve.first_loss(),
        "last_loss": curve.last_loss(),
        "dtype": "f32",
    });
    json::write(&cx.output("summary.json"), &summary)?;
    say(cx, &curve);
    cx.figure("parameters", parameters as f64);
    Ok(())
}

/// `config.json` as transformers 4 writes it, which is read as every other one.
fn config(params: &Params, encoder: &Encoder) -> Value {
    let shape = &params.model;
    json!({
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": shape.attention_bias,
        "attention_dropout": 0.0,
        "bos_token_id": encoder.prefix().first(),
        "eos_token_id": encoder.eos().first(),
        "head_dim": shape.hidden_size / shape.num_attention_heads,
        "hidden_act": "silu",
        "hidden_size": shape.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate_size,
        "max_position_embeddings": shape.max_position_embeddings,
        "mlp_bias": false,
        "model_type": "llama",
        "num_attention_heads": shape.num_attention_heads,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_key_value_heads": shape.num_key_value_heads.unwrap_or(shape.num_attention_heads),
        "pad_token_id": encoder.eos().first().filter(|_| encoder.prefix().is_empty()).or(Some(&0)),
        "rms_norm_eps": shape.rms_norm_eps,
        "rope_scaling": null,
        "rope_theta": shape.rope_theta,
        "tie_word_embeddings": shape.tie_word_embeddings,
        "torch_dtype": "float32",
        "use_cache": true,
        "vocab_size": encoder.size(),
    })
}

fn diet(params: &Params, cx: &Context, encoder: &Encoder, tokenizer: &Artifact) -> Result<Diet> {
    let prompts = prompts(params, cx, encoder, tokenizer)?;
    let prompt_share = if prompts.is_empty() { 0.0 } else { params.prompt_share };
    let prompt_steps = Diet::prompt_steps(params.steps, prompt_share);
    let epoch = |what: &str| {
        let what = what.to_owned();
        move |epoch| crate::step::stream(params.seed, &format!("{what} of epoch {epoch}"))
    };

    let width = params.sequence_length as usize;
    let text = text::stream(cx, encoder, cx.inputs("text"))?;
    if text.len() < width {
        return Err(Problem::new(format!("the text has {} ids, not even one block of {width}", text.len()))
            .help("give more text, or a shorter `sequence_length`"));
    }
    let limits = Limits { rows: params.batch_tokens as usize / width, tokens: None };
    let length = Length::Steps(params.steps - prompt_steps);
    let blocks = Plan::new(&vec![width; text.len() / width], limits, 1, length, epoch("blocks"))?;

    let limit = params.batch_tokens as usize;
    let turns = prompt_steps.div_ceil(prompts.len().max(1) as u64);
    let prompts = prompts.into_iter().enumerate().map(|(task, tokens)| {
        let lengths: Vec<usize> = (0..tokens.rows()).map(|row| tokens.row(row).len()).collect();
        // As many rows as fit on average: the limit that counts is that of the ids.
        let mean = (tokens.ids.len() / tokens.rows().max(1)).max(1);
        let limits = Limits { rows: (2 * limit / mean).max(1), tokens: Some(limit) };
        let plan = Plan::new(&lengths, limits, 1, Length::Steps(turns), epoch(&format!("prompts {task}")))?;
        Ok((tokens, plan))
    });
    let prompts = prompts.collect::<Result<_>>()?;
    Ok(Diet { text, width, blocks, prompts, prompt_share, prompt_loss: params.prompt_loss == PromptLoss::All })
}

/// The rows of all prompts, a task each.
fn prompts(params: &Params, cx: &Context, encoder: &Encoder, tokenizer: &Artifact) -> Result<Vec<Tokens>> {
    let digest = encoder.digest()?;
    let mut all = Vec::new();
    for artifact in cx.inputs("prompts") {
        let tokens = Tokens::read(&artifact.path)?;
        if tokens.info.tokenizer != digest.as_str() || tokens.info.vocab_size > encoder.size() as u64 {
            let what = format!("{} was tokenized with another tokenizer than {}", artifact.label(), tokenizer.label());
            return Err(Problem::new(what).help("connect both to the same tokenizer"));
        }
        if tokens.info.longest as i64 > params.model.max_position_embeddings {
            let what = format!("{} has a row of {} ids", artifact.label(), tokens.info.longest);
            return Err(Problem::new(what)
                .expected(format!("at most `max_position_embeddings` {}", params.model.max_position_embeddings))
                .help("give `tokenize` a smaller `max_length`, or raise `model.max_position_embeddings`"));
        }
        all.push(tokens);
    }
    Ok(all)
}
