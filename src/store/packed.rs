//! Numbers, texts and digests one behind the other in bytes, and back: small, and read in one go.
//! It does not know what they say. Every read is held against what is left, so damaged bytes are `None`, never a panic.

use crate::digest::Digest;

/// What is being written.
#[derive(Default)]
pub(super) struct Packer(pub Vec<u8>);

impl Packer {
    /// Seven bits a byte, the lowest first; the eighth says that more follow.
    pub fn number(&mut self, mut number: u64) {
        while number >= 128 {
            self.0.push(number as u8 | 128);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    pub fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    pub fn digest(&mut self, digest: &Digest) {
        self.0.extend_from_slice(&digest.to_bytes());
    }

    /// A count, and each of the list.
    pub fn list<T>(&mut self, list: &[T], mut each: impl FnMut(&mut Self, &T)) {
        self.number(list.len() as u64);
        list.iter().for_each(|item| each(self, item));
    }

    /// Whether it is there, and it.
    pub fn option<T>(&mut self, option: Option<&T>, each: impl FnOnce(&mut Self, &T)) {
        self.number(u64::from(option.is_some()));
        if let Some(value) = option {
            each(self, value);
        }
    }
}

/// What is left to read.
pub(super) struct Unpacker<'a>(pub &'a [u8]);

impl<'a> Unpacker<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    pub fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first()?;
            let bits = u64::from(byte & 127);
            if bits << shift >> shift != bits {
                return None;
            }
            number |= bits << shift;
            if byte < 128 {
                return Some(number);
            }
        }
        None
    }

    pub fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.number()?).ok()?;
        std::str::from_utf8(self.take(length)?).ok()
    }

    pub fn digest(&mut self) -> Option<Digest> {
        self.take(32)?.try_into().ok().map(Digest::from_bytes)
    }

    /// A list; its count is not believed before its items are there.
    pub fn list<T>(&mut self, mut each: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = usize::try_from(self.number()?).ok()?;
        // An item has a byte at least.
        if count > self.0.len() {
            return None;
        }
        (0..count).map(|_| each(self)).collect()
    }

    pub fn option<T>(&mut self, each: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.number()? {
            0 => Some(None),
            1 => each(self).map(Some),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_is_unpacked_and_nothing_else_is() {
        let numbers = [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX];
        let digest = Digest::of(b"x");
        let mut packer = Packer::default();
        packer.list(&numbers, |packer, number| packer.number(*number));
        packer.text("шаг");
        packer.option(Some(&digest), Packer::digest);
        packer.option(None::<&Digest>, Packer::digest);
        let read = |bytes: &[u8]| {
            let mut from = Unpacker(bytes);
            let numbers = from.list(Unpacker::number)?;
            let text = from.text()?.to_owned();
            let digests = (from.option(Unpacker::digest)?, from.option(Unpacker::digest)?);
            from.0.is_empty().then_some((numbers, text, digests))
        };
        let bytes = packer.0;
        assert_eq!(read(&bytes), Some((numbers.to_vec(), "шаг".to_owned(), (Some(digest), None))));
        assert!((0..bytes.len()).all(|cut| read(&bytes[..cut]).is_none()));
        // A count that no memory could hold.
        assert_eq!(Unpacker(&[255, 255, 255, 255, 127]).list(Unpacker::number), None);
        assert_eq!(Unpacker(&[255; 12]).number(), None);
        assert_eq!(Unpacker(&[2]).option(Unpacker::number), None);
    }
}
