//! The tensors of a checkpoint: names and shapes, from the configuration alone.
//! It does not know families, nor libtorch: what modules are called stands in the configuration.

use crate::ml::config::{ModelConfig, NormKind, Positions};
use crate::ml::shapes::Shapes;

/// Every tensor of a checkpoint, by its name.
pub fn shapes(config: &ModelConfig) -> Shapes {
    let (h, names) = (config.hidden_size, &config.names);
    let mut shapes = Shapes::new();
    let mut weight = |module: &str, shape: Vec<i64>| shapes.insert(format!("{module}.weight"), shape);
    weight(names.embedding, vec![config.vocab_size, h]);
    if config.positions == Positions::Learned {
        weight(names.positions, vec![config.max_position_embeddings, h]);
    }
    if !config.tie_word_embeddings {
        weight(names.head, vec![config.vocab_size, h]);
    }
    let mut norms = vec![(names.final_norm.to_owned(), h)];
    for layer in 0..config.num_hidden_layers {
        let module = |module: &str| config.module(layer, module);
        for norm in block_norms(config) {
            norms.push((module(norm), h));
        }
        if config.attention.head_norm {
            norms.extend(head_norms(config, layer).map(|norm| (norm, config.head_dim)));
        }
        for projection in &config.block {
            let (inputs, outputs) = (projection.inputs, projection.outputs);
            let shape = if config.fan_in_fan_out { vec![inputs, outputs] } else { vec![outputs, inputs] };
            let name = module(projection.module);
            if projection.bias {
                shapes.insert(format!("{name}.bias"), vec![outputs]);
            }
            shapes.insert(format!("{name}.weight"), shape);
        }
    }
    for (norm, width) in norms {
        if config.norm.kind == NormKind::Layer {
            shapes.insert(format!("{norm}.bias"), vec![width]);
        }
        shapes.insert(format!("{norm}.weight"), vec![width]);
    }
    shapes
}

/// Tensors that carry nothing: constants of old checkpoints, and the head of tied ones, which is the embedding.
pub fn ignored(config: &ModelConfig, name: &str) -> bool {
    let head = config.tie_word_embeddings && name.strip_suffix(".weight") == Some(config.names.head);
    head || config.names.constants.iter().any(|end| name.ends_with(end))
}

fn block_norms(config: &ModelConfig) -> impl Iterator<Item = &'static str> {
    let names = &config.names;
    let always = [names.attention_norm, names.feed_forward_norm];
    always.into_iter().chain(names.attention_out_norm).chain(names.feed_forward_out_norm)
}

/// Norms of a head's query and key.
pub(super) fn head_norms(config: &ModelConfig, layer: i64) -> [String; 2] {
    ["q_norm", "k_norm"].map(|norm| config.module(layer, &format!("{}.{norm}", config.names.attention)))
}
