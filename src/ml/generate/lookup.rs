//! Guesses how an answer goes on: as it did where its last ids stood before, in the prompt or in the answer itself.
//! It does not know models, nor what becomes of a guess.
//!
//! Prompt lookup (Saxena 2023). Answers that copy from the prompt go on as it does, and weak models say the same again and
//! again. A guess follows from the row's own ids alone, so that what is computed of a row does not depend on others.

/// So many last ids must have stood before; where they did, three tell more. Twice as many after each guess that was
/// wrong from its first id on: a text in which the same pairs go on otherwise would cost half as much again.
const NEEDED: usize = 2;
const THREE: usize = 3;
const NEEDED_AT_LAST: usize = 8;
/// So many ids are guessed at first.
const FIRST: usize = 2;
/// A guess is not longer: with the id that is read anyway, attention takes so many at once.
const MOST: usize = 7;

/// A text that grows.
pub struct Lookup {
    text: Vec<i64>,
    /// How many ids the next guess may have.
    trust: usize,
    /// How many last ids must have stood before.
    needed: usize,
}

impl Lookup {
    pub fn new(prompt: &[i64]) -> Self {
        Self { text: prompt.to_vec(), trust: FIRST, needed: NEEDED }
    }

    pub fn push(&mut self, id: i64) {
        self.text.push(id);
    }

    /// The last id; no prompt is empty.
    pub fn last(&self) -> i64 {
        self.text[self.text.len() - 1]
    }

    /// At most `most` ids that may come next.
    pub fn guess(&self, most: usize) -> Vec<i64> {
        let lengths = [self.needed.max(THREE), self.needed];
        let Some(from) = lengths.into_iter().find_map(|length| self.before(length)) else { return Vec::new() };
        // What repeats itself goes on beyond what was said of it.
        let again = self.text[from..].iter().copied().cycle();
        again.take(most.min(self.trust)).collect()
    }

    /// What stood behind the last ids where they came last before.
    fn before(&self, length: usize) -> Option<usize> {
        let (earlier, _) = self.text.split_at_checked(self.text.len().checked_sub(1)?)?;
        let end = self.text.get(self.text.len().checked_sub(length)?..)?;
        Some(earlier.windows(length).rposition(|ids| ids == end)? + length)
    }

    /// So many of a guess came true.
    pub fn learn(&mut self, guessed: usize, right: usize) {
        if guessed == 0 {
            return;
        }
        if right == guessed {
            (self.trust, self.needed) = ((2 * self.trust).min(MOST), (self.needed / 2).max(NEEDED));
        } else {
            self.trust = right.max(1);
            self.needed = if right == 0 { (2 * self.needed).min(NEEDED_AT_LAST) } else { self.needed };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(text: &[i64], trust: usize, most: usize) -> Vec<i64> {
        Lookup { text: text.to_vec(), trust, needed: NEEDED }.guess(most)
    }

    #[test]
    fn a_guess_is_what_came_after_the_last_ids_before() {
        assert_eq!(guess(&[1, 2, 3, 4, 5, 9, 1, 2], 3, 9), [3, 4, 5]);
        assert_eq!(guess(&[1, 2, 3, 4, 5, 9, 1, 2], 7, 2), [3, 4], "no more than are wanted");
        assert_eq!(guess(&[1, 2, 3, 7, 2, 3, 8, 1, 2, 3], 1, 9), [7], "three ids tell more than two");
        assert_eq!(guess(&[2, 3, 7, 2, 3, 8, 2, 3], 1, 9), [8], "and the last place more than the first");
        assert_eq!(guess(&[4, 6, 5, 6, 5], 5, 9), [6, 5, 6, 5, 6], "what goes round goes on");
        assert_eq!(guess(&[5, 5, 5], 3, 9), [5, 5, 5]);
        for nothing in [&[][..], &[1], &[1, 1], &[1, 2, 3, 4], &[2, 1, 1]] {
            assert_eq!(guess(nothing, 7, 9), [0; 0], "{nothing:?}");
        }
    }

    #[test]
    fn trust_grows_with_what_came_true_and_falls_with_what_did_not() {
        let mut lookup = Lookup::new(&[1]);
        let mut after = |guessed, right| {
            lookup.learn(guessed, right);
            (lookup.trust, lookup.needed)
        };
        assert_eq!([after(2, 2), after(4, 4), after(7, 7)], [(4, 2), (7, 2), (7, 2)]);
        assert_eq!([after(0, 0), after(7, 3), after(3, 0)], [(7, 2), (3, 2), (1, 4)]);
        assert_eq!([after(1, 0), after(1, 0), after(1, 1)], [(1, 8), (1, 8), (2, 4)]);
    }

    #[test]
    fn who_was_wrong_needs_more_that_stood_before() {
        let text = [1_i64, 2, 3, 4, 9, 1, 2, 3, 4, 8, 3, 4];
        let guess = |length: usize, needed| Lookup { text: text[..length].to_vec(), trust: 1, needed }.guess(1);
        assert_eq!([guess(12, 2), guess(12, 4), guess(9, 4), guess(9, 8)], [vec![8], vec![], vec![9], vec![]]);
    }
}
