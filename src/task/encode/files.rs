//! Which files of a folder make a tokenizer, and how they are read.
//! It does not know what is in them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::digest::Digest;
use crate::error::{Problem, Result};

/// The library's own file: pipeline, vocabulary and added tokens in one.
pub const LIBRARY: &str = "tokenizer.json";
/// GPT-2's vocabulary.
pub const VOCAB: &str = "vocab.json";
/// GPT-2's merges.
pub const MERGES: &str = "merges.txt";
/// A SentencePiece model.
pub const SENTENCEPIECE: &str = "tokenizer.model";
/// Special tokens, flags, the chat template.
pub const CONFIG: &str = "tokenizer_config.json";
/// Special tokens in the layout before `added_tokens_decoder`.
pub const SPECIAL: &str = "special_tokens_map.json";
/// Added tokens in the layout before `added_tokens_decoder`.
pub const ADDED: &str = "added_tokens.json";
/// The chat template on its own.
pub const CHAT: &str = "chat_template.jinja";

/// Every file that belongs to a tokenizer, as transformers names them.
pub const ALL: [&str; 8] = [LIBRARY, VOCAB, MERGES, SENTENCEPIECE, CONFIG, SPECIAL, ADDED, CHAT];

/// Vocabularies in formats that are not read, with the name of the format.
const OTHERS: [(&str, &str); 3] =
    [("tekken.json", "Mistral's tekken"), ("tiktoken.model", "tiktoken"), ("vocab.txt", "a bare WordPiece vocabulary")];

/// The largest file that is read: the memory must not be filled by a file that calls itself a tokenizer.
const LARGEST: u64 = 512 << 20;

/// What transformers does to write [`LIBRARY`].
pub const CONVERT: &str =
    "write its tokenizer.json once with transformers: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)";

/// Where the vocabulary is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vocabulary {
    /// [`LIBRARY`].
    Library(PathBuf),
    /// [`VOCAB`] and [`MERGES`].
    Merges(PathBuf, PathBuf),
    /// [`SENTENCEPIECE`].
    SentencePiece(PathBuf),
}

impl Vocabulary {
    /// That of a file, or of a folder (a tokenizer or a model): [`LIBRARY`] if it is there, as in transformers.
    /// `label` is what messages call it.
    pub fn find(path: &Path, label: &str) -> Result<Self> {
        if !path.is_dir() {
            return Ok(if is_json(path)? {
                Self::Library(path.to_owned())
            } else {
                Self::SentencePiece(path.to_owned())
            });
        }
        let there = |name: &str| Some(path.join(name)).filter(|path| path.is_file());
        if let Some(library) = there(LIBRARY) {
            return Ok(Self::Library(library));
        }
        match (there(VOCAB), there(MERGES), there(SENTENCEPIECE)) {
            (Some(vocab), Some(merges), _) => Ok(Self::Merges(vocab, merges)),
            (Some(_), None, None) => Err(Problem::new(format!("{label} has vocab.json but no merges.txt"))
                .help("both belong together: fetch the other one, too")),
            (.., Some(model)) => Ok(Self::SentencePiece(model)),
            _ => Err(match OTHERS.iter().find(|(name, _)| there(name).is_some()) {
                Some((name, format)) => {
                    Problem::new(format!("the tokenizer of {label} is {name}, {format}, which is not read"))
                        .help(CONVERT)
                }
                None => Problem::new(format!("{label} has no tokenizer.json")).help(
                    "give a folder with the tokenizer in Hugging Face's own format: tokenizer.json, or vocab.json and merges.txt, or SentencePiece's tokenizer.model",
                ),
            }),
        }
    }

    /// Its files, by their name in [`ALL`].
    pub fn files(&self) -> Vec<(&'static str, &Path)> {
        match self {
            Self::Library(path) => vec![(LIBRARY, path)],
            Self::Merges(vocab, merges) => vec![(VOCAB, vocab), (MERGES, merges)],
            Self::SentencePiece(path) => vec![(SENTENCEPIECE, path)],
        }
    }

    /// Digests of its files by name.
    pub fn digests(&self) -> Result<Vec<(&'static str, Digest)>> {
        self.files().into_iter().map(|(name, path)| Ok((name, Digest::of_file(path)?))).collect()
    }
}

/// Copies a tokenizer: all its files from a folder, or the one file under its own name.
pub fn copy(path: &Path, label: &str, folder: &Path) -> Result<()> {
    let copy = |from: &Path, name: &str| {
        fs::copy(from, folder.join(name)).map(drop).map_err(|e| Problem::io("copy", from, &e))
    };
    if !path.is_dir() {
        return Vocabulary::find(path, label)?.files().into_iter().try_for_each(|(name, from)| copy(from, name));
    }
    let there = ALL.into_iter().map(|name| (path.join(name), name)).filter(|(from, _)| from.is_file());
    there.into_iter().try_for_each(|(from, name)| copy(&from, name))
}

/// A stored file has no name of its own: JSON begins with a brace.
fn is_json(path: &Path) -> Result<bool> {
    use std::io::Read as _;
    let mut head = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(64).read_to_end(&mut head));
    read.map_err(|e| Problem::io("read", path, &e))?;
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&head);
    Ok(head.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{'))
}

/// The bytes of a file that is not too large.
pub fn bytes(path: &Path) -> Result<Vec<u8>> {
    let size = fs::metadata(path).map_err(|e| Problem::io("read", path, &e))?.len();
    if size > LARGEST {
        return Err(Problem::new(format!("{} has {size} bytes", path.display()))
            .expected(format!("at most {} MiB", LARGEST >> 20)));
    }
    fs::read(path).map_err(|e| Problem::io("read", path, &e))
}

/// A JSON file that may be missing: then nothing is in it.
pub fn json(path: &Path) -> Result<Value> {
    if !path.is_file() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&bytes(path)?)
        .map_err(|e| Problem::new(format!("not JSON: {e}")).in_file(path.display().to_string(), Some(e.line() as u64)))
}

/// A text file that may be missing.
pub fn text(path: &Path) -> Result<Option<String>> {
    if !path.is_file() {
        return Ok(None);
    }
    let text = String::from_utf8(bytes(path)?);
    text.map(Some).map_err(|_| Problem::new("the file is not UTF-8").in_file(path.display().to_string(), None))
}
