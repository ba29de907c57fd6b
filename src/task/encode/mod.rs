//! Text to token ids and back, with one rule for the boundary between a prompt and its answer.
//! It does not know prompts, tasks or models.

pub mod chat;
pub mod config;
pub mod files;
mod library;
mod marks;
mod sentencepiece;

use std::path::Path;

use serde_json::json;
use tokenizers::{AddedToken, Tokenizer};

use crate::digest::Digest;
use crate::error::{Problem, Result};
use chat::{Chat, ChatParams};
use config::Config;
use files::Vocabulary;
use marks::{Marks, Part};
use sentencepiece::SentencePiece;

/// A tokenizer, and the ids that begin and end a row.
pub struct Encoder {
    vocabulary: Vocabulary,
    engine: Engine,
    config: Config,
    chat: Option<Chat>,
    prefix: Vec<u32>,
    eos: Vec<u32>,
    size: usize,
    label: String,
}

/// What divides text.
enum Engine {
    /// A pipeline of the library `tokenizers`. In a chat, marks are tokens of it, from `first_mark` on.
    Library { tokenizer: Box<Tokenizer>, first_mark: u32, special: Vec<(u32, String)> },
    /// A SentencePiece model; `legacy` puts a space before every part of a chat, not before the first alone.
    SentencePiece { model: SentencePiece, special: Vec<(u32, String)>, legacy: bool },
}

/// A prompt and its answer as ids, without the ids that begin and end a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// What is given.
    pub context: Vec<u32>,
    /// What is to be predicted.
    pub answer: Vec<u32>,
}

/// A row that fits: ids, and where the answer begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fitted {
    /// What the tokenizer begins a text with, the prompt, the answer.
    pub ids: Vec<u32>,
    /// Position of the answer's first id.
    pub target: usize,
    /// True if the beginning of the prompt was cut off.
    pub truncated: bool,
}

/// Classes of transformers that put `bos_token` before a text by their flags, whatever tokenizer.json says, with what
/// they do where there is no flag.
const BY_FLAGS: [(&str, bool); 5] = [
    ("LlamaTokenizer", true),
    ("CodeLlamaTokenizer", true),
    ("GemmaTokenizer", true),
    ("CohereTokenizer", true),
    ("GPTNeoXTokenizer", false),
];

/// Classes whose SentencePiece model is used as it is; others shift its ids or add tokens of their own.
const PLAIN_SENTENCEPIECE: [&str; 3] = ["LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer"];

impl Encoder {
    /// Loads a tokenizer from a file, or from a folder (a tokenizer or a model); `label` is what messages call it.
    pub fn open(path: &Path, label: &str) -> Result<Self> {
        let vocabulary = Vocabulary::find(path, label)?;
        let config = if path.is_dir() { Config::read(path)? } else { Config::default() };
        let engine = Engine::open(&vocabulary, &config, label)?;
        let mut encoder = Self {
            size: engine.size(),
            engine,
            vocabulary,
            config,
            chat: None,
            prefix: Vec::new(),
            eos: Vec::new(),
            label: label.to_owned(),
        };
        encoder.prefix = encoder.find_prefix()?;
        encoder.eos = encoder.find_eos()?;
        Ok(encoder)
    }

    /// The same, but that prompts are put into the tokenizer's own chat template; `None` changes nothing.
    pub fn with_chat(mut self, params: Option<&ChatParams>) -> Result<Self> {
        let Some(params) = params else { return Ok(self) };
        let special = self.engine.special();
        let marks = Marks::new(special.iter().map(|(_, text)| text.clone()).collect());
        self.engine.add_marks(&marks, &self.label)?;
        let chat = Chat::new(params, &self.config, marks, &self.label)?;
        // The template writes what begins a text; and what ends the assistant's turn ends an answer.
        self.prefix = Vec::new();
        let end = chat.exchange("а", "б")?.end.and_then(|end| self.engine.special().get(end).map(|(id, _)| *id));
        if let Some(end) = end {
            self.eos.retain(|id| *id != end);
            self.eos.insert(0, end);
        }
        self.chat = Some(chat);
        Ok(self)
    }

    /// One more than the largest id.
    pub fn size(&self) -> usize {
        self.size
    }

    /// What messages call it.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// What the tokenizer begins every text with: `<bos>`, or nothing.
    pub fn prefix(&self) -> &[u32] {
        &self.prefix
    }

    /// What ends an answer. Training appends the first; generation stops at any.
    pub fn eos(&self) -> &[u32] {
        &self.eos
    }

    /// What tells tokenizers apart: the content of the files that turn text into ids, what the configuration changes
    /// of them, and the ids that begin and end a row. Two that have the same make the same rows.
    pub fn digest(&self) -> Result<Digest> {
        let token = |token: &AddedToken| {
            json!([token.content, token.single_word, token.lstrip, token.rstrip, token.normalized, token.special])
        };
        let files: Vec<_> = self.vocabulary.digests()?.iter().map(|(name, digest)| json!([name, digest])).collect();
        let from_files = matches!(self.vocabulary, Vocabulary::Library(_));
        let document = json!({
            "format": "pipe tokenizer 1",
            "files": files,
            "class": self.config.class.as_deref().filter(|_| !from_files),
            "added": self.engine.added().iter().map(|(id, added)| json!([id, token(added)])).collect::<Vec<_>>(),
            "add_prefix_space": self.config.add_prefix_space,
            "prefix": self.prefix,
            "eos": self.eos.first(),
        });
        Ok(Digest::of(document.to_string().as_bytes()))
    }

    /// Ids of a text alone.
    pub fn ids(&self, text: &str) -> Result<Vec<u32>> {
        self.engine.ids(text, &self.label)
    }

    /// Ids of a prompt that an answer is generated to: white space at its end belongs to the answer, but for a chat,
    /// whose template says where the answer begins.
    pub fn prompt(&self, prompt: &str) -> Result<Vec<u32>> {
        match &self.chat {
            None => self.ids(prompt.trim_end()),
            Some(chat) => self.engine.marked_ids(&chat.prompt(prompt)?, chat.marks(), &self.label),
        }
    }

    /// A prompt as the model sees it: in the chat template, if there is one.
    pub fn rendered(&self, prompt: &str) -> Result<String> {
        match &self.chat {
            None => Ok(prompt.to_owned()),
            Some(chat) => Ok(chat.marks().plain(&chat.prompt(prompt)?)),
        }
    }

    /// Ids of a prompt and its answer, by the rule of lm-evaluation-harness: white space at the end of the prompt
    /// goes to the answer; both are encoded as one text; the answer is what follows as many ids as the prompt alone
    /// has. So an answer has the ids that it has in running text, whatever the tokenizer does with a first word.
    /// Before an answer to nothing stands what begins a text, or else what ends one.
    pub fn pair(&self, prompt: &str, answer: &str) -> Result<Pair> {
        if let Some(chat) = &self.chat {
            let exchange = chat.exchange(prompt, answer)?;
            let ids = |text: &str| self.engine.marked_ids(text, chat.marks(), &self.label);
            let whole = ids(&format!("{}{}", exchange.prompt, exchange.answer))?;
            return self.part(whole, ids(&exchange.prompt)?.len());
        }
        if prompt.is_empty() {
            let named = self.config.name("bos_token").and_then(|token| self.engine.id(token));
            let start = named.or(self.eos.first().copied()).filter(|_| self.prefix.is_empty());
            return Ok(Pair { context: start.into_iter().collect(), answer: self.ids(answer)? });
        }
        let context = self.prompt(prompt)?;
        self.part(self.ids(&format!("{prompt}{answer}"))?, context.len())
    }

    fn part(&self, mut whole: Vec<u32>, context: usize) -> Result<Pair> {
        let answer = whole.split_off(context.min(whole.len()));
        if answer.is_empty() {
            return Err(Problem::new(format!("{} merges an answer into its prompt", self.label))
                .help("begin the answers with a space, and end the prompt without one"));
        }
        Ok(Pair { context: whole, answer })
    }

    /// The text of these ids, special tokens left out.
    pub fn text(&self, ids: &[u32]) -> Result<String> {
        self.engine.text(ids, &self.label)
    }

    /// Puts a row together within `longest` ids. What does not fit is cut off the beginning of the prompt, so that
    /// the answer and what stands before it stay whole; `None` if not even the answer fits behind one id of prompt,
    /// and for a chat that is too long: without its beginning it is none.
    pub fn fit(&self, context: &[u32], answer: &[u32], longest: usize) -> Option<Fitted> {
        let room = longest.checked_sub(self.prefix.len() + answer.len()).filter(|room| *room > 0)?;
        let kept = &context[context.len().saturating_sub(room)..];
        let truncated = kept.len() < context.len();
        if truncated && self.chat.is_some() {
            return None;
        }
        let ids = [self.prefix.as_slice(), kept, answer].concat();
        Some(Fitted { target: self.prefix.len() + kept.len(), truncated, ids })
    }

    /// What stands in front of every text: by the flags where the class goes by them, else by the post-processor.
    fn find_prefix(&self) -> Result<Vec<u32>> {
        let config = &self.config;
        let class = BY_FLAGS.iter().find(|(class, _)| config.class.as_deref() == Some(*class));
        let flagged = config.add_bos_token.is_some() || config.add_eos_token.is_some();
        let wanted = match (&self.engine, class) {
            // Transformers 4 goes by the flags, transformers 5 by the file: where they are given both are meant to agree.
            (Engine::Library { tokenizer, .. }, Some((_, default)))
                if flagged || tokenizer.get_post_processor().is_none() =>
            {
                config.add_bos_token.unwrap_or(*default)
            }
            (Engine::Library { tokenizer, .. }, _) if matches!(self.vocabulary, Vocabulary::Library(_)) => {
                return processed_prefix(tokenizer, &self.label);
            }
            (Engine::Library { .. }, _) => config.add_bos_token.unwrap_or(false),
            (Engine::SentencePiece { .. }, class) => config.add_bos_token.unwrap_or(class.is_none_or(|(_, d)| *d)),
        };
        if !wanted {
            return Ok(Vec::new());
        }
        let named = config.name("bos_token").or(self.engine.default_name(1));
        let id = named.and_then(|token| self.engine.id(token));
        id.map(|id| vec![id]).ok_or_else(|| {
            Problem::new(format!("the tokenizer of {} is to begin a text with `bos_token`, but has none", self.label))
                .help("give `bos_token` in tokenizer_config.json, or set `add_bos_token` to false there")
        })
    }

    /// From the tokenizer's config, the model's, or the names in use.
    fn find_eos(&self) -> Result<Vec<u32>> {
        let named = self.config.name("eos_token").or(self.engine.default_name(2));
        let mut eos: Vec<u32> = named.and_then(|token| self.engine.id(token)).into_iter().collect();
        for id in &self.config.eos_ids {
            if !eos.contains(id) {
                eos.push(*id);
            }
        }
        if eos.is_empty() {
            let names = ["<eos>", "</s>", "<|end_of_text|>", "<|im_end|>", "<|endoftext|>"];
            eos.extend(names.iter().find_map(|name| self.engine.id(name)));
        }
        if eos.is_empty() {
            return Err(Problem::new(format!("the tokenizer of {} has no token that ends a text", self.label))
                .help("give `eos_token_id` in config.json or `eos_token` in tokenizer_config.json beside it"));
        }
        Ok(eos)
    }
}

/// What the post-processor puts in front of a text.
fn processed_prefix(tokenizer: &Tokenizer, label: &str) -> Result<Vec<u32>> {
    let encode = |special: bool| {
        let encoding = tokenizer.encode_fast("а", special);
        encoding.map_err(|e| Problem::new(format!("{label} cannot encode a text: {e}")))
    };
    let (plain, full) = (encode(false)?, encode(true)?);
    let (plain, full) = (plain.get_ids(), full.get_ids());
    let at = full.windows(plain.len().max(1)).position(|window| window == plain).unwrap_or(0);
    Ok(full[..at].to_vec())
}

impl Engine {
    fn open(vocabulary: &Vocabulary, config: &Config, label: &str) -> Result<Self> {
        if let Some(tokenizer) = library::open(vocabulary, config, label)? {
            return Ok(Self::Library {
                first_mark: u32::MAX,
                special: special(tokenizer.get_added_tokens_decoder().into_iter().collect()),
                tokenizer: Box::new(tokenizer),
            });
        }
        let Vocabulary::SentencePiece(path) = vocabulary else {
            return Err(Problem::new(format!("{label} has no tokenizer.json")));
        };
        let class = config.class.as_deref().unwrap_or(PLAIN_SENTENCEPIECE[0]);
        if !PLAIN_SENTENCEPIECE.contains(&class) {
            return Err(Problem::new(format!("tokenizer.model of the class `{class}` is not read ({label})"))
                .expected(PLAIN_SENTENCEPIECE.map(|name| format!("`{name}`")).join(", "))
                .help(files::CONVERT));
        }
        let read = SentencePiece::read(&files::bytes(path)?, config.add_prefix_space.filter(|space| !space));
        let model = read.map_err(|problem| {
            Problem::new(format!(
                "the tokenizer.model of {label} is not a SentencePiece model that can be read: {}",
                problem.what
            ))
            .help(files::CONVERT)
        })?;
        if let Some((id, token)) = config.added.iter().find(|(id, token)| model.id(&token.content) != Some(*id)) {
            return Err(Problem::new(format!(
                "the configuration of {label} adds the token `{}` (id {id}), which its tokenizer.model does not have",
                token.content
            ))
            .help(files::CONVERT));
        }
        let special = model.special().map(|(id, text)| (id, text.to_owned())).collect();
        Ok(Self::SentencePiece { model, special, legacy: config.legacy.unwrap_or(true) })
    }

    /// One more than the largest id.
    fn size(&self) -> usize {
        match self {
            Self::Library { tokenizer, .. } => {
                tokenizer.get_vocab(true).values().max().map_or(0, |id| *id as usize + 1)
            }
            Self::SentencePiece { model, .. } => model.len(),
        }
    }

    fn id(&self, token: &str) -> Option<u32> {
        match self {
            Self::Library { tokenizer, .. } => tokenizer.token_to_id(token),
            Self::SentencePiece { model, .. } => model.id(token),
        }
    }

    /// Special tokens with their ids, in order.
    fn special(&self) -> &[(u32, String)] {
        match self {
            Self::Library { special, .. } | Self::SentencePiece { special, .. } => special,
        }
    }

    /// What a SentencePiece model calls the token that begins (1) or ends (2) a text, where no configuration says it.
    fn default_name(&self, id: usize) -> Option<&str> {
        match self {
            Self::Library { .. } => None,
            Self::SentencePiece { special, .. } => {
                let name = ["<unk>", "<s>", "</s>"][id];
                special.iter().find(|(_, text)| text == name).map(|(_, text)| text.as_str())
            }
        }
    }

    /// Added tokens, which the configuration may have changed.
    fn added(&self) -> Vec<(u32, AddedToken)> {
        match self {
            Self::Library { tokenizer, first_mark, .. } => {
                let mut added: Vec<_> = tokenizer.get_added_tokens_decoder().into_iter().collect();
                added.retain(|(id, _)| id < first_mark);
                added.sort_by_key(|(id, _)| *id);
                added
            }
            Self::SentencePiece { .. } => Vec::new(),
        }
    }

    fn ids(&self, text: &str, label: &str) -> Result<Vec<u32>> {
        match self {
            Self::Library { tokenizer, .. } => {
                let encoding = tokenizer.encode_fast(text, false);
                let encoding = encoding.map_err(|e| Problem::new(format!("{label} cannot encode a text: {e}")))?;
                Ok(encoding.get_ids().to_vec())
            }
            Self::SentencePiece { model, .. } => Ok(model.encode(text, true)),
        }
    }

    /// Marks become tokens that are found in any text: words of special tokens are not.
    fn add_marks(&mut self, marks: &Marks, label: &str) -> Result<()> {
        let Self::Library { tokenizer, first_mark, special } = self else { return Ok(()) };
        let known = tokenizer.get_added_tokens_decoder();
        let tokens: Vec<AddedToken> = special
            .iter()
            .zip(marks.texts())
            .filter_map(|((id, _), text)| {
                let token = known.get(id)?;
                Some(AddedToken::from(text, false).normalized(false).lstrip(token.lstrip).rstrip(token.rstrip))
            })
            .collect();
        let first = tokens.first().map(|token| token.content.clone());
        let added = tokenizer.add_tokens(tokens);
        added.map_err(|e| Problem::new(format!("the special tokens of {label} cannot be marked: {e}")))?;
        *first_mark = first.and_then(|first| tokenizer.token_to_id(&first)).unwrap_or(u32::MAX);
        Ok(())
    }

    /// Ids of a rendered chat.
    fn marked_ids(&self, text: &str, marks: &Marks, label: &str) -> Result<Vec<u32>> {
        match self {
            Self::Library { first_mark, special, .. } => {
                let number = |id: u32| id.checked_sub(*first_mark).and_then(|number| special.get(number as usize));
                Ok(self.ids(text, label)?.into_iter().map(|id| number(id).map_or(id, |(id, _)| *id)).collect())
            }
            Self::SentencePiece { model, special, legacy } => {
                let mut ids = Vec::new();
                for (i, part) in marks.parts(text).into_iter().enumerate() {
                    match part {
                        Part::Mark(number) => ids.extend(special.get(number).map(|(id, _)| *id)),
                        Part::Words(words) => ids.extend(model.encode(words, i == 0 || *legacy)),
                    }
                }
                Ok(ids)
            }
        }
    }

    fn text(&self, ids: &[u32], label: &str) -> Result<String> {
        match self {
            Self::Library { tokenizer, .. } => {
                let text = tokenizer.decode(ids, true);
                text.map_err(|e| Problem::new(format!("{label} cannot decode ids: {e}")))
            }
            Self::SentencePiece { model, .. } => Ok(model.decode(ids)),
        }
    }
}

/// The special ones, in the order of their ids.
fn special(added: Vec<(u32, AddedToken)>) -> Vec<(u32, String)> {
    let mut special: Vec<_> =
        added.into_iter().filter(|(_, token)| token.special).map(|(id, token)| (id, token.content)).collect();
    special.sort();
    special
}
