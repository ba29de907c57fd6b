//! The base with its adapter, and what it answers to prompts: scores of given words, or words of its own.
//! It does not know tasks, gold or figures.

use serde_json::Value;

use super::result::Arm;
use super::{Params, certificate};
use crate::error::{Problem, Result};
use crate::ml::adapters::Arm as Adapters;
use crate::ml::config::ModelConfig;
use crate::ml::generate::Stop;
use crate::ml::models::Model;
use crate::ml::{device, generate, score};
use crate::report::evidence::{Certificate, Effect};
use crate::step::Context;
use crate::steps::{base, facts};
use crate::task::answer;
use crate::task::encode::Encoder;

/// A loaded arm.
pub struct Engine {
    model: Box<dyn Model>,
    adapters: Adapters,
    encoder: Encoder,
    /// Ids that end an answer.
    stop: Vec<i64>,
    /// Texts that end an answer.
    until: Vec<String>,
    /// The longest sequence that the base was made for.
    longest: usize,
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
        device::use_threads(cx.threads());
        let model = cx.input("model")?;
        let config = ModelConfig::read(&model.path)?;
        let encoder = Encoder::open(&model.path, &model.label())?;
        fits(&encoder, &config, &model.label())?;
        let encoder = encoder.with_chat(params.chat.as_ref())?;

        let (base, _) = base::load(model, &config, params.dtype, cx)?;
        let adapters = match cx.optional("adapter") {
            Some(adapter) => {
                let adapters = Adapters::load(&adapter.path, base.as_ref())?;
                adapters.check_base(&model.path)?;
                adapters.notes().iter().for_each(|note| cx.warn(note.clone()));
                adapters
            }
            None => Adapters::none(),
        };
        let mut stop = config.eos_token_ids.clone();
        stop.extend(encoder.eos().iter().map(|id| i64::from(*id)));
        stop.sort_unstable();
        stop.dedup();
        let longest = usize::try_from(config.max_position_embeddings).unwrap_or(usize::MAX);
        Ok(Self {
            model: base,
            adapters,
            encoder,
            stop,
            until: params.until(),
            longest,
            max_new_tokens: params.max_new_tokens as usize,
            batch_tokens: params.batch_tokens as usize,
        })
    }

    /// Which arm it is: the adapter's step, or `base`; an adapter is tried on the first of the prompts.
    pub fn arm(&self, cx: &Context, prompts: &[&str]) -> Result<Arm> {
        let adapter = cx.optional("adapter");
        let certificate = match adapter {
            Some(_) => Some(self.certificate(cx, prompts)?),
            None => None,
        };
        Ok(Arm {
            training: adapter.map(|adapter| facts::training(&adapter.path)).transpose()?.flatten(),
            selection: adapter.map(|adapter| facts::selection(&adapter.path)).transpose()?.flatten(),
            certificate,
            name: adapter.map_or_else(|| "base".to_owned(), |adapter| adapter.name.clone()),
            coordinates: adapter.map(|adapter| adapter.coordinates.clone()).unwrap_or_default(),
            adapters: self.adapters.describe().into_iter().map(|adapter| self.spelled_out(adapter)).collect(),
            trainable_parameters: self.adapters.trainable_parameters(),
        })
    }

    fn certificate(&self, cx: &Context, prompts: &[&str]) -> Result<Certificate> {
        let mut ids = Vec::new();
        for prompt in prompts.iter().take(certificate::INPUTS) {
            let context = self.encoder.prompt(prompt)?;
            let fitted = self.encoder.fit(&context, &[], self.longest).ok_or_else(|| self.too_long())?;
            ids.push(wide(&fitted.ids));
        }
        let certificate = certificate::certify(self.model.as_ref(), &self.adapters, &ids)?;
        if certificate.state != Effect::Active {
            cx.warn(format!("the adapter does nothing: {}", certificate::told(&certificate)));
        }
        Ok(certificate)
    }

    /// An adapter on all layers does not name them; how many these are, only the base knows.
    fn spelled_out(&self, mut adapter: Value) -> Value {
        if let Some(layers) = adapter.get_mut("layers").filter(|layers| layers.is_null()) {
            *layers = (0..self.model.config().num_hidden_layers).collect();
        }
        adapter
    }

    /// The log-likelihood of each of two answers to each prompt: the sum over the answer's ids.
    pub fn score(&self, cx: &Context, prompts: &[&str], answers: [&str; 2]) -> Result<Vec<[f64; 2]>> {
        let mut items = Vec::with_capacity(2 * prompts.len());
        let mut truncated = 0_u64;
        for prompt in prompts {
            for answer in answers {
                let pair = self.encoder.pair(prompt, answer)?;
                let fitted =
                    self.encoder.fit(&pair.context, &pair.answer, self.longest).ok_or_else(|| self.too_long())?;
                truncated += u64::from(fitted.truncated);
                let (context, answer) = fitted.ids.split_at(fitted.target);
                items.push((wide(context), wide(answer)));
            }
        }
        self.tell_truncated(cx, truncated / 2);
        let total = Some(prompts.len() as u64);
        let mut progress = |done: usize| {
            cx.check_cancelled()?;
            cx.progress(done as u64 / 2, total, "rows", "");
            Ok(())
        };
        let scores =
            score::log_likelihoods(self.model.as_ref(), &self.adapters, &items, self.batch_tokens, &mut progress)?;
        Ok(scores.as_chunks().0.iter().map(|[first, second]| [first.sum, second.sum]).collect())
    }

    /// What the model says to each prompt, greedily.
    pub fn generate(&self, cx: &Context, prompts: &[&str]) -> Result<Vec<Said>> {
        let room = self.longest.saturating_sub(self.max_new_tokens);
        let mut items = Vec::with_capacity(prompts.len());
        let mut truncated = 0_u64;
        for prompt in prompts {
            let context = self.encoder.prompt(prompt)?;
            let fitted = self.encoder.fit(&context, &[], room).ok_or_else(|| self.too_long())?;
            truncated += u64::from(fitted.truncated);
            items.push(wide(&fitted.ids));
        }
        self.tell_truncated(cx, truncated);
        let total = Some(prompts.len() as u64);
        let mut progress = |done: usize| {
            cx.check_cancelled()?;
            cx.progress(done as u64, total, "answers", "");
            Ok(())
        };
        let ended = |ids: &[i64]| Ok(!self.until.is_empty() && answer::until(&self.words(ids)?, &self.until).1);
        let generated = generate::greedy_until(
            self.model.as_ref(),
            &self.adapters,
            &items,
            self.max_new_tokens,
            &Stop { ids: &self.stop, ended: &ended },
            self.batch_tokens,
            &mut progress,
        )?;
        generated
            .into_iter()
            .map(|generated| {
                let words = self.words(&generated.ids)?;
                let (words, _) = answer::until(&words, &self.until);
                Ok(Said { words: words.to_owned(), stopped: generated.stopped })
            })
            .collect()
    }

    fn words(&self, ids: &[i64]) -> Result<String> {
        let ids: Vec<u32> = ids.iter().filter_map(|id| u32::try_from(*id).ok()).collect();
        self.encoder.text(&ids)
    }

    fn tell_truncated(&self, cx: &Context, truncated: u64) {
        if truncated > 0 {
            cx.warn(format!("{truncated} prompts lost their beginning: the model takes {} ids", self.longest));
        }
    }

    fn too_long(&self) -> Problem {
        Problem::new(format!("the model takes {} ids, and no prompt fits beside the answer", self.longest))
            .help("lower `max_new_tokens`")
    }
}

/// Every id of the tokenizer has a row in the embedding.
fn fits(encoder: &Encoder, config: &ModelConfig, model: &str) -> Result<()> {
    let rows = usize::try_from(config.vocab_size).unwrap_or(0);
    if encoder.size() <= rows {
        return Ok(());
    }
    Err(Problem::new(format!(
        "the tokenizer of {} does not fit the model {model}: it has ids up to {}, the model's embedding has {rows} rows",
        encoder.label(),
        encoder.size() - 1
    ))
    .help("put the tokenizer that the model was trained with into its folder"))
}

fn wide(ids: &[u32]) -> Vec<i64> {
    ids.iter().map(|id| i64::from(*id)).collect()
}
