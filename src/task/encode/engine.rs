//! What divides text: a pipeline of the library `tokenizers`, or a SentencePiece model.
//! It does not know what begins and ends a row, nor prompts.

use tokenizers::{AddedToken, Tokenizer};

use super::config::Config;
use super::files::{self, Vocabulary};
use super::library;
use super::marks::{Marks, Part};
use super::sentencepiece::SentencePiece;
use crate::error::{Problem, Result};

/// What divides text.
pub enum Engine {
    /// A pipeline of the library `tokenizers`. In a chat, marks are tokens of it, from `first_mark` on.
    Library { tokenizer: Box<Tokenizer>, first_mark: u32, special: Vec<(u32, String)> },
    /// A SentencePiece model; `legacy` puts a space before every part of a chat, not before the first alone.
    SentencePiece { model: SentencePiece, special: Vec<(u32, String)>, legacy: bool },
}

/// Classes whose SentencePiece model is used as it is; others shift its ids or add tokens of their own.
const PLAIN_SENTENCEPIECE: [&str; 3] = ["LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer"];

impl Engine {
    /// Loads what a vocabulary and its configuration describe; `label` is what messages call it.
    pub fn open(vocabulary: &Vocabulary, config: &Config, label: &str) -> Result<Self> {
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
    pub fn size(&self) -> usize {
        match self {
            Self::Library { tokenizer, .. } => {
                tokenizer.get_vocab(true).values().max().map_or(0, |id| *id as usize + 1)
            }
            Self::SentencePiece { model, .. } => model.len(),
        }
    }

    /// The id of a token.
    pub fn id(&self, token: &str) -> Option<u32> {
        match self {
            Self::Library { tokenizer, .. } => tokenizer.token_to_id(token),
            Self::SentencePiece { model, .. } => model.id(token),
        }
    }

    /// Special tokens with their ids, in order.
    pub fn special(&self) -> &[(u32, String)] {
        match self {
            Self::Library { special, .. } | Self::SentencePiece { special, .. } => special,
        }
    }

    /// What a SentencePiece model calls the token that begins (1) or ends (2) a text, where no configuration says it.
    pub fn default_name(&self, id: usize) -> Option<&str> {
        match self {
            Self::Library { .. } => None,
            Self::SentencePiece { special, .. } => {
                let name = ["<unk>", "<s>", "</s>"][id];
                special.iter().find(|(_, text)| text == name).map(|(_, text)| text.as_str())
            }
        }
    }

    /// Added tokens, which the configuration may have changed.
    pub fn added(&self) -> Vec<(u32, AddedToken)> {
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

    /// Ids of a text; words of special tokens are words.
    pub fn ids(&self, text: &str, label: &str) -> Result<Vec<u32>> {
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
    pub fn add_marks(&mut self, marks: &Marks, label: &str) -> Result<()> {
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
    pub fn marked_ids(&self, text: &str, marks: &Marks, label: &str) -> Result<Vec<u32>> {
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

    /// The text of ids, special tokens left out.
    pub fn text(&self, ids: &[u32], label: &str) -> Result<String> {
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

/// What the post-processor puts in front of a text.
pub fn processed_prefix(tokenizer: &Tokenizer, label: &str) -> Result<Vec<u32>> {
    let encode = |special: bool| {
        let encoding = tokenizer.encode_fast("а", special);
        encoding.map_err(|e| Problem::new(format!("{label} cannot encode a text: {e}")))
    };
    let (plain, full) = (encode(false)?, encode(true)?);
    let (plain, full) = (plain.get_ids(), full.get_ids());
    let at = full.windows(plain.len().max(1)).position(|window| window == plain).unwrap_or(0);
    Ok(full[..at].to_vec())
}
