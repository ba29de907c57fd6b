//! What `tokenizer_config.json` and the older files beside it say: special tokens, added tokens, flags, chat template.
//! It does not know vocabularies. The rules are those of transformers 4.57 and 5.24 (`tokenization_utils_base`).

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use tokenizers::AddedToken;

use super::files;
use crate::error::{Problem, Result};

/// The special tokens that have a name, in transformers' order.
pub const NAMED: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A tokenizer's configuration; of a file on its own it is empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// `tokenizer_class` without `Fast` at its end; `None` for the classes that leave everything to tokenizer.json.
    pub class: Option<String>,
    /// Named special tokens that are given.
    pub named: BTreeMap<&'static str, AddedToken>,
    /// Added tokens with their ids, in their order.
    pub added: Vec<(u32, AddedToken)>,
    /// Further special tokens, in order of appearance.
    pub extra: Vec<AddedToken>,
    /// Whether a text begins with `bos_token`.
    pub add_bos_token: Option<bool>,
    /// Whether a text ends with `eos_token`.
    pub add_eos_token: Option<bool>,
    /// Whether a space goes before a text.
    pub add_prefix_space: Option<bool>,
    /// Llama's way with spaces after special tokens before transformers 4.31.
    pub legacy: Option<bool>,
    /// The chat template's text.
    pub chat_template: Option<String>,
    /// Ids that end a text: those of config.json, then those of generation_config.json.
    pub eos_ids: Vec<u32>,
}

impl Config {
    /// Reads what lies in a folder.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(files::CONFIG);
        let main = files::json(&path)?;
        let wrong = |what: String| Problem::new(what).in_file(path.display().to_string(), None);
        if !main.is_null() && !main.is_object() {
            return Err(wrong("it is not a JSON object".to_owned()));
        }
        let flag = |name: &str| match &main[name] {
            Value::Null => Ok(None),
            Value::Bool(flag) => Ok(Some(*flag)),
            other => Err(wrong(format!("`{name}` is {other}")).expected("true or false")),
        };
        let mut config = Self {
            class: class(&main, &files::json(&folder.join("config.json"))?),
            add_bos_token: flag("add_bos_token")?,
            add_eos_token: flag("add_eos_token")?,
            add_prefix_space: flag("add_prefix_space")?,
            legacy: flag("legacy")?,
            chat_template: chat_template(folder, &main["chat_template"])?,
            ..Self::default()
        };
        config.take_special(&main, &wrong)?;
        match &main["added_tokens_decoder"] {
            Value::Null => config.take_older(folder)?,
            Value::Object(entries) => {
                for (id, entry) in entries {
                    let id = id.parse().map_err(|_| wrong(format!("`{id}` in `added_tokens_decoder` is not an id")))?;
                    let token = token(entry, true)
                        .ok_or_else(|| wrong(format!("`{id}` in `added_tokens_decoder` is not a token")))?;
                    config.added.push((id, token));
                }
                config.added.sort_by_key(|(id, _)| *id);
            }
            _ => return Err(wrong("`added_tokens_decoder` is not an object".to_owned())),
        }
        config.settle();
        for name in ["config.json", "generation_config.json"] {
            match &files::json(&folder.join(name))?["eos_token_id"] {
                Value::Array(ids) => config.eos_ids.extend(ids.iter().filter_map(id)),
                one => config.eos_ids.extend(id(one)),
            }
        }
        Ok(config)
    }

    /// The text of a named token.
    pub fn name(&self, name: &str) -> Option<&str> {
        self.named.get(name).map(|token| token.content.as_str())
    }

    /// Named and further special tokens; `additional_special_tokens` became `extra_special_tokens` in transformers 5.
    fn take_special(&mut self, from: &Value, wrong: &dyn Fn(String) -> Problem) -> Result<()> {
        for name in NAMED {
            match &from[name] {
                Value::Null => {}
                value => {
                    let token = token(value, false).ok_or_else(|| wrong(format!("`{name}` is {value}")))?;
                    self.named.insert(name, AddedToken { special: true, ..token });
                }
            }
        }
        for name in ["additional_special_tokens", "extra_special_tokens"] {
            let values: Vec<&Value> = match &from[name] {
                Value::Null => continue,
                Value::Array(list) => list.iter().collect(),
                // Names of the model's own, such as `image_token`.
                Value::Object(map) => map.values().collect(),
                other => return Err(wrong(format!("`{name}` is {other}")).expected("a list of tokens")),
            };
            for value in values {
                let token = token(value, false).ok_or_else(|| wrong(format!("`{name}` has {value}")))?;
                if self.extra.iter().all(|other| other.content != token.content) {
                    self.extra.push(AddedToken { special: true, ..token });
                }
            }
        }
        Ok(())
    }

    /// The layout without `added_tokens_decoder`: special_tokens_map.json wins, added_tokens.json gives ids.
    fn take_older(&mut self, folder: &Path) -> Result<()> {
        let path = folder.join(files::SPECIAL);
        let wrong = |what: String| Problem::new(what).in_file(path.display().to_string(), None);
        self.take_special(&files::json(&path)?, &wrong)?;
        let path = folder.join(files::ADDED);
        let Value::Object(entries) = files::json(&path)? else { return Ok(()) };
        for (content, value) in entries {
            let id = id(&value).ok_or_else(|| {
                Problem::new(format!("the id of `{content}` is {value}")).in_file(path.display().to_string(), None)
            })?;
            let special = self.named.values().chain(&self.extra).any(|token| token.content == content);
            self.added.push((id, AddedToken::from(content, special).normalized(!special)));
        }
        self.added.sort_by_key(|(id, _)| *id);
        Ok(())
    }

    /// A named token that is also an added one has that one's flags; and what has a name is special.
    fn settle(&mut self) {
        for token in self.named.values_mut() {
            if let Some((_, added)) = self.added.iter_mut().find(|(_, added)| added.content == token.content) {
                added.special = true;
                *token = added.clone();
            }
        }
    }
}

/// The class without `Fast`. Where there is none the architecture tells it, as `AutoTokenizer` does.
fn class(main: &Value, model: &Value) -> Option<String> {
    let class = main["tokenizer_class"].as_str().map(|class| class.trim_end_matches("Fast").to_owned());
    let class = class.or_else(|| {
        let class = match model["model_type"].as_str()? {
            "gpt2" => "GPT2Tokenizer",
            "gpt_neox" => "GPTNeoXTokenizer",
            "qwen2" | "qwen3" => "Qwen2Tokenizer",
            "llama" | "mistral" => "LlamaTokenizer",
            "gemma" | "gemma2" | "gemma3" | "gemma3_text" => "GemmaTokenizer",
            _ => return None,
        };
        Some(class.to_owned())
    });
    class.filter(|class| !["PreTrainedTokenizer", "TokenizersBackend"].contains(&class.as_str()))
}

/// A file of its own wins; in the configuration it is a text, or a list of named texts of which `default` is meant.
fn chat_template(folder: &Path, value: &Value) -> Result<Option<String>> {
    if let Some(text) = files::text(&folder.join(files::CHAT))? {
        return Ok(Some(text));
    }
    let text = match value {
        Value::String(text) => Some(text),
        Value::Array(list) => list
            .iter()
            .find(|entry| entry["name"] == "default")
            .and_then(|entry| entry["template"].as_str().map(|_| &entry["template"]))
            .and_then(|template| if let Value::String(text) = template { Some(text) } else { None }),
        _ => None,
    };
    Ok(text.cloned())
}

/// A token as a text, or as an object with `content` and flags; `whole` objects say all flags, others are special.
fn token(value: &Value, whole: bool) -> Option<AddedToken> {
    if let Value::String(content) = value {
        return Some(AddedToken::from(content.clone(), true));
    }
    let flag = |name: &str| value[name].as_bool();
    let special = flag("special").unwrap_or(!whole);
    let token = AddedToken::from(value["content"].as_str()?, special)
        .single_word(flag("single_word").unwrap_or(false))
        .lstrip(flag("lstrip").unwrap_or(false))
        .rstrip(flag("rstrip").unwrap_or(false))
        .normalized(flag("normalized").unwrap_or(!special));
    Some(token)
}

fn id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}
