//! The beginning that many texts share, such as examples in a prompt, read once for all of them.
//! It does not know what is made of the texts.

use tch::Tensor;

use super::adapters::Arm;
use super::models::{Input, KvCache, Model};

/// A shorter beginning costs less than what is done to share it.
const SHORTEST: usize = 64;
/// Its length is a multiple of it; see `ml::steady`.
const STEPS: usize = 16;

/// How many ids these texts share at their beginning, worth sharing; each keeps at least one of its own.
pub fn shared<'a>(texts: impl IntoIterator<Item = &'a [i64]>) -> usize {
    let mut texts = texts.into_iter();
    let (Some(first), Some(second)) = (texts.next(), texts.next()) else { return 0 };
    let mut length = first.len().saturating_sub(1);
    for text in std::iter::once(second).chain(texts) {
        let alike = first.iter().zip(text).take(length).take_while(|(a, b)| a == b).count();
        length = alike.min(text.len().saturating_sub(1));
    }
    let length = length / STEPS * STEPS;
    if length < SHORTEST { 0 } else { length }
}

/// Reads it; `None` if there is none.
pub fn read(model: &dyn Model, arm: &Arm, ids: &[i64]) -> Option<KvCache> {
    if ids.is_empty() {
        return None;
    }
    let mut cache = KvCache::with_room(ids.len());
    let ids = Tensor::from_slice(ids).unsqueeze(0).to_device(model.device());
    // Its hidden states nobody wants.
    let none = Tensor::from_slice(&[0_i64; 0]).to_device(model.device());
    let _ = model.hidden(&Input { wanted: Some(&none), ..Input::of(&ids) }, arm, Some(&mut cache));
    Some(cache)
}

#[cfg(test)]
mod tests {
    use super::shared;

    #[test]
    fn a_beginning_is_shared_where_it_is_long_enough() {
        let text = |same: usize, own: &[i64]| [vec![7; same], own.to_vec()].concat();
        let of = |texts: &[Vec<i64>]| shared(texts.iter().map(Vec::as_slice));
        assert_eq!(of(&[text(100, &[1]), text(100, &[2, 3]), text(90, &[4])]), 80);
        assert_eq!(of(&[text(80, &[]), text(100, &[2])]), 64, "each keeps an id of its own");
        assert_eq!(of(&[text(63, &[1]), text(63, &[2])]), 0);
        assert_eq!(of(&[text(100, &[1])]), 0);
        assert_eq!(of(&[]), 0);
    }
}
