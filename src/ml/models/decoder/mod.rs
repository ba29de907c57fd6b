//! The decoder behind every architecture: embedding, blocks, norm, head; its configuration is its switches.
//! It does not know families by name, nor adapters: it asks its sites, and an `Arm` answers.

mod attention;
mod block;
mod build;
mod norm;
mod rotary;
mod sight;

use tch::{Device, Kind, Tensor};

use self::block::Block;
pub use self::block::activate;
use self::build::Builder;
use self::norm::Norm;
use self::rotary::{Rotary, Table};
use self::sight::{Queries, Sight};
use super::{Input, KvCache, Model, Site};
use crate::ml::adapters::Arm;
use crate::ml::config::{ModelConfig, Positions};
use crate::ml::dropout::Dropout;
use crate::ml::weights::Tensors;

/// What all blocks of one forward pass share.
pub struct Pass<'a> {
    arm: &'a Arm,
    dropout: Option<&'a Dropout>,
    /// Of blocks that see everything, and of those with a window.
    rotary: [Option<Rotary>; 2],
    sight: [Option<Sight>; 2],
}

impl Pass<'_> {
    /// The angles of blocks with a window, if they have their own, or of the others.
    fn rotary(&self, slides: bool) -> Option<&Rotary> {
        let [all, sliding] = &self.rotary;
        sliding.as_ref().filter(|_| slides).or(all.as_ref())
    }

    /// What the queries of such blocks see.
    fn sight(&self, slides: bool) -> &Sight {
        self.sight[usize::from(slides)].as_ref().expect("the sight of every kind of block there is")
    }
}

/// A decoder.
pub struct Decoder {
    config: ModelConfig,
    sites: Vec<Site>,
    embedding: Tensor, // [V, H]
    /// The embedding's factor, a scalar rounded to the model's dtype.
    scale: Option<Tensor>,
    positions: Option<Tensor>, // [S, H]
    tables: [Option<Table>; 2],
    blocks: Vec<Block>,
    norm: Norm,
    head: Tensor, // [V, H]
    weights: Tensors,
}

impl Decoder {
    /// Of exactly the tensors of `tensors::shapes`.
    pub fn new(config: &ModelConfig, tensors: Tensors) -> Self {
        let mut builder = Builder { config, tensors: &tensors, sites: Vec::new() };
        let blocks = (0..config.num_hidden_layers).map(|layer| builder.block(layer)).collect();
        let names = &config.names;
        let embedding = builder.weight(names.embedding);
        let (kind, device) = (embedding.kind(), embedding.device());
        let (positions, tables) = match &config.positions {
            Positions::Learned => (Some(builder.weight(names.positions)), [None, None]),
            Positions::Rotary { rope, sliding } => {
                (None, [Some(rope), sliding.as_ref()].map(|rope| rope.map(|rope| Table::new(rope, device))))
            }
        };
        Self {
            head: if config.tie_word_embeddings { embedding.shallow_clone() } else { builder.weight(names.head) },
            scale: config.embedding_scale.map(|scale| Tensor::from(scale).to_kind(kind)),
            norm: builder.norm(names.final_norm),
            sites: builder.sites,
            config: config.clone(),
            embedding,
            positions,
            tables,
            blocks,
            weights: tensors,
        }
    }

    /// Embeddings of tokens and of their places, [B, T] → [B, T, H]; `positions` are [B, T], or [T] for all rows.
    fn embed(&self, ids: &Tensor, positions: &Tensor) -> Tensor {
        let x = Tensor::embedding(&self.embedding, ids, -1, false, false);
        let x = match &self.scale {
            Some(scale) => x * scale,
            None => x,
        };
        match &self.positions {
            Some(table) => x + Tensor::embedding(table, positions, -1, false, false),
            None => x,
        }
    }

    /// Sights of the kinds of blocks that there are.
    fn sights(&self, queries: &Queries) -> [Option<Sight>; 2] {
        let window = self.config.attention.window.as_ref();
        let explicit = self.config.attention.softcap.is_some();
        let some = |slides: bool| (0..self.config.num_hidden_layers).any(|layer| self.config.slides(layer) == slides);
        [(false, None), (true, window.map(|window| window.size))]
            .map(|(slides, window)| some(slides).then(|| queries.sight(window, explicit)))
    }

    fn fill(&self, cache: &mut KvCache, rows: i64) {
        let shape = [rows, self.config.num_key_value_heads, 0, self.config.head_dim];
        let empty = || Tensor::zeros(shape, (self.embedding.kind(), self.embedding.device()));
        cache.layers = self.blocks.iter().map(|_| (empty(), empty())).collect();
    }
}

impl Model for Decoder {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn sites(&self) -> &[Site] {
        &self.sites
    }

    fn states(
        &self,
        input: &Input,
        arm: &Arm,
        mut cache: Option<&mut KvCache>,
        see: &mut dyn FnMut(&Tensor),
    ) -> Tensor {
        let (b, t) = input.ids.size2().unwrap_or_default();
        let (device, kind) = (input.ids.device(), self.embedding.kind());
        let past = cache.as_ref().map_or(0, |cache| cache.len());
        let s = past + t;
        let positions = match input.mask {
            // transformers: cumsum(mask) - 1, so that padding on the left does not count.
            Some(mask) => (mask.cumsum(-1, Kind::Int64) - 1).clamp_min(0).narrow(1, past, t),
            None => Tensor::arange_start(past, s, (Kind::Int64, device)),
        };
        let pass = Pass {
            arm,
            dropout: input.dropout,
            rotary: self.tables.each_ref().map(|table| Some(table.as_ref()?.at(&positions, s - 1, kind))),
            sight: self.sights(&Queries { past, new: t, real: input.mask, device }),
        };
        if let Some(cache) = cache.as_mut().filter(|cache| cache.layers.is_empty()) {
            self.fill(cache, b);
        }
        let mut x = self.embed(input.ids, &positions);
        for (layer, block) in self.blocks.iter().enumerate() {
            see(&x);
            x = block.forward(&x, &pass, cache.as_mut().map(|cache| &mut cache.layers[layer]));
        }
        let out = self.norm.forward(&x);
        see(&out);
        out
    }

    fn logits(&self, hidden: &Tensor) -> Tensor {
        let logits = hidden.linear(&self.head, None::<&Tensor>).to_kind(Kind::Float);
        match self.config.logit_softcap {
            Some(cap) => (logits / cap).tanh() * cap,
            None => logits,
        }
    }

    fn plain_head(&self) -> Option<Tensor> {
        self.config.logit_softcap.is_none().then(|| self.head.shallow_clone())
    }

    fn weights(&self) -> Tensors {
        self.weights.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
    }

    fn device(&self) -> Device {
        self.embedding.device()
    }

    fn kind(&self) -> Kind {
        self.embedding.kind()
    }
}
