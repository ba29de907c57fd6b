//! The step kind `tokenize`: fills prompts with the rows of a task and writes them as ids, with loss on the answers.
//! It does not know models. Rows keep the order of the file, however many threads work on them.

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::prompted::prompted;
use crate::digest::Digest;
use crate::error::{Problem, Result};
use crate::ml::tokens::{FORMAT, Tokens, TokensInfo};
use crate::step::{Arity, Context, Input, Kind, Output, Share};
use crate::task::Task;
use crate::task::encode::{Encoder, Fitted};
use crate::task::nerus::{self, Sentence};
use crate::task::prompt::Prompt;
use crate::task::terra::{self, Labelled};

/// See the module.
pub struct Tokenize;

prompted! {
/// What the rows become.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The most ids of a row. A longer prompt loses its beginning; a row whose answer does not fit is left out.
    #[serde(default = "max_length")]
    #[schemars(range(min = 8, max = 131_072))]
    pub max_length: u32,
}
}

fn max_length() -> u32 {
    512
}

const FOLDER: &str = "tokens";

/// Rows that threads work on at once; bounds the memory, does not change the result.
const BATCH: usize = 4096;

impl Kind for Tokenize {
    const NAME: &'static str = "tokenize";
    /// 1: the boundary of prompt and answer as in lm-evaluation-harness; prompts are cut from the left.
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Fills prompts with data and writes them as token ids, with loss on the answers only";
    const EXAMPLE: &'static str =
        "tokens:\n  uses: tokenize\n  in: { data: corpus.nerus_train, tokenizer: base }\n  with: { task: nerus }\n";
    const INPUTS: &'static [Input] = &[
        Input { name: "data", arity: Arity::One, named: false, doc: "TERRa's JSON lines with labels, or CoNLL-U" },
        Input {
            name: "tokenizer",
            arity: Arity::One,
            named: false,
            doc: "A folder with tokenizer.json: a tokenizer or a model",
        },
    ];
    const OUTPUTS: &'static [Output] =
        &[Output { name: "tokens", file: FOLDER, doc: "A folder with tokens.safetensors and tokens.json" }];
    type Params = Params;

    fn check(params: &Params) -> Vec<Problem> {
        params.prompt_problems()
    }

    fn keyed(params: &Params) -> Value {
        json!(Params { prompt: params.keyed_prompt(), ..params.clone() })
    }

    fn share(_params: &Params) -> Share {
        Share::Half
    }

    fn run(params: &Params, cx: &mut Context) -> Result<()> {
        let prompt = params.prompt()?;
        let data = cx.input("data")?;
        let tokenizer = cx.input("tokenizer")?;
        let encoder = Encoder::open(&tokenizer.path, &tokenizer.label())?;
        let items: Box<dyn Iterator<Item = Result<Item>>> = match params.task {
            Task::Terra => {
                let rows = terra::labelled(&data.path, &data.label(), params.limit())?;
                Box::new(rows.into_iter().map(|row| Ok(Item::Terra(row))))
            }
            Task::Nerus => Box::new(
                sentences(nerus::Reader::open(&data.path, &data.label())?).take(params.limit().unwrap_or(usize::MAX)),
            ),
        };

        let mut rows = Rows::default();
        let mut batch = Vec::new();
        let mut items = items.peekable();
        while items.peek().is_some() {
            for item in items.by_ref().take(BATCH) {
                batch.push(item?);
            }
            cx.check_cancelled()?;
            let fitted = batch
                .par_drain(..)
                .map(|item| fit(&item, &prompt, &encoder, params.max_length as usize))
                .collect::<Result<Vec<Option<Fitted>>>>()?;
            fitted.into_iter().for_each(|row| rows.push(row));
            cx.progress(rows.seen, None, "rows", "");
        }
        if rows.targets.is_empty() {
            return Err(match rows.seen {
                0 => Problem::new(format!("{} has no rows", data.label())),
                seen => Problem::new(format!("none of the {seen} answers fits into {} ids", params.max_length))
                    .help("raise `max_length`"),
            });
        }
        let file = tokenizer.path.join("tokenizer.json");
        let digest = Digest::of_file(if file.is_file() { &file } else { &tokenizer.path })?;
        let info = rows.info(params.task, &prompt.template, encoder.size(), &digest);
        report(&info, &rows, params, cx);
        rows.into_tokens(info).write(&cx.output(FOLDER))
    }
}

/// A row of either task.
enum Item {
    Terra(Labelled),
    Nerus(Sentence),
}

fn sentences(documents: nerus::Reader) -> impl Iterator<Item = Result<Item>> {
    documents.flat_map(|document| match document {
        Ok(document) => document.sentences.into_iter().map(|s| Ok(Item::Nerus(s))).collect::<Vec<_>>(),
        Err(problem) => vec![Err(problem)],
    })
}

fn fit(item: &Item, prompt: &Prompt, encoder: &Encoder, longest: usize) -> Result<Option<Fitted>> {
    let (text, answer) = match item {
        Item::Terra(row) => (prompt.terra(&row.row)?, prompt.answers.of(row.label).to_owned()),
        Item::Nerus(sentence) => (prompt.nerus(sentence)?, prompt.entities(sentence)),
    };
    let mut pair = encoder.pair(&text, &answer)?;
    pair.answer.extend(encoder.eos().first());
    Ok(encoder.fit(&pair.context, &pair.answer, longest))
}

/// Rows that are being collected.
#[derive(Default)]
struct Rows {
    ids: Vec<i32>,
    ends: Vec<i64>,
    targets: Vec<i32>,
    seen: u64,
    truncated: u64,
    target_tokens: u64,
    longest: u64,
}

impl Rows {
    fn push(&mut self, row: Option<Fitted>) {
        self.seen += 1;
        let Some(row) = row else { return };
        self.truncated += u64::from(row.truncated);
        self.target_tokens += (row.ids.len() - row.target) as u64;
        self.longest = self.longest.max(row.ids.len() as u64);
        // No vocabulary and no row comes near the limits of 32 bits.
        self.ids.extend(row.ids.iter().map(|id| *id as i32));
        self.targets.push(row.target as i32);
        self.ends.push(self.ids.len() as i64);
    }

    fn dropped(&self) -> u64 {
        self.seen - self.targets.len() as u64
    }

    fn info(&self, task: Task, prompt: &str, vocab_size: usize, tokenizer: &Digest) -> TokensInfo {
        TokensInfo {
            format: FORMAT.to_owned(),
            task: task.name().to_owned(),
            prompt: prompt.to_owned(),
            vocab_size: vocab_size as u64,
            rows: self.targets.len() as u64,
            tokens: self.ids.len() as u64,
            target_tokens: self.target_tokens,
            truncated: self.truncated,
            longest: self.longest,
            tokenizer: tokenizer.to_string(),
        }
    }

    fn into_tokens(self, info: TokensInfo) -> Tokens {
        let offsets = std::iter::once(0).chain(self.ends).collect();
        Tokens { ids: self.ids, offsets, targets: self.targets, info }
    }
}

fn report(info: &TokensInfo, rows: &Rows, params: &Params, cx: &mut Context) {
    let mean = info.tokens as f64 / info.rows as f64;
    cx.note(format!(
        "{} rows, {} tokens ({mean:.1} a row, the longest {}), {} of them with loss",
        info.rows, info.tokens, info.longest, info.target_tokens
    ));
    if info.truncated > 0 {
        cx.warn(format!("{} prompts lost their beginning to `max_length` {}", info.truncated, params.max_length));
    }
    if rows.dropped() > 0 {
        cx.warn(format!(
            "{} rows are left out: their answers do not fit into {} ids",
            rows.dropped(),
            params.max_length
        ));
    }
    for (name, value) in [
        ("rows", info.rows),
        ("tokens", info.tokens),
        ("target_tokens", info.target_tokens),
        ("truncated", info.truncated),
        ("dropped", rows.dropped()),
    ] {
        cx.figure(name, value as f64);
    }
}
