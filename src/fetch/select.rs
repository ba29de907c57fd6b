//! Which files of a repository are needed.
//! It does not fetch them.

use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Problem, Result};
use crate::lockfile::is_plain;

/// What is needed of a model beside its weights: configuration, tokenizer, chat template, configuration of an adapter.
const BESIDE: [&str; 14] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "chat_template.jinja",
    "chat_template.json",
    "adapter_config.json",
    "head_config.json",
];

/// Names of whole weights: of a model, of PEFT's adapters, of AdapterHub's.
const WHOLE: [&str; 3] = ["model.safetensors", "adapter_model.safetensors", "adapter.safetensors"];

/// The list of the parts that weights lie in.
const INDEX: &str = "model.safetensors.index.json";

/// What is needed of a model, of the files in its folder.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Selection {
    /// Files to fetch.
    pub names: Vec<String>,
    /// One of them, which says what else is needed.
    pub index: Option<String>,
}

/// Chooses among the paths below the folder of a model.
pub(super) fn of_model(names: &[&str], what: &str) -> Result<Selection> {
    let has = |name: &str| names.contains(&name);
    let mut chosen: Vec<String> = BESIDE.iter().filter(|name| has(name)).map(|name| (*name).to_owned()).collect();
    let index = has(INDEX).then(|| INDEX.to_owned());
    // Where the weights lie in parts, a whole beside them is the same once more.
    let whole = WHOLE.iter().filter(|name| has(name) && (index.is_none() || **name != WHOLE[0]));
    let weights: Vec<String> = whole.map(|name| (*name).to_owned()).chain(index.clone()).collect();
    if weights.is_empty() {
        let pickled = |name: &&&str| [".bin", ".pt", ".pth", ".ckpt"].iter().any(|ending| name.ends_with(ending));
        if let Some(name) = names.iter().filter(|name| !name.contains('/')).find(pickled) {
            return Err(pickles(what, name));
        }
        if let Some(name) =
            names.iter().find(|name| [".gguf", ".h5", ".msgpack", ".onnx"].iter().any(|e| name.ends_with(e)))
        {
            return Err(Problem::new(format!("{what} has weights, but not as safetensors (it has {name})"))
                .expected("`model.safetensors`, or its parts with `model.safetensors.index.json`"));
        }
    }
    chosen.extend(weights);
    if chosen.is_empty() {
        return Err(Problem::new(format!("{what} has no model, tokenizer or adapter"))
            .help("for a single file write its path behind the name: `hf://owner/name/path`"));
    }
    chosen.sort();
    Ok(Selection { names: chosen, index })
}

fn pickles(what: &str, name: &str) -> Problem {
    Problem::new(format!("{what} has its weights as pickles only ({name}), which can run code when they are read")).help(
        "convert them once, where that may happen: in Python `AutoModelForCausalLM.from_pretrained(NAME)\
         .save_pretrained(FOLDER, safe_serialization=True)`, the same for `AutoTokenizer`, and give FOLDER as the source; \
         some repositories have a converted revision: `@refs/pr/1`",
    )
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The parts that an index names.
pub(super) fn parts(index: &[u8], names: &[&str], what: &str) -> Result<Vec<String>> {
    let wrong = |text: String| Problem::new(text).in_file(format!("{what}: {INDEX}"), None);
    let index: Index =
        serde_json::from_slice(index).map_err(|e| wrong(format!("this is not an index of weights: {e}")))?;
    let parts: BTreeSet<String> = index.weight_map.into_values().collect();
    if parts.is_empty() {
        return Err(wrong("it names no weights".to_owned()));
    }
    if let Some(part) = parts.iter().find(|part| !is_plain(part) || !part.ends_with(".safetensors")) {
        return Err(wrong(format!("it names the part {part:?}, which is not a safetensors file of this folder")));
    }
    if let Some(part) = parts.iter().find(|part| !names.contains(&part.as_str())) {
        return Err(wrong(format!("it names the part `{part}`, which the repository does not have")));
    }
    Ok(parts.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_is_chosen() {
        let names = [
            ".gitattributes",
            "README.md",
            "config.json",
            "consolidated.safetensors",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "onnx/model.onnx",
            "original/tokenizer.model",
            "pytorch_model-00001-of-00002.bin",
            "tokenizer.json",
            "train.py",
        ];
        let chosen = of_model(&names, "hf://a/b").unwrap();
        assert_eq!(chosen.names, ["config.json", "model.safetensors.index.json", "tokenizer.json"]);
        assert_eq!(chosen.index.as_deref(), Some(INDEX));
        let index = br#"{"metadata": {}, "weight_map": {"a": "model-00002-of-00002.safetensors", "b": "model-00001-of-00002.safetensors"}}"#;
        assert_eq!(
            parts(index, &names, "hf://a/b").unwrap(),
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
        );
        let whole = of_model(&["model.safetensors", "model.fp16.safetensors", "vocab.json"], "hf://a/b").unwrap();
        assert_eq!(whole.names, ["model.safetensors", "vocab.json"]);
        let adapter =
            of_model(&["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"], "x").unwrap();
        assert_eq!(adapter.names, ["adapter_config.json", "adapter_model.safetensors"]);
        assert_eq!(of_model(&["tokenizer.json"], "x").unwrap().names, ["tokenizer.json"]);
    }

    #[test]
    fn what_cannot_be_read_is_refused_before_it_is_fetched() {
        for (names, word) in [
            (vec!["config.json", "pytorch_model.bin"], "pickles only (pytorch_model.bin)"),
            (vec!["config.json", "model.gguf"], "not as safetensors (it has model.gguf)"),
            (vec!["README.md", "data.csv"], "no model, tokenizer or adapter"),
        ] {
            let problem = of_model(&names, "hf://a/b").unwrap_err().to_string();
            assert!(problem.starts_with("hf://a/b") && problem.contains(word), "{problem}");
        }
        for (index, word) in [
            (r"[]", "not an index"),
            (r#"{"weight_map": {}}"#, "no weights"),
            (r#"{"weight_map": {"a": "../x.safetensors"}}"#, "not a safetensors file"),
            (r#"{"weight_map": {"a": "x.bin"}}"#, "not a safetensors file"),
            (r#"{"weight_map": {"a": "x.safetensors"}}"#, "does not have"),
        ] {
            let problem = parts(index.as_bytes(), &["y"], "hf://a/b").unwrap_err().to_string();
            assert!(problem.contains(word), "{problem}");
        }
    }
}
