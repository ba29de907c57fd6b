//! Llama: RMSNorm, rotary embedding in the rotate-half form, grouped-query attention, SwiGLU.
//! It does not know adapters: it asks its sites, and an `Arm` answers. After transformers' `modeling_llama.py`.

use std::cell::RefCell;

use tch::{Device, Kind, Tensor};

use super::{Architecture, Input, KvCache, Model, Point, Site};
use crate::ml::adapters::{Arm, At};
use crate::ml::config::ModelConfig;
use crate::ml::dropout::Dropout;
use crate::ml::linear::Linear;
use crate::ml::weights::{Shapes, Tensors};

/// The entry of `MODELS`.
pub const ARCHITECTURE: Architecture = Architecture { name: "llama", shapes, ignored, build };

fn shapes(config: &ModelConfig) -> Shapes {
    let h = config.hidden_size;
    let mut shapes = Shapes::from([
        ("model.embed_tokens.weight".to_owned(), vec![config.vocab_size, h]),
        ("model.norm.weight".to_owned(), vec![h]),
    ]);
    if !config.tie_word_embeddings {
        shapes.insert("lm_head.weight".to_owned(), vec![config.vocab_size, h]);
    }
    for layer in 0..config.num_hidden_layers {
        let at = |module: &str| format!("model.layers.{layer}.{module}");
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            shapes.insert(at(&format!("{norm}.weight")), vec![h]);
        }
        for (module, inputs, outputs) in config.projections() {
            shapes.insert(at(&format!("{module}.weight")), vec![outputs, inputs]);
            let biased = if module.starts_with("mlp") { config.mlp_bias } else { config.attention_bias };
            if biased {
                shapes.insert(at(&format!("{module}.bias")), vec![outputs]);
            }
        }
    }
    shapes
}

/// Old checkpoints carry the rotary table; tied ones may carry the head twice.
fn ignored(config: &ModelConfig, name: &str) -> bool {
    name.ends_with("rotary_emb.inv_freq") || (config.tie_word_embeddings && name == "lm_head.weight")
}

/// x / rms(x) · w, the quotient in f32.
struct RmsNorm {
    weight: Tensor, // [H]
    eps: f64,
}

impl RmsNorm {
    fn forward(&self, x: &Tensor) -> Tensor {
        let kind = x.kind();
        let wide = x.to_kind(Kind::Float);
        let mean = wide.square().mean_dim(-1, true, Kind::Float);
        (wide * (mean + self.eps).rsqrt()).to_kind(kind) * &self.weight
    }
}

struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    heads: i64,
    key_value_heads: i64,
    head_dim: i64,
}

impl Attention {
    /// x [B, T, H] → [B, T, H].
    fn forward(&self, x: &Tensor, pass: &Pass, cache: Option<&mut (Tensor, Tensor)>) -> Tensor {
        let (b, t, _) = x.size3().unwrap_or_default();
        let split = |projection: &Linear, heads: i64| {
            projection.forward(x, pass.arm, pass.dropout).view([b, t, heads, self.head_dim]).transpose(1, 2)
        };
        let q = pass.rotary.rotate(&split(&self.q, self.heads));
        let mut k = pass.rotary.rotate(&split(&self.k, self.key_value_heads));
        let mut v = split(&self.v, self.key_value_heads);
        if let Some((keys, values)) = cache {
            if keys.size()[2] > 0 {
                k = Tensor::cat(&[&*keys, &k], 2);
                v = Tensor::cat(&[&*values, &v], 2);
            }
            (*keys, *values) = (k.shallow_clone(), v.shallow_clone());
        }
        let groups = self.heads / self.key_value_heads;
        let (k, v) = (repeat(&k, groups), repeat(&v, groups));
        let out = Tensor::scaled_dot_product_attention(&q, &k, &v, pass.mask, 0.0, pass.causal, None, false);
        let joined = out.transpose(1, 2).reshape([b, t, self.heads * self.head_dim]);
        self.o.forward(&joined, pass.arm, pass.dropout)
    }
}

/// [B, heads, S, D] → [B, heads · groups, S, D], each head repeated.
fn repeat(x: &Tensor, groups: i64) -> Tensor {
    if groups == 1 {
        return x.shallow_clone();
    }
    let (b, heads, s, d) = x.size4().unwrap_or_default();
    x.unsqueeze(2).expand([b, heads, groups, s, d], false).reshape([b, heads * groups, s, d])
}

struct Mlp {
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Mlp {
    /// down(silu(gate(x)) · up(x)), [B, T, H] → [B, T, H].
    fn forward(&self, x: &Tensor, pass: &Pass) -> Tensor {
        let gate = self.gate.forward(x, pass.arm, pass.dropout).silu();
        let up = self.up.forward(x, pass.arm, pass.dropout);
        self.down.forward(&(gate * up), pass.arm, pass.dropout)
    }
}

struct Block {
    attention_norm: RmsNorm,
    attention: Attention,
    after_attention: usize,
    mlp_norm: RmsNorm,
    mlp: Mlp,
    after_mlp: usize,
}

impl Block {
    fn forward(&self, x: &Tensor, pass: &Pass, cache: Option<&mut (Tensor, Tensor)>) -> Tensor {
        let sublayer = self.attention.forward(&self.attention_norm.forward(x), pass, cache);
        let at = At { residual: x, sublayer: &sublayer };
        let x = pass.arm.block(self.after_attention, &at, x + &sublayer, pass.dropout);
        let sublayer = self.mlp.forward(&self.mlp_norm.forward(&x), pass);
        let at = At { residual: &x, sublayer: &sublayer };
        pass.arm.block(self.after_mlp, &at, &x + &sublayer, pass.dropout)
    }
}

/// What all blocks of one forward pass share.
struct Pass<'a> {
    arm: &'a Arm,
    dropout: Option<&'a Dropout>,
    rotary: Rotary,
    /// bool [B, 1, T, S], true where a query may look.
    mask: Option<&'a Tensor>,
    causal: bool,
}

/// cos and sin of the positions of a pass, [B or 1, 1, T, head width] in the model's dtype.
struct Rotary {
    cos: Tensor,
    sin: Tensor,
}

impl Rotary {
    /// x · cos + rotate_half(x) · sin, [B, heads, T, D] → the same.
    fn rotate(&self, x: &Tensor) -> Tensor {
        let halves = x.chunk(2, -1);
        let turned = Tensor::cat(&[&halves[1].neg(), &halves[0]], -1);
        x * &self.cos + turned * &self.sin
    }
}

/// The decoder.
pub struct Llama {
    config: ModelConfig,
    sites: Vec<Site>,
    embedding: Tensor, // [V, H]
    blocks: Vec<Block>,
    norm: RmsNorm,
    head: Tensor, // [V, H]
    names: Tensors,
    inverse_frequencies: Tensor, // [D / 2]
    /// cos and sin of the first positions, [S, D]; grows.
    table: RefCell<(Tensor, Tensor)>,
}

fn build(config: &ModelConfig, tensors: Tensors) -> Box<dyn Model> {
    let h = config.hidden_size;
    let mut sites = Vec::new();
    // The caller has checked that `tensors` are exactly `shapes(config)`.
    let weight = |name: &str| tensors[&format!("{name}.weight")].shallow_clone();
    let norm = |name: String| RmsNorm { weight: weight(&name), eps: config.rms_norm_eps };
    let mut blocks = Vec::new();
    for layer in 0..config.num_hidden_layers {
        let mut linears = config.projections().into_iter().map(|(module, inputs, outputs)| {
            let name = format!("model.layers.{layer}.{module}");
            let bias = tensors.get(&format!("{name}.bias")).map(Tensor::shallow_clone);
            let linear = Linear::new(weight(&name), bias, false, sites.len());
            sites.push(Site { name, layer, point: Point::Linear { inputs, outputs, fan_in_fan_out: false } });
            linear
        });
        let mut next = || linears.next().expect("seven projections");
        let (q_proj, k_proj, v_proj, o_proj) = (next(), next(), next(), next());
        let (gate, up, down) = (next(), next(), next());
        drop(linears);
        let mut hook = |module: &str, point: Point| {
            sites.push(Site { name: format!("model.layers.{layer}.{module}"), layer, point });
            sites.len() - 1
        };
        blocks.push(Block {
            attention_norm: norm(format!("model.layers.{layer}.input_layernorm")),
            attention: Attention {
                q: q_proj,
                k: k_proj,
                v: v_proj,
                o: o_proj,
                heads: config.num_attention_heads,
                key_value_heads: config.num_key_value_heads,
                head_dim: config.head_dim,
            },
            after_attention: hook("self_attn", Point::AfterAttention { hidden: h }),
            mlp_norm: norm(format!("model.layers.{layer}.post_attention_layernorm")),
            mlp: Mlp { gate, up, down },
            after_mlp: hook("mlp", Point::AfterFeedForward { hidden: h }),
        });
    }
    let embedding = weight("model.embed_tokens");
    let head = if config.tie_word_embeddings { embedding.shallow_clone() } else { weight("lm_head") };
    let device = embedding.device();
    let inverse: Vec<f32> = config.rope.inverse_frequencies(config.head_dim).iter().map(|&f| f as f32).collect();
    let empty = || Tensor::zeros([0, config.head_dim], (Kind::Float, device));
    Box::new(Llama {
        config: config.clone(),
        sites,
        embedding,
        norm: norm("model.norm".to_owned()),
        blocks,
        head,
        inverse_frequencies: Tensor::from_slice(&inverse).to_device(device),
        table: RefCell::new((empty(), empty())),
        names: tensors,
    })
}

impl Llama {
    /// The rotary embedding at `positions`: i64 [B, T], or [T] for all rows.
    fn rotary(&self, positions: &Tensor, highest: i64) -> Rotary {
        let mut table = self.table.borrow_mut();
        if table.0.size()[0] <= highest {
            let length = (highest / 256 + 1) * 256;
            let steps = Tensor::arange(length, (Kind::Float, positions.device()));
            let angles = steps.unsqueeze(1) * self.inverse_frequencies.unsqueeze(0);
            let angles = Tensor::cat(&[&angles, &angles], 1);
            *table = (angles.cos(), angles.sin());
        }
        let kind = self.embedding.kind();
        let mut shape = positions.size();
        let pick = |from: &Tensor| from.index_select(0, &positions.reshape([-1])).to_kind(kind);
        if shape.len() == 1 {
            shape.insert(0, 1);
        }
        let shape = [shape[0], 1, shape[1], self.config.head_dim];
        Rotary { cos: pick(&table.0).view(shape), sin: pick(&table.1).view(shape) }
    }
}

impl Model for Llama {
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
        let device = input.ids.device();
        let past = cache.as_ref().map_or(0, |cache| cache.len());
        let s = past + t;
        let positions = match input.mask {
            // transformers: cumsum(mask) - 1, so that padding on the left does not count.
            Some(mask) => (mask.cumsum(-1, Kind::Int64) - 1).clamp_min(0).narrow(1, past, t),
            None => Tensor::arange_start(past, s, (Kind::Int64, device)),
        };
        // A causal mask of torch starts at the first key: several new tokens behind cached ones need one of ours.
        let all = (input.mask.is_none() && past > 0 && t > 1).then(|| Tensor::ones([b, s], (Kind::Bool, device)));
        let mask = input.mask.or(all.as_ref()).map(|keys| {
            let causal = Tensor::ones([t, s], (Kind::Bool, device)).tril(past);
            // A padded query sees itself: a row that sees nothing would be NaN and spoil the values of others.
            let itself = Tensor::eye_m(t, s, (Kind::Bool, device)).roll([past], [1]);
            keys.unsqueeze(1).logical_and(&causal).logical_or(&itself).unsqueeze(1)
        });
        let pass = Pass {
            arm,
            dropout: input.dropout,
            rotary: self.rotary(&positions, s - 1),
            // One new token without padding may look at everything.
            causal: mask.is_none() && t > 1,
            mask: mask.as_ref(),
        };
        if let Some(cache) = cache.as_mut().filter(|cache| cache.layers.is_empty()) {
            let shape = [b, self.config.num_key_value_heads, 0, self.config.head_dim];
            let empty = || Tensor::zeros(shape, (self.embedding.kind(), device));
            cache.layers = self.blocks.iter().map(|_| (empty(), empty())).collect();
        }
        let mut x = Tensor::embedding(&self.embedding, input.ids, -1, false, false);
        for (layer, block) in self.blocks.iter().enumerate() {
            see(&x);
            x = block.forward(&x, &pass, cache.as_mut().map(|cache| &mut cache.layers[layer]));
        }
        let out = self.norm.forward(&x);
        see(&out);
        out
    }

    fn logits(&self, hidden: &Tensor) -> Tensor {
        hidden.linear(&self.head, None::<&Tensor>).to_kind(Kind::Float)
    }

    fn weights(&self) -> Tensors {
        self.names.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
    }

    fn device(&self) -> Device {
        self.embedding.device()
    }
}
