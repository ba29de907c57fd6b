//! A projection of a frozen model, y = W x + b, and the one place where an arm is asked what it makes of it.
//! It does not know architectures, names or adapters: the number of its site is all that the arm sees.

use tch::Tensor;

use super::adapters::{Arm, Effect};
use super::dropout::Dropout;
use super::slope::scalar;
use super::tally;

/// A projection. Its weight lies in memory as it was given: nothing is copied.
#[derive(Debug)]
pub struct Linear {
    /// As stored: [outputs, inputs], or [inputs, outputs] with `fan_in_fan_out`.
    stored: Tensor,
    bias: Option<Tensor>,
    fan_in_fan_out: bool,
    site: usize,
}

impl Linear {
    /// The projection at a site of the model. `stored` is the checkpoint's weight, `fan_in_fan_out` true if it stands
    /// there as [inputs, outputs] (transformers' `Conv1D`; the word is PEFT's).
    pub fn new(stored: Tensor, bias: Option<Tensor>, fan_in_fan_out: bool, site: usize) -> Self {
        Self { stored, bias, fan_in_fan_out, site }
    }

    /// x [.., inputs] → [.., outputs], with what the arm's adapters make of it.
    pub fn forward(&self, x: &Tensor, arm: &Arm, dropout: Option<&Dropout>) -> Tensor {
        let given = arm.input(self.site, x);
        let x = given.as_ref().unwrap_or(x);
        arm.linear(self.site, x, self.base(x), dropout)
    }

    /// True if no gradient depends on W x + b.
    pub fn is_added_to(&self, arm: &Arm) -> bool {
        arm.effect(self.site) <= Effect::Adds
    }

    /// A scalar whose way back is that of `sum` [.., outputs] plus the answer, from this gradient at it. W x + b, which is
    /// no more than [added to](Linear::is_added_to), is not computed.
    pub fn against(&self, slope: &Tensor, sum: &Tensor, x: &Tensor, arm: &Arm, dropout: Option<&Dropout>) -> Tensor {
        let given = arm.input(self.site, x);
        let x = given.as_ref().unwrap_or(x);
        let way = if arm.effect(self.site) == Effect::None {
            scalar(sum, slope)
        } else {
            // A copy, since what is added lies where it lay, and a norm may keep the sum for the way back.
            scalar(&arm.linear(self.site, x, sum.copy(), dropout), slope)
        };
        if x.requires_grad() { way + scalar(x, &tally::gradient(slope, &self.weight())) } else { way }
    }

    /// W x + b alone.
    pub fn base(&self, x: &Tensor) -> Tensor {
        tally::product(x, &self.weight(), self.bias.as_ref())
    }

    /// W as [outputs, inputs], whatever the layout of the checkpoint: a view, not a copy.
    pub fn weight(&self) -> Tensor {
        if self.fan_in_fan_out { self.stored.tr() } else { self.stored.shallow_clone() }
    }

    /// b `[outputs]`.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }
}
