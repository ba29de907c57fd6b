//! Text to token ids and back, with one rule for the boundary between a prompt and its answer.
//! It does not know prompts, tasks or models.

pub mod chat;
pub mod config;
mod engine;
pub mod files;
mod json;
mod library;
mod marks;
mod sentencepiece;

use std::path::Path;

use serde_json::json;
use tokenizers::AddedToken;

use crate::digest::Digest;
use crate::error::{Problem, Result};
use chat::{Chat, ChatParams};
use config::Config;
use engine::{Engine, processed_prefix};
use files::Vocabulary;
use marks::Marks;

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
            // transformers 4 goes by the flags and writes the file by them; transformers 5 looks at the file alone.
            (Engine::Library { tokenizer, .. }, Some((_, default)))
                if flagged || tokenizer.get_post_processor().is_none() =>
            {
                config.add_bos_token.unwrap_or(*default && config.name("bos_token").is_some())
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
