//! The base with its adapter, ready to be asked, and which arm of a comparison that is.
//! It does not know tasks, prompts or figures.

use serde_json::Value;

use super::certificate;
use super::result::Arm;
use crate::error::{Problem, Result};
use crate::ml::adapters::Arm as Adapters;
use crate::ml::config::ModelConfig;
use crate::ml::device::{self, Dtype};
use crate::ml::models::Model;
use crate::report::evidence::Effect;
use crate::step::Context;
use crate::steps::{base, facts};
use crate::task::encode::Encoder;
use crate::task::encode::chat::ChatParams;

/// A loaded arm.
pub struct Loaded {
    /// The base.
    pub model: Box<dyn Model>,
    /// What is attached to it.
    pub adapters: Adapters,
    /// The tokenizer of the base.
    pub encoder: Encoder,
    /// The longest sequence that the base was made for.
    pub longest: usize,
    /// Ids that the base's configuration ends a text with.
    pub eos: Vec<i64>,
}

impl Loaded {
    /// Loads the base and the adapter of the step's inputs. The base is shared by all arms of a process.
    pub fn load(dtype: Dtype, chat: Option<&ChatParams>, cx: &Context) -> Result<Self> {
        device::use_threads(cx.threads());
        let model = cx.input("model")?;
        let config = ModelConfig::read(&model.path)?;
        let encoder = Encoder::open(&model.path, &model.label())?;
        fits(&encoder, &config, &model.label())?;
        let encoder = encoder.with_chat(chat)?;

        let (base, _) = base::load(model, &config, dtype, cx)?;
        let adapters = match cx.optional("adapter") {
            Some(adapter) => {
                let adapters = Adapters::load(&adapter.path, base.as_ref())?;
                adapters.check_base(&model.path)?;
                adapters.notes().iter().for_each(|note| cx.warn(note.clone()));
                adapters
            }
            None => Adapters::none(),
        };
        let longest = usize::try_from(config.max_position_embeddings).unwrap_or(usize::MAX);
        Ok(Self { model: base, adapters, encoder, longest, eos: config.eos_token_ids })
    }

    /// Which arm it is: the adapter's step, or `base`; an adapter is tried on the first of these inputs.
    pub fn arm(&self, cx: &Context, inputs: &[Vec<i64>]) -> Result<Arm> {
        let adapter = cx.optional("adapter");
        let certificate = match adapter {
            Some(_) => {
                let inputs = &inputs[..inputs.len().min(certificate::INPUTS)];
                let certificate = certificate::certify(self.model.as_ref(), &self.adapters, inputs)?;
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
            adapters: self.adapters.describe().into_iter().map(|adapter| self.spelled_out(adapter)).collect(),
            trainable_parameters: self.adapters.trainable_parameters(),
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
