//! The step kind `tokenize`: fills prompts with the rows of a task and writes them as ids, with loss on the answers.
//! It does not know models. Rows keep the order of the file, however many threads work on them.

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::prompted::prompted;
use crate::digest::Digest;
use crate::error::{Problem, Result};
use crate::ml::tokens::write::Writer;
use crate::ml::tokens::{FORMAT, TokensInfo};
use crate::step::{self, Arity, Artifact, Context, Input, Kind, Output, Share};
use crate::task::Task;
use crate::task::encode::{Encoder, Fitted};
use crate::task::nerus::parallel;
use crate::task::prompt::Prompt;
use crate::task::terra;

/// See the module.
pub struct Tokenize;

prompted! {
/// What the rows become.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The most ids of a row. A longer prompt loses its beginning (in a chat the row is left out); a row whose answer
    /// does not fit is left out.
    #[serde(default = "max_length")]
    #[schemars(range(min = 8, max = 131_072))]
    pub max_length: u32,
}
}

fn max_length() -> u32 {
    512
}

const FOLDER: &str = "tokens";

/// Rows of TERRa that threads work on at once; bounds the memory, does not change the result.
const BATCH: usize = 4096;

impl Kind for Tokenize {
    const NAME: &'static str = "tokenize";
    /// 1: the boundary of prompt and answer as in lm-evaluation-harness; prompts are cut from the left.
    /// 2: `tokenizer` in tokens.json is the digest of the whole tokenizer; what ends a row is what the tokenizer's own
    /// configuration says before the model's.
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "Fills prompts with data and writes them as token ids, with loss on the answers only";
    const EXAMPLE: &'static str =
        "tokens:\n  uses: tokenize\n  in: { data: corpus.nerus_train, tokenizer: base }\n  with: { task: nerus }\n";
    const INPUTS: &'static [Input] = &[
        Input { name: "data", arity: Arity::One, named: false, doc: "TERRa's JSON lines with labels, or CoNLL-U" },
        Input {
            name: "tokenizer",
            arity: Arity::One,
            named: false,
            doc: "A folder with tokenizer.json, vocab.json and merges.txt, or tokenizer.model: a tokenizer or a model",
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
        let data = cx.input("data")?.clone();
        let tokenizer = cx.input("tokenizer")?;
        let encoder = Encoder::open(&tokenizer.path, &tokenizer.label())?;
        let digest = encoder.digest()?;
        let encoder = encoder.with_chat(params.chat.as_ref())?;
        let mut rows = Rows::new(Writer::create(&cx.output(FOLDER))?);
        let work =
            Work { prompt: &prompt, encoder: &encoder, longest: params.max_length as usize, label2id: params.label2id };
        let limit = params.limit().unwrap_or(usize::MAX);
        cx.work(step::Work::default);
        match params.task {
            Task::Terra => terra_rows(cx, &data, &work, limit, &mut rows)?,
            Task::Nerus => nerus_rows(cx, &data, &work, limit, &mut rows)?,
        }
        if rows.kept == 0 {
            return Err(match rows.seen {
                0 => Problem::new(format!("{} has no rows", data.label())),
                seen => Problem::new(format!("none of the {seen} answers fits into {} ids", params.max_length))
                    .help("raise `max_length`"),
            });
        }
        let info = rows.info(params.task, &prompt.template, encoder.size(), &digest);
        report(&info, &rows, params, cx);
        rows.writer.finish(&info)
    }
}

/// What is done with a row.
struct Work<'a> {
    label2id: Option<terra::Label2Id>,
    prompt: &'a Prompt,
    encoder: &'a Encoder,
    longest: usize,
}

impl Work<'_> {
    fn fit(&self, prompt: &str, answer: &str) -> Result<Option<Fitted>> {
        let mut pair = self.encoder.pair(prompt, answer)?;
        pair.answer.extend(self.encoder.eos().first());
        Ok(self.encoder.fit(&pair.context, &pair.answer, self.longest))
    }
}

fn terra_rows(cx: &Context, data: &Artifact, work: &Work<'_>, limit: usize, rows: &mut Rows) -> Result<()> {
    let all = terra::labelled(&data.path, &data.label(), Some(limit), work.label2id)?;
    for batch in all.chunks(BATCH) {
        cx.check_cancelled()?;
        let fit = |row: &terra::Labelled| {
            let fitted = work.fit(&work.prompt.terra(&row.row)?, work.prompt.answers.of(row.label));
            fitted.map_err(|problem| at_line(problem, &data.label(), row.row.line))
        };
        let fitted: Vec<Option<Fitted>> = batch.par_iter().map(fit).collect::<Result<_>>()?;
        fitted.into_iter().try_for_each(|row| rows.push(row))?;
        rows.worked(cx);
        cx.progress(rows.seen, Some(all.len() as u64), "rows", "");
    }
    Ok(())
}

/// Documents are parsed and encoded together, on all threads.
fn nerus_rows(cx: &Context, data: &Artifact, work: &Work<'_>, limit: usize, rows: &mut Rows) -> Result<()> {
    let label = data.label();
    let encode = |document: crate::task::nerus::Document| {
        let fitted = document.sentences.iter().map(|sentence| {
            let fitted = work.fit(&work.prompt.nerus(sentence)?, &work.prompt.entities(sentence));
            fitted.map_err(|problem| at_line(problem, &label, sentence.line))
        });
        // A problem is told only if its row is wanted.
        Ok(fitted.collect::<Vec<Result<Option<Fitted>>>>())
    };
    parallel::each(&data.path, &label, &encode, &mut |fitted, position| {
        cx.check_cancelled()?;
        for row in fitted {
            if rows.seen == limit as u64 {
                return Ok(false);
            }
            rows.push(row?)?;
        }
        rows.worked(cx);
        cx.progress(position.bytes, Some(position.total), "B", "");
        Ok(rows.seen < limit as u64)
    })
}

/// A problem of a row, with its place.
fn at_line(problem: Problem, label: &str, line: u64) -> Problem {
    problem.in_file(label, Some(line))
}

/// Rows that are being written.
struct Rows {
    writer: Writer,
    seen: u64,
    kept: u64,
    tokens: u64,
    truncated: u64,
    target_tokens: u64,
    longest: u64,
    /// Ids that were told as work.
    told: u64,
}

impl Rows {
    fn new(writer: Writer) -> Self {
        Self { writer, seen: 0, kept: 0, tokens: 0, truncated: 0, target_tokens: 0, longest: 0, told: 0 }
    }

    fn push(&mut self, row: Option<Fitted>) -> Result<()> {
        self.seen += 1;
        let Some(row) = row else { return Ok(()) };
        self.kept += 1;
        self.tokens += row.ids.len() as u64;
        self.truncated += u64::from(row.truncated);
        self.target_tokens += (row.ids.len() - row.target) as u64;
        self.longest = self.longest.max(row.ids.len() as u64);
        // No vocabulary comes near the limit of 31 bits.
        let ids: Vec<i32> = row.ids.iter().map(|id| *id as i32).collect();
        self.writer.push(&ids, row.target)
    }

    fn worked(&mut self, cx: &Context) {
        let ids = self.tokens - self.told;
        self.told = self.tokens;
        cx.work(|| step::Work { ids, ..step::Work::default() });
    }

    fn dropped(&self) -> u64 {
        self.seen - self.kept
    }

    fn info(&self, task: Task, prompt: &str, vocab_size: usize, tokenizer: &Digest) -> TokensInfo {
        TokensInfo {
            format: FORMAT.to_owned(),
            task: task.name().to_owned(),
            prompt: prompt.to_owned(),
            vocab_size: vocab_size as u64,
            rows: self.kept,
            tokens: self.tokens,
            target_tokens: self.target_tokens,
            truncated: self.truncated,
            longest: self.longest,
            tokenizer: tokenizer.to_string(),
        }
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
