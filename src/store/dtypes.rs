//! What was measured of precisions on the machines that use this cache, in `dtypes.json`: which one is faster for which
//! shape. It does not know how that is measured, nor what a shape is.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Store, make_parent};
use crate::error::{Problem, Result};
use crate::step::Machine;

const FORMAT: &str = "pipe/dtypes@1";
const FILE: &str = "dtypes.json";

/// One answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// The processor or graphics card.
    pub processor: String,
    /// The threads that a step has there.
    pub threads: usize,
    /// The shape of the base.
    pub shape: String,
    /// The faster precision: `f32` or `bf16`.
    pub dtype: Precision,
    /// The step that was measured, with its kind.
    pub step: String,
    /// Ids a second in f32, the middle of the rounds.
    pub f32: f64,
    /// The same in bf16.
    pub bf16: f64,
}

/// A precision that was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32 bits.
    F32,
    /// 16 bits with the range of f32.
    Bf16,
}

impl Precision {
    /// `f32` or `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

impl Store {
    /// Every answer that is kept. What it says enters keys, so a file that cannot be read is an error: without it other
    /// results would be made, and nobody would know why.
    pub fn dtypes(&self) -> Result<Vec<Choice>> {
        let path = self.root.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => {
                return Ok(Vec::new());
            }
            // Bytes that are no text come as an error, too.
            Err(error) => return Err(self.unreadable(&error.to_string(), None)),
        };
        let document: Value =
            serde_json::from_str(&text).map_err(|e| self.unreadable(&e.to_string(), Some(e.line() as u64)))?;
        if document["format"] != FORMAT {
            let found = document["format"].as_str().unwrap_or("no format");
            return Err(self.unreadable(&format!("its format is `{found}`, not `{FORMAT}`"), None));
        }
        let choices = Vec::<Choice>::deserialize(&document["choices"]);
        choices.map_err(|e| self.unreadable(&e.to_string(), None))
    }

    fn unreadable(&self, why: &str, line: Option<u64>) -> Problem {
        let path = self.root.join(FILE);
        Problem::new(format!("what was measured of precisions cannot be read: {why}"))
            .in_file(path.display().to_string(), line)
            .help("delete the file, and `dtype: auto` goes by its rule again, or by what `pipe bench … --dtype --keep` measures anew")
    }

    /// What is kept for this processor: the precision by [`Machine::question`].
    pub fn precisions(&self, processor: &str) -> Result<BTreeMap<String, String>> {
        let own = self.dtypes()?.into_iter().filter(|choice| choice.processor == processor);
        Ok(own
            .map(|choice| (Machine::question(choice.threads, &choice.shape), choice.dtype.name().to_owned()))
            .collect())
    }

    /// Keeps an answer, in place of an earlier one to the same question.
    pub fn keep_dtype(&self, choice: Choice) -> Result<()> {
        let mut choices = self.dtypes()?;
        let same = |other: &Choice| {
            (&other.processor, other.threads, &other.shape) == (&choice.processor, choice.threads, &choice.shape)
        };
        choices.retain(|other| !same(other));
        choices.push(choice);
        choices.sort_by(|a, b| (&a.processor, a.threads, &a.shape).cmp(&(&b.processor, b.threads, &b.shape)));
        let document = json!({"format": FORMAT, "choices": choices});
        let text = serde_json::to_string_pretty(&document).unwrap_or_default() + "\n";
        let path = self.root.join(FILE);
        make_parent(&path)?;
        self.write(&path, &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(processor: &str, shape: &str, dtype: Precision) -> Choice {
        let (processor, shape) = (processor.to_owned(), shape.to_owned());
        Choice { processor, threads: 2, shape, dtype, step: "lora (train)".to_owned(), f32: 1.0, bf16: 2.5 }
    }

    #[test]
    fn an_answer_replaces_the_one_before_and_is_of_one_processor() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().join("cache"));
        assert_eq!(store.dtypes().unwrap(), []);
        for (processor, shape, dtype) in [
            ("b", "s", Precision::F32),
            ("a", "s", Precision::F32),
            ("b", "t", Precision::F32),
            ("b", "s", Precision::Bf16),
        ] {
            store.keep_dtype(choice(processor, shape, dtype)).unwrap();
        }
        let kept = store.dtypes().unwrap();
        let right = [("a", "s", Precision::F32), ("b", "s", Precision::Bf16), ("b", "t", Precision::F32)]
            .map(|(p, s, d)| choice(p, s, d));
        assert_eq!(kept, right);
        let of = |dtype: &str| dtype.to_owned();
        let right = BTreeMap::from([(Machine::question(2, "s"), of("bf16")), (Machine::question(2, "t"), of("f32"))]);
        assert_eq!(store.precisions("b").unwrap(), right);
        assert_eq!(store.precisions("c").unwrap(), BTreeMap::new());
    }

    #[test]
    fn what_is_broken_or_foreign_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        for (text, told) in [
            ("{", "EOF"),
            ("[]", "its format is `no format`"),
            (r#"{"format": "pipe/dtypes@2", "choices": []}"#, "its format is `pipe/dtypes@2`"),
            (r#"{"format": "pipe/dtypes@1", "choices": {}}"#, "expected a sequence"),
            (r#"{"format": "pipe/dtypes@1", "choices": [{"processor": "a"}]}"#, "missing field"),
            (r#"{"format": "pipe/dtypes@1"}"#, "expected a sequence"),
        ] {
            fs::write(folder.path().join(FILE), text).unwrap();
            let problem = store.dtypes().unwrap_err().to_string();
            assert!(problem.contains(told) && problem.contains("dtypes.json"), "{text}: {problem}");
            assert!(store.keep_dtype(choice("a", "s", Precision::F32)).is_err(), "it must not be overwritten: {text}");
        }
        fs::write(folder.path().join(FILE), [0xff, 0xfe]).unwrap();
        assert!(store.dtypes().is_err());
    }
}
