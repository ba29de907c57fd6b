//! The step kind `tokenizer`: trains a byte-level BPE tokenizer on text, or takes a ready one as it is.
//! It does not know the model that the tokenizer is for.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path as FilePath;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Tokenizer as Tokens};

use crate::error::{Problem, Result};
use crate::step::{Arity, Context, Input, Kind, Output, Share};
use crate::task::encode::{Encoder, files};
use crate::task::text;

/// See the module.
pub struct Tokenizer;

/// How to train.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Tokens in all: three special ones, 256 bytes, and merges.
    #[serde(default = "vocab_size")]
    #[schemars(range(min = 300, max = 200_000))]
    pub vocab_size: u32,
    /// A merge must occur this often.
    #[serde(default = "min_frequency")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_frequency: u32,
    /// The most bytes of text that are learnt from. Beyond it each input gives its beginning, all an equal share.
    #[serde(default = "max_bytes")]
    #[schemars(range(min = 1, max = 1_073_741_824))]
    pub max_bytes: u64,
}

fn vocab_size() -> u32 {
    4096
}
fn min_frequency() -> u32 {
    2
}
fn max_bytes() -> u64 {
    256 << 20
}

const FOLDER: &str = "tokenizer";

/// Special tokens; their position is their id.
pub const SPECIAL: [&str; 3] = ["<pad>", "<bos>", "<eos>"];

impl Kind for Tokenizer {
    const NAME: &'static str = "tokenizer";
    /// 1: byte-level BPE of `tokenizers` 0.23.
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Trains a byte-level BPE tokenizer on text, or takes a ready tokenizer";
    const EXAMPLE: &'static str = "tokenizer:\n  uses: tokenizer\n  in: { text: [corpus.text, corpus.nerus_train] }\n  with: { vocab_size: 4096 }\n";
    const INPUTS: &'static [Input] = &[
        Input {
            name: "text",
            arity: Arity::Any,
            named: false,
            doc: "Text to learn from: plain files, TERRa's JSON lines, CoNLL-U, or folders of these",
        },
        Input {
            name: "ready",
            arity: Arity::Optional,
            named: false,
            doc: "A tokenizer to take as it is, nothing is learnt then: a folder (or the file alone) with tokenizer.json, GPT-2's vocab.json and merges.txt, or SentencePiece's tokenizer.model, and what lies beside them",
        },
    ];
    const OUTPUTS: &'static [Output] =
        &[Output { name: "tokenizer", file: FOLDER, doc: "A folder in Hugging Face's format" }];
    type Params = Params;

    fn share(_params: &Params) -> Share {
        Share::Half
    }

    fn run(params: &Params, cx: &mut Context) -> Result<()> {
        let folder = cx.output(FOLDER);
        fs::create_dir_all(&folder).map_err(|e| Problem::io("create", &folder, &e))?;
        if let Some(ready) = cx.optional("ready") {
            // Seen to load before it is taken, under the name that the user knows.
            Encoder::open(&ready.path, &ready.label())?;
            files::copy(&ready.path, &ready.label(), &folder)?;
        } else {
            let words = count(params, cx)?;
            let trained =
                train(params, words).map_err(|e| Problem::new(format!("the tokenizer cannot be trained: {e}")))?;
            write(&trained, &folder)?;
        }
        let encoder = Encoder::open(&folder, "the tokenizer")?;
        if cx.optional("ready").is_none() && encoder.size() < params.vocab_size as usize {
            cx.warn(format!("the text gives {} tokens only, {} were asked for", encoder.size(), params.vocab_size));
        }
        cx.figure("vocab_size", encoder.size() as f64);
        Ok(())
    }
}

/// Counts the words of all texts; a word is what byte-level BPE never merges across.
fn count(params: &Params, cx: &Context) -> Result<BTreeMap<String, u64>> {
    let inputs = cx.inputs("text");
    let sizes = inputs.iter().map(|input| text::bytes(&input.path)).collect::<Result<Vec<u64>>>()?;
    let total: u64 = sizes.iter().sum();
    let budget = if total > params.max_bytes {
        cx.note(format!("of {total} bytes of text, {} are learnt from", params.max_bytes));
        params.max_bytes / inputs.len() as u64
    } else {
        u64::MAX
    };

    let mut words = BTreeMap::new();
    let mut done = 0;
    for input in inputs {
        let mut left = budget;
        let mut batch = Vec::new();
        let mut batched = 0;
        text::each(&input.path, &input.label(), &mut |text| {
            let bytes = text.len() as u64;
            if bytes > left {
                return Ok(false);
            }
            left -= bytes;
            batched += bytes;
            batch.push(text.to_owned());
            if batched >= 1 << 20 {
                cx.check_cancelled()?;
                add(&mut words, &std::mem::take(&mut batch))?;
                done += std::mem::take(&mut batched);
                cx.progress(done, Some(total.min(params.max_bytes)), "B", "");
            }
            Ok(true)
        })?;
        add(&mut words, &batch)?;
        done += batched;
    }
    if words.is_empty() {
        return Err(Problem::new("the tokenizer has nothing to learn from")
            .help("connect `text` to files with text, or `ready` to a tokenizer.json"));
    }
    Ok(words)
}

/// Adds the words of some texts. Sums do not depend on the order in which threads finish.
fn add(words: &mut BTreeMap<String, u64>, texts: &[String]) -> Result<()> {
    let counted = texts
        .par_iter()
        .map(|text| {
            let mut text = PreTokenizedString::from(text.as_str());
            split().pre_tokenize(&mut text)?;
            let mut words = BTreeMap::new();
            for (word, ..) in text.get_splits(OffsetReferential::Original, OffsetType::Byte) {
                *words.entry(word.to_owned()).or_insert(0) += 1;
            }
            Ok(words)
        })
        .collect::<std::result::Result<Vec<BTreeMap<String, u64>>, tokenizers::Error>>()
        .map_err(|e| Problem::new(format!("a text cannot be split into words: {e}")))?;
    for (word, count) in counted.into_iter().flatten() {
        *words.entry(word).or_insert(0) += count;
    }
    Ok(())
}

fn split() -> ByteLevel {
    ByteLevel::default().add_prefix_space(false)
}

fn train(params: &Params, words: BTreeMap<String, u64>) -> tokenizers::Result<Tokens> {
    let special = SPECIAL.map(|name| AddedToken::from(name, true));
    let trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(params.vocab_size as usize)
        .min_frequency(u64::from(params.min_frequency))
        .special_tokens(special.to_vec())
        // All bytes, so that any text can be encoded.
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut model = BPE::default();
    trainer.do_train(&words.into_iter().map(|(word, count)| (word.into(), count)).collect(), &mut model)?;

    let mut tokenizer = Tokens::new(model);
    tokenizer.with_pre_tokenizer(Some(split()));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    tokenizer.with_post_processor(Some(
        TemplateProcessing::builder().try_single("<bos> $A")?.special_tokens(vec![("<bos>", 1)]).build()?,
    ));
    tokenizer.add_special_tokens(special)?;
    Ok(tokenizer)
}

fn write(tokenizer: &Tokens, folder: &FilePath) -> Result<()> {
    let text = tokenizer.to_string(true).map_err(|e| Problem::new(format!("the tokenizer cannot be written: {e}")))?;
    let [pad, bos, eos] = SPECIAL;
    let config = format!(
        "{{\n  \"bos_token\": \"{bos}\",\n  \"eos_token\": \"{eos}\",\n  \"pad_token\": \"{pad}\",\n  \"tokenizer_class\": \"PreTrainedTokenizerFast\"\n}}\n"
    );
    for (name, text) in [("tokenizer.json", text), ("tokenizer_config.json", config)] {
        let path = folder.join(name);
        fs::write(&path, text).map_err(|e| Problem::io("write", &path, &e))?;
    }
    Ok(())
}
