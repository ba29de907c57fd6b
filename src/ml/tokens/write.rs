//! Writes a folder of rows as they come, in memory that does not grow with them.
//! It does not know where rows come from. Numbers wait in files of their own until all are counted.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::{INFO, NUMBERS, TokensInfo};
use crate::error::{Problem, Result};

/// Rows that are being written.
pub struct Writer {
    folder: PathBuf,
    ids: Column,
    offsets: Column,
    targets: Column,
    rows: u64,
    tokens: u64,
}

/// Numbers of one tensor, in a file without a name: gone with the process, whatever ends it.
struct Column(BufWriter<File>);

impl Writer {
    /// Makes the folder if it is not there.
    pub fn create(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|e| Problem::io("create", folder, &e))?;
        let column = || {
            let file = tempfile::tempfile_in(folder).map_err(|e| Problem::io("write to", folder, &e))?;
            Ok(Column(BufWriter::with_capacity(1 << 16, file)))
        };
        let mut writer = Self {
            folder: folder.to_owned(),
            ids: column()?,
            offsets: column()?,
            targets: column()?,
            rows: 0,
            tokens: 0,
        };
        writer.failed(|writer| writer.offsets.0.write_all(&0_i64.to_le_bytes()))?;
        Ok(writer)
    }

    /// Adds a row: its ids, and the index of the first that has loss.
    pub fn push(&mut self, ids: &[i32], target: usize) -> Result<()> {
        if target >= ids.len() {
            return Err(Problem::new(format!(
                "row {} has {} ids, and its answer begins at {target}",
                self.rows,
                ids.len()
            )));
        }
        self.rows += 1;
        self.tokens += ids.len() as u64;
        let (end, target) = (self.tokens as i64, target as i32);
        self.failed(|writer| {
            for id in ids {
                writer.ids.0.write_all(&id.to_le_bytes())?;
            }
            writer.offsets.0.write_all(&end.to_le_bytes())?;
            writer.targets.0.write_all(&target.to_le_bytes())
        })
    }

    /// Puts both files together; the same rows give the same bytes, those of `safetensors::serialize`.
    pub fn finish(mut self, info: &TokensInfo) -> Result<()> {
        if (info.rows, info.tokens) != (self.rows, self.tokens) {
            let told =
                format!("{} rows of {} ids are told, {} of {} written", info.rows, info.tokens, self.rows, self.tokens);
            return Err(Problem::new(told));
        }
        let path = self.folder.join(NUMBERS);
        let header = self.header();
        self.failed(|writer| {
            let mut out = BufWriter::with_capacity(1 << 18, File::create(&path)?);
            out.write_all(&(header.len() as u64).to_le_bytes())?;
            out.write_all(header.as_bytes())?;
            for column in [&mut writer.offsets, &mut writer.ids, &mut writer.targets] {
                column.copy(&mut out)?;
            }
            out.flush()
        })?;
        let path = self.folder.join(INFO);
        let mut text = serde_json::to_string_pretty(info).expect("plain data");
        text.push('\n');
        fs::write(&path, text).map_err(|e| Problem::io("write", &path, &e))
    }

    /// Tensors in the order of the format's own writer: larger numbers first, then by name; padded to eight bytes.
    fn header(&self) -> String {
        let mut at = 0;
        let mut tensor = |name: &str, dtype: &str, count: u64, size: u64| {
            let from = at;
            at += count * size;
            format!(r#""{name}":{{"dtype":"{dtype}","shape":[{count}],"data_offsets":[{from},{at}]}}"#)
        };
        let tensors = [
            tensor("offsets", "I64", self.rows + 1, 8),
            tensor("ids", "I32", self.tokens, 4),
            tensor("targets", "I32", self.rows, 4),
        ];
        let mut header = format!("{{{}}}", tensors.join(","));
        header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
        header
    }

    fn failed(&mut self, work: impl FnOnce(&mut Self) -> io::Result<()>) -> Result<()> {
        work(self).map_err(|e| Problem::io("write to", &self.folder, &e))
    }
}

impl Column {
    fn copy(&mut self, out: &mut impl Write) -> io::Result<()> {
        self.0.flush()?;
        let file = self.0.get_mut();
        file.rewind()?;
        let mut buffer = vec![0; 1 << 18];
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            out.write_all(&buffer[..read])?;
        }
    }
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::{Dtype, TensorView};

    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_formats_own_writer() {
        for rows in [vec![], vec![vec![1_i32, 5, 2], vec![1, 9]], vec![vec![7]; 1000]] {
            let folder = tempfile::tempdir().unwrap();
            let mut writer = Writer::create(folder.path()).unwrap();
            for row in &rows {
                writer.push(row, row.len() - 1).unwrap();
            }
            let tokens = rows.iter().map(Vec::len).sum::<usize>();
            let info = TokensInfo {
                format: super::super::FORMAT.to_owned(),
                task: "terra".to_owned(),
                prompt: String::new(),
                vocab_size: 10,
                rows: rows.len() as u64,
                tokens: tokens as u64,
                target_tokens: rows.len() as u64,
                truncated: 0,
                longest: 3,
                tokenizer: "0".repeat(64),
            };
            writer.finish(&info).unwrap();

            let bytes = |numbers: Vec<i32>| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
            let ends = rows.iter().scan(0, |end, row| {
                *end += row.len() as i64;
                Some(*end)
            });
            let offsets: Vec<u8> = std::iter::once(0).chain(ends).flat_map(i64::to_le_bytes).collect();
            let ids = bytes(rows.concat());
            let targets = bytes(rows.iter().map(|row| row.len() as i32 - 1).collect());
            let view = |dtype, count, bytes| TensorView::new(dtype, vec![count], bytes).unwrap();
            let right = safetensors::serialize(
                [
                    ("ids", view(Dtype::I32, tokens, &ids)),
                    ("offsets", view(Dtype::I64, rows.len() + 1, &offsets)),
                    ("targets", view(Dtype::I32, rows.len(), &targets)),
                ],
                None,
            );
            assert_eq!(fs::read(folder.path().join(NUMBERS)).unwrap(), right.unwrap());
            let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(names.len(), 2, "{names:?}");
        }
    }

    #[test]
    fn rows_without_an_answer_and_wrong_counts_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::create(folder.path()).unwrap();
        assert!(writer.push(&[1], 1).unwrap_err().to_string().contains("its answer begins at 1"));
    }
}
