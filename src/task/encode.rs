//! Text to token ids and back, with one rule for the boundary between a prompt and its answer.
//! It does not know prompts, tasks or models.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tokenizers::Tokenizer;

use crate::error::{Problem, Result};

/// A `tokenizer.json` and the ids that begin and end a row.
pub struct Encoder {
    tokenizer: Tokenizer,
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

impl Encoder {
    /// Loads a `tokenizer.json`, or that of a folder (a tokenizer or a model); `label` is what messages call it.
    pub fn open(path: &Path, label: &str) -> Result<Self> {
        let folder = path.is_dir().then_some(path);
        let file = folder.map_or_else(|| path.to_owned(), |folder| folder.join("tokenizer.json"));
        if folder.is_some() && !file.is_file() {
            return Err(Problem::new(format!("{label} has no tokenizer.json"))
                .help("give a folder with the tokenizer in Hugging Face's own format"));
        }
        let bytes = fs::read(&file).map_err(|e| Problem::io("read", &file, &e))?;
        let refuse = |what: String| Problem::new(format!("the tokenizer of {label} {what}"));
        let mut tokenizer = Tokenizer::from_bytes(&bytes).map_err(|e| refuse(format!("cannot be read: {e}")))?;
        // Rows are cut and padded here, by rules of our own; and text of a data file never becomes a special token.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|e| refuse(format!("cannot be used: {e}")))?;
        tokenizer.set_encode_special_tokens(true);

        let size = tokenizer.get_vocab(true).values().max().map_or(0, |id| *id as usize + 1);
        let mut encoder = Self { tokenizer, prefix: Vec::new(), eos: Vec::new(), size, label: label.to_owned() };
        encoder.prefix = encoder.find_prefix()?;
        encoder.eos = encoder.find_eos(folder)?;
        Ok(encoder)
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

    /// Ids of a text alone.
    pub fn ids(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.tokenizer.encode_fast(text, false);
        let encoding = encoding.map_err(|e| Problem::new(format!("{} cannot encode a text: {e}", self.label)))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Ids of a prompt that an answer is generated to: white space at its end belongs to the answer.
    pub fn prompt(&self, prompt: &str) -> Result<Vec<u32>> {
        self.ids(prompt.trim_end())
    }

    /// Ids of a prompt and its answer, by the rule of lm-evaluation-harness: white space at the end of the prompt
    /// goes to the answer; both are encoded as one text; the answer is what follows as many ids as the prompt alone
    /// has. So an answer has the ids that it has in running text, whatever the tokenizer does with a first word.
    pub fn pair(&self, prompt: &str, answer: &str) -> Result<Pair> {
        let context = self.prompt(prompt)?;
        let mut whole = self.ids(&format!("{prompt}{answer}"))?;
        let answer = whole.split_off(context.len().min(whole.len()));
        if answer.is_empty() {
            return Err(Problem::new(format!("{} merges an answer into its prompt", self.label))
                .help("begin the answers with a space, and end the prompt without one"));
        }
        Ok(Pair { context: whole, answer })
    }

    /// The text of these ids, special tokens left out.
    pub fn text(&self, ids: &[u32]) -> Result<String> {
        let text = self.tokenizer.decode(ids, true);
        text.map_err(|e| Problem::new(format!("{} cannot decode ids: {e}", self.label)))
    }

    /// Puts a row together within `longest` ids. What does not fit is cut off the beginning of the prompt, so that
    /// the answer and what stands before it stay whole; `None` if not even the answer fits behind one id of prompt.
    pub fn fit(&self, context: &[u32], answer: &[u32], longest: usize) -> Option<Fitted> {
        let room = longest.checked_sub(self.prefix.len() + answer.len()).filter(|room| *room > 0)?;
        let kept = &context[context.len().saturating_sub(room)..];
        let ids = [self.prefix.as_slice(), kept, answer].concat();
        Some(Fitted { target: self.prefix.len() + kept.len(), truncated: kept.len() < context.len(), ids })
    }

    /// What the post-processor puts in front of a text.
    fn find_prefix(&self) -> Result<Vec<u32>> {
        let plain = self.ids("а")?;
        let encoding = self.tokenizer.encode_fast("а", true);
        let encoding = encoding.map_err(|e| Problem::new(format!("{} cannot encode a text: {e}", self.label)))?;
        let full = encoding.get_ids();
        let at = full.windows(plain.len().max(1)).position(|window| window == plain).unwrap_or(0);
        Ok(full[..at].to_vec())
    }

    /// From the model's config, the tokenizer's config, or the names in use.
    fn find_eos(&self, folder: Option<&Path>) -> Result<Vec<u32>> {
        if let Some(folder) = folder {
            let named = match &json(&folder.join("config.json"))?["eos_token_id"] {
                Value::Array(ids) => ids.iter().filter_map(id).collect(),
                one => id(one).into_iter().collect::<Vec<u32>>(),
            };
            if !named.is_empty() {
                return Ok(named);
            }
            let token = &json(&folder.join("tokenizer_config.json"))?["eos_token"];
            let token = token.as_str().or_else(|| token["content"].as_str());
            if let Some(id) = token.and_then(|token| self.tokenizer.token_to_id(token)) {
                return Ok(vec![id]);
            }
        }
        let names = ["<eos>", "</s>", "<|end_of_text|>", "<|im_end|>", "<|endoftext|>"];
        let id = names.iter().find_map(|name| self.tokenizer.token_to_id(name));
        id.map(|id| vec![id]).ok_or_else(|| {
            Problem::new(format!("the tokenizer of {} has no token that ends a text", self.label))
                .help("give `eos_token_id` in config.json or `eos_token` in tokenizer_config.json beside it")
        })
    }
}

fn id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

/// A JSON file that may be missing: then nothing is in it.
fn json(path: &Path) -> Result<Value> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|e| Problem::new(format!("not JSON: {e}")).in_file(path.display().to_string(), None)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Value::Null),
        Err(e) => Err(Problem::io("read", path, &e)),
    }
}
