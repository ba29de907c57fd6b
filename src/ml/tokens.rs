//! A folder of tokenised rows: `tokens.safetensors` with the numbers, `tokens.json` with where they come from.
//! It does not know prompts, tasks or models, and needs no libtorch.

pub mod write;

use std::fs;
use std::ops::Range;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use crate::error::{Problem, Result};

/// The only value of [`TokensInfo::format`] that is read.
pub const FORMAT: &str = "pipe/tokens@1";
/// The file of the numbers.
pub const NUMBERS: &str = "tokens.safetensors";
/// The file of [`TokensInfo`].
pub const INFO: &str = "tokens.json";

/// Where rows come from and what is in them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokensInfo {
    /// Always [`FORMAT`].
    pub format: String,
    /// `terra`, `nerus` or `text`.
    pub task: String,
    /// The prompt template that made the rows; empty for plain text.
    pub prompt: String,
    /// Ids are below this.
    pub vocab_size: u64,
    /// Number of rows.
    pub rows: u64,
    /// Ids of all rows.
    pub tokens: u64,
    /// Ids that have loss.
    pub target_tokens: u64,
    /// Rows that were cut to the length limit.
    pub truncated: u64,
    /// Ids of the longest row.
    pub longest: u64,
    /// Digest of the tokenizer that made the ids: of its files, and of what begins and ends a row.
    pub tokenizer: String,
}

impl TokensInfo {
    /// Reads `tokens.json` in a folder that [`Tokens::write`] made.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(INFO);
        let text = fs::read_to_string(&path).map_err(|e| Problem::io("read", &path, &e))?;
        let info: Self = serde_json::from_str(&text).map_err(|error| {
            let line = Some(error.line() as u64);
            Problem::new(error.to_string()).in_file(path.display().to_string(), line)
        })?;
        if info.format != FORMAT {
            return Err(bad(&path, format!("the format is `{}`", info.format)).expected(format!("`{FORMAT}`")));
        }
        Ok(info)
    }
}

/// Rows of ids, each with the place where its answer begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// The ids of all rows, one after the other `[N]`.
    pub ids: Vec<i32>,
    /// Where each row begins and the last one ends `[rows + 1]`: rises from 0 to `N`, no row is empty.
    pub offsets: Vec<i64>,
    /// Index inside the row of the first id that has loss `[rows]`; it and all after it have.
    pub targets: Vec<i32>,
    /// What goes into `tokens.json`.
    pub info: TokensInfo,
}

impl Tokens {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.targets.len()
    }

    /// The ids of a row.
    pub fn row(&self, row: usize) -> &[i32] {
        &self.ids[self.span(row)]
    }

    /// Where the answer of a row begins, counted inside the row.
    pub fn target(&self, row: usize) -> usize {
        self.targets[row] as usize
    }

    fn span(&self, row: usize) -> Range<usize> {
        self.offsets[row] as usize..self.offsets[row + 1] as usize
    }

    /// Writes both files into `folder`; the same rows give the same bytes.
    pub fn write(&self, folder: &Path) -> Result<()> {
        self.check(&folder.join(NUMBERS))?;
        let mut writer = write::Writer::create(folder)?;
        for row in 0..self.rows() {
            writer.push(self.row(row), self.target(row))?;
        }
        writer.finish(&self.info)
    }

    /// Reads a folder that [`Tokens::write`] made; everything in it is checked.
    pub fn read(folder: &Path) -> Result<Self> {
        let info = TokensInfo::read(folder)?;
        let path = folder.join(NUMBERS);
        let bytes = fs::read(&path).map_err(|e| Problem::io("read", &path, &e))?;
        let file =
            SafeTensors::deserialize(&bytes).map_err(|error| bad(&path, format!("not a safetensors file: {error}")))?;
        if let Some(other) = file.names().into_iter().filter(|name| !["ids", "offsets", "targets"].contains(name)).min()
        {
            return Err(bad(&path, format!("unknown tensor `{other}`")));
        }
        let raw = |name: &str, dtype: Dtype| -> Result<&[u8]> {
            let view = file.tensor(name).map_err(|_| bad(&path, format!("the tensor `{name}` is missing")))?;
            if view.dtype() != dtype || view.shape().len() != 1 {
                let what = format!("`{name}` is {:?} of shape {:?}", view.dtype(), view.shape());
                return Err(bad(&path, what).expected(format!("one dimension of {dtype:?}")));
            }
            Ok(view.data())
        };
        let ids = raw("ids", Dtype::I32)?;
        let offsets = raw("offsets", Dtype::I64)?;
        let targets = raw("targets", Dtype::I32)?;
        let tokens = Self {
            ids: ids.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)).collect(),
            offsets: offsets.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect(),
            targets: targets.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)).collect(),
            info,
        };
        tokens.check(&path)?;
        Ok(tokens)
    }

    /// Everything that other code relies on; `path` is only for the message.
    fn check(&self, path: &Path) -> Result<()> {
        let rows = self.targets.len();
        if self.offsets.len() != rows + 1 {
            return Err(bad(path, format!("{} offsets for {rows} targets", self.offsets.len()))
                .expected("one offset more than targets"));
        }
        if self.offsets[0] != 0 || self.offsets[rows] != self.ids.len() as i64 {
            return Err(bad(path, "the offsets do not run from 0 to the number of ids"));
        }
        if let Some(row) = (0..rows).find(|&row| self.offsets[row] >= self.offsets[row + 1]) {
            return Err(bad(path, format!("row {row} is empty or ends before it begins")));
        }
        let vocab = self.info.vocab_size;
        if let Some(at) = self.ids.iter().position(|&id| id < 0 || id as u64 >= vocab) {
            return Err(bad(path, format!("id {} at position {at} is outside the vocabulary", self.ids[at]))
                .expected(format!("0 to {}", vocab.saturating_sub(1))));
        }
        if let Some(row) = (0..rows).find(|&row| {
            let target = i64::from(self.targets[row]);
            target < 0 || target >= self.offsets[row + 1] - self.offsets[row]
        }) {
            return Err(bad(path, format!("the answer of row {row} begins outside the row")));
        }
        let target_tokens: u64 = (0..rows).map(|row| (self.row(row).len() - self.target(row)) as u64).sum();
        let longest = (0..rows).map(|row| self.row(row).len() as u64).max().unwrap_or(0);
        for (name, said, counted) in [
            ("rows", self.info.rows, rows as u64),
            ("tokens", self.info.tokens, self.ids.len() as u64),
            ("target_tokens", self.info.target_tokens, target_tokens),
            ("longest", self.info.longest, longest),
        ] {
            if said != counted {
                return Err(bad(path, format!("{INFO} says `{name}` is {said}, but it is {counted}")));
            }
        }
        Ok(())
    }
}

fn bad(path: &Path, what: impl Into<String>) -> Problem {
    Problem::new(what).in_file(path.display().to_string(), None).help("make it again with a `tokenize` step")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_rows() -> Tokens {
        let info = TokensInfo {
            format: FORMAT.to_owned(),
            task: "terra".to_owned(),
            prompt: "{{ premise }}".to_owned(),
            vocab_size: 10,
            rows: 2,
            tokens: 5,
            target_tokens: 3,
            truncated: 0,
            longest: 3,
            tokenizer: "0".repeat(64),
        };
        Tokens { ids: vec![1, 5, 2, 1, 9], offsets: vec![0, 3, 5], targets: vec![1, 1], info }
    }

    #[test]
    fn rows_come_back_and_bytes_are_the_same() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let tokens = two_rows();
        tokens.write(a.path()).unwrap();
        tokens.write(b.path()).unwrap();
        assert_eq!(Tokens::read(a.path()).unwrap(), tokens);
        assert_eq!(tokens.row(1), [1, 9]);
        for name in [NUMBERS, INFO] {
            assert_eq!(fs::read(a.path().join(name)).unwrap(), fs::read(b.path().join(name)).unwrap());
        }
    }

    /// Each change is one lie that a file could tell.
    #[test]
    fn damaged_rows_are_refused() {
        type Lie = (&'static str, fn(&mut Tokens));
        let lies: [Lie; 7] = [
            ("offsets for", |t| t.offsets = vec![0, 5]),
            ("do not run from 0", |t| t.offsets[2] = 4),
            ("row 1 is empty", |t| t.offsets = vec![0, 5, 5]),
            ("outside the vocabulary", |t| t.ids[1] = 10),
            ("outside the vocabulary", |t| t.ids[1] = -1),
            ("row 0 begins outside", |t| t.targets[0] = 3),
            ("`target_tokens`", |t| t.info.target_tokens = 4),
        ];
        for (message, lie) in lies {
            let mut tokens = two_rows();
            lie(&mut tokens);
            let problem = tokens.check(Path::new("tokens.safetensors")).unwrap_err().to_string();
            assert!(problem.contains(message) && problem.contains("tokens.safetensors"), "{problem}");
        }
    }

    #[test]
    fn a_cut_file_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        two_rows().write(folder.path()).unwrap();
        let path = folder.path().join(NUMBERS);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let problem = Tokens::read(folder.path()).unwrap_err().to_string();
        assert!(problem.contains(NUMBERS), "{problem}");
    }
}
