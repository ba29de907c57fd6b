//! From a checkpoint's tensors to blocks with their sites.
//! It does not know families: names and projections stand in the configuration.

use std::collections::BTreeMap;

use tch::Tensor;

use super::attention::Attention;
use super::block::{Block, FeedForward, Half};
use super::norm::Norm;
use crate::ml::config::{ModelConfig, Role};
use crate::ml::linear::Linear;
use crate::ml::models::tensors::head_norms;
use crate::ml::models::{Point, Site};
use crate::ml::weights::Tensors;

/// Builds blocks from exactly the tensors of `tensors::shapes`, and counts their sites.
pub struct Builder<'a> {
    pub config: &'a ModelConfig,
    pub tensors: &'a Tensors,
    pub sites: Vec<Site>,
}

impl Builder<'_> {
    /// The caller has checked that all tensors are there.
    pub fn weight(&self, module: &str) -> Tensor {
        self.tensors[&format!("{module}.weight")].shallow_clone()
    }

    fn bias(&self, module: &str) -> Option<Tensor> {
        self.tensors.get(&format!("{module}.bias")).map(Tensor::shallow_clone)
    }

    pub fn norm(&self, module: &str) -> Norm {
        Norm { weight: self.weight(module), bias: self.bias(module), formula: self.config.norm }
    }

    fn site(&mut self, layer: i64, module: &str, point: Point) -> usize {
        self.sites.push(Site { name: self.config.module(layer, module), layer, point });
        self.sites.len() - 1
    }

    pub fn block(&mut self, layer: i64) -> Block {
        let config = self.config;
        let (names, h) = (&config.names, config.hidden_size);
        let (mut attention, mut feed_forward) = (BTreeMap::new(), BTreeMap::new());
        for projection in &config.block {
            let (inputs, outputs, fan_in_fan_out) = (projection.inputs, projection.outputs, config.fan_in_fan_out);
            let site = self.site(layer, projection.module, Point::Linear { inputs, outputs, fan_in_fan_out });
            let name = config.module(layer, projection.module);
            let linear = Linear::new(self.weight(&name), self.bias(&name), fan_in_fan_out, site);
            let half = if projection.role <= Role::Output { &mut attention } else { &mut feed_forward };
            half.insert(projection.role, linear);
        }
        let after_attention = self.site(layer, names.attention, Point::AfterAttention { hidden: h });
        let after_feed_forward = self.site(layer, names.feed_forward, Point::AfterFeedForward { hidden: h });
        let norm = |name: &str| self.norm(&config.module(layer, name));
        let head_norms = config.attention.head_norm.then(|| {
            let [of_queries, of_keys] = head_norms(config, layer);
            (self.norm(&of_queries), self.norm(&of_keys))
        });
        Block {
            attention: Half {
                norm: norm(names.attention_norm),
                layer: Attention {
                    projections: attention,
                    head_norms,
                    heads: config.num_attention_heads,
                    key_value_heads: config.num_key_value_heads,
                    head_dim: config.head_dim,
                    scale: scale(config, layer),
                    softcap: config.attention.softcap,
                    slides: config.slides(layer),
                },
                out_norm: names.attention_out_norm.map(norm),
                site: after_attention,
            },
            feed_forward: Half {
                norm: norm(names.feed_forward_norm),
                layer: FeedForward::new(feed_forward, config.activation).expect("every family has both ways"),
                out_norm: names.feed_forward_out_norm.map(norm),
                site: after_feed_forward,
            },
            parallel: config.parallel_residual,
        }
    }
}

/// What scores are multiplied by; none for 1 / √D.
fn scale(config: &ModelConfig, layer: i64) -> Option<f64> {
    if !config.attention.scale_by_layer {
        return config.attention.scale;
    }
    Some(config.attention.scale.unwrap_or((config.head_dim as f64).powf(-0.5)) / (layer + 1) as f64)
}
