//! Rows that go through the model together, and the positions where they have loss.
//! It does not know models, losses, or which rows stand together.

use tch::{Device, Kind, Tensor};

use crate::ml::tokens::Tokens;

/// In bf16 on a processor columns are filled up to a multiple of it: oneDNN makes code for each new shape, and keeps it.
/// T on 63 micro-batches of real prompts: 1198 MiB instead of 1836, and 8 % faster in spite of the padding.
const WIDTHS: usize = 16;

/// Rows that go through the model together, and what they are to predict.
#[derive(Debug)]
pub struct Micro {
    /// `[B, T]`, padded on the right.
    pub ids: Tensor,
    /// Positions `b T + t` whose next id has loss `[N]`.
    pub positions: Tensor,
    /// Those next ids `[N]`.
    pub labels: Tensor,
    /// Ids that are not padding.
    pub tokens: u64,
}

impl Micro {
    /// From ids and labels as Hugging Face has them, both `[B, T]`: the label at `t` is to be predicted at `t - 1`,
    /// and -100 is none.
    pub fn from_labels(ids: &Tensor, labels: &Tensor, tokens: u64) -> Self {
        let (rows, width) = ids.size2().expect("two dimensions");
        let next = Tensor::cat(
            &[labels.narrow(1, 1, width - 1), Tensor::full([rows, 1], -100, (Kind::Int64, labels.device()))],
            1,
        );
        let next = next.reshape([-1]);
        let positions = next.ne(-100).nonzero().reshape([-1]);
        let labels = next.index_select(0, &positions);
        Self { ids: ids.shallow_clone(), positions, labels, tokens }
    }

    /// From rows of tokens; with `all`, every id but a row's first has loss, not only the answer.
    pub fn from_rows(tokens: &Tokens, rows: &[usize], all: bool, device: Device) -> Self {
        Self::padded(tokens, rows, all, 1, device)
    }

    /// The answers of rows, for a frozen base of this precision.
    pub fn of_answers(tokens: &Tokens, rows: &[usize], kind: Kind, device: Device) -> Self {
        let widths = if device == Device::Cpu && kind == Kind::BFloat16 { WIDTHS } else { 1 };
        Self::padded(tokens, rows, false, widths, device)
    }

    /// With as many columns as the longest row has ids, or up to the next multiple.
    fn padded(tokens: &Tokens, rows: &[usize], all: bool, widths: usize, device: Device) -> Self {
        let width = rows.iter().map(|&row| tokens.row(row).len()).max().unwrap_or(0).next_multiple_of(widths);
        let mut ids = Vec::with_capacity(rows.len() * width);
        let (mut positions, mut labels) = (Vec::new(), Vec::new());
        for (b, &row) in rows.iter().enumerate() {
            let row_ids = tokens.row(row);
            let first = if all { 1 } else { tokens.target(row).max(1) };
            for (t, &id) in row_ids.iter().enumerate().skip(first) {
                positions.push((b * width + t - 1) as i64);
                labels.push(i64::from(id));
            }
            ids.extend(row_ids.iter().map(|&id| i64::from(id)));
            // Any id does: no real position sees it.
            ids.resize((b + 1) * width, 0);
        }
        let count = rows.iter().map(|&row| tokens.row(row).len() as u64).sum();
        Self::new(&ids, rows.len(), width, &positions, &labels, count, device)
    }

    /// From blocks of equal length `width` without padding, where every id but a block's first has loss.
    pub fn from_blocks(ids: &[i64], width: usize, device: Device) -> Self {
        let rows = ids.len() / width;
        let with_loss = || (0..ids.len()).filter(|at| at % width != 0);
        let positions: Vec<i64> = with_loss().map(|at| at as i64 - 1).collect();
        let labels: Vec<i64> = with_loss().map(|at| ids[at]).collect();
        Self::new(ids, rows, width, &positions, &labels, ids.len() as u64, device)
    }

    fn new(
        ids: &[i64],
        rows: usize,
        width: usize,
        positions: &[i64],
        labels: &[i64],
        tokens: u64,
        device: Device,
    ) -> Self {
        let put = |values: &[i64]| Tensor::from_slice(values).to_device(device);
        let ids = put(ids).view_([rows as i64, width as i64]);
        Self { ids, positions: put(positions), labels: put(labels), tokens }
    }

    /// The same rows, which are not copied, for another thread.
    pub(super) fn share(&self) -> Self {
        let [ids, positions, labels] = [&self.ids, &self.positions, &self.labels].map(Tensor::shallow_clone);
        Self { ids, positions, labels, tokens: self.tokens }
    }

    /// Those of several runs, one after the other, all as wide as the widest.
    pub(super) fn joined(micros: &[&Self]) -> Self {
        let width = micros.iter().map(|micro| micro.ids.size()[1]).max().unwrap_or(0);
        let (mut ids, mut positions, mut rows) = (Vec::new(), Vec::new(), 0);
        for micro in micros {
            let (count, own) = micro.ids.size2().expect("two dimensions");
            // Any id does: no real position sees it.
            ids.push(if own == width {
                micro.ids.shallow_clone()
            } else {
                micro.ids.constant_pad_nd([0, width - own])
            });
            let at = &micro.positions;
            let wider = at.divide_scalar_mode(own, "floor") * (width - own);
            positions.push(if own == width { at + rows * width } else { at + wider + rows * width });
            rows += count;
        }
        let labels: Vec<&Tensor> = micros.iter().map(|micro| &micro.labels).collect();
        Self {
            ids: Tensor::cat(&ids, 0),
            positions: Tensor::cat(&positions, 0),
            labels: Tensor::cat(&labels, 0),
            tokens: micros.iter().map(|micro| micro.tokens).sum(),
        }
    }

    /// Number of ids that have loss.
    pub fn targets(&self) -> u64 {
        self.labels.numel() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_blocks_and_labels_mean_the_same_positions() {
        let blocks = Micro::from_blocks(&[1, 2, 3, 4, 0, 1], 3, Device::Cpu);
        let list = |tensor: &Tensor| Vec::<i64>::try_from(tensor).unwrap();
        assert_eq!((list(&blocks.positions), list(&blocks.labels)), (vec![0, 1, 3, 4], vec![2, 3, 0, 1]));
        let two = |values: &[i64]| Tensor::from_slice(values).view_([2, 6]);
        let ids = two(&[1, 2, 3, 4, 0, 1, 3, 3, 2, 0, 0, 0]);
        let labels = two(&[-100, -100, 3, 4, 0, 1, 3, 3, -100, -100, -100, -100]);
        let labelled = Micro::from_labels(&ids, &labels, 9);
        // The label at the first place of a row has no position before it.
        assert_eq!((list(&labelled.positions), list(&labelled.labels)), (vec![1, 2, 3, 4, 6], vec![3, 4, 0, 1, 3]));
    }

    #[test]
    fn wider_rows_predict_the_same_ids_after_the_same_ids() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = crate::ml::tokens::write::Writer::create(folder.path()).unwrap();
        writer.push(&[7, 8, 9, 10, 11], 3).unwrap();
        writer.push(&[1, 2, 3], 1).unwrap();
        let info = serde_json::json!({
            "format": crate::ml::tokens::FORMAT, "task": "text", "prompt": "", "vocab_size": 12, "rows": 2, "tokens": 8,
            "target_tokens": 4, "truncated": 0, "longest": 5, "tokenizer": "",
        });
        writer.finish(&serde_json::from_value(info).unwrap()).unwrap();
        let tokens = Tokens::read(folder.path()).unwrap();
        let list = |tensor: &Tensor| Vec::<i64>::try_from(tensor.reshape([-1])).unwrap();
        let [plain, wider] = [Kind::Float, Kind::BFloat16].map(|kind| {
            let micro = Micro::of_answers(&tokens, &[0, 1], kind, Device::Cpu);
            let before = micro.ids.reshape([-1]).index_select(0, &micro.positions);
            (micro.ids.size(), list(&before), list(&micro.labels), micro.tokens)
        });
        assert_eq!((plain.0, plain.1, plain.2, plain.3), (vec![2, 5], vec![9, 10, 1, 2], vec![10, 11, 2, 3], 8));
        assert_eq!((wider.0, wider.1, wider.2, wider.3), (vec![2, 16], vec![9, 10, 1, 2], vec![10, 11, 2, 3], 8));
    }
}
