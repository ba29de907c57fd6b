//! A word of a command: text, or a number or truth value of YAML as it is written there.
//! It does not know what stands before and after it.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// See the module. `4` and `"4"` are the same word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Word(String);

impl Word {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self(text)),
            other @ (Value::Number(_) | Value::Bool(_)) => Ok(Self(other.to_string())),
            _ => Err(D::Error::custom("a word is text, a number, `true` or `false`")),
        }
    }
}

impl JsonSchema for Word {
    fn schema_name() -> Cow<'static, str> {
        "Word".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number", "boolean"] })
    }
}

/// The text as one word of a shell.
pub fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_-./=:,@%+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_truth_values_are_words_too() {
        let words: Vec<Word> = serde_json::from_str(r#"["a b", 4, 0.5, true, ""]"#).unwrap();
        assert_eq!(words.iter().map(Word::as_str).collect::<Vec<_>>(), ["a b", "4", "0.5", "true", ""]);
        assert!(serde_json::from_str::<Word>("null").is_err());
        assert!(serde_json::from_str::<Word>("[1]").is_err());
    }

    #[cfg(unix)]
    #[test]
    fn words_of_a_shell_are_quoted_where_they_must_be() {
        for text in ["a", "a b", "it's", "", "$HOME", "ж", "a=b", "--x=1,2"] {
            let out =
                std::process::Command::new("/bin/sh").args(["-c", &format!("printf %s {}", quoted(text))]).output();
            assert_eq!(String::from_utf8(out.unwrap().stdout).unwrap(), text);
        }
    }
}
