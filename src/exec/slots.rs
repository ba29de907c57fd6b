//! The slots that a machine is divided into by `-j`, and how many of them a step takes.
//! It does not know threads: their number does not depend on slots.

use crate::step::Share;

/// How many of the slots a step takes while it runs.
pub(super) fn slots_of(share: Share, slots: usize) -> usize {
    match share {
        Share::One => 1,
        Share::Half => (slots / 2).max(1),
        Share::All => slots.max(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_share_fits_into_any_number_of_slots() {
        for slots in 1..9 {
            for share in [Share::One, Share::Half, Share::All] {
                assert!((1..=slots).contains(&slots_of(share, slots)));
            }
        }
        assert_eq!((slots_of(Share::Half, 8), slots_of(Share::All, 8)), (4, 8));
    }
}
