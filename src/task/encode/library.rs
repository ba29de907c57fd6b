//! Tokenizers of the library `tokenizers`: its own file, or the pipeline that belongs to GPT-2's two files.
//! It does not know prompts. What configurations add is added as transformers 4.57 and 5.24 do.

use std::path::Path;

use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer};

use super::config::Config;
use super::files::{self, Vocabulary};
use crate::error::{Problem, Result};

/// How Qwen2 divides a text into words: `PRETOKENIZE_REGEX` in transformers' `tokenization_qwen2`.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Classes whose two files are read, and the only ones: the files do not say how words are divided.
const WITH_MERGES: [&str; 3] = ["GPT2Tokenizer", "GPTNeoXTokenizer", "Qwen2Tokenizer"];

/// Loads [`Vocabulary::Library`].
pub fn from_json(path: &Path, config: &Config, label: &str) -> Result<Tokenizer> {
    let refuse = |what: String| Problem::new(format!("the tokenizer of {label} {what}"));
    let read = Tokenizer::from_bytes(files::bytes(path)?);
    let mut tokenizer = read.map_err(|e| refuse(format!("cannot be read: {e}")))?;
    if let (Some(space), Some(PreTokenizerWrapper::ByteLevel(level))) =
        (config.add_prefix_space, tokenizer.get_pre_tokenizer())
    {
        let level = level.add_prefix_space(space);
        tokenizer.with_pre_tokenizer(Some(level));
    }
    settle(tokenizer, config, label)
}

/// Builds the pipeline of [`Vocabulary::Merges`] that belongs to the class.
pub fn from_merges(vocab: &Path, merges: &Path, config: &Config, label: &str) -> Result<Tokenizer> {
    let class = config.class.as_deref().unwrap_or("GPT2Tokenizer");
    if !WITH_MERGES.contains(&class) {
        return Err(Problem::new(format!("vocab.json and merges.txt of the class `{class}` are not read ({label})"))
            .expected(WITH_MERGES.map(|name| format!("`{name}`")).join(", "))
            .help(files::CONVERT));
    }
    let (vocab, merges) = (utf8(vocab)?, utf8(merges)?);
    let model = BPE::from_file(vocab, merges)
        .continuing_subword_prefix(String::new())
        .end_of_word_suffix(String::new())
        .build()
        .map_err(|e| Problem::new(format!("vocab.json and merges.txt of {label} do not belong together: {e}")))?;
    let space = config.add_prefix_space.unwrap_or(false);
    let level = ByteLevel::default().add_prefix_space(space);
    let mut tokenizer = Tokenizer::new(model);
    if class == "Qwen2Tokenizer" {
        let split = Split::new(SplitPattern::Regex(QWEN2.to_owned()), SplitDelimiterBehavior::Isolated, false);
        let split = split.map_err(|e| Problem::new(format!("the words of {label} cannot be divided: {e}")))?;
        let both = [PreTokenizerWrapper::Split(split), PreTokenizerWrapper::ByteLevel(level.use_regex(false))];
        tokenizer.with_pre_tokenizer(Some(Sequence::new(both.to_vec())));
    } else {
        tokenizer.with_pre_tokenizer(Some(level));
    }
    if class != "GPT2Tokenizer" {
        let with = tokenizer.with_normalizer(Some(NFC));
        with.map_err(|e| Problem::new(format!("the tokenizer of {label} cannot be built: {e}")))?;
    }
    tokenizer.with_decoder(Some(ByteLevel::default()));
    settle(tokenizer, config, label)
}

fn utf8(path: &Path) -> Result<&str> {
    // The library takes a path as text; the size is looked at, as everywhere.
    files::bytes(path)?;
    path.to_str().ok_or_else(|| Problem::new(format!("the path {} is not UTF-8", path.display())))
}

/// Adds tokens, and takes away what is done here by rules of our own: cutting, padding; and text of a data file
/// never becomes a special token.
fn settle(mut tokenizer: Tokenizer, config: &Config, label: &str) -> Result<Tokenizer> {
    let refuse = |what: String| Problem::new(format!("the tokenizer of {label} {what}"));
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|e| refuse(format!("cannot be used: {e}")))?;
    let added = config.added.iter().map(|(_, token)| token.clone());
    add(&mut tokenizer, added.collect(), label)?;
    if let Some((id, token, got)) = config.added.iter().find_map(|(id, token)| {
        let got = tokenizer.token_to_id(&token.content);
        (got != Some(*id)).then_some((id, token, got))
    }) {
        let got = got.map_or_else(|| "none".to_owned(), |got| got.to_string());
        return Err(refuse(format!(
            "contradicts itself: its configuration gives `{}` the id {id}, its vocabulary {got}",
            token.content
        ))
        .help("fetch tokenizer.json and tokenizer_config.json anew from the same revision"));
    }
    let known = tokenizer.get_added_tokens_decoder();
    let known: Vec<&str> = known.values().map(|token| token.content.as_str()).collect();
    let special = config.named.values().chain(&config.extra);
    let missing = special.filter(|token| !known.contains(&token.content.as_str())).cloned().collect();
    add(&mut tokenizer, missing, label)?;
    tokenizer.set_encode_special_tokens(true);
    Ok(tokenizer)
}

fn add(tokenizer: &mut Tokenizer, tokens: Vec<AddedToken>, label: &str) -> Result<()> {
    tokenizer
        .add_tokens(tokens)
        .map(drop)
        .map_err(|e| Problem::new(format!("tokens cannot be added to the tokenizer of {label}: {e}")))
}

/// Loads either kind.
pub fn open(vocabulary: &Vocabulary, config: &Config, label: &str) -> Result<Option<Tokenizer>> {
    match vocabulary {
        Vocabulary::Library(path) => from_json(path, config, label).map(Some),
        Vocabulary::Merges(vocab, merges) => from_merges(vocab, merges, config, label).map(Some),
        Vocabulary::SentencePiece(_) => Ok(None),
    }
}
