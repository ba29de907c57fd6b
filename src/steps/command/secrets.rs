//! Covers secrets up in what a program printed.
//! It does not know where they come from, nor whether a program writes them into its results.

use std::ops::Range;

use crate::error::{Problem, Result};
use crate::step::Machine;

/// The secrets of a step. They are never shown, not even by `Debug`.
pub(super) struct Secrets(Vec<(Vec<u8>, String)>);

/// A line of a secret of several lines is covered up by itself only if it tells something.
const TELLING: usize = 8;

impl Secrets {
    /// The values of these variables.
    pub fn read(names: &[String], machine: &Machine) -> Result<Self> {
        let mut all = Vec::new();
        for name in names {
            let value = machine.variables.get(name).filter(|value| !value.is_empty());
            let value = value.ok_or_else(|| {
                Problem::new(format!("the secret `{name}` is not set"))
                    .help(format!("set the environment variable {name} for `pipe`"))
            })?;
            let value = value.as_encoded_bytes();
            all.push((value.to_vec(), name.clone()));
            let lines = value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| *line != value);
            all.extend(lines.filter(|line| line.len() >= TELLING).map(|line| (line.to_vec(), name.clone())));
        }
        // The longest first: one secret may begin with another.
        all.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.cmp(b)));
        Ok(Self(all))
    }

    /// True if there is nothing to hide.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The length of the longest.
    pub fn longest(&self) -> usize {
        self.0.first().map_or(0, |(value, _)| value.len())
    }

    /// This part of the bytes without secrets; one that reaches over an end of the part is covered up too.
    pub fn cover(&self, bytes: &[u8], part: Range<usize>) -> Vec<u8> {
        if self.is_empty() {
            return bytes[part].to_vec();
        }
        let mut clean = Vec::with_capacity(part.len());
        let mut at = 0;
        while at < part.end {
            match self.0.iter().find(|(value, _)| bytes[at..].starts_with(value)) {
                Some((value, name)) => {
                    if at + value.len() > part.start {
                        clean.extend_from_slice(format!("[secret {name}]").as_bytes());
                    }
                    at += value.len();
                }
                None => {
                    if at >= part.start {
                        clean.push(bytes[at]);
                    }
                    at += 1;
                }
            }
        }
        clean
    }

    /// The whole text without secrets.
    pub fn cover_text(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.cover(text.as_bytes(), 0..text.len())).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;

    fn secrets(values: &[(&str, &str)]) -> Secrets {
        let variables = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).into()));
        let variables: BTreeMap<_, _> = variables.collect();
        let names: Vec<String> = variables.keys().cloned().collect();
        let machine = Machine {
            device: "cpu".into(),
            cores: 1,
            bf16: false,
            variables: Arc::new(variables),
            precisions: Default::default(),
        };
        Secrets::read(&names, &machine).unwrap_or_else(|problem| panic!("{problem}"))
    }

    #[test]
    fn every_occurrence_is_covered_up_also_across_an_end() {
        let secrets = secrets(&[("A", "sesame"), ("B", "sesame-open"), ("C", "first line\nsecond line")]);
        assert_eq!(secrets.cover_text("x sesame sesame-open."), "x [secret A] [secret B].");
        assert_eq!(secrets.cover_text("second line"), "[secret C]");
        assert_eq!(secrets.cover_text("first line\nsecond line!"), "[secret C]!");
        let text = b"0123sesame456";
        for (part, expected) in [(0..6, "0123[secret A]"), (6..13, "[secret A]456"), (10..12, "45"), (0..4, "0123")] {
            assert_eq!(String::from_utf8(secrets.cover(text, part)).unwrap(), expected);
        }
    }

    #[test]
    fn a_secret_must_be_set() {
        let machine = Machine::plain("cpu", 1);
        let told = Secrets::read(&["KEY".to_owned()], &machine).err().map(|problem| problem.to_string());
        assert_eq!(
            told.as_deref(),
            Some("the secret `KEY` is not set\nhelp: set the environment variable KEY for `pipe`")
        );
    }
}
