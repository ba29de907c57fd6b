//! What every decoder offers: its sites, hidden states and logits.
//! It does not know how they are computed, nor adapters beyond the `Arm` that it hands on to its sites.

use tch::{Device, Kind, Tensor};

use super::cache::KvCache;
use crate::ml::adapters::Arm;
use crate::ml::config::ModelConfig;
use crate::ml::dropout::Dropout;
use crate::ml::weights::Tensors;

/// A place where an adapter may attach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The checkpoint's name of the module: `model.layers.0.self_attn.q_proj`, or `model.layers.0.mlp`.
    pub name: String,
    /// The block it belongs to.
    pub layer: i64,
    /// What happens there.
    pub point: Point,
}

/// What happens at a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// y = W x: [.., inputs] → [.., outputs].
    Linear {
        /// Width of x.
        inputs: i64,
        /// Width of y.
        outputs: i64,
        /// True if the checkpoint's weight is [inputs, outputs]: transformers' `Conv1D`; the word is PEFT's.
        fan_in_fan_out: bool,
    },
    /// residual + attention, [.., hidden].
    AfterAttention {
        /// Width of the residual stream.
        hidden: i64,
    },
    /// residual + feed-forward, [.., hidden].
    AfterFeedForward {
        /// Width of the residual stream.
        hidden: i64,
    },
}

/// What goes into a model.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// Token ids, i64 [B, T].
    pub ids: &'a Tensor,
    /// True where an id is a real token, bool [B, T]; a cache remembers it. `None`: no padding, or padding on the right
    /// whose outputs nobody reads, which a causal model cannot see.
    pub mask: Option<&'a Tensor>,
    /// Several texts in a row that share their beginning; without a cache and a mask, their places count from `after`.
    pub branches: Option<&'a Branches>,
    /// A text that stands before every row, read by the same arm into a cache of one row; a cache that holds nothing yet
    /// begins with it. `ids` do not repeat it.
    pub after: Option<&'a KvCache>,
    /// How many ids each row of the cache goes on by, at least one: `ids` are [N, 1] then, those of a row behind each
    /// other, and more of them attend to nothing. A cache that was once read so is always read so. `None`: all T.
    pub counts: Option<&'a [i64]>,
    /// The positions whose hidden states are wanted, i64 `[N]` in B · T: the last block and the final norm compute no
    /// others. `None`: all.
    pub wanted: Option<&'a Tensor>,
    /// Draws dropout masks in training; `None` in evaluation.
    pub dropout: Option<&'a Dropout>,
    /// A block and what goes into it, [B, T, H]: computing begins there, instead of at the ids. Without a cache.
    pub from: Option<(usize, &'a Tensor)>,
    /// A block: what goes into it is the answer, [B, T, H], instead of what comes after the final norm. Without a cache.
    pub to: Option<usize>,
    /// With `to`, above at least one block: the gradient at the answer. Instead of the answer there is a scalar, of no
    /// meaning in itself, whose way back is that of the answer from this gradient; what only the answer needs is not
    /// computed.
    pub slope: Option<&'a Tensor>,
}

impl<'a> Input<'a> {
    /// Ids alone.
    pub fn of(ids: &'a Tensor) -> Self {
        Self {
            ids,
            mask: None,
            branches: None,
            after: None,
            counts: None,
            wanted: None,
            dropout: None,
            from: None,
            to: None,
            slope: None,
        }
    }
}

/// Texts that share their beginning, in rows.
#[derive(Debug)]
pub struct Branches {
    /// The place of each id in its text, i64 [B, T].
    pub positions: Tensor,
    /// True where a key belongs to the query's text and does not come after it, bool [B, T, T].
    pub sees: Tensor,
}

/// A decoder.
pub trait Model: Send {
    /// Its shape.
    fn config(&self) -> &ModelConfig;
    /// Where adapters may attach; an adapter knows a site by its position here.
    fn sites(&self) -> &[Site];
    /// ids [B, T] → hidden states after the final norm in the model's dtype, [B, T, H], or [N, H] of the wanted positions.
    /// Rows of the batch that are more than the cache's attend to nothing: they fill it up.
    fn hidden(&self, input: &Input, arm: &Arm, cache: Option<&mut KvCache>) -> Tensor {
        self.states(input, arm, cache, &mut |_| {})
    }
    /// The same; `see` is shown the hidden states as transformers' `output_hidden_states` has them: after the
    /// embedding and after each block but the last, then after the final norm.
    fn states(&self, input: &Input, arm: &Arm, cache: Option<&mut KvCache>, see: &mut dyn FnMut(&Tensor)) -> Tensor;
    /// rows [.., H] → logits [.., V] in f32.
    fn logits(&self, hidden: &Tensor) -> Tensor;
    /// The head [V, H], if logits are nothing but hidden states times it.
    fn plain_head(&self) -> Option<Tensor>;
    /// Every weight by its checkpoint name.
    fn weights(&self) -> Tensors;
    /// The device of its weights.
    fn device(&self) -> Device;
    /// The dtype of its weights.
    fn kind(&self) -> Kind;
    /// The same weights, which are not copied, for another thread.
    fn share(&self) -> Box<dyn Model>;
}
