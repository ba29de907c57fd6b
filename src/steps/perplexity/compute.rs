//! The part of `perplexity` that needs libtorch: text in, the loss of each block out.
//! It does not know the pipeline language.

use std::collections::BTreeMap;

use super::{FOLDER, Params};
use crate::digest::{Digest, files_below};
use crate::error::{Problem, Result};
use crate::ml::adapters::Arm as Adapters;
use crate::ml::score::{self, Score};
use crate::step::{Artifact, Context, Ended};
use crate::steps::base::worked;
use crate::steps::evaluate::loaded::{Loaded, Trial};
use crate::steps::evaluate::result::{Arm, Asked, FORMAT, Metric, Metrics, Parse, write_records};
use crate::steps::evaluate::{arms, certificate, finish, fresh, inputs};
use crate::task::encode::Encoder;
use crate::task::text;

/// A piece of a document.
struct Block {
    id: String,
    document: String,
    ids: Vec<i64>,
}

/// Lets the arms of several steps read the same text.
pub fn read(members: &mut [(&Params, &mut Context)], ended: &mut Ended<'_>) -> Result<()> {
    let Some((params, first)) = members.first() else { return Ok(()) };
    let params = *params;
    let loaded = Loaded::load(params.dtype, None, first)?;
    let size = (params.block as usize).min(loaded.longest);
    let blocks = blocks(params, first, first.input("text")?, &loaded.encoder, size)?;
    let tried = blocks.iter().take(certificate::INPUTS).map(|block| block.ids[..block.ids.len() - 1].to_vec());
    let trial = Trial::on(&tried.collect::<Vec<_>>());
    let items: Vec<(Vec<i64>, Vec<i64>)> = blocks
        .iter()
        .map(|block| {
            let (first, rest) = block.ids.split_at(1);
            (first.to_vec(), rest.to_vec())
        })
        .collect();
    let total = Some(items.len() as u64);
    let open = vec![true; members.len()];
    arms::each(&loaded, (params.dtype, &trial), members, &open, true, ended, &mut |members, arms| {
        let cx = |arm: usize| &*members[arms[arm].at].1;
        let mut progress = |arm: usize, done: usize| {
            cx(arm).check_cancelled()?;
            worked(cx(arm));
            cx(arm).progress(done as u64, total, "blocks", "");
            Ok(())
        };
        let adapters: Vec<&Adapters> = arms.iter().map(|ready| &ready.adapters).collect();
        let (model, batch) = (loaded.model.as_ref(), params.batch_tokens as usize);
        let scores = score::log_likelihoods_of(model, &adapters, &items, batch, &mut progress);
        let scores = scores.unwrap_or_else(|problem| arms.iter().map(|_| Err(problem.clone())).collect());
        let each = arms.into_iter().zip(scores);
        each.map(|(ready, scores)| write(&mut *members[ready.at].1, ready.arm, &blocks, &scores?)).collect()
    });
    Ok(())
}

/// Writes the losses that an arm has on the blocks.
fn write(cx: &mut Context, arm: Arm, blocks: &[Block], scores: &[Score]) -> Result<()> {
    let folder = fresh(cx, FOLDER)?;
    // What is read stands there by its content, as a prompt does: losses on another text are no losses on this one.
    let header = ["id", "document", "prompt", "gold", "answer", "tokens", "loss"];
    let lines = blocks.iter().zip(scores).map(|(block, score)| {
        let (tokens, loss) = (score.tokens.len().to_string(), (-score.sum).to_string());
        let read: Vec<u8> = block.ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        let read = Digest::of(&read).as_str().to_owned();
        vec![block.id.clone(), block.document.clone(), read, String::new(), String::new(), tokens, loss]
    });
    write_records(&folder, &header, lines)?;
    let tokens: usize = scores.iter().map(|score| score.tokens.len()).sum();
    let loss = -scores.iter().map(|score| score.sum).sum::<f64>() / tokens as f64;
    let metric = |name: &str, value| Metric { name: name.to_owned(), average: None, value };
    let mut documents: Vec<&str> = blocks.iter().map(|block| block.document.as_str()).collect();
    documents.dedup();
    let metrics = Metrics {
        format: FORMAT.to_owned(),
        task: "text".to_owned(),
        generated: false,
        arm,
        n: blocks.len() as u64,
        classes: BTreeMap::new(),
        documents: Some(documents.len() as u64),
        metrics: vec![metric("loss", loss), metric("perplexity", loss.exp())],
        parse: Parse { valid: blocks.len() as u64, ..Parse::default() },
        asked: Asked::default(),
        findings: Vec::new(),
        inputs: inputs(cx),
        environment: cx.machine().torch_environment(),
    };
    finish(cx, &folder, metrics)
}

/// The documents in blocks, those of a single id left out. As in `pretrain`, a paragraph begins with what the tokenizer
/// puts before a text, and ends with what ends one.
fn blocks(params: &Params, cx: &Context, artifact: &Artifact, encoder: &Encoder, size: usize) -> Result<Vec<Block>> {
    let limit = params.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let most = params.per_document.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
    let mut blocks = Vec::new();
    let mut add = |document: String, mut ids: Vec<i64>| {
        ids.truncate(most);
        for (at, ids) in ids.chunks(size).enumerate().filter(|(_, ids)| ids.len() > 1) {
            blocks.push(Block { id: format!("{document}#{at}"), document: document.clone(), ids: ids.to_vec() });
        }
    };
    let label = artifact.label();
    if artifact.path.is_dir() {
        let names = files_below(&artifact.path)?;
        for name in names.into_iter().filter(|name| name.ends_with(".txt")).take(limit) {
            cx.check_cancelled()?;
            let mut ids = Vec::new();
            text::each(&artifact.path.join(&name), &format!("{label}/{name}"), &mut |line| {
                ids.extend(paragraph(encoder, line)?);
                Ok(ids.len() < most)
            })?;
            add(name, ids);
        }
    } else {
        let mut number = 0;
        text::each(&artifact.path, &label, &mut |line| {
            cx.check_cancelled()?;
            add(number.to_string(), paragraph(encoder, line)?);
            number += 1;
            Ok(number < limit)
        })?;
    }
    if blocks.is_empty() {
        return Err(Problem::new(format!("{label} has no text to foresee"))
            .expected("lines of text, or a folder with .txt files"));
    }
    Ok(blocks)
}

fn paragraph(encoder: &Encoder, line: &str) -> Result<Vec<i64>> {
    let ids = encoder.ids(line.trim())?;
    let all = encoder.prefix().iter().chain(&ids).chain(encoder.eos().first());
    Ok(all.map(|id| i64::from(*id)).collect())
}
