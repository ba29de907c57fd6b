//! What an arm answers to prompts: scores of given words, or words of its own.
//! It does not know tasks, gold or figures.

use super::loaded::Loaded;
use super::neighbours::{self, Pair};
use super::result::Arm;
use super::{Params, certificate};
use crate::error::{Problem, Result};
use crate::ml::generate::Stop;
use crate::ml::{generate, score};
use crate::report::evidence::Finding;
use crate::step::Context;
use crate::steps::base::worked;
use crate::task::answer;

/// An arm that answers.
pub struct Engine {
    loaded: Loaded,
    /// Ids that end an answer.
    stop: Vec<i64>,
    /// Texts that end an answer.
    until: Vec<String>,
    max_new_tokens: usize,
    batch_tokens: usize,
}

/// What the model says to a prompt.
pub struct Said {
    /// Its words.
    pub words: String,
    /// True if it ended them itself.
    pub stopped: bool,
}

impl Engine {
    /// Loads the base and the adapter of the step's inputs. The base is shared by all arms of a process.
    pub fn load(params: &Params, cx: &Context) -> Result<Self> {
        let loaded = Loaded::load(params.dtype, params.chat.as_ref(), cx)?;
        let mut stop = loaded.eos.clone();
        stop.extend(loaded.encoder.eos().iter().map(|id| i64::from(*id)));
        stop.sort_unstable();
        stop.dedup();
        Ok(Self {
            loaded,
            stop,
            until: params.until(),
            max_new_tokens: params.max_new_tokens as usize,
            batch_tokens: params.batch_tokens as usize,
        })
    }

    /// Which arm it is; an adapter is tried on the first of the prompts.
    pub fn arm(&self, cx: &Context, prompts: &[&str]) -> Result<Arm> {
        let mut inputs = Vec::new();
        for prompt in prompts.iter().take(certificate::INPUTS) {
            let context = self.loaded.encoder.prompt(prompt)?;
            let fitted = self.loaded.encoder.fit(&context, &[], self.loaded.longest).ok_or_else(|| self.too_long())?;
            inputs.push(wide(&fitted.ids));
        }
        self.loaded.arm(cx, &inputs)
    }

    /// The log-likelihood of each of two answers to each prompt: the sum over the answer's ids; and how far it depends
    /// on batches.
    pub fn score(
        &self,
        cx: &Context,
        prompts: &[&str],
        answers: [&str; 2],
    ) -> Result<(Vec<[f64; 2]>, Option<Finding>)> {
        let mut items = Vec::with_capacity(2 * prompts.len());
        let mut truncated = 0_u64;
        for prompt in prompts {
            for answer in answers {
                let pair = self.loaded.encoder.pair(prompt, answer)?;
                let fitted = self
                    .loaded
                    .encoder
                    .fit(&pair.context, &pair.answer, self.loaded.longest)
                    .ok_or_else(|| self.too_long())?;
                truncated += u64::from(fitted.truncated);
                let (context, answer) = fitted.ids.split_at(fitted.target);
                items.push((wide(context), wide(answer)));
            }
        }
        self.tell_truncated(cx, truncated / 2);
        let total = Some(prompts.len() as u64);
        let mut progress = |done: usize| {
            cx.check_cancelled()?;
            worked(cx);
            cx.progress(done as u64 / 2, total, "rows", "");
            Ok(())
        };
        let run = |items: &[_], batch, told: &mut dyn FnMut(usize) -> Result<()>| {
            let scores = score::log_likelihoods(self.loaded.model.as_ref(), &self.loaded.adapters, items, batch, told)?;
            Ok(scores.as_chunks().0.iter().map(|[first, second]| [first.sum, second.sum]).collect::<Vec<_>>())
        };
        let scores = run(&items, self.batch_tokens, &mut progress)?;
        let finding = neighbours::finding(&self.loaded, scores.len(), |n| {
            let alone = run(&items[..2 * n], 1, &mut |_| cx.check_cancelled())?;
            let pair = |(a, b): (&[f64; 2], &[f64; 2])| Pair {
                flips: (a[0] >= a[1]) != (b[0] >= b[1]),
                apart: Some((a[0] - b[0]).abs().max((a[1] - b[1]).abs())),
            };
            Ok(scores.iter().zip(&alone).map(pair).collect())
        })?;
        Ok((scores, finding))
    }

    /// What the model says to each prompt, greedily; and how far it depends on batches.
    pub fn generate(&self, cx: &Context, prompts: &[&str]) -> Result<(Vec<Said>, Option<Finding>)> {
        let room = self.loaded.longest.saturating_sub(self.max_new_tokens);
        let mut items = Vec::with_capacity(prompts.len());
        let mut truncated = 0_u64;
        for prompt in prompts {
            let context = self.loaded.encoder.prompt(prompt)?;
            let fitted = self.loaded.encoder.fit(&context, &[], room).ok_or_else(|| self.too_long())?;
            truncated += u64::from(fitted.truncated);
            items.push(wide(&fitted.ids));
        }
        self.tell_truncated(cx, truncated);
        let total = Some(prompts.len() as u64);
        let mut progress = |done: usize| {
            cx.check_cancelled()?;
            worked(cx);
            cx.progress(done as u64, total, "answers", "");
            Ok(())
        };
        let ended = |ids: &[i64]| Ok(!self.until.is_empty() && answer::until(&self.words(ids)?, &self.until).1);
        let run = |items: &[Vec<i64>], batch, told: &mut dyn FnMut(usize) -> Result<()>| {
            let stop = Stop { ids: &self.stop, ended: &ended };
            let (model, arm) = (self.loaded.model.as_ref(), &self.loaded.adapters);
            generate::greedy_until(model, arm, items, self.max_new_tokens, &stop, batch, told)
        };
        let generated = run(&items, self.batch_tokens, &mut progress)?;
        let finding = neighbours::finding(&self.loaded, generated.len(), |n| {
            let alone = run(&items[..n], 1, &mut |_| cx.check_cancelled())?;
            Ok(generated.iter().zip(&alone).map(|(a, b)| Pair { flips: a != b, apart: None }).collect())
        })?;
        let said = |generated: generate::Generated| {
            let words = self.words(&generated.ids)?;
            let (words, _) = answer::until(&words, &self.until);
            Ok(Said { words: words.to_owned(), stopped: generated.stopped })
        };
        Ok((generated.into_iter().map(said).collect::<Result<_>>()?, finding))
    }

    fn words(&self, ids: &[i64]) -> Result<String> {
        let ids: Vec<u32> = ids.iter().filter_map(|id| u32::try_from(*id).ok()).collect();
        self.loaded.encoder.text(&ids)
    }

    fn tell_truncated(&self, cx: &Context, truncated: u64) {
        if truncated > 0 {
            cx.warn(format!("{truncated} prompts lost their beginning: the model takes {} ids", self.loaded.longest));
        }
    }

    fn too_long(&self) -> Problem {
        Problem::new(format!("the model takes {} ids, and no prompt fits beside the answer", self.loaded.longest))
            .help("lower `max_new_tokens`")
    }
}

fn wide(ids: &[u32]) -> Vec<i64> {
    ids.iter().map(|id| i64::from(*id)).collect()
}
