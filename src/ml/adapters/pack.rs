//! Several arms over one base at once: each sees only its own rows of what goes through the model.
//! It does not know what any of them computes, nor how they are trained.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use tch::Tensor;

use super::arm::{Arm, At};
use super::batched::{self, Inner, Scales};
use crate::ml::dropout::Dropout;

/// Rows of one arm among those that go through the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Which arm.
    pub arm: usize,
    /// Its rows of [B, T, ..].
    pub rows: i64,
    /// Ids of its longest row: what stands behind them was put there because of the others.
    pub width: i64,
    /// Its rows of [N, ..], where only positions with a target are left.
    pub targets: i64,
}

/// Arms that share what goes through the model.
pub struct Pack {
    arms: Vec<Arm>,
    /// Sites where at least one has an adapter.
    sites: BTreeSet<usize>,
    /// Whose rows are whose, in their order.
    parts: RefCell<Vec<Part>>,
    /// The masks of each arm in its current step.
    dropouts: RefCell<Vec<Option<Dropout>>>,
    /// True if what arms add is computed for all at once where it can be.
    batched: Cell<bool>,
    scales: Scales,
}

impl Pack {
    pub(super) fn new(arms: Vec<Arm>) -> Self {
        let sites = arms.iter().flat_map(Arm::seats).map(|seat| seat.site).collect();
        let dropouts = RefCell::new(arms.iter().map(|_| None).collect());
        Self { arms, sites, parts: RefCell::default(), dropouts, batched: Cell::new(false), scales: Scales::default() }
    }

    /// The same arms, whose tensors are not copied, for another thread: who sits where it does not know yet.
    pub(super) fn share(&self) -> Self {
        let pack = Self::new(self.arms.iter().map(Arm::share).collect());
        pack.batch(self.batched.get());
        pack
    }

    /// The arms.
    pub fn arms(&self) -> &[Arm] {
        &self.arms
    }

    /// The arms, which are no pack any more.
    pub fn into_arms(self) -> Vec<Arm> {
        self.arms
    }

    /// Lets products with the adapters of all arms be made at once where they can be. That is faster where a product
    /// costs less than what is around it, and differs by rounding from what each arm computes alone.
    pub fn batch(&self, batched: bool) {
        self.batched.set(batched);
    }

    /// Says whose rows come next.
    pub fn seat(&self, parts: Vec<Part>) {
        self.parts.replace(parts);
    }

    /// Draws an arm's masks from here on; `None` leaves it without dropout.
    pub fn draw(&self, arm: usize, dropout: Option<Dropout>) {
        self.dropouts.borrow_mut()[arm] = dropout;
    }

    /// See [`Arm::input`].
    pub(super) fn input(&self, site: usize, x: &Tensor) -> Option<Tensor> {
        if !self.sites.contains(&site) {
            return None;
        }
        let given = Cell::new(false);
        let all = self.each([x], |arm, [x], _| match arm.input(site, &x) {
            Some(input) => {
                given.set(true);
                input
            }
            None => x,
        });
        given.get().then(|| join(all))
    }

    /// See [`Arm::linear`].
    pub(super) fn linear(&self, site: usize, x: &Tensor, y: Tensor) -> Tensor {
        if !self.sites.contains(&site) {
            return y;
        }
        if let Some(added) = self.added(site, x) {
            return y + added;
        }
        join(self.each([x, &y], |arm, [x, y], dropout| arm.linear(site, &x, y, dropout)))
    }

    /// See [`Arm::block`].
    pub(super) fn block(&self, site: usize, at: &At, out: Tensor) -> Tensor {
        if !self.sites.contains(&site) {
            return out;
        }
        if let Some(added) = self.added(site, &out) {
            return out + added;
        }
        join(self.each([at.residual, at.sublayer, &out], |arm, [residual, sublayer, out], dropout| {
            arm.block(site, &At { residual: &residual, sublayer: &sublayer }, out, dropout)
        }))
    }

    /// What all arms add to their rows of x, if that can be computed at once: as many rows for each, adapters of one
    /// form.
    fn added(&self, site: usize, x: &Tensor) -> Option<Tensor> {
        let (parts, dropouts) = (self.parts.borrow(), self.dropouts.borrow());
        let [first, others @ ..] = parts.as_slice() else { return None };
        let flat = x.dim() == 2;
        let rows = |part: &Part| if flat { part.targets } else { part.rows };
        if !self.batched.get() || others.is_empty() || others.iter().any(|part| rows(part) != rows(first)) {
            return None;
        }
        let all: Vec<Inner> = parts.iter().map(|part| self.arms[part.arm].inner(site)).collect::<Option<_>>()?;
        if !batched::alike(&all) {
            return None;
        }
        let mask = |part: &Part| {
            let dropout = dropouts[part.arm].as_ref()?;
            dropout.within(part.width);
            Some(dropout)
        };
        Some(batched::added(&all, x, &parts.iter().map(mask).collect(), &self.scales))
    }

    /// What each arm makes of its own rows of these tensors.
    fn each<const N: usize>(
        &self,
        tensors: [&Tensor; N],
        make: impl Fn(&Arm, [Tensor; N], Option<&Dropout>) -> Tensor,
    ) -> Vec<Tensor> {
        let (parts, dropouts) = (self.parts.borrow(), self.dropouts.borrow());
        // Split, not cut: the gradient of a cut is as large as the whole, that of a split is joined once.
        let mut split: Vec<_> = tensors.iter().map(|tensor| self.split(&parts, tensor).into_iter()).collect();
        let mut made = Vec::with_capacity(parts.len());
        for part in parts.iter() {
            let own: Vec<Tensor> = split.iter_mut().filter_map(Iterator::next).collect();
            let Ok(own) = <[Tensor; N]>::try_from(own) else { continue };
            let dropout = dropouts[part.arm].as_ref();
            if let Some(dropout) = dropout {
                dropout.within(part.width);
            }
            made.push(make(&self.arms[part.arm], own, dropout));
        }
        made
    }

    fn split(&self, parts: &[Part], tensor: &Tensor) -> Vec<Tensor> {
        if parts.len() == 1 {
            return vec![tensor.shallow_clone()];
        }
        let flat = tensor.dim() == 2;
        let sizes: Vec<i64> = parts.iter().map(|part| if flat { part.targets } else { part.rows }).collect();
        tensor.split_with_sizes(&sizes[..], 0)
    }
}

fn join(mut parts: Vec<Tensor>) -> Tensor {
    if parts.len() == 1
        && let Some(one) = parts.pop()
    {
        return one;
    }
    Tensor::cat(&parts, 0)
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;
    use tch::{Device, Kind};

    use super::*;
    use crate::ml::config::{ModelConfig, Start};
    use crate::ml::models::{Model, Point, fresh};

    fn base() -> Box<dyn Model> {
        let config = serde_json::json!({"model_type": "llama", "vocab_size": 9, "hidden_size": 16,
            "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2});
        let config = ModelConfig::from_value(&config).unwrap();
        fresh(&config, Start::Normal, &mut ChaCha8Rng::seed_from_u64(1), Device::Cpu).unwrap()
    }

    fn pack(model: &dyn Model, yaml: &[&str]) -> Pack {
        let arm = |(at, yaml): (usize, &&str)| {
            let rng = &mut ChaCha8Rng::seed_from_u64(at as u64);
            let arm = Arm::init(&serde_yaml::from_str(yaml).unwrap(), model, rng).unwrap();
            for (_, mut tensor) in arm.parameters() {
                tch::no_grad(|| tensor.copy_(&(&tensor + 0.1)));
            }
            arm
        };
        Pack::new(yaml.iter().enumerate().map(arm).collect())
    }

    fn part(arm: usize, rows: i64) -> Part {
        Part { arm, rows, width: 5, targets: rows }
    }

    fn site(model: &dyn Model, wanted: fn(&Point) -> bool) -> usize {
        model.sites().iter().position(|site| wanted(&site.point)).unwrap()
    }

    #[test]
    fn what_is_of_one_form_is_added_at_once_and_nothing_else() {
        let model = base();
        let x = (Tensor::arange(4 * 5 * 16, (Kind::Float, Device::Cpu)) * 0.37).sin().view([4, 5, 16]);
        let lora = |rank| format!("lora: {{ rank: {rank}, alpha: 3, target_modules: all-linear }}");
        let (projection, block) = (
            site(model.as_ref(), |point| matches!(point, Point::Linear { inputs: 16, outputs: 16, .. })),
            site(model.as_ref(), |point| matches!(point, Point::AfterFeedForward { .. })),
        );
        for (yaml, site) in [
            ([lora(2), lora(5)], projection),
            (["mlp: { hidden_size: 3 }".to_owned(), "mlp: { hidden_size: 8 }".to_owned()], block),
        ] {
            let pack = pack(model.as_ref(), &yaml.each_ref().map(String::as_str));
            pack.seat(vec![part(0, 2), part(1, 2)]);
            assert!(pack.added(site, &x).is_none(), "it was not asked for");
            let of = |pack: &Pack| match model.sites()[site].point {
                Point::Linear { .. } => pack.linear(site, &x, x.copy()),
                _ => pack.block(site, &At { residual: &x, sublayer: &x }, x.shallow_clone()),
            };
            let each = of(&pack);
            pack.batch(true);
            let added = pack.added(site, &x).expect("both are of one form");
            assert!((&x + added).allclose(&each, 1e-6, 1e-6, false));
            assert!(of(&pack).allclose(&each, 1e-6, 1e-6, false) && !each.allclose(&x, 1e-3, 1e-3, false));
            // Flat rows, as behind the last attention.
            let flat = x.view([20, 16]).narrow(0, 0, 4);
            assert!(pack.added(site, &flat).is_some_and(|added| added.size() == [4, 16]));
            pack.seat(vec![part(0, 1), part(1, 3)]);
            assert!(pack.added(site, &x).is_none(), "one has more rows");
            pack.seat(vec![part(1, 4)]);
            assert!(pack.added(site, &x).is_none(), "there is one");
        }
        for other in [
            "ia3: {}",
            "mlp: { hidden_size: 3 }",
            "lora: { rank: 2, alpha: 3, use_dora: true, target_modules: all-linear }",
        ] {
            let pack = pack(model.as_ref(), &[&lora(2), other]);
            pack.batch(true);
            pack.seat(vec![part(0, 2), part(1, 2)]);
            assert!(pack.added(projection, &x).is_none(), "{other}");
        }
    }
}
