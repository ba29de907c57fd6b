//! The step kind `split`: parts a CoNLL-U file by document, each document by the hash of its id alone.
//! So a document keeps its part whatever stands before it, and no document is in two parts.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Path, Problem, Result};
use crate::step::{Arity, Context, Input, Kind, Output};
use crate::task::nerus::{self, Document, parallel};

/// See the module.
pub struct Split;

/// How to part.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Another seed parts otherwise.
    #[serde(default = "seed")]
    pub seed: u64,
    /// The share of documents for development.
    #[serde(default = "share")]
    #[schemars(range(min = 0.001, max = 0.9))]
    pub dev: f64,
    /// The share of documents for the test.
    #[serde(default = "share")]
    #[schemars(range(min = 0.001, max = 0.9))]
    pub test: f64,
}

fn seed() -> u64 {
    42
}
fn share() -> f64 {
    0.1
}

/// A sentence this long, in characters, that stands in both files tells that they share a document.
const TELLING: usize = 40;

/// The outputs in order.
const PARTS: [&str; 3] = ["train", "dev", "test"];

impl Kind for Split {
    const NAME: &'static str = "split";
    /// 1: by blake3 of seed and document id.
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Parts a CoNLL-U file into train, dev and test by document";
    const EXAMPLE: &'static str =
        "parts:\n  uses: split\n  in: { data: nerus, hold_out: first }\n  with: { dev: 0.1, test: 0.1 }\n";
    const INPUTS: &'static [Input] = &[
        Input { name: "data", arity: Arity::One, named: false, doc: "The file to part, in CoNLL-U" },
        Input {
            name: "hold_out",
            arity: Arity::Any,
            named: false,
            doc: "Files whose documents are kept out of every part; documents are told by their sentences, not by their ids",
        },
    ];
    const OUTPUTS: &'static [Output] = &[
        Output { name: "train", file: "train.conllu", doc: "Documents to train on" },
        Output { name: "dev", file: "dev.conllu", doc: "Documents for development" },
        Output { name: "test", file: "test.conllu", doc: "Documents for the test" },
    ];
    type Params = Params;

    fn check(params: &Params) -> Vec<Problem> {
        if params.dev + params.test >= 1.0 {
            return vec![
                Problem::new(format!("dev {} and test {} leave nothing to train on", params.dev, params.test))
                    .at(Path::root().key("test"))
                    .expected("shares that add up to less than 1"),
            ];
        }
        Vec::new()
    }

    fn run(params: &Params, cx: &mut Context) -> Result<()> {
        let mut held_out: BTreeSet<[u8; 32]> = BTreeSet::new();
        for artifact in cx.inputs("hold_out") {
            let hashes = |document: Document| Ok(telling(&document).collect::<Vec<_>>());
            parallel::each(&artifact.path, &artifact.label(), &hashes, &mut |hashes, _| {
                cx.check_cancelled()?;
                held_out.extend(hashes);
                Ok(true)
            })?;
        }

        let data = cx.input("data")?;
        let label = data.label();
        let mut parts = Vec::new();
        for output in Self::OUTPUTS {
            parts.push(Part::create(cx.output(output.file))?);
        }
        let (mut done, mut excluded) = (0, 0);
        let place = |document: Document| {
            let out = telling(&document).any(|text| held_out.contains(&text));
            Ok((document, out))
        };
        parallel::each(&data.path, &label, &place, &mut |(document, out), position| {
            cx.check_cancelled()?;
            done += 1;
            cx.progress(position.bytes, Some(position.total), "B", "");
            if out {
                excluded += 1;
                return Ok(true);
            }
            parts[part_of(params, &document.id)].write(&document, position.generated)?;
            Ok(true)
        })?;
        if !held_out.is_empty() {
            cx.note(format!("{excluded} of {done} documents are held out"));
        }
        for (name, part) in PARTS.into_iter().zip(parts) {
            if part.documents == 0 {
                return Err(Problem::new(format!("no document of {label} falls to `{name}`"))
                    .help("there are too few documents for these shares: raise the share or try another `seed`"));
            }
            cx.note(format!("{name}: {} documents, {} sentences", part.documents, part.sentences));
            cx.figure(format!("{name}.documents"), part.documents as f64);
            cx.figure(format!("{name}.sentences"), part.sentences as f64);
            part.finish()?;
        }
        Ok(())
    }
}

/// Hashes of the sentences that tell a document from others.
fn telling(document: &Document) -> impl Iterator<Item = [u8; 32]> {
    let long = document.sentences.iter().filter(|sentence| sentence.text.chars().count() >= TELLING);
    long.map(|sentence| *blake3::hash(sentence.text.as_bytes()).as_bytes())
}

/// Position in [`PARTS`].
fn part_of(params: &Params, id: &str) -> usize {
    let hash = blake3::hash(format!("pipe split 1\n{}\n{id}", params.seed).as_bytes());
    let mut head = [0; 8];
    head.copy_from_slice(&hash.as_bytes()[..8]);
    // 53 bits are exact in a double: a share of 0..1.
    let share = (u64::from_le_bytes(head) >> 11) as f64 / (1_u64 << 53) as f64;
    if share < params.test {
        2
    } else if share < params.test + params.dev {
        1
    } else {
        0
    }
}

/// A part that is being written.
struct Part {
    file: BufWriter<File>,
    path: PathBuf,
    documents: u64,
    sentences: u64,
}

impl Part {
    fn create(path: PathBuf) -> Result<Self> {
        let file = File::create(&path).map_err(|e| Problem::io("write", &path, &e))?;
        Ok(Self { file: BufWriter::new(file), path, documents: 0, sentences: 0 })
    }

    fn write(&mut self, document: &Document, generated: bool) -> Result<()> {
        let mark = if generated && self.documents == 0 { format!("{}\n", nerus::GENERATED) } else { String::new() };
        self.documents += 1;
        self.sentences += document.sentences.len() as u64;
        let written = self.file.write_all(mark.as_bytes());
        let written = written.and_then(|()| self.file.write_all(document.source.as_bytes()));
        written.map_err(|e| Problem::io("write", &self.path, &e))
    }

    fn finish(mut self) -> Result<()> {
        self.file.flush().map_err(|e| Problem::io("write", &self.path, &e))
    }
}
