//! What an arm answers to prompts: scores of given words, or words of its own.
//! It does not know tasks, gold or figures.

use super::arms::{self, Ready};
use super::loaded::{Loaded, Trial};
use super::neighbours::{self, Pair};
use super::questions::{Items, Questions};
use super::result::Arm;
use super::{About, Mode, Params, certificate, nerus, terra, write_nerus, write_terra};
use crate::error::{Problem, Result};
use crate::ml::adapters::Arm as Adapters;
use crate::ml::generate::{self, Generated, Stop};
use crate::ml::score::{self, Score};
use crate::report::evidence::Finding;
use crate::step::{Context, Ended};
use crate::steps::base::worked;
use crate::task::answer;
use crate::task::encode::Encoder;
use crate::task::terra::Label;

/// What arms answer with.
struct Engine<'q> {
    loaded: Loaded,
    questions: &'q Questions,
    /// Ids that end an answer.
    stop: Vec<i64>,
    /// Texts that end an answer.
    until: Vec<String>,
    max_new_tokens: usize,
    batch_tokens: usize,
}

/// What the model says to a prompt.
struct Said {
    /// Its words.
    words: String,
    /// True if it ended them itself.
    stopped: bool,
}

/// Log-likelihoods of two answers to each prompt, and what there is to say of them.
type Scored = (Vec<[f64; 2]>, Option<Finding>);

/// Prompts, or prompts with answers, as ids; and how many prompts lost their beginning.
struct Encoded<T> {
    items: Vec<T>,
    truncated: u64,
}

/// Lets the arms of those members answer of whom something is known.
pub fn answer(
    members: &mut [(&Params, &mut Context)],
    questions: &Questions,
    mut about: Vec<Option<About>>,
    ended: &mut Ended<'_>,
) -> Result<()> {
    let Some((params, first)) = members.first() else { return Ok(()) };
    let params = *params;
    let engine = Engine::load(params, first, questions)?;
    let trial = Trial::on(&engine.inputs()?);
    let open: Vec<bool> = about.iter().map(Option::is_some).collect();
    let on = (params.dtype, &trial);
    let mut of = |at: usize| about[at].take().unwrap_or_default();
    match params.mode() {
        Mode::Loglik => {
            let encoded = engine.pairs(Label::ALL.map(|label| params.answers.of(label)))?;
            arms::each(&engine.loaded, on, members, &open, true, ended, &mut |members, arms| {
                let scores = engine.score(members, &arms, &encoded);
                let each = arms.into_iter().zip(scores).map(|(ready, scores)| {
                    let cx = &mut *members[ready.at].1;
                    engine.scored(cx, ready.arm, scores?, of(ready.at))
                });
                each.collect()
            });
        }
        Mode::Generate => {
            let encoded = engine.contexts()?;
            arms::each(&engine.loaded, on, members, &open, false, ended, &mut |members, arms| {
                let each = arms.into_iter().map(|ready| {
                    let cx = &mut *members[ready.at].1;
                    let (said, finding) = engine.generate(cx, &ready.adapters, &encoded)?;
                    let mut about = of(ready.at);
                    about.findings.extend(finding);
                    engine.said(params, cx, ready.arm, said, about)
                });
                each.collect()
            });
        }
    }
    Ok(())
}

impl<'q> Engine<'q> {
    /// Loads the base of the step's inputs.
    fn load(params: &Params, cx: &Context, questions: &'q Questions) -> Result<Self> {
        let loaded = Loaded::load(params.dtype, params.chat.as_ref(), cx)?;
        let mut stop = loaded.eos().to_vec();
        stop.extend(loaded.encoder.eos().iter().map(|id| i64::from(*id)));
        stop.sort_unstable();
        stop.dedup();
        Ok(Self {
            loaded,
            questions,
            stop,
            until: params.until(),
            max_new_tokens: params.max_new_tokens as usize,
            batch_tokens: params.batch_tokens as usize,
        })
    }

    /// The first prompts, on which adapters are tried.
    fn inputs(&self) -> Result<Vec<Vec<i64>>> {
        let prompts = self.questions.prompts().into_iter().take(certificate::INPUTS);
        prompts.map(|prompt| Ok(self.context(prompt, self.loaded.longest)?.0)).collect()
    }

    /// A prompt in so many ids, and whether it lost its beginning.
    fn context(&self, prompt: &str, room: usize) -> Result<(Vec<i64>, bool)> {
        let context = self.loaded.encoder.prompt(prompt)?;
        let fitted = self.loaded.encoder.fit(&context, &[], room).ok_or_else(|| self.too_long())?;
        Ok((wide(&fitted.ids), fitted.truncated))
    }

    /// Each prompt with each of two answers.
    fn pairs(&self, answers: [&str; 2]) -> Result<Encoded<(Vec<i64>, Vec<i64>)>> {
        let encoder = &self.loaded.encoder;
        let (mut items, mut truncated) = (Vec::new(), 0_u64);
        for prompt in self.questions.prompts() {
            for answer in answers {
                let pair = encoder.pair(prompt, answer)?;
                let fitted = encoder.fit(&pair.context, &pair.answer, self.loaded.longest);
                let fitted = fitted.ok_or_else(|| self.too_long())?;
                truncated += u64::from(fitted.truncated);
                let (context, answer) = fitted.ids.split_at(fitted.target);
                items.push((wide(context), wide(answer)));
            }
        }
        Ok(Encoded { items, truncated: truncated / 2 })
    }

    /// The prompts, with room for an answer behind them.
    fn contexts(&self) -> Result<Encoded<Vec<i64>>> {
        let room = self.loaded.longest.saturating_sub(self.max_new_tokens);
        let (mut items, mut truncated) = (Vec::new(), 0);
        for prompt in self.questions.prompts() {
            let (ids, cut) = self.context(prompt, room)?;
            truncated += u64::from(cut);
            items.push(ids);
        }
        Ok(Encoded { items, truncated })
    }

    /// For each arm the log-likelihood of each of two answers to each prompt, the sum over the answer's ids; and how far
    /// it depends on batches.
    fn score(
        &self,
        members: &[(&Params, &mut Context)],
        arms: &[Ready],
        encoded: &Encoded<(Vec<i64>, Vec<i64>)>,
    ) -> Vec<Result<Scored>> {
        let cx = |arm: usize| &*members[arms[arm].at].1;
        let total = Some(encoded.items.len() as u64 / 2);
        (0..arms.len()).for_each(|arm| self.tell_truncated(cx(arm), encoded.truncated));
        let mut progress = |arm: usize, done: usize| {
            cx(arm).check_cancelled()?;
            worked(cx(arm));
            cx(arm).progress(done as u64 / 2, total, "rows", "");
            Ok(())
        };
        let (model, adapters) = (self.loaded.model.as_ref(), arms.iter().map(|ready| &ready.adapters));
        let adapters: Vec<&Adapters> = adapters.collect();
        let scores = score::log_likelihoods_of(model, &adapters, &encoded.items, self.batch_tokens, &mut progress);
        let scores = scores.unwrap_or_else(|problem| adapters.iter().map(|_| Err(problem.clone())).collect());
        let finding = |(arm, scores): (usize, Result<Vec<Score>>)| {
            let scores = sums(&scores?);
            let finding = neighbours::finding(&self.loaded, scores.len(), |n| {
                let check = &mut |_| cx(arm).check_cancelled();
                let alone = score::log_likelihoods(model, adapters[arm], &encoded.items[..2 * n], 1, check)?;
                let pair = |(a, b): (&[f64; 2], &[f64; 2])| Pair {
                    flips: (a[0] >= a[1]) != (b[0] >= b[1]),
                    apart: Some((a[0] - b[0]).abs().max((a[1] - b[1]).abs())),
                };
                Ok(scores.iter().zip(&sums(&alone)).map(pair).collect())
            })?;
            Ok((scores, finding))
        };
        scores.into_iter().enumerate().map(finding).collect()
    }

    /// Writes what was scored.
    fn scored(&self, cx: &mut Context, arm: Arm, scored: Scored, mut about: About) -> Result<()> {
        let (scores, finding) = scored;
        about.findings.extend(finding);
        match &self.questions.items {
            Items::Terra(items) => {
                let each = items.iter().zip(scores);
                let records: Result<Vec<_>> = each.map(|(item, scores)| terra::Record::scored(item, scores)).collect();
                write_terra(cx, &records?, arm, about)
            }
            Items::Nerus(_) => Err(Problem::new("entities cannot be scored by log-likelihood")),
        }
    }

    /// What the model says to each prompt, greedily; and how far it depends on batches.
    fn generate(
        &self,
        cx: &Context,
        adapters: &Adapters,
        encoded: &Encoded<Vec<i64>>,
    ) -> Result<(Vec<Said>, Option<Finding>)> {
        self.tell_truncated(cx, encoded.truncated);
        let items = &encoded.items;
        let total = Some(items.len() as u64);
        let mut progress = |done: usize| {
            cx.check_cancelled()?;
            worked(cx);
            cx.progress(done as u64, total, "answers", "");
            Ok(())
        };
        let (encoder, ends) = (&self.loaded.encoder, &self.until);
        let ended = |ids: &[i64]| Ok(!ends.is_empty() && answer::until(&words(encoder, ids)?, ends).1);
        let run = |items: &[Vec<i64>], batch, told: &mut dyn FnMut(usize) -> Result<()>| {
            let stop = Stop { ids: &self.stop, ended: &ended };
            let model = self.loaded.model.as_ref();
            generate::greedy_until(model, adapters, items, self.max_new_tokens, &stop, batch, told)
        };
        let generated = run(items, self.batch_tokens, &mut progress)?;
        let finding = neighbours::finding(&self.loaded, generated.len(), |n| {
            let alone = run(&items[..n], 1, &mut |_| cx.check_cancelled())?;
            Ok(generated.iter().zip(&alone).map(|(a, b)| Pair { flips: a != b, apart: None }).collect())
        })?;
        let said = |generated: Generated| {
            let words = words(encoder, &generated.ids)?;
            let (words, _) = answer::until(&words, &self.until);
            Ok(Said { words: words.to_owned(), stopped: generated.stopped })
        };
        Ok((generated.into_iter().map(said).collect::<Result<_>>()?, finding))
    }

    /// Writes what was said.
    fn said(&self, params: &Params, cx: &mut Context, arm: Arm, said: Vec<Said>, about: About) -> Result<()> {
        match &self.questions.items {
            Items::Terra(items) => {
                let read = items.iter().zip(said);
                let record =
                    |(item, said): (_, Said)| terra::Record::said(item, said.words, said.stopped, &params.answers);
                write_terra(cx, &read.map(record).collect::<Vec<_>>(), arm, about)
            }
            Items::Nerus(items) => {
                let (read, none) = (items.iter().zip(said), &params.answers.none);
                let record = |(item, said): (_, Said)| nerus::Record::read(item, said.words, said.stopped, none);
                write_nerus(cx, &read.map(record).collect::<Vec<_>>(), arm, about)
            }
        }
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

fn words(encoder: &Encoder, ids: &[i64]) -> Result<String> {
    let ids: Vec<u32> = ids.iter().filter_map(|id| u32::try_from(*id).ok()).collect();
    encoder.text(&ids)
}

/// The sums of two answers to each prompt.
fn sums(scores: &[Score]) -> Vec<[f64; 2]> {
    scores.as_chunks().0.iter().map(|[first, second]| [first.sum, second.sum]).collect()
}

fn wide(ids: &[u32]) -> Vec<i64> {
    ids.iter().map(|id| i64::from(*id)).collect()
}
