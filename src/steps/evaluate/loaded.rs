//! The base, ready to be asked, with what is attached to it; and which arm of a comparison that is.
//! It does not know tasks, prompts or figures.

use std::cell::OnceCell;

use serde_json::Value;

use super::certificate;
use super::result::Arm;
use crate::error::{Problem, Result};
use crate::ml::adapters::Arm as Adapters;
use crate::ml::config::ModelConfig;
use crate::ml::device::{self, Dtype};
use crate::ml::models::Model;
use crate::ml::probe::Probe;
use crate::report::evidence::Effect;
use crate::step::Context;
use crate::steps::{base, facts};
use crate::task::encode::Encoder;
use crate::task::encode::chat::ChatParams;

/// A loaded base.
pub struct Loaded {
    /// The base.
    pub model: Box<dyn Model>,
    /// Its tokenizer.
    pub encoder: Encoder,
    /// The longest sequence that the base was made for.
    pub longest: usize,
    config: ModelConfig,
}

impl Loaded {
    /// Loads the base of the step's inputs. It is shared by all arms of a process.
    pub fn load(dtype: Dtype, chat: Option<&ChatParams>, cx: &Context) -> Result<Self> {
        device::use_threads(cx.threads());
        let model = cx.input("model")?;
        let config = ModelConfig::read(&model.path)?;
        let encoder = Encoder::open(&model.path, &model.label())?;
        fits(&encoder, &config, &model.label())?;
        let encoder = encoder.with_chat(chat)?;
        let precision = base::chosen(&config, dtype, cx).0;
        let longest = usize::try_from(config.max_position_embeddings).unwrap_or(usize::MAX);
        Ok(Self { model: base::load_to_read(model, precision, cx)?, encoder, longest, config })
    }

    /// Ids that the base's configuration ends a text with.
    pub fn eos(&self) -> &[i64] {
        &self.config.eos_token_ids
    }

    /// Attaches the adapter of a step's inputs, and tells what a user should know of base and adapter.
    pub fn attach(&self, dtype: Dtype, cx: &Context) -> Result<Adapters> {
        base::precision(&self.config, dtype, cx);
        let Some(adapter) = cx.optional("adapter") else { return Ok(Adapters::none()) };
        let adapters = Adapters::load(&adapter.path, self.model.as_ref())?;
        adapters.check_base(&cx.input("model")?.path)?;
        adapters.notes().iter().for_each(|note| cx.warn(note.clone()));
        Ok(adapters)
    }

    /// Which arm it is: the adapter's step, or `base`; an adapter is tried.
    pub fn arm(&self, cx: &Context, adapters: &Adapters, trial: &Trial) -> Result<Arm> {
        let adapter = cx.optional("adapter");
        let certificate = match adapter {
            Some(_) => {
                let certificate =
                    certificate::certify(self.model.as_ref(), adapters, trial.probe(self.model.as_ref()))?;
                if certificate.state != Effect::Active {
                    cx.warn(format!("the adapter does nothing: {}", certificate::told(&certificate)));
                }
                Some(certificate)
            }
            None => None,
        };
        Ok(Arm {
            name: adapter.map_or_else(|| "base".to_owned(), |adapter| adapter.name.clone()),
            coordinates: adapter.map(|adapter| adapter.coordinates.clone()).unwrap_or_default(),
            adapters: adapters.describe().into_iter().map(|adapter| self.spelled_out(adapter)).collect(),
            trainable_parameters: adapters.trainable_parameters(),
            training: adapter.map(|adapter| facts::training(&adapter.path)).transpose()?.flatten(),
            selection: adapter.map(|adapter| facts::selection(&adapter.path)).transpose()?.flatten(),
            certificate,
        })
    }

    /// An adapter on all layers does not name them; how many these are, only the base knows.
    fn spelled_out(&self, mut adapter: Value) -> Value {
        if let Some(layers) = adapter.get_mut("layers").filter(|layers| layers.is_null()) {
            *layers = (0..self.model.config().num_hidden_layers).collect();
        }
        adapter
    }
}

/// What adapters are tried on: the base is asked once, when there is the first of them.
pub struct Trial {
    inputs: Vec<Vec<i64>>,
    probe: OnceCell<Probe>,
}

impl Trial {
    /// On the first of these.
    pub fn on(inputs: &[Vec<i64>]) -> Self {
        Self { inputs: inputs[..inputs.len().min(certificate::INPUTS)].to_vec(), probe: OnceCell::new() }
    }

    fn probe(&self, model: &dyn Model) -> &Probe {
        self.probe.get_or_init(|| Probe::of(model, &self.inputs))
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
