//! The decoder behind every architecture: embedding, blocks, norm, head; its configuration is its switches.
//! It does not know families by name, nor adapters: it asks its sites, and an `Arm` answers.

mod asked;
mod attention;
mod block;
mod blocks;
mod build;
mod norm;
mod rotary;
mod sight;

use tch::{Device, Kind, Tensor};

use self::asked::Asked;
use self::block::Block;
pub use self::block::activate;
use self::build::Builder;
use self::norm::Norm;
use self::rotary::{Rotary, Table};
use self::sight::{Queries, Sight};
use super::cache::{KvCache, Layout};
use super::{Input, Model, Site};
use crate::ml::adapters::Arm;
use crate::ml::config::{ModelConfig, Positions};
use crate::ml::dropout::Dropout;
use crate::ml::tally;
use crate::ml::weights::Tensors;

/// What all blocks of one forward pass share.
pub struct Pass<'a> {
    arm: &'a Arm,
    dropout: Option<&'a Dropout>,
    /// Of blocks that see everything, and of those with a window.
    rotary: [Option<Rotary>; 2],
    /// Of each run of each part of the batch.
    sight: Vec<[Option<Sight>; 2]>,
    /// The positions that go on from here, i64 [N] in B · T; `None`: all.
    wanted: Option<&'a Tensor>,
    /// They as queries, where that pays.
    asked: Option<Asked>,
    /// What stands before every row.
    after: Option<&'a KvCache>,
    /// The block that computes.
    layer: usize,
    /// The gradient at what comes out of it, where that alone is wanted.
    slope: Option<&'a Tensor>,
}

impl Pass<'_> {
    /// x [B, T, width] → [N, width] of the wanted positions, or as it is.
    fn picked(&self, x: Tensor) -> Tensor {
        match self.wanted {
            Some(wanted) => x.flatten(0, 1).index_select(0, wanted),
            None => x,
        }
    }

    /// Keys and values [B, heads, T, D] behind those of what stands before every row.
    fn behind(&self, k: Tensor, v: Tensor) -> (Tensor, Tensor) {
        let Some((keys, values)) = self.after.and_then(|after| after.only(self.layer)) else { return (k, v) };
        let joined = |before: Tensor, own: Tensor| {
            let (b, heads, _, width) = own.size4().unwrap_or_default();
            Tensor::cat(&[before.expand([b, heads, -1, width], false), own], 2)
        };
        (joined(keys, k), joined(values, v))
    }

    /// The angles of blocks with a window, if they have their own, or of the others.
    fn rotary(&self, slides: bool) -> Option<&Rotary> {
        let [all, sliding] = &self.rotary;
        sliding.as_ref().filter(|_| slides).or(all.as_ref())
    }

    /// What the queries of such blocks see in a run of the batch.
    fn sight(&self, slides: bool, run: usize) -> &Sight {
        self.sight[run][usize::from(slides)].as_ref().expect("the sight of every kind of block there is")
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

    /// Places of the ids and what each part of the batch sees; a cache gets room for them.
    fn places(&self, input: &Input, cache: Option<&mut KvCache>) -> (Tensor, i64, Vec<[Option<Sight>; 2]>) {
        let (rows, new) = input.ids.size2().unwrap_or_default();
        let (device, kind) = (self.device(), self.kind());
        let plain = Queries { past: 0, new, stand: None, real: None, padded: false, branches: None, device, kind };
        let Some(cache) = cache else {
            let past = input.after.map_or(0, KvCache::places);
            let queries = Queries { past, real: input.mask, padded: true, branches: input.branches, ..plain };
            let positions = match (input.branches, input.mask) {
                (Some(branches), _) => &branches.positions + past,
                // transformers: cumsum(mask) - 1, so that padding on the left does not count.
                (None, Some(mask)) => (mask.cumsum(-1, Kind::Int64) - 1).clamp_min(0),
                (None, None) => Tensor::arange_start(past, past + new, (Kind::Int64, device)),
            };
            return (positions, past + new - 1, vec![self.sights(&queries)]);
        };
        let (layers, heads) = (self.blocks.len(), self.config.num_key_value_heads);
        let layout = Layout { layers, heads, head_dim: self.config.head_dim, kind, device };
        cache.open(layout, input);
        let (mut first, mut highest) = (0, 0);
        let (mut positions, mut sights) = (Vec::new(), Vec::new());
        let alone = cache.parts.len() == 1 && cache.parts[0].in_batch() == rows;
        for part in &cache.parts {
            let mine = part.in_batch();
            let mask = input.mask.map(|mask| mask.narrow(0, first, mine));
            for run in part.runs(new) {
                let (stand, real) = (part.stand(&run), part.real(&run));
                let (stand, real) = (stand.as_ref(), real.as_ref());
                let queries = Queries { past: run.keys - new, stand, real, padded: mask.is_some(), ..plain };
                sights.push(self.sights(&queries));
                highest = highest.max(run.keys - 1);
            }
            let places = part.positions(new, mask.as_ref());
            positions.push(if alone { places } else { places.expand([mine, new], false) });
            first += mine;
        }
        if first < rows {
            positions.push(Tensor::zeros([rows - first, new], (Kind::Int64, device)));
        }
        (if alone { positions.remove(0) } else { Tensor::cat(&positions, 0) }, highest, sights)
    }
}

/// The wanted positions as queries of the last block, on a processor that does not train: of all rows, which attend together.
fn asked(input: &Input, x: &Tensor, wanted: &Tensor, cache: Option<&KvCache>) -> Option<Asked> {
    let (rows, width, _) = x.size3().unwrap_or_default();
    let together = cache.is_none_or(|cache| cache.parts.len() == 1 && cache.parts[0].rows == rows);
    let trains = input.dropout.is_some() || x.requires_grad() || wanted.device() != Device::Cpu;
    if trains || input.counts.is_some() || !together { None } else { Asked::new(wanted, rows, width) }
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
        tally::pass(input.ids, input.from.is_some());
        let (positions, highest, sight) = self.places(input, cache.as_deref_mut());
        let rotary = self.tables.each_ref().map(|table| Some(table.as_ref()?.at(&positions, highest, self.kind())));
        let mut pass = Pass {
            arm,
            dropout: input.dropout,
            rotary,
            sight,
            wanted: None,
            asked: None,
            after: input.after,
            layer: 0,
            slope: None,
        };
        let (first, mut x) = match input.from {
            Some((first, x)) => (first, x.shallow_clone()),
            None => (0, self.embed(input.ids, &positions)),
        };
        let (to, last) = (input.to.unwrap_or(self.blocks.len()), self.blocks.len() - 1);
        debug_assert!(input.slope.is_none() || input.to.is_some_and(|to| to > first), "a slope is at a block's end");
        for (layer, block) in self.blocks.iter().enumerate().take(to).skip(first) {
            see(&x);
            (pass.layer, pass.wanted) = (layer, input.wanted.filter(|_| layer == last));
            pass.slope = input.slope.filter(|_| layer + 1 == to);
            pass.asked = pass.wanted.and_then(|wanted| asked(input, &x, wanted, cache.as_deref()));
            x = block.forward(&x, &pass, cache.as_deref_mut());
        }
        if let Some(cache) = cache {
            cache.close(input.ids.size()[1]);
        }
        if input.to.is_some() {
            return x;
        }
        let out = self.norm.forward(&x);
        see(&out);
        out
    }

    fn logits(&self, hidden: &Tensor) -> Tensor {
        let logits = tally::product(hidden, &self.head, None).to_kind(Kind::Float);
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

    fn share(&self) -> Box<dyn Model> {
        Box::new(Self::new(&self.config, self.weights()))
    }
}
