//! The step kind `generate`: seeded Russian data for both tasks and for the base.
//! It does not know how the sentences are made (`corpus`).

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::corpus::documents::{conllu, entity_counts, split};
use crate::corpus::markup::Sentence;
use crate::corpus::pairs::{Pair, pairs};
use crate::corpus::{Domain, Part, prose};
use crate::error::{Problem, Result};
use crate::step::{Context, Input, Kind, Output};

/// Makes the data of an experiment that has no files.
pub struct Generate;

/// How much to make of what.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Seed of every random choice.
    #[serde(default)]
    pub seed: u64,
    /// Size of the plain text, in bytes of UTF-8.
    #[serde(default = "text_bytes")]
    #[schemars(range(min = 1000, max = 100_000_000))]
    pub text_bytes: usize,
    /// Bytes of text to hold out, at least, before lines that `text` has as well are left out.
    #[serde(default = "held_text_bytes")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub held_text_bytes: usize,
    /// Documents of the Nerus train split (3 to 8 sentences each).
    #[serde(default = "nerus_train")]
    #[schemars(range(min = 1, max = 20_000))]
    pub nerus_train: usize,
    /// Documents of the Nerus dev split.
    #[serde(default = "nerus_dev")]
    #[schemars(range(min = 1, max = 5000))]
    pub nerus_dev: usize,
    /// Documents of the Nerus test split.
    #[serde(default = "nerus_test")]
    #[schemars(range(min = 1, max = 5000))]
    pub nerus_test: usize,
    /// Pairs of the TERRa train split.
    #[serde(default = "terra_train")]
    #[schemars(range(min = 2, max = 100_000))]
    pub terra_train: usize,
    /// Pairs of the TERRa validation split.
    #[serde(default = "terra_val")]
    #[schemars(range(min = 2, max = 20_000))]
    pub terra_val: usize,
    /// Documents of the base's own domain with entities.
    #[serde(default = "base_nerus")]
    #[schemars(range(min = 1, max = 20_000))]
    pub base_nerus: usize,
    /// Pairs of the base's own domain.
    #[serde(default = "base_terra")]
    #[schemars(range(min = 2, max = 100_000))]
    pub base_terra: usize,
}

fn text_bytes() -> usize {
    400_000
}
fn held_text_bytes() -> usize {
    40_000
}
fn nerus_train() -> usize {
    400
}
fn nerus_dev() -> usize {
    40
}
fn nerus_test() -> usize {
    60
}
fn terra_train() -> usize {
    2000
}
fn terra_val() -> usize {
    300
}
fn base_nerus() -> usize {
    550
}
fn base_terra() -> usize {
    2000
}

const fn output(name: &'static str, file: &'static str, doc: &'static str) -> Output {
    Output { name, file, doc }
}

impl Kind for Generate {
    const NAME: &'static str = "generate";
    // 1: first version.
    // 2: more kinds of sentences and events for the base's domain; premises of one event; more negations.
    // 3: text to hold out.
    const VERSION: u32 = 3;
    const SUMMARY: &'static str =
        "Makes Russian data from a seed: documents with entities, premise–hypothesis pairs, and plain text";
    const EXAMPLE: &'static str = "data:\n  uses: generate\n  with:\n    seed: 1\n    nerus_train: 400\n";
    const INPUTS: &'static [Input] = &[];
    const OUTPUTS: &'static [Output] = &[
        output("text", "text.txt", "Plain text, one paragraph a line"),
        output("held_text", "held_text.txt", "Plain text of the same kind that is not in `text`"),
        output("base_terra", "base_terra.jsonl", "Pairs of another domain than the splits, for the base"),
        output("base_nerus", "base_nerus.conllu", "Documents of another domain than the splits, for the base"),
        output("nerus_train", "nerus_train.conllu", "News with entities to train on"),
        output("nerus_dev", "nerus_dev.conllu", "News with entities to choose by"),
        output("nerus_test", "nerus_test.conllu", "News with entities, about half of the names unseen in train"),
        output("terra_train", "terra_train.jsonl", "Pairs to train on"),
        output("terra_val", "terra_val.jsonl", "Pairs, about half of the frames and names unseen in train"),
    ];
    type Params = Params;

    fn run(params: &Params, cx: &mut Context) -> Result<()> {
        let mut premises = BTreeSet::new();
        for (name, count, domain, part) in [
            ("base_terra", params.base_terra, Domain::Tales, Part::Whole),
            ("terra_train", params.terra_train, Domain::News, Part::Seen),
            ("terra_val", params.terra_val, Domain::News, Part::Mixed),
        ] {
            let made = pairs(&mut cx.rng(params.seed, name), count, domain, part, &mut premises);
            write(cx, &format!("{name}.jsonl"), &jsonl(&made))?;
            let entailments = made.iter().filter(|pair| pair.label == "entailment").count();
            cx.note(format!("{name}: {count} pairs, {entailments} entailments"));
            cx.check_cancelled()?;
        }

        let mut sentences = BTreeSet::new();
        for (name, count, domain, part) in [
            ("base_nerus", params.base_nerus, Domain::Tales, Part::Whole),
            ("nerus_train", params.nerus_train, Domain::News, Part::Seen),
            ("nerus_dev", params.nerus_dev, Domain::News, Part::Seen),
            ("nerus_test", params.nerus_test, Domain::News, Part::Mixed),
        ] {
            let made = split(&mut cx.rng(params.seed, name), count, domain, part, &mut sentences);
            write(cx, &format!("{name}.conllu"), &conllu(&made))?;
            note_documents(cx, name, &made);
            cx.check_cancelled()?;
            if name == "nerus_test" {
                let unseen = made.iter().flatten().map(Sentence::text).collect();
                let text = prose::text(&mut cx.rng(params.seed, "text"), params.text_bytes, &unseen);
                let held = prose::text(&mut cx.rng(params.seed, "held_text"), params.held_text_bytes, &unseen);
                let known: BTreeSet<&str> = text.lines().collect();
                let held: String =
                    held.lines().filter(|line| !known.contains(line)).map(|line| format!("{line}\n")).collect();
                write(cx, "text.txt", &text)?;
                write(cx, "held_text.txt", &held)?;
            }
        }
        Ok(())
    }
}

fn note_documents(cx: &Context, name: &str, documents: &[Vec<Sentence>]) {
    let counts = entity_counts(documents);
    let of = |kind: &str| counts.get(kind).copied().unwrap_or(0);
    let sentences: usize = documents.iter().map(Vec::len).sum();
    cx.note(format!(
        "{name}: {} documents, {sentences} sentences, PER {} LOC {} ORG {}",
        documents.len(),
        of("PER"),
        of("LOC"),
        of("ORG")
    ));
}

fn jsonl(pairs: &[Pair]) -> String {
    let mut out = String::new();
    for pair in pairs {
        out.push_str(&serde_json::to_string(pair).expect("a pair is plain data"));
        out.push('\n');
    }
    out
}

fn write(cx: &Context, file: &str, text: &str) -> Result<()> {
    let path = cx.output(file);
    std::fs::write(&path, text).map_err(|error| Problem::io("write", &path, &error))
}
